//! `sconce keys`: API keys made, and those that are configured.

use std::path::PathBuf;

use clap::Subcommand;

use crate::http::auth::{self, KeyEntry, KeyId, Scope, Token};

use super::table::{Align, json, table};
use super::{CliError, Common, print};

/// Flags of `sconce keys`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key: its token, which is shown this once, and the line for the file of keys
    New(New),
    /// The keys that are configured, checked; none of them can be turned back into its token
    List(List),
}

#[derive(Debug, clap::Args)]
struct New {
    /// Its name in logs, metrics and feedback: 1 to 64 of A-Za-z0-9._-
    #[arg(long, value_name = "ID")]
    id: KeyId,
    /// What it may do: predict, feedback, metrics, admin (which is all of them); several with commas
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// Requests per second, steadily [default: as many as it likes]
    #[arg(long, value_name = "X")]
    requests_per_second: Option<f64>,
    /// Requests at once [default: those of a second]
    #[arg(long, value_name = "N", requires = "requests_per_second")]
    burst: Option<u32>,
    /// Add the line to this file, which a server may have as auth.keys_file, and print the token alone
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct List {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    match &args.command {
        Command::New(args) => print(&made(args)?),
        Command::List(args) => print(&listed(args, &super::config(common)?.auth)?),
    }
}

/// The token on the first line; on the second, unless a file has it, the line of the file.
fn made(args: &New) -> Result<String, CliError> {
    let token = Token::fresh().map_err(|e| CliError::Failed(format!("random bits: {e}")))?;
    let entry = KeyEntry {
        id: args.id.clone(),
        scopes: args.scopes.clone(),
        hash: token.hash(),
        requests_per_second: args.requests_per_second,
        burst: args.burst,
    };
    let usage = |error: auth::AuthError| CliError::Usage(error.to_string());
    let line = entry.line().map_err(usage)?;
    let token = token.as_str();
    let Some(file) = &args.append else {
        return Ok(format!("{token}\n{line}\n"));
    };
    auth::append(file, &entry).map_err(usage)?;
    Ok(format!("{token}\n"))
}

fn listed(args: &List, config: &auth::Config) -> Result<String, CliError> {
    let entries = config.entries().map_err(|e| CliError::Usage(e.to_string()))?;
    if args.json {
        return json(&entries);
    }
    let columns = [
        ("ID", Align::Left),
        ("SCOPES", Align::Left),
        ("REQUESTS/s", Align::Right),
        ("AT ONCE", Align::Right),
    ];
    let row = |entry: &KeyEntry| {
        let scopes: Vec<&str> = entry.scopes.iter().map(|scope| scope.name()).collect();
        let number = |number: Option<String>| number.unwrap_or_else(|| "–".to_owned());
        vec![
            entry.id.to_string(),
            scopes.join(","),
            number(entry.requests_per_second.map(|rate| rate.to_string())),
            number(entry.at_once().map(|burst| burst.to_string())),
        ]
    };
    Ok(table(&columns, &entries.iter().map(row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn new(line: &str) -> Result<String, String> {
        let words = ["keys", "new"].into_iter().chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::New(new) = parsed.args.command else {
            panic!("another command");
        };
        made(&new).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_a_token_and_a_line() {
        let text = new("--id ann --scopes predict,feedback --requests-per-second 2.5").unwrap();
        let (token, line) = text.trim_end().split_once('\n').unwrap();
        let entry: KeyEntry = serde_json::from_str(line).unwrap();
        assert_eq!(entry.hash, auth::KeyHash::of(token.as_bytes()));
        assert_eq!(
            (entry.id.as_str(), &*entry.scopes, entry.at_once()),
            ("ann", &[Scope::Predict, Scope::Feedback][..], Some(3))
        );
        assert!(!line.contains(token));
        for (wrong, part) in [
            ("--id ann", "--scopes"),
            ("--id a/b --scopes admin", "1 to 64"),
            ("--id ann --scopes root", "a scope is predict"),
            ("--id ann --scopes admin --burst 3", "--requests-per-second"),
            ("--id ann --scopes admin --requests-per-second 0", "0.001 to"),
        ] {
            let error = new(wrong).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_file_grows_by_a_line_and_takes_no_id_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let append = |id: &str| new(&format!("--id {id} --scopes admin --append {}", path.display()));
        let token = append("ann").unwrap();
        assert_eq!(token.lines().count(), 1);
        append("bob").unwrap();
        let before = fs::read_to_string(&path).unwrap();
        assert!(append("ann").unwrap_err().contains("ann: the id stands twice"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        let config = auth::Config {
            keys_file: path.clone(),
            ..auth::Config::default()
        };
        let text = listed(&List { json: false }, &config).unwrap();
        assert!(
            text.contains("\nann  admin") && text.contains("\nbob  admin"),
            "{text}"
        );
        let text = listed(&List { json: true }, &config).unwrap();
        let entries: Vec<KeyEntry> = serde_json::from_str(&text).unwrap();
        assert_eq!(entries[0].hash, auth::KeyHash::of(token.trim_end().as_bytes()));
    }
}
