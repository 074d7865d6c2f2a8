//! `sconce worker`: retraining jobs in a process of their own.

use crate::app;
use crate::telemetry::logging;

use super::{CliError, Common};

/// Flags of `sconce worker`: none of its own; `--set jobs.threads=4` and the like say how jobs run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs it until SIGTERM.
pub(crate) fn run(_: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    logging::init(&config.log).map_err(|e| CliError::Usage(e.to_string()))?;
    app::work(&config).map_err(|error| CliError::Failed(error.to_string()))
}
