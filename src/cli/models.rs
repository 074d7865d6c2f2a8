//! `sconce models`: what the folder of models holds.

use std::path::Path;

use clap::Subcommand;

use crate::config::Config;
use crate::model::{ModelName, Version};
use crate::registry::{Author, Change, Registry};

use super::{CliError, Common, version};

mod alias;
mod card;
mod explain_plan;
mod history;
mod import;
mod list;
mod promote;
mod rollback;
mod show;
mod verify;

/// Flags of `sconce models`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each model
    List(list::Args),
    /// One model: what it takes and gives, where its version comes from, its layers
    Show(show::Args),
    /// The serving plan of a model: layers, operations, bytes, and where the time goes
    ExplainPlan(explain_plan::Args),
    /// Make a version of weights that were trained elsewhere
    Import(Box<import::Args>),
    /// Make a version the champion: where the gate blesses it, or by force
    Promote(promote::Args),
    /// Make the previous champion the champion again
    Rollback(rollback::Args),
    /// Give an alias to a version, or take it away
    Alias(alias::Args),
    /// Every change of a model's aliases, oldest first
    History(history::Args),
    /// A version's card: where it comes from, how good it is, what the gate found, who let it serve
    Card(card::Args),
    /// Load and check every version: hash, names, shapes, values, one forward pass
    Verify(verify::Args),
}

/// What the history keeps of who asks for a change.
#[derive(Clone, Debug, clap::Args)]
struct Asked {
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who asks; kept in the history
    #[arg(long, value_name = "WHO", default_value = "command line")]
    by: String,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    match &args.command {
        Command::List(args) => list::run(args, &config),
        Command::Show(args) => show::run(args, &config),
        Command::ExplainPlan(args) => explain_plan::run(args, &config),
        Command::Import(args) => import::run(args, &config),
        Command::Promote(args) => promote::run(args, &config),
        Command::Rollback(args) => rollback::run(args, &config),
        Command::Alias(args) => alias::run(args, &config),
        Command::History(args) => history::run(args, &config),
        Command::Card(args) => card::run(args, &config),
        Command::Verify(args) => verify::run(args, &config),
    }
}

/// A dash for what is not there.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

impl Asked {
    fn author(&self) -> Author {
        Author {
            by: self.by.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// Writes the cards anew after something about a version changed.
pub(super) fn refresh_cards(registry: &Registry, name: &ModelName) -> Result<(), CliError> {
    let told = |error: CliError| {
        let text = format!("it is done, but a card is not written: {error}");
        match error {
            CliError::Disk(_) => CliError::Disk(text),
            _ => CliError::Failed(text),
        }
    };
    crate::card::refresh(registry, name).map_err(|error| told(version::change(error)))
}

/// What a change came to, for a terminal.
fn told(name: &ModelName, change: &Change) -> String {
    let (alias, from, to) = (change.alias.name(), or_dash(change.from), or_dash(change.to));
    format!(
        "{name}: {alias} {from} → {to}\nA server that runs serves this once it has looked at the folder (service.poll_ms).\n"
    )
}

/// The command that promotes a version. `data` is where its images are, and flags that choose among them.
pub(super) fn promotion(folder: &Path, name: &ModelName, version: Version, data: &str) -> String {
    // A folder that had to be named here has to be named again.
    let models = if folder == Config::default().models {
        String::new()
    } else {
        format!(" --models {}", folder.display())
    };
    format!("sconce models promote {name} {version} --data {data}{models}")
}
