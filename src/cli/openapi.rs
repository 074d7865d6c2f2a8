//! `sconce openapi`: the contract, as it is served at `/openapi.yaml`.

use crate::http::OPENAPI;

use super::{CliError, Common, print};

/// Flags of `sconce openapi`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs it.
pub(crate) fn run(_args: &Args, _common: &Common) -> Result<(), CliError> {
    print(OPENAPI)
}
