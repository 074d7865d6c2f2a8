//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

mod config;
mod data;
mod evaluate;
#[cfg(test)]
mod fixture;
mod health;
mod models;
mod openapi;
mod predict;
mod serve;
mod table;
mod train;
mod version;

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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models over HTTP
    Serve(serve::Args),
    /// Train a new version of a model
    Train(train::Args),
    /// Evaluate a version on labelled images
    Evaluate(evaluate::Args),
    /// Classify image files without a server
    Predict(predict::Args),
    /// List, show and verify models
    Models(models::Args),
    /// Check labelled images
    Data(data::Args),
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
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// sysexits.h's numbers.
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::Failed(_) => 70,
        }
    }
}

/// Runs the program: 0 when all is well, 64 for a wrong command line or configuration, 65 for wrong data, 70 else.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let common = &cli.common;
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args, common),
        Command::Train(args) => train::run(&args, common),
        Command::Evaluate(args) => evaluate::run(&args, common),
        Command::Predict(args) => predict::run(&args, common),
        Command::Models(args) => models::run(&args, common),
        Command::Data(args) => data::run(&args, common),
        Command::Config(args) => config::run(&args, common),
        Command::Health(args) => health::run(&args, common),
        Command::Openapi(args) => openapi::run(&args, common),
    };
    match result {
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

/// The configuration: file, environment and the flags that every subcommand has.
pub(crate) fn config(common: &Common) -> Result<Config, CliError> {
    let mut flags = Vec::new();
    if let Some(models) = &common.models {
        let text = models.to_str();
        let text = text.ok_or_else(|| CliError::Usage("--models: the path is not UTF-8".to_owned()))?;
        flags.push(("models", text.to_owned()));
    }
    Config::load(common.config.as_deref(), &flags).map_err(|e| CliError::Usage(e.to_string()))
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| CliError::Failed(format!("standard output: {e}"))),
    }
}
