//! `sconce models`: what the folder of models holds.

use clap::Subcommand;

use super::{CliError, Common};

mod explain_plan;
mod import;
mod list;
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
    /// Load and check every version: hash, names, shapes, values, one forward pass
    Verify(verify::Args),
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    match &args.command {
        Command::List(args) => list::run(args, &config),
        Command::Show(args) => show::run(args, &config),
        Command::ExplainPlan(args) => explain_plan::run(args, &config),
        Command::Import(args) => import::run(args, &config),
        Command::Verify(args) => verify::run(args, &config),
    }
}

/// A dash for what is not there.
fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}
