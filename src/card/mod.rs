//! A version's card: where it comes from, how good it is, what it is for, who let it serve.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evaluate::gate::Verdict;
use crate::evaluate::{ClassReport, Interval};
use crate::model::{Input, ModelName, Spec, Version};
use crate::registry::{Action, Alias, Bar, Change, Manifest, Registry, RegistryError};

mod limits;
mod markdown;

/// A version, told to people and programs. Holds nothing that its files do not, and no time of its own: the same files
/// give the same card.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// [`Card::FORMAT`].
    pub format: u32,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// What it is called now.
    pub aliases: Vec<Alias>,
    /// Promotions of this version without the gate's blessing, and what the gate had found of it. They stay for ever.
    pub forced: Vec<Forced>,
    /// Why it is not promoted any more; absent where it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barred: Option<Bar>,
    /// What the model is for, by its `model.toml`.
    pub intended_use: String,
    /// What is known to limit it.
    pub limits: Vec<String>,
    /// Its classes.
    pub labels: Vec<String>,
    /// The images it takes.
    pub input: Input,
    /// Where its weights come from.
    pub origin: Origin,
    /// What it learnt from: name, sha256, counts.
    pub data: Value,
    /// How it was trained: recipe and every setting.
    pub training: Value,
    /// How good it was on images that it never saw.
    pub evaluation: Vec<Measured>,
    /// The gate's latest verdict, with every number; absent where the gate was not asked.
    pub gate: Option<Value>,
    /// Changes of an alias from or to this version so far.
    pub changes: usize,
    /// The latest of them, at most [`Card::MOST_CHANGES`], oldest first.
    pub history: Vec<Change>,
}

/// Promotions without the gate's blessing from the same version, by the same person, for the same reason and against the same finding.
#[derive(Clone, Debug, Serialize)]
pub struct Forced {
    /// The first.
    #[serde(flatten)]
    pub change: Change,
    /// How many there were.
    pub times: usize,
    /// When the latest was.
    pub latest: String,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The version from which training began.
    pub parent: Option<Version>,
    /// The model of that version, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<ModelName>,
    /// What set the training off.
    pub trigger: String,
    /// The command.
    pub command: String,
    /// Sconce's version.
    pub sconce: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The network.
    pub architecture: String,
    /// Its trained numbers.
    pub parameters: usize,
    /// sha256 of the weights, in lower-case hex.
    pub weights_sha256: String,
    /// Their bytes.
    pub weights_bytes: u64,
}

/// Figures on one part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// `test`, `hold_out`, or `feedback` that was held out.
    #[serde(default)]
    pub part: String,
    /// Images.
    pub n: usize,
    /// Share that it answers right.
    pub accuracy: f64,
    /// 95 % interval of that.
    #[serde(default)]
    pub accuracy_interval: Option<Interval>,
    /// Expected calibration error.
    #[serde(default)]
    pub ece: Option<f64>,
    /// By class, with intervals.
    #[serde(default)]
    pub per_class: Vec<ClassReport>,
}

impl Card {
    /// The layout of this struct.
    pub const FORMAT: u32 = 1;
    /// Changes that a card lists; the model's history has all.
    pub const MOST_CHANGES: usize = 100;

    /// Of a version, as its files tell now.
    pub fn of(registry: &Registry, name: &ModelName, version: Version) -> Result<Self, RegistryError> {
        Self::with(registry, (name, version), &registry.history(name)?)
    }

