//! `sconce models show`.

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::model::graph::{Graph, Node, Op, ParamId, Pool};
use crate::model::{ModelName, Spec, Version};
use crate::registry::{Alias, Change, Entry, Manifest, Registry};

use super::super::table::{Align, json, table};
use super::super::version::{data, registry};
use super::super::{CliError, print};
use super::{history, or_dash};

/// Flags of `sconce models show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// Its version [default: the champion]
    #[arg(long, value_name = "N")]
    version: Option<Version>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    name: ModelName,
    /// Absent where none was asked for and there is no champion.
    version: Option<Version>,
    versions: Vec<Version>,
    champion: Option<Version>,
    challenger: Option<Version>,
    previous: Option<Version>,
    /// What made the champion the champion; absent where the history does not tell.
    promotion: Option<Change>,
    spec: Spec,
    parameters: usize,
    manifest: Option<Manifest>,
    /// The gate's latest verdict on the version.
    gate: Option<Value>,
    layers: Vec<Layer>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Layer {
    name: String,
    operation: String,
    /// What it gives for one image.
    output: String,
    /// Trained numbers.
    parameters: usize,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let shown = shown(&registry(config)?, &args.name, args.version)?;
    print(&if args.json { json(&shown)? } else { text(&shown)? })
}

fn shown(registry: &Registry, name: &ModelName, version: Option<Version>) -> Result<Shown, CliError> {
    let Entry {
        name,
        spec,
        versions,
        aliases,
    } = registry.entry(name).map_err(data)?;
    let version = version.or(aliases.champion);
    let manifest = version.map(|version| registry.manifest(&name, version));
    let gate = version.map(|version| registry.verdict(&name, version));
    let graph = spec.graph().map_err(data)?;
    Ok(Shown {
        promotion: promotion(registry, &name, aliases.champion)?,
        name,
        version,
        versions,
        champion: aliases.champion,
        challenger: aliases.challenger,
        previous: aliases.previous,
        spec,
        parameters: graph.parameters(),
        manifest: manifest.transpose().map_err(data)?,
        gate: gate.transpose().map_err(data)?.flatten(),
        layers: graph.nodes.iter().map(|node| Layer::of(node, &graph)).collect(),
    })
}

/// The latest change that made this version the champion.
fn promotion(
    registry: &Registry,
    name: &ModelName,
    champion: Option<Version>,
) -> Result<Option<Change>, CliError> {
    let made = |change: &Change| change.alias == Alias::Champion && change.to == champion;
    let history = registry.history(name).map_err(data)?;
    Ok(history.into_iter().rev().find(made))
}

impl Layer {
    fn of(node: &Node, graph: &Graph) -> Self {
        let numbers = |id: &ParamId| graph.param(*id).shape.iter().product::<usize>();
        Self {
            name: node.name.clone(),
            operation: operation(&node.op, graph),
            output: node.shape.to_string(),
            parameters: trained(&node.op).iter().map(numbers).sum(),
        }
    }
}

fn trained(op: &Op) -> Vec<ParamId> {
    match op {
        Op::Conv2d(conv) => std::iter::once(conv.weight).chain(conv.bias).collect(),
        Op::Linear { weight, bias } => std::iter::once(*weight).chain(*bias).collect(),
        Op::BatchNorm { weight, bias, .. } | Op::LayerNorm { weight, bias, .. } => vec![*weight, *bias],
        Op::Scale { weight } => vec![*weight],
        _ => Vec::new(),
    }
}

fn operation(op: &Op, graph: &Graph) -> String {
    let pool = |kind: &str, pool: &Pool| {
        let ([rows, columns], [down, right]) = (pool.kernel, pool.stride);
        format!("{kind} {rows}×{columns}, stride {down}×{right}")
    };
    match op {
        Op::Input => "input".to_owned(),
        Op::Conv2d(conv) => {
            let shape = &graph.param(conv.weight).shape;
            let [down, right] = conv.stride;
            let groups = if conv.groups == 1 {
                String::new()
            } else {
                format!(", {} groups", conv.groups)
            };
            format!("conv2d {}×{}, stride {down}×{right}{groups}", shape[2], shape[3])
        }
        Op::BatchNorm { .. } => "batch_norm".to_owned(),
        Op::LayerNorm { .. } => "layer_norm".to_owned(),
        Op::Scale { .. } => "layer_scale".to_owned(),
        Op::Linear { .. } => "linear".to_owned(),
        Op::Activation(activation) => format!("{activation:?}").to_lowercase(),
        Op::MaxPool(window) => pool("max_pool", window),
        Op::AvgPool(window) => pool("avg_pool", window),
        Op::GlobalAvgPool => "global_avg_pool".to_owned(),
        Op::Flatten => "flatten".to_owned(),
        Op::Dropout { p } => format!("dropout {p}"),
        Op::Add => "add".to_owned(),
        Op::Mul => "mul".to_owned(),
        Op::Concat => "concat".to_owned(),
        Op::Pad(_) => "pad".to_owned(),
    }
}

