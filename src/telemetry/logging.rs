//! Sets up `tracing`: pretty on a terminal, JSON otherwise.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Logging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which events are kept, as `tracing`'s directives: `info`, `sconce=debug,warn`.
    pub filter: String,
    /// How they are written.
    pub format: Format,
}

/// How events are written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not a list of directives.
    #[error("log.filter: {0}")]
    Filter(String),
    /// A logger is already set in this process.
    #[error("a logger is already running in this process")]
    Twice,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Auto,
        }
    }
}

impl Config {
    /// Checks the filter without starting anything.
    pub fn check(&self) -> Result<(), LoggingError> {
        self.env_filter().map(drop)
    }

    fn env_filter(&self) -> Result<EnvFilter, LoggingError> {
        EnvFilter::builder()
            .parse(&self.filter)
            .map_err(|e| LoggingError::Filter(e.to_string()))
    }
}

/// Starts logging to standard error for the whole process.
pub fn init(config: &Config) -> Result<(), LoggingError> {
    let filter = config.env_filter()?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let json = match config.format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Pretty => false,
    };
    let started = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    } else {
        builder.with_ansi(terminal).compact().try_init()
    };
    started.map_err(|_| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        assert!(Config::default().check().is_ok());
        assert!(
            Config {
                filter: "sconce=debug,warn".to_owned(),
                ..Config::default()
            }
            .check()
            .is_ok()
        );
        let bad = Config {
            filter: "sconce=loud=er".to_owned(),
            ..Config::default()
        };
        assert!(matches!(bad.check(), Err(LoggingError::Filter(_))));
    }
}
