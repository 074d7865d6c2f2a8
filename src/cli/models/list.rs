//! `sconce models list`.

use serde::Serialize;

use crate::config::Config;
use crate::model::{ModelName, Version};
use crate::registry::{Entry, Registry};

use super::super::table::{Align, json, table};
use super::super::version::{data, registry};
use super::super::{CliError, print};
use super::or_dash;

/// Flags of `sconce models list`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, PartialEq, Serialize)]
struct Listed {
    name: ModelName,
    /// Answers requests that name no model.
    default: bool,
    description: String,
    architecture: String,
    parameters: usize,
    classes: usize,
    versions: Vec<Version>,
    champion: Option<Version>,
    /// The champion's, from its manifest.
    accuracy: Option<f64>,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let registry = registry(config)?;
    // Models that quarrel about being the default are listed all the same, and the quarrel is told at the end.
    let default = registry.default_model(config.default_model.as_ref());
    let listed = listed(&registry, default.as_ref().ok())?;
    print(&if args.json { json(&listed)? } else { text(&listed) })?;
    default.map(drop).map_err(data)
}

fn listed(registry: &Registry, default: Option<&ModelName>) -> Result<Vec<Listed>, CliError> {
    let one = |entry: Entry| -> Result<Listed, CliError> {
        let (spec, champion) = (entry.spec, entry.aliases.champion);
        let graph = spec
            .graph()
            .map_err(|e| CliError::Data(format!("{}: {e}", entry.name)))?;
        let manifest = champion.map(|version| registry.manifest(&entry.name, version));
        let accuracy = manifest
            .transpose()
            .map_err(data)?
            .and_then(|manifest| manifest.accuracy());
        Ok(Listed {
            default: default == Some(&entry.name),
            name: entry.name,
            description: spec.description,
            architecture: spec.architecture,
            parameters: graph.parameters(),
            classes: spec.labels.len(),
            versions: entry.versions,
            champion,
            accuracy,
        })
    };
    let entries = registry.list().map_err(data)?;
    entries.into_iter().map(one).collect()
}

fn text(listed: &[Listed]) -> String {
    let columns = [
        ("NAME", Align::Left),
        ("VERSIONS", Align::Left),
        ("CHAMPION", Align::Right),
        ("ARCHITECTURE", Align::Left),
        ("PARAMETERS", Align::Right),
        ("ACCURACY", Align::Right),
        ("DEFAULT", Align::Left),
    ];
    let row = |model: &Listed| {
        vec![
            model.name.to_string(),
            versions(&model.versions),
            or_dash(model.champion),
            model.architecture.clone(),
            model.parameters.to_string(),
            or_dash(model.accuracy.map(|accuracy| format!("{accuracy:.4}"))),
            if model.default { "yes" } else { "" }.to_owned(),
        ]
    };
    table(&columns, &listed.iter().map(row).collect::<Vec<_>>())
}

/// `1, 2, 3`, and of many the last.
fn versions(versions: &[Version]) -> String {
    const SHOWN: usize = 5;
    let shown = &versions[versions.len().saturating_sub(SHOWN)..];
    let texts: Vec<String> = shown.iter().map(Version::to_string).collect();
    match (texts.is_empty(), versions.len() - shown.len()) {
        (true, _) => "–".to_owned(),
        (false, 0) => texts.join(", "),
        (false, more) => format!("{} (and {more} before)", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::*;

    #[test]
    fn models_are_listed_with_their_champions() {
        let models = Models::new(&["tiny", "bare", "both"]);
        models.publish("tiny", 1);
        for seed in 1..=7 {
            models.publish("both", seed);
        }
        let registry = Registry::open(models.path()).unwrap();
        let listed = listed(&registry, Some(&"tiny".parse().unwrap())).unwrap();
        let parameters = listed[0].parameters;
        let expected = format!(
            "\
NAME  VERSIONS                      CHAMPION  ARCHITECTURE  PARAMETERS  ACCURACY  DEFAULT
bare  –                                    –  small-cnn          {parameters}         –
both  3, 4, 5, 6, 7 (and 2 before)         –  small-cnn          {parameters}         –
tiny  1                                    1  small-cnn          {parameters}    0.7500  yes
"
        );
        assert_eq!(text(&listed), expected);
        let value = serde_json::to_value(&listed).unwrap();
        assert_eq!(value[1]["versions"].as_array().unwrap().len(), 7);
        assert_eq!(
            (value[2]["default"].as_bool(), value[2]["accuracy"].as_f64()),
            (Some(true), Some(0.75))
        );
    }
}
