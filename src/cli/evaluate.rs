//! `sconce evaluate`.

use super::{CliError, Common};

/// Flags of `sconce evaluate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs it.
pub(crate) fn run(_args: &Args, _common: &Common) -> Result<(), CliError> {
    todo!()
}
