//! `sconce bench`: measures.

use clap::Subcommand;

use super::CliError;

mod load;

/// Flags of `sconce bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send requests to a running server; count its answers and time them
    Load(load::Args),
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    match &args.command {
        Command::Load(args) => load::run(args),
    }
}

impl Args {
    /// Whether it runs networks in this process.
    pub(crate) fn computes(&self) -> bool {
        match self.command {
            Command::Load(_) => false,
        }
    }
}
