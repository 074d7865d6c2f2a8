//! The command line: subcommands, what they share, exit codes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::config::environment::Freed;
use crate::config::{Config, Resolved};
use crate::registry::atomic;

mod bench;
mod command_line;
mod config;
mod data;
mod doctor;
mod evaluate;
#[cfg(test)]
mod fixture;
mod health;
mod keys;
mod models;
mod openapi;
mod part;
mod predict;
mod restart;
mod retrain;
mod serve;
mod table;
mod train;
mod url;
mod version;
mod worker;

/// Serves, trains and evaluates image classifiers.
#[derive(Debug, Parser)]
#[command(name = "sconce", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// Configuration file [default: config/default.toml where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of models [default: models]
    #[arg(long, global = true, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Set any key of the configuration, such as http.threads=2; may be given many times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    settings: Vec<(String, String)>,
    /// When the program began.
    #[arg(skip = Instant::now())]
    started: Instant,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models over HTTP
    Serve(serve::Args),
    /// Run retraining jobs beside a server, on the same store
    Worker(worker::Args),
    /// Train a new version of a model
    Train(train::Args),
    /// Learn from feedback: a new version, and the gate's word on it
    Retrain(Box<retrain::Args>),
    /// Evaluate a version on labelled images
    Evaluate(evaluate::Args),
    /// Classify image files without a server
    Predict(predict::Args),
    /// Measure: inference alone, or a running server
    Bench(bench::Args),
    /// Measure this machine and how each version is served best on it
    Doctor(doctor::Args),
    /// List, show and verify models
    Models(models::Args),
    /// Check labelled images
    Data(data::Args),
    /// Make API keys, and list those that are configured
    Keys(keys::Args),
    /// Print the resolved configuration
    Config(config::Args),
    /// Ask a running server whether it is ready (for container health checks)
    Health(health::Args),
    /// Print the OpenAPI description
    Openapi(openapi::Args),
}

/// A failed command: one line for the terminal and the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// Something that was given (a model, data, an image) is not right.
    #[error("{0}")]
    Data(String),
    /// The disk is full or refuses.
    #[error("{0}")]
    Disk(String),
    /// Somebody else was there first; later it may work.
    #[error("{0}")]
    Busy(String),
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
    /// The server that was asked is not healthy.
    #[error("{0}")]
    Unhealthy(String),
    /// The gate said no.
    #[error("{0}")]
    Refused(String),
}

impl CliError {
    /// sysexits.h's numbers; 1 is what container health checks know.
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::Failed(_) => 70,
            Self::Disk(_) => 74,
            Self::Busy(_) => 75,
            Self::Unhealthy(_) => 1,
            Self::Refused(_) => 3,
        }
    }
}

/// Runs the program: 0 when all is well, 64 for a wrong command line or configuration, 65 for wrong data, 1 for an
/// unhealthy server, 3 for a refusal by the gate, 74 for the disk, 75 for what may work later, 70 else.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli.command, &cli.common) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the command line speaks to its caller here")]
            {
                eprintln!("sconce: {error}");
            }
            ExitCode::from(error.code())
        }
    }
}

fn run(command: Command, common: &Common) -> Result<(), CliError> {
    if command.computes() {
        restart::to_compute(command.freed())?;
    }
    match command {
        Command::Serve(args) => serve::run(&args, common),
        Command::Worker(args) => worker::run(&args, common),
        Command::Train(args) => train::run(&args, common),
        Command::Retrain(args) => retrain::run(&args, common),
        Command::Evaluate(args) => evaluate::run(&args, common),
        Command::Predict(args) => predict::run(&args, common),
        Command::Bench(args) => bench::run(&args, common),
        Command::Doctor(args) => doctor::run(&args, common),
        Command::Models(args) => models::run(&args, common),
        Command::Data(args) => data::run(&args, common),
        Command::Keys(args) => keys::run(&args, common),
        Command::Config(args) => config::run(&args, common),
        Command::Health(args) => health::run(&args, common),
        Command::Openapi(args) => openapi::run(&args, common),
    }
}

impl Command {
    /// What it does with the memory that it frees.
    fn freed(&self) -> Freed {
        match self {
            Self::Train(_) | Self::Retrain(_) => Freed::Kept,
            Self::Serve(_) => Freed::GivenBack,
            _ => Freed::AsItIs,
        }
    }

    /// Whether it runs networks.
    fn computes(&self) -> bool {
        match self {
            Self::Serve(_)
            | Self::Train(_)
            | Self::Retrain(_)
            | Self::Evaluate(_)
            | Self::Predict(_)
            | Self::Doctor(_)
            | Self::Models(_) => true,
            Self::Bench(args) => args.computes(),
            Self::Worker(_)
            | Self::Data(_)
            | Self::Keys(_)
            | Self::Config(_)
            | Self::Health(_)
            | Self::Openapi(_) => false,
        }
    }
}

/// The configuration: file, environment and the flags that every subcommand has.
pub(crate) fn config(common: &Common) -> Result<Config, CliError> {
    resolve(common, &[]).map(|resolved| resolved.config)
}

/// As [`config`], with a subcommand's own `flags` on top, and where each value came from.
fn resolve(common: &Common, flags: &[(&str, String)]) -> Result<Resolved, CliError> {
    let settings = common.settings.iter();
    let mut all: Vec<(&str, String)> = settings.map(|(key, value)| (&**key, value.clone())).collect();
    if let Some(models) = &common.models {
        let text = models.to_str();
        let text = text.ok_or_else(|| CliError::Usage("--models: the path is not UTF-8".to_owned()))?;
        all.push(("models", text.to_owned()));
    }
    all.extend_from_slice(flags);
    Config::resolve(common.config.as_deref(), &all).map_err(|e| CliError::Usage(e.to_string()))
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let parts = text
        .split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    parts.ok_or_else(|| "KEY=VALUE is expected, such as http.threads=2".to_owned())
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| CliError::Failed(format!("standard output: {e}"))),
    }
}

/// Writes a file whole or not at all, in place of one that is there.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    // The file is written beside its place, so its folder must be known.
    let written = std::path::absolute(path).and_then(|path| atomic::write(&path, text.as_bytes()));
    written.map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn resolved(arguments: &[&str]) -> Result<Config, CliError> {
        let all = ["sconce"].iter().chain(arguments);
        config(&Cli::try_parse_from(all).unwrap().common)
    }

    #[test]
    fn flags_of_every_subcommand_set_keys() {
        let config = resolved(&[
            "--models",
            "a",
            "config",
            "--set",
            "http.threads=3",
            "--set",
            "log.filter=a=debug",
        ]);
        let config = config.unwrap();
        assert_eq!(config.models, Path::new("a"));
        assert_eq!((config.http.threads, &*config.log.filter), (3, "a=debug"));
        let wrong = resolved(&["config", "--set", "http.thread=3"]).unwrap_err();
        assert_eq!(wrong.code(), 64);
        assert!(Cli::try_parse_from(["sconce", "config", "--set", "http.threads"]).is_err());
    }
}
