//! `sconce models promote`: the gate's blessing, or a word that stays in the history.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::config::Config;
use crate::engine::prepare_thread;
use crate::model::{ModelName, Version};
use crate::registry::{Change, Finding, Grounds, Promotion, Registry, RegistryError};
use crate::retrain::Comparison;

use super::super::evaluate::Sample;
use super::super::evaluate::compare::comparison;
use super::super::part::WhichPart;
use super::super::table::json;
use super::super::version::{data, registry};
use super::super::{CliError, print, version};
use super::{Asked, refresh_cards, told};

/// Flags of `sconce models promote`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// The version that is to be the champion
    version: Version,
    /// Labelled images on which the gate compares it with the champion, as `sconce evaluate --compare` does. Exit code
    /// 3 says no
    #[arg(long, value_name = "PATH", required_unless_present = "force")]
    data: Option<PathBuf>,
    /// Which part of the data [default: test; train with --hold-out]
    #[arg(long, value_enum, requires = "data")]
    part: Option<WhichPart>,
    /// Only the images that training leaves out: those whose sha256 mod 10 is 0
    #[arg(long, requires = "data")]
    hold_out: bool,
    /// Promote without the gate's blessing
    #[arg(long, requires = "reason")]
    force: bool,
    #[command(flatten)]
    asked: Asked,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Absent where the gate said no.
    change: Option<Change>,
    /// Absent where it was not asked.
    gate: Option<Comparison>,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let outcome = outcome(args, config)?;
    print(&if args.json {
        json(&outcome)?
    } else {
        outcome.text(&args.name)
    })?;
    refresh_cards(&registry(config)?, &args.name)?;
    match outcome.change {
        Some(_) => Ok(()),
        None => Err(CliError::Refused(
            "the gate says no, and nothing was changed".to_owned(),
        )),
    }
}

fn outcome(args: &Args, config: &Config) -> Result<Outcome, CliError> {
    let registry = registry(config)?;
    let gate = match &args.data {
        Some(images) => Some(asked(args, images, &registry, config)?),
        None => None,
    };
    let found = registry.finding(&args.name, args.version).map_err(data)?;
    let change = match grounds(args.force, gate.as_ref(), found) {
        Some(grounds) => {
            let author = args.asked.author();
            let promotion = Promotion { author, grounds };
            let change = registry.promote(&args.name, args.version, &promotion);
            Some(change.map_err(version::change)?)
        }
        None => None,
    };
    Ok(Outcome { change, gate })
}

/// Asks the gate, and keeps its verdict with the version whatever it says.
fn asked(args: &Args, images: &Path, registry: &Registry, config: &Config) -> Result<Comparison, CliError> {
    let (name, version) = (&args.name, args.version);
    let champion = registry.entry(name).and_then(|entry| entry.champion());
    let champion = champion.map_err(data)?;
    if champion == version {
        return Err(data(RegistryError::AlreadyChampion(name.clone(), version)));
    }
    let sample = Sample {
        data: images.to_owned(),
        part: args.part,
        hold_out: args.hold_out,
    };
    prepare_thread();
    let comparison = comparison(name, &sample, config, [champion, version])?;
    comparison
        .keep(registry, SystemTime::now())
        .map_err(version::change)?;
    Ok(comparison)
}

/// What allows the promotion; nothing does where the gate says no and nobody overrules it. `finding` is what the gate found
/// last: now, or earlier where it was not asked again.
fn grounds(force: bool, gate: Option<&Comparison>, finding: Finding) -> Option<Grounds> {
    if let Some(gate) = gate.filter(|gate| gate.verdict.blessed) {
        return Some(Grounds::Blessed {
            over: gate.champion_version,
        });
    }
    force.then_some(Grounds::Forced { finding })
}

impl Outcome {
    fn text(&self, name: &ModelName) -> String {
        let gate = self.gate.as_ref().map(|gate| gate.text() + "\n");
        let change = self.change.as_ref().map(|change| told(name, change));
        gate.unwrap_or_default() + &change.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
