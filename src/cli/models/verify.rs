//! `sconce models verify`.

use serde::Serialize;

use crate::config::Config;
use crate::engine::{Plan, Target, check_golden, prepare_thread};
use crate::model::{ModelName, Version};
use crate::registry::{Entry, Registry};

use super::super::table::{Align, json, table};
use super::super::version::{data, engine, registry};
use super::super::{CliError, print};
use super::or_dash;

/// Flags of `sconce models verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model [default: all]
    name: Option<ModelName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One version's verdict; a model without versions has one line of its own.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    name: ModelName,
    version: Option<Version>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let registry = registry(config)?;
    let target = config.engine.open().map_err(engine)?;
    prepare_thread();
    let verdicts = verdicts(&registry, args.name.as_ref(), &target)?;
    print(&if args.json {
        json(&verdicts)?
    } else {
        text(&verdicts)
    })?;
    let bad = verdicts.iter().filter(|verdict| verdict.error.is_some()).count();
    if bad == 0 {
        return Ok(());
    }
    let versions = verdicts
        .iter()
        .filter(|verdict| verdict.version.is_some())
        .count();
    Err(CliError::Data(format!(
        "{bad} of {versions} versions cannot be served"
    )))
}

fn verdicts(
    registry: &Registry,
    name: Option<&ModelName>,
    target: &Target,
) -> Result<Vec<Verdict>, CliError> {
    let entries = match name {
        Some(name) => vec![registry.entry(name).map_err(data)?],
        None => registry.list().map_err(data)?,
    };
    let of_model = |entry: Entry| -> Vec<Verdict> {
        let verdict = |version, error| Verdict {
            name: entry.name.clone(),
            version,
            error,
        };
        if entry.versions.is_empty() {
            return vec![verdict(None, None)];
        }
        let one = |&version: &Version| {
            verdict(
                Some(version),
                verify(registry, &entry.name, version, target).err(),
            )
        };
        entry.versions.iter().map(one).collect()
    };
    Ok(entries.into_iter().flat_map(of_model).collect())
}

/// As a server would load it, with its golden answers.
fn verify(registry: &Registry, name: &ModelName, version: Version, target: &Target) -> Result<(), String> {
    let loaded = registry.load(name, version).map_err(|e| e.to_string())?;
    let plan = Plan::compile(version, &loaded.graph, &loaded.weights, target).map_err(|e| e.to_string())?;
    let (graph, weights) = (&loaded.graph, &loaded.weights);
    check_golden(&plan, graph, weights, target.precision).map_err(|e| e.to_string())
}

fn text(verdicts: &[Verdict]) -> String {
    let columns = [
        ("NAME", Align::Left),
        ("VERSION", Align::Right),
        ("RESULT", Align::Left),
    ];
    let row = |verdict: &Verdict| {
        let result = match (&verdict.error, verdict.version) {
            (Some(error), _) => format!("bad: {error}"),
            (None, Some(_)) => "ok".to_owned(),
            (None, None) => "has no version".to_owned(),
        };
        vec![verdict.name.to_string(), or_dash(verdict.version), result]
    };
    table(&columns, &verdicts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::*;
    use crate::engine::device::Device;

    #[test]
    fn each_version_has_a_verdict() {
        let models = Models::new(&["bare", "tiny"]);
        let (good, damaged) = (models.publish("tiny", 1), models.publish("tiny", 2));
        models.damage("tiny", damaged);
        let registry = Registry::open(models.path()).unwrap();
        let cpu = Target::from(&Device::Cpu);
        let all = verdicts(&registry, None, &cpu).unwrap();
        let versions: Vec<Option<Version>> = all.iter().map(|verdict| verdict.version).collect();
        assert_eq!(versions, [None, Some(good), Some(damaged)]);
        assert_eq!((&all[0].error, &all[1].error), (&None, &None));
        assert!(all[2].error.as_ref().unwrap().contains("sha256 is"));
        let text = text(&all);
        assert!(
            text.contains("bare        –  has no version\ntiny        1  ok\ntiny        2  bad: "),
            "{text}"
        );
        assert_eq!(verdicts(&registry, Some(&all[1].name), &cpu).unwrap(), all[1..]);
        let unknown = "other".parse().unwrap();
        assert!(verdicts(&registry, Some(&unknown), &cpu).is_err());
    }
}