fn text(shown: &Shown) -> Result<String, CliError> {
    let (spec, input) = (&shown.spec, shown.spec.input);
    let versions: Vec<String> = shown.versions.iter().map(Version::to_string).collect();
    let mut lines = vec![
        ("model", shown.name.to_string()),
        ("description", spec.description.clone()),
        (
            "versions",
            if versions.is_empty() {
                "–".to_owned()
            } else {
                versions.join(", ")
            },
        ),
        ("champion", champion(shown)),
        ("challenger", or_dash(shown.challenger)),
        ("previous", or_dash(shown.previous)),
        (
            "architecture",
            format!("{}, {} parameters", spec.architecture, shown.parameters),
        ),
        (
            "input",
            format!("{}×{}×{}", input.channels, input.height, input.width),
        ),
        (
            "labels",
            format!("{}: {}", spec.labels.len(), spec.labels.join(", ")),
        ),
        ("preprocess", one_line(&spec.preprocess)?),
        ("augment", one_line(&spec.augment)?),
    ];
    if let (Some(version), Some(manifest)) = (shown.version, &shown.manifest) {
        lines.push(("version", version.to_string()));
        lines.extend(of_manifest(manifest));
    }
    lines.extend(shown.gate.as_ref().map(|verdict| ("gate", gate(verdict))));
    let line = |(name, value): &(&str, String)| format!("{}\n", format!("{name:13} {value}").trim_end());
    Ok(lines.iter().map(line).collect::<String>() + "\n" + &layers(&shown.layers))
}

/// The champion, since when, and with what right.
fn champion(shown: &Shown) -> String {
    let version = or_dash(shown.champion);
    let Some(change) = &shown.promotion else {
        return version;
    };
    let reason = change.reason.as_ref().map(|reason| format!(": {reason}"));
    let text = format!(
        "{version}, {} of {} by {}, gate {}{}",
        change.action.name(),
        change.at,
        change.by,
        history::gate(change),
        reason.unwrap_or_default()
    );
    // What people wrote may hold control characters, which a terminal would obey.
    text.replace(char::is_control, "\u{fffd}")
}

/// A verdict that was kept, in a line; every number is for `--json`.
fn gate(verdict: &Value) -> String {
    let blessed = verdict["blessed"] == true;
    let word = if blessed { "blessed" } else { "refused" };
    let reasons = verdict["reasons"].as_array();
    let first = reasons.and_then(|all| all.first()).and_then(Value::as_str);
    format!(
        "{word} over version {} on {} images, {}{}",
        verdict["champion_version"],
        verdict["n"],
        verdict["at"].as_str().unwrap_or("–"),
        first.map_or(String::new(), |reason| format!(": {reason}"))
    )
}

fn of_manifest(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let weights = &manifest.weights;
    let origin = match manifest.training.get("imported") {
        Some(source) => ("imported", imported(source)),
        None => (
            "trained by",
            format!("sconce {}, seed {}", manifest.sconce, manifest.seed),
        ),
    };
    let mut lines = vec![
        ("weights", format!("{}, {} bytes", weights.file, weights.bytes)),
        ("sha256", weights.sha256.clone()),
        origin,
        ("parent", parent(manifest)),
        ("command", manifest.command.clone()),
        ("data", scalars(&manifest.data)),
    ];
    if let Some(parts) = manifest.evaluation.as_object() {
        let figures =
            |(part, value): (&String, &Value)| ("evaluation", format!("{part}: {}", scalars(value)));
        lines.extend(parts.iter().map(figures));
    }
    lines
}

/// The version that training began from, with its model where that is another.
fn parent(manifest: &Manifest) -> String {
    match (&manifest.parent_model, manifest.parent) {
        (Some(model), Some(version)) => format!("{model} {version}"),
        (_, version) => or_dash(version),
    }
}

/// The file as it came.
fn imported(source: &Value) -> String {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or("–");
    format!("{}, sha256 {}", text("file"), text("sha256"))
}

