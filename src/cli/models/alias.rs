//! `sconce models alias`.

use clap::ValueEnum;

use crate::config::Config;
use crate::model::{ModelName, Version};
use crate::registry::Alias;

use super::super::version::registry;
use super::super::{CliError, print, version};
use super::{Asked, refresh_cards, told};

/// Flags of `sconce models alias`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// Which alias; champion only where the model has none
    #[arg(value_enum)]
    alias: WhichAlias,
    /// The version that gets it [default: none; the alias is taken away]
    version: Option<Version>,
    #[command(flatten)]
    asked: Asked,
}

/// [`Alias`] as an argument; `registry` knows no command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhichAlias {
    Champion,
    Challenger,
    Previous,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let (name, alias) = (&args.name, args.alias.into());
    let registry = registry(config)?;
    let change = registry.set_alias(name, alias, args.version, &args.asked.author());
    print(&told(name, &change.map_err(version::change)?))?;
    refresh_cards(&registry, name)
}

impl From<WhichAlias> for Alias {
    fn from(which: WhichAlias) -> Self {
        match which {
            WhichAlias::Champion => Self::Champion,
            WhichAlias::Challenger => Self::Challenger,
            WhichAlias::Previous => Self::Previous,
        }
    }
}