    /// The same, with the model's history.
    fn with(
        registry: &Registry,
        (name, version): (&ModelName, Version),
        history: &[Change],
    ) -> Result<Self, RegistryError> {
        let manifest = registry.manifest(name, version)?;
        let entry = registry.entry(name)?;
        let (gate, barred) = (registry.verdict(name, version)?, registry.barred(name, version)?);
        let own = |change: &&Change| [change.from, change.to].contains(&Some(version));
        let own: Vec<&Change> = history.iter().filter(own).collect();
        let forced = own
            .iter()
            .filter(|change| change.forced && change.to == Some(version));
        let evaluation = measured(&manifest);
        let aliases = [Alias::Champion, Alias::Challenger, Alias::Previous];
        Ok(Self {
            format: Self::FORMAT,
            model: name.clone(),
            version,
            aliases: aliases
                .into_iter()
                .filter(|&alias| entry.aliases.get(alias) == Some(version))
                .collect(),
            forced: once_each(forced),
            limits: limits::of(&entry.spec, &evaluation, gate.as_ref()),
            barred,
            origin: Origin::of(&manifest),
            data: manifest.data,
            training: manifest.training,
            evaluation,
            gate,
            changes: own.len(),
            history: own[own.len().saturating_sub(Self::MOST_CHANGES)..]
                .iter()
                .copied()
                .cloned()
                .collect(),
            intended_use: intended_use(&entry.spec),
            labels: entry.spec.labels,
            input: entry.spec.input,
        })
    }

    /// For people.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// For programs.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("a card has string keys and nothing that fails") + "\n"
    }

    /// The verdict, where it is of a form that is known.
    fn verdict(&self) -> Option<Verdict> {
        serde_json::from_value(self.gate.clone()?).ok()
    }
}

/// Writes the cards of a model's versions anew where something about them changed. To be called whenever a version is
/// made, judged, or given or taken an alias.
pub fn refresh(registry: &Registry, name: &ModelName) -> Result<(), RegistryError> {
    let history = registry.history(name)?;
    for version in registry.entry(name)?.versions {
        let card = Card::with(registry, (name, version), &history)?;
        registry.keep_card(name, version, [&card.markdown(), &card.json()])?;
    }
    Ok(())
}

/// Those that differ in their time alone told once, in the order in which they first were.
fn once_each<'a>(changes: impl Iterator<Item = &'a &'a Change>) -> Vec<Forced> {
    let mut all: Vec<Forced> = Vec::new();
    let mut places = HashMap::new();
    for change in changes {
        let alike = (change.from, &change.by, &change.reason, change.verdict.name());
        let place = *places.entry(alike).or_insert(all.len());
        match all.get_mut(place) {
            Some(earlier) => {
                earlier.times += 1;
                earlier.latest.clone_from(&change.at);
            }
            None => all.push(Forced {
                change: (*change).clone(),
                times: 1,
                latest: change.at.clone(),
            }),
        }
    }
    all
}

fn intended_use(spec: &Spec) -> String {
    match spec.description.trim() {
        "" => "Not told: model.toml has no description.".to_owned(),
        description => description.to_owned(),
    }
}

/// What was measured, the test images first.
fn measured(manifest: &Manifest) -> Vec<Measured> {
    let part = |part: &str| {
        let value = manifest.evaluation.get(part)?.clone();
        let figures: Measured = serde_json::from_value(value).ok()?;
        Some(Measured {
            part: part.to_owned(),
            ..figures
        })
    };
    ["test", "hold_out", "feedback"]
        .into_iter()
        .filter_map(part)
        .collect()
}

impl Origin {
    fn of(manifest: &Manifest) -> Self {
        let told = [&manifest.training, &manifest.data]
            .into_iter()
            .find_map(|value| value["trigger"].as_str());
        let guessed = if manifest.training["imported"].is_object() {
            "imported"
        } else {
            "a command"
        };
        Self {
            parent: manifest.parent,
            parent_model: manifest.parent_model.clone(),
            trigger: told.unwrap_or(guessed).to_owned(),
            command: manifest.command.clone(),
            sconce: manifest.sconce.clone(),
            seed: manifest.seed,
            architecture: manifest.architecture.clone(),
            parameters: manifest.parameters,
            weights_sha256: manifest.weights.sha256.clone(),
            weights_bytes: manifest.weights.bytes,
        }
    }
}

/// What was done, in a word.
fn deed(change: &Change) -> &'static str {
    match change.action {
        Action::Promote if change.forced => "promoted by force",
        Action::Promote => "promoted",
        Action::Rollback => "rolled back",
        Action::Alias => "alias",
    }
}

#[cfg(test)]
mod tests;
