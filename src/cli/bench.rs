//! `sconce bench`: measures.

use clap::Subcommand;

use super::{CliError, Common};

mod chart;
mod compare;
mod engine;
mod load;
mod measure;
mod report;

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
    /// Ask a running server for ten times what it can do, then let clients hang up; tell whether it stays honest
    ///
    /// First it measures what the server answers in a closed loop, then it sends an open loop of so many times as much, each request
    /// with a deadline, and looks at the server's memory meanwhile. It ends with an error where the server answers 500 for load, or
    /// where something is left of clients that hung up; whether the bars are met is told.
    Overload(load::overload::Args),
    /// Time inference alone, by batch and parallel instances, beside what this processor can do
    ///
    /// Each point is timed once in every round, so that all points see the same machine; a point's figure is the median
    /// over rounds of the round's median call. FLOPs are counted as a direct convolution has them, so a fast algorithm
    /// (Winograd) may pass the peak.
    Engine(engine::Args),
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    match &args.command {
        Command::Load(args) => load::run(args),
        Command::Overload(args) => load::overload::run(args),
        Command::Engine(args) => engine::run(args, &super::config(common)?),
    }
}

impl Args {
    /// Whether it runs networks in this process.
    pub(crate) fn computes(&self) -> bool {
        matches!(self.command, Command::Engine(_))
    }
}
