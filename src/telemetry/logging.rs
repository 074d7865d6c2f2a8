//! Sets up `tracing`: pretty on a terminal, JSON otherwise.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Longest filter; dozens of directives.
const MAX_FILTER_BYTES: usize = 4096;

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
        let directives = directives(&self.filter)?;
        // Without patterns: one could grow to any size in memory, and a log's fields are told by their plain text.
        let filter = EnvFilter::builder()
            .with_regex(false)
            .parse(directives)
            .map_err(|e| LoggingError::Filter(e.to_string()))?;
        if self.filter.contains(AUDIT) {
            return Ok(filter);
        }
        let always = format!("{AUDIT}=info").parse();
        Ok(filter.add_directive(always.expect("a target and a level make a directive")))
    }
}

/// The directives without white space around them. The parser of `tracing` cuts a directive that is indented at the wrong
/// places, and panics where such a place lies within a character.
fn directives(filter: &str) -> Result<String, LoggingError> {
    let told = |problem: String| Err(LoggingError::Filter(problem));
    if filter.len() > MAX_FILTER_BYTES {
        return told(format!("it is longer than {MAX_FILTER_BYTES} bytes"));
    }
    let trimmed: Vec<&str> = filter.split(',').map(str::trim).collect();
    let odd = |c: &char| !c.is_ascii_graphic();
    match trimmed.iter().find_map(|directive| directive.chars().find(odd)) {
        Some(odd) => told(format!("directives hold no {odd:?}; sconce=debug,warn is one")),
        None => Ok(trimmed.join(",")),
    }
}

/// The target of administrative acts: they are told whatever the filter says, unless it names them.
const AUDIT: &str = "audit";
/// Most characters of a caller's own text in a line.
const MAX_CHARS: usize = 128;

/// A caller's text as a line may hold it: cut to 128 characters, with whatever a terminal or a reader of lines would obey
/// escaped.
pub fn clipped(text: &str) -> String {
    let mut chars = text.chars();
    let mut clipped: String = chars
        .by_ref()
        .take(MAX_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if chars.next().is_some() {
        clipped.push('…');
    }
    clipped
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
    use proptest::prelude::*;

    use super::*;

    fn checked(filter: &str) -> Result<(), String> {
        let filter = filter.to_owned();
        let config = Config {
            filter,
            ..Config::default()
        };
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_callers_text_is_cut_and_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(clipped(text), expected);
        check("", "");
        check("anna, at the scanner", "anna, at the scanner");
        check("größe", "größe");
        check("a\nb\r\t\0", "a\\nb\\r\\t\\0");
        check("\u{1b}[2J\u{202e}", "\\u{1b}[2J\\u{202e}");
        check(&"x".repeat(128), &"x".repeat(128));
        check(&"ä".repeat(129), &("ä".repeat(128) + "…"));
    }

    #[test]
    fn acts_are_told_unless_the_filter_names_them() {
        let check = |filter: &str, expected: bool| {
            let config = Config {
                filter: filter.to_owned(),
                ..Config::default()
            };
            let log = tracing_subscriber::fmt()
                .with_env_filter(config.env_filter().unwrap())
                .with_writer(std::io::sink)
                .finish();
            // Asked by the layer itself: what a call site remembers is shared with other tests.
            let told = tracing::subscriber::with_default(
                log,
                || tracing::enabled!(target: "audit", tracing::Level::INFO),
            );
            assert_eq!(told, expected, "{filter}");
        };
        check("off", true);
        check("sconce=warn", true);
        check("info", true);
        check("info,audit=off", false);
    }

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        assert!(Config::default().check().is_ok());
        for good in [
            "",
            "off",
            "sconce=debug,warn",
            "sconce::http=trace,,info",
            "[span]=debug",
            "[{model=mnist}]=5",
        ] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        for bad in ["sconce=loud=er", "sconce=loud", "[{=", "*", "[a"] {
            let error = checked(bad).unwrap_err();
            assert!(error.starts_with("log.filter: "), "{bad}: {error}");
        }
    }

    #[test]
    fn white_space_around_directives_is_passed_over() {
        let config = Config {
            filter: "\u{3000}warn, sconce=debug\n".to_owned(),
            ..Config::default()
        };
        let filter = config.env_filter().unwrap().to_string();
        let mut directives: Vec<&str> = filter.split(',').collect();
        directives.sort_unstable();
        assert_eq!(directives, ["audit=info", "sconce=debug", "warn"]);
    }

    #[test]
    fn what_the_parser_panics_at_is_refused_before_it() {
        // Each is cut within a character by a parser that counts from the first that is no white space.
        for odd in [
            "\u{3000}é=info",
            "\u{a0}[é]=warn",
            "sconce=\u{2003}é",
            "a b=info",
            "\0",
        ] {
            let error = checked(odd).unwrap_err();
            assert!(error.contains("directives hold no '"), "{odd:?}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
        let long = "a,".repeat(MAX_FILTER_BYTES);
        assert_eq!(
            checked(&long).unwrap_err(),
            "log.filter: it is longer than 4096 bytes"
        );
        // A pattern that would take gigabytes is plain text.
        let pattern = format!("[{{a=(a|b)*a{}}}]=info", "(a|b)".repeat(40));
        assert_eq!(checked(&pattern), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]
        #[test]
        fn no_filter_panics(filter in "[ \u{3000}\u{a0}a-cé=\\[\\]{},:*(\n]{0,14}") {
            if let Err(error) = checked(&filter) {
                prop_assert_eq!(error.lines().count(), 1);
            }
        }
    }
}
