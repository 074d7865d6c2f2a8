//! `sconce evaluate --compare`: may one version take another's place?

use serde::Serialize;

use crate::config::Config;
use crate::evaluate::gate::{self, Answers, Slice, Verdict};
use crate::evaluate::{self, latencies};
use crate::model::{ModelName, Version};
use crate::registry::Registry;

use super::super::table::json;
use super::super::version;
use super::super::{CliError, print, write};
use super::{Args, Images, Sample, failure, images};

/// A verdict with what it is about.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    model: ModelName,
    pub(crate) champion_version: Version,
    challenger_version: Version,
    data: Images,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// Prints the verdict; an error where it is no.
pub(super) fn run(args: &Args, config: &Config, versions: [Version; 2]) -> Result<(), CliError> {
    let comparison = comparison(&args.model, &args.sample, config, versions)?;
    if let Some(path) = &args.html {
        write(path, &comparison.html())?;
    }
    print(&if args.json {
        json(&comparison)?
    } else {
        comparison.text()
    })?;
    if comparison.verdict.blessed {
        Ok(())
    } else {
        Err(CliError::Refused("the gate says no".to_owned()))
    }
}

/// Champion and challenger on the same images, through the engine that serves.
pub(crate) fn comparison(
    model: &ModelName,
    sample: &Sample,
    config: &Config,
    versions: [Version; 2],
) -> Result<Comparison, CliError> {
    let [champion_version, challenger_version] = versions;
    if champion_version == challenger_version {
        return Err(CliError::Usage(
            "a version is not compared with itself".to_owned(),
        ));
    }
    let load = |version| version::load(config, Some(model), Some(version));
    let (champion, challenger) = (load(champion_version)?, load(challenger_version)?);
    let images = images(sample, &champion.spec, config)?;
    let plans = [
        version::compile(config, &champion)?,
        version::compile(config, &challenger)?,
    ];
    let answers = |plan| evaluate::probabilities(plan, &images.data, &images.indices).map_err(failure);
    let (champion_answers, challenger_answers) = (answers(&plans[0])?, answers(&plans[1])?);
    let answers = Answers {
        champion: &champion_answers,
        challenger: &challenger_answers,
        labels: &images.labels,
        names: &champion.spec.labels,
    };
    let all = Slice {
        name: "all images".to_owned(),
        rows: (0..images.labels.len()).collect(),
    };
    let seconds = latencies([&plans[0], &plans[1]]).map_err(version::engine)?;
    let verdict = gate::compare(answers, &[all], Some(seconds), &config.gate).map_err(failure)?;
    let registry = version::registry(config)?;
    let folder = registry.pinned(model).map_err(version::data)?;
    let pinned = gate::pinned(&plans[1], &champion.spec, &folder, &config.images).map_err(failure)?;
    let uses = uses(&registry, model, &images.what)?;
    Ok(Comparison {
        model: model.clone(),
        champion_version,
        challenger_version,
        data: images.what,
        verdict: verdict.with_pinned(pinned).with_uses(uses),
    })
}

/// Verdicts that were kept on the same images, and this one.
fn uses(registry: &Registry, model: &ModelName, images: &Images) -> Result<usize, CliError> {
    let images = serde_json::to_value(images).map_err(|e| CliError::Failed(e.to_string()))?;
    let kept = registry.uses_of(model, &images).map_err(version::data)?;
    Ok(kept + 1)
}

impl Comparison {
    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        format!("{}\n\n{}", self.title(), self.verdict.text())
    }

    /// As a page.
    pub(crate) fn html(&self) -> String {
        self.verdict.html(&self.title())
    }

    fn title(&self) -> String {
        format!(
            "{}: version {} as challenger of version {} on {}",
            self.model,
            self.challenger_version,
            self.champion_version,
            self.data.title()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::super::tests::{args, labelled};
    use super::*;

    #[test]
    fn a_verdict_on_too_few_images_is_no_and_says_so() {
        let models = Models::new(&["tiny"]);
        let versions = [models.publish("tiny", 1), models.publish("tiny", 2)];
        let args = args(labelled(&models));
        let comparison = comparison(&args.model, &args.sample, &models.config(), versions).unwrap();
        assert!(!comparison.verdict.blessed && comparison.verdict.n == 4);
        assert!(
            comparison
                .title()
                .starts_with("tiny: version 2 as challenger of version 1 on ")
        );
        let value: serde_json::Value = serde_json::from_str(&json(&comparison).unwrap()).unwrap();
        assert_eq!(
            value["reasons"][0],
            "4 images are fewer than the 1000 that a verdict needs"
        );
        assert_eq!(
            (&value["champion_version"], &value["blessed"]),
            (&1.into(), &false.into())
        );
        let refused = run(&args, &models.config(), versions).unwrap_err();
        assert!(matches!(refused, CliError::Refused(_)), "{refused}");
    }

    #[test]
    fn a_version_is_not_compared_with_itself_or_with_none() {
        let models = Models::new(&["tiny"]);
        let first = models.publish("tiny", 1);
        let Args { model, sample, .. } = args(labelled(&models));
        let check = |versions| comparison(&model, &sample, &models.config(), versions).unwrap_err();
        assert!(matches!(check([first, first]), CliError::Usage(_)));
        let missing: Version = "7".parse().unwrap();
        assert!(matches!(check([first, missing]), CliError::Data(_)));
    }
}