/// The numbers and texts of an object; what is nested is for `--json`.
fn scalars(value: &Value) -> String {
    let Some(object) = value.as_object() else {
        return if value.is_null() {
            "–".to_owned()
        } else {
            value.to_string()
        };
    };
    let plain = object.iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some(format!("{key} {text}")),
        Value::Number(number) if number.is_f64() => Some(format!("{key} {:.4}", number.as_f64()?)),
        Value::Number(_) | Value::Bool(_) => Some(format!("{key} {value}")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    });
    plain.collect::<Vec<_>>().join(", ")
}

/// TOML's `key = value`, one after another.
fn one_line<T: Serialize>(value: &T) -> Result<String, CliError> {
    let text = toml::to_string(value).map_err(|e| CliError::Failed(e.to_string()))?;
    Ok(text.lines().collect::<Vec<_>>().join(", "))
}

fn layers(layers: &[Layer]) -> String {
    let columns = [
        ("LAYER", Align::Left),
        ("OPERATION", Align::Left),
        ("OUTPUT", Align::Left),
        ("PARAMETERS", Align::Right),
    ];
    let row = |layer: &Layer| {
        vec![
            layer.name.clone(),
            layer.operation.clone(),
            layer.output.clone(),
            layer.parameters.to_string(),
        ]
    };
    table(&columns, &layers.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Models;
    use super::*;
    use crate::registry::{Author, Finding, Grounds, Promotion};

    fn tiny(models: &Models, version: Option<Version>) -> Result<Shown, CliError> {
        shown(
            &Registry::open(models.path()).unwrap(),
            &"tiny".parse().unwrap(),
            version,
        )
    }

    #[test]
    fn layers_account_for_every_parameter() {
        let shown = tiny(&Models::new(&["tiny"]), None).unwrap();
        assert_eq!(
            shown.layers.iter().map(|layer| layer.parameters).sum::<usize>(),
            shown.parameters
        );
        assert_eq!(
            (&*shown.layers[0].operation, &*shown.layers[0].output),
            ("input", "1×8×8")
        );
        assert!(shown.layers[1].operation.starts_with("conv2d 3×3, stride 1×1"));
        assert_eq!(shown.layers.last().unwrap().output, "3");
        assert!(shown.manifest.is_none() && text(&shown).unwrap().contains("\nchampion      –\n"));
    }

    #[test]
    fn a_champion_is_shown_with_its_right() {
        let models = Models::new(&["tiny"]);
        let (first, second) = (models.publish("tiny", 1), models.publish("tiny", 2));
        let (registry, name) = (Registry::open(models.path()).unwrap(), "tiny".parse().unwrap());
        let author = |reason: &str| Author {
            by: "me".to_owned(),
            reason: Some(reason.to_owned()),
        };
        registry
            .set_alias(&name, Alias::Champion, Some(first), &author("first"))
            .unwrap();
        let promotion = Promotion {
            author: author("a\nb"),
            grounds: Grounds::Forced {
                finding: Finding::Refused,
            },
        };
        registry.promote(&name, second, &promotion).unwrap();
        let verdict = serde_json::json!({
            "blessed": false, "reasons": ["worse", "slow"], "champion_version": 1, "n": 9, "at": "then",
        });
        registry.keep_verdict(&name, second, &verdict).unwrap();
        let shown = tiny(&models, None).unwrap();
        let text = text(&shown).unwrap();
        for line in [
            "\nchampion      2, promote of 20",
            " by me, gate refused, forced: a\u{fffd}b\nchallenger    –\nprevious      1\n",
            "\ngate          refused over version 1 on 9 images, then: worse\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let value: Value = serde_json::from_str(&json(&shown).unwrap()).unwrap();
        assert_eq!((&value["previous"], &value["gate"]["n"]), (&1.into(), &9.into()));
        assert_eq!(value["promotion"]["verdict"], "refused");
    }

    #[test]
    fn a_version_is_shown_with_its_manifest() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let second = models.publish("tiny", 2);
        let shown = tiny(&models, Some(second)).unwrap();
        let text = text(&shown).unwrap();
        for line in [
            "version       2",
            "sha256        ",
            "command       sconce train --model tiny",
            "trained by    sconce 0.1.0, seed 2",
            "evaluation    test: accuracy 0.7500, n 4",
            "labels        3: a, b, c",
        ] {
            assert!(text.contains(&format!("\n{line}")), "{line} is not in\n{text}");
        }
        let value: Value = serde_json::from_str(&json(&shown).unwrap()).unwrap();
        assert_eq!(value["manifest"]["seed"], 2);
        assert_eq!(value["layers"].as_array().unwrap().len(), shown.layers.len());
        let missing = second.next();
        assert!(matches!(tiny(&models, missing), Err(CliError::Data(_))));
    }
}
