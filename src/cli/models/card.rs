//! `sconce models card`.

use crate::card::Card;
use crate::config::Config;
use crate::model::{ModelName, Version};

use super::super::version::{data, registry};
use super::super::{CliError, print};

/// Flags of `sconce models card`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// Its version [default: the champion]
    version: Option<Version>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    print(&text(args, config)?)
}

fn text(args: &Args, config: &Config) -> Result<String, CliError> {
    let registry = registry(config)?;
    let version = match args.version {
        Some(version) => version,
        None => registry
            .entry(&args.name)
            .and_then(|entry| entry.champion())
            .map_err(data)?,
    };
    let card = Card::of(&registry, &args.name, version).map_err(data)?;
    Ok(if args.json { card.json() } else { card.markdown() })
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::*;

    #[test]
    fn the_champions_card_is_printed_unless_a_version_is_named() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let args = |version: Option<u32>, json| Args {
            name: "tiny".parse().unwrap(),
            version: version.map(|number| number.try_into().unwrap()),
            json,
        };
        let card = text(&args(None, false), &models.config()).unwrap();
        assert!(
            card.starts_with("# tiny version 1 (champion)\n\nTiny\n"),
            "{card}"
        );
        let card = text(&args(Some(1), true), &models.config()).unwrap();
        let card: serde_json::Value = serde_json::from_str(&card).unwrap();
        assert_eq!((&card["model"], &card["version"]), (&"tiny".into(), &1.into()));
        assert!(matches!(
            text(&args(Some(7), false), &models.config()),
            Err(CliError::Data(_))
        ));
    }
}
