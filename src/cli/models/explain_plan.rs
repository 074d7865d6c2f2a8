//! `sconce models explain-plan`.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::Config;
use crate::engine::{LayerCost, Plan, prepare_thread};
use crate::model::{ModelName, Version};

use super::super::table::{Align, json, table};
use super::super::version::{Which, compile, load};
use super::super::{CliError, print, write};

mod picture;

/// Flags of `sconce models explain-plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model
    name: ModelName,
    /// Its version [default: the champion]
    #[arg(long, value_name = "N")]
    version: Option<Version>,
    /// Images in the batch that is timed
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Runs whose median time is shown
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,
    /// Write a picture of where the time goes, SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    which: Which,
    /// Images in the batch that was timed.
    batch: u16,
    /// The vector instructions in use.
    instructions: String,
    /// For one image of the batch, in order.
    layers: Vec<LayerCost>,
}

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    prepare_thread();
    let loaded = load(config, Some(&args.name), args.version)?;
    let plan = compile(config, &loaded)?;
    let explained = explain(&plan, Which::from(&loaded), args)?;
    if let Some(path) = &args.svg {
        let title = format!("{} version {}", explained.which.name, explained.which.version);
        write(path, &picture::svg(&title, &explained.layers))?;
    }
    print(&if args.json {
        json(&explained)?
    } else {
        text(&explained)
    })
}

fn explain(plan: &Plan, which: Which, args: &Args) -> Result<Explained, CliError> {
    let layers = plan.explain(args.batch.into(), args.rounds.into());
    let Some(instructions) = plan.instructions() else {
        return Err(CliError::Usage(
            "a plan is explained on the CPU: ask for --set engine.device=cpu".to_owned(),
        ));
    };
    Ok(Explained {
        which,
        batch: args.batch,
        instructions,
        layers,
    })
}

fn text(explained: &Explained) -> String {
    let columns = [
        ("LAYER", Align::Left),
        ("KERNEL", Align::Left),
        ("OUTPUT", Align::Left),
        ("MFLOP", Align::Right),
        ("KB", Align::Right),
        ("µs", Align::Right),
        ("SHARE", Align::Right),
        ("GFLOP/s", Align::Right),
    ];
    let total = Total::of(&explained.layers);
    let figures = |flops: u64, bytes: u64, seconds: f64| {
        vec![
            format!("{:.2}", flops as f64 / 1e6),
            format!("{:.0}", bytes as f64 / 1e3),
            format!("{:.1}", seconds * 1e6),
            format!("{:.1} %", 100.0 * seconds / total.seconds.max(f64::MIN_POSITIVE)),
            format!("{:.1}", flops as f64 / seconds.max(f64::MIN_POSITIVE) / 1e9),
        ]
    };
    let row = |layer: &LayerCost| {
        let mut row = vec![layer.name.clone(), layer.kernel.clone(), layer.output.clone()];
        row.extend(figures(layer.flops, layer.bytes, layer.seconds));
        row
    };
    let mut rows: Vec<Vec<String>> = explained.layers.iter().map(row).collect();
    let mut last = vec!["total".to_owned(), String::new(), String::new()];
    last.extend(figures(total.flops, total.bytes, total.seconds));
    rows.push(last);
    format!(
        "{} version {}: {} layers in {}, for one image of a batch of {}\n\n{}",
        explained.which.name,
        explained.which.version,
        explained.layers.len(),
        explained.instructions,
        explained.batch,
        table(&columns, &rows)
    )
}

/// Sums over the layers.
struct Total {
    flops: u64,
    bytes: u64,
    seconds: f64,
}

impl Total {
    fn of(layers: &[LayerCost]) -> Self {
        Self {
            flops: layers.iter().map(|layer| layer.flops).sum(),
            bytes: layers.iter().map(|layer| layer.bytes).sum(),
            seconds: layers.iter().map(|layer| layer.seconds).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_are_of_the_whole() {
        let layer = |name: &str, flops: u64, seconds: f64| LayerCost {
            name: name.to_owned(),
            kernel: "conv 3×3 + relu".to_owned(),
            output: "8×4×4".to_owned(),
            flops,
            bytes: 2000,
            seconds,
        };
        let explained = Explained {
            which: Which {
                name: "digits".parse().unwrap(),
                version: Version::FIRST,
            },
            batch: 1,
            instructions: "portable".to_owned(),
            layers: vec![layer("conv1", 3_000_000, 30e-6), layer("conv2", 1_000_000, 10e-6)],
        };
        let text = text(&explained);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "digits version 1: 2 layers in portable, for one image of a batch of 1"
        );
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cells(lines[3])[6..], ["3.00", "2", "30.0", "75.0", "%", "100.0"]);
        assert_eq!(
            cells(lines[5]),
            ["total", "4.00", "4", "40.0", "100.0", "%", "100.0"]
        );
        let value: serde_json::Value = serde_json::from_str(&json(&explained).unwrap()).unwrap();
        assert_eq!(value["layers"][1]["flops"], 1_000_000);
        assert_eq!((&value["name"], &value["version"]), (&"digits".into(), &1.into()));
    }
}
