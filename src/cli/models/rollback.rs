//! `sconce models rollback`.

use crate::config::Config;
use crate::model::ModelName;

use super::super::version::registry;
use super::super::{CliError, print, version};
use super::{Asked, refresh_cards, told};

/// Flags of `sconce models rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    #[command(flatten)]
    asked: Asked,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let registry = registry(config)?;
    let change = registry.rollback(&args.name, &args.asked.author());
    print(&told(&args.name, &change.map_err(version::change)?))?;
    refresh_cards(&registry, &args.name)
}
