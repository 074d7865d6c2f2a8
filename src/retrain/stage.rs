//! From trained weights to a version, and from a version to the champion, or not.

use std::time::SystemTime;

use serde_json::json;

use crate::card;
use crate::engine;
use crate::evaluate::gate::Slice;
use crate::model::Version;
use crate::registry::{Action, Alias, Author, Grounds, Promotion, RegistryError, carried_out};
use crate::store::Staged;
use crate::train::{Fitted, History};

use super::learners::{RUN, bar, version_of};
use super::material::Material;
use super::run::Run;
use super::work::Learning;
use super::{
    Common, Compared, Comparison, Finished, Judged, Outcome, Phase, RetrainError, Trained, compare, reports,
};

/// Largest batch the plan is tried with before it is evaluated.
const WARM_UP_BATCH: usize = 64;
/// Who changes the aliases.
const AUTHOR: &str = "retrain";

impl Run<'_> {
    /// The version that a run before this one has published by the same plan.
    pub(super) fn staged(&self) -> Result<Option<Version>, RetrainError> {
        match &self.work.plan {
            Some(plan) => Ok(version_of(&self.place.registry, &plan.learning()?.learner)?),
            None => Ok(None),
        }
    }

    /// Evaluates and publishes; nothing is published where something that it learnt from is erased.
    pub(super) fn stage(
        &mut self,
        learning: &Learning,
        fitted: &Fitted,
        material: &Material,
    ) -> Result<Staged, RetrainError> {
        self.phase(Phase::Stage)?;
        let spec = &self.entry.spec;
        // The version's number is not known before it is published, and plays no part in the answers.
        let serving = engine::Plan::compile(Version::FIRST, &self.graph, &fitted.weights, &self.target)?;
        serving.warm_up(WARM_UP_BATCH)?;
        let parts = material.golden.parts().into_iter().map(|(name, indices)| Judged {
            name,
            data: &material.golden.data,
            indices,
        });
        let reports = reports(&serving, &parts.collect::<Vec<_>>(), &spec.labels)?;
        let request =
            serde_json::to_string(self.request).expect("a request has string keys and plain values");
        let trained = Trained {
            spec,
            graph: &self.graph,
            fitted,
            config: &self.place.config.training(self.request, spec.augment),
            parent: self.parent.as_ref().map(|parent| parent.version),
            parent_model: self.other().map(|parent| parent.name.clone()),
            command: &format!("sconce retrain --request - <<< '{request}'"),
            data: material.told.clone(),
            further: vec![
                ("request", json!(self.request)),
                ("trigger", json!(format!("it learnt from {}", material.text))),
                ("device", json!(self.place.config.device)),
                ("seconds", json!(seconds(&fitted.history))),
                (RUN, json!(learning.learner.run.as_str())),
            ],
        };
        let (registry, name) = (&self.place.registry, self.name());
        registry.keep_champion(name)?;
        let manifest = trained.manifest(&reports);
        let publish = || Ok(registry.publish(name, &fitted.weights, manifest)?);
        self.shelf.stage(learning, publish)
    }

    /// Has the gate compare a published version with the champion, and promotes it where the gate allows.
    pub(super) fn prove(&mut self, version: Version, material: &Material) -> Result<Outcome, RetrainError> {
        let erased = self.record_learnt(version)?;
        let registry = &self.place.registry;
        self.entry = registry.entry(&self.request.model)?;
        let champion = self.entry.aliases.champion;
        let reason = format!("it learnt from {}", material.text);
        if self.was_promoted(version)? {
            return self.outcome(version, Some(true), Vec::new(), None);
        }
        if champion != Some(version) {
            let author = author(&reason);
            registry.set_alias(self.name(), Alias::Challenger, Some(version), &author)?;
        }
        if let Some(text) = erased {
            return self.outcome(version, Some(false), vec![text], None);
        }
        let champion = match champion {
            Some(champion) if champion != version => champion,
            // There is nothing to compare it with. A model's only version answers; else a person names the champion.
            _ => return self.outcome(version, None, Vec::new(), None),
        };
        if material.golden.data.is_empty() {
            let text = "there are no images to compare it with the champion on".to_owned();
            return self.outcome(version, Some(false), vec![text], None);
        }
        self.phase(Phase::Gate)?;
        let comparison = self.compared([champion, version], material)?;
        for check in comparison.checks() {
            self.tell(&check)?;
        }
        comparison.keep(&self.place.registry, SystemTime::now())?;
        let mut reasons = comparison.verdict.reasons.clone();
        if comparison.verdict.blessed && self.request.promote {
            self.phase(Phase::Promote)?;
            reasons.extend(self.promote(version, champion, &reason)?);
        }
        let blessed = comparison.verdict.blessed;
        self.outcome(version, Some(blessed), reasons, Some(comparison))
    }

    /// Tells the store what a version learnt from, where it does not know; the reason not to promote the version where some of
    /// it is erased, which bars it.
    fn record_learnt(&self, version: Version) -> Result<Option<String>, RetrainError> {
        let Some(plan) = &self.work.plan else {
            return Ok(None);
        };
        let erased = self.shelf.learnt(&plan.learning()?, version)?;
        if erased.is_empty() {
            return Ok(None);
        }
        bar(&self.place.registry, self.name(), version)?;
        let images = erased.len();
        Ok(Some(format!(
            "{images} of the images that it learnt from are erased"
        )))
    }

    /// Whether a run before this one was killed after it promoted the version, which somebody may have taken back since.
    fn was_promoted(&self, version: Version) -> Result<bool, RetrainError> {
        let changes = self.place.registry.history(self.name())?;
        let carried_out = carried_out(&changes, self.entry.aliases.champion);
        let mut both = changes.iter().zip(carried_out);
        Ok(both.any(|(change, carried_out)| {
            carried_out && (change.action, change.to) == (Action::Promote, Some(version))
        }))
    }

    /// On the bytes that would serve, read from the disk.
    fn compared(&self, versions: [Version; 2], material: &Material) -> Result<Comparison, RetrainError> {
        let (registry, golden) = (&self.place.registry, &material.golden);
        let champion = registry.load(self.name(), versions[0])?;
        let challenger = registry.load(self.name(), versions[1])?;
        let plans = [self.compiled(&champion)?, self.compiled(&challenger)?];
        let slice = match self.request.feedback {
            true => ("feedback", golden.incoming()),
            false => ("all images", (0..golden.data.len()).collect()),
        };
        let all: Vec<usize> = (0..golden.data.len()).collect();
        let images = Compared {
            data: &golden.data,
            indices: &all,
            slices: vec![Slice {
                name: slice.0.to_owned(),
                rows: slice.1,
            }],
            text: golden.text(&material.told["name"]),
            told: json!({
                "dataset": material.told["name"],
                "part": golden.base,
                "images": golden.incoming_from,
                "feedback": golden.data.len() - golden.incoming_from,
                "sha256": golden.data.sha256(),
            }),
        };
        let common = Common {
            registry,
            model: self.name(),
            spec: &self.entry.spec,
            rules: &self.place.rules,
            limits: &self.place.images,
        };
        let comparison = compare(common, [&plans[0], &plans[1]], images)?;
        Ok(match self.report.clone() {
            Some(report) => Comparison {
                verdict: comparison.verdict.with_new_examples(report),
                ..comparison
            },
            None => comparison,
        })
    }

    /// Promotes; the reason where somebody else was quicker, with another version or with an erasure: that one bars the version
    /// before it is answered.
    fn promote(&self, version: Version, over: Version, reason: &str) -> Result<Option<String>, RetrainError> {
        if let Some(erased) = self.record_learnt(version)? {
            return Ok(Some(erased));
        }
        let promotion = Promotion {
            author: author(reason),
            grounds: Grounds::Blessed { over },
        };
        match self.place.registry.promote(self.name(), version, &promotion) {
            Ok(_) => Ok(None),
            Err(error @ (RegistryError::Overtaken { .. } | RegistryError::Barred { .. })) => {
                Ok(Some(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn outcome(
        &self,
        version: Version,
        blessed: Option<bool>,
        reasons: Vec<String>,
        comparison: Option<Comparison>,
    ) -> Result<Outcome, RetrainError> {
        let registry = &self.place.registry;
        card::refresh(registry, self.name())?;
        let entry = registry.entry(self.name())?;
        let finished = Finished {
            version: Some(version),
            blessed,
            reasons,
            promoted: entry.aliases.champion == Some(version),
        };
        Ok(Outcome { finished, comparison })
    }
}

/// How long all epochs took, to a tenth of a second.
fn seconds(history: &History) -> f64 {
    let seconds: f64 = history.epochs.iter().map(|epoch| f64::from(epoch.seconds)).sum();
    (seconds * 10.0).round() / 10.0
}

fn author(reason: &str) -> Author {
    Author {
        by: AUTHOR.to_owned(),
        reason: Some(reason.to_owned()),
    }
}
