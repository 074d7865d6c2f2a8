//! `sconce bench engine`: inference alone, timed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::RangedI64ValueParser;

use crate::config::Config;
use crate::engine::{self, DeviceChoice, EngineError, Plan, Precision, Reference, Target};
use crate::model::{Graph, Input, ModelName, Version, Weights, arch};

use super::super::table::json;
use super::super::version::{self, data, engine as failed};
use super::super::{CliError, print, write};
use super::chart;
use super::measure::{Course, Subject};
use super::report::Report;

/// Flags of `sconce bench engine`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A model of the folder [default: as for sconce predict]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["arch", "input", "classes"])]
    model: Option<ModelName>,
    /// Its version [default: the champion]
    #[arg(long, value_name = "N", conflicts_with_all = ["arch", "input", "classes"])]
    version: Option<Version>,
    /// An architecture instead, with random initial weights
    #[arg(long, value_name = "NAME", requires = "input", requires = "classes")]
    arch: Option<String>,
    /// Its input, such as 3x224x224
    #[arg(long, value_name = "CxHxW", value_parser = shape, requires = "arch")]
    input: Option<Input>,
    /// Its classes
    #[arg(long, value_name = "N", value_parser = count(2, 100_000), requires = "arch")]
    classes: Option<u32>,
    /// Where to compute: cpu, cuda:N or auto [default: engine.device]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// In what a GPU computes: f32, f16 or bf16 [default: engine.precision]
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,
    /// Images per call
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,32,128", value_parser = count(1, 4096))]
    batches: Vec<u32>,
    /// Parallel instances, each on a thread of its own [default: 1 and one per core, or 1 and 2 on a GPU]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = count(1, 1024))]
    threads: Vec<u32>,
    /// Times that every point is visited
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = count(1, 1000))]
    rounds: u32,
    /// Seconds for each point and round; at least one call is timed
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = seconds)]
    seconds: f64,
    /// Also write everything as JSON; - is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the figures
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with an earlier --json; only a change beyond the noise of both runs is told as one
    #[arg(long, value_name = "FILE.json")]
    baseline: Option<PathBuf>,
    /// Time the same network in stock candle too, in the same rounds
    #[arg(long)]
    reference: bool,
}

/// Longest side of an input, and most channels.
const MAX_SIDE: usize = 4096;
/// Largest baseline that is read.
const MAX_BASELINE_BYTES: u64 = 16 << 20;

/// Runs it.
pub(super) fn run(args: &Args, config: &Config) -> Result<(), CliError> {
    let baseline = args.baseline.as_deref().map(read).transpose()?;
    let report = report(args, config, baseline.as_ref())?;
    if let Some(path) = &args.svg {
        write(path, &chart::svg(&report)?)?;
    }
    match &args.json {
        Some(path) if path == Path::new("-") => return print(&json(&report)?),
        Some(path) => write(path, &json(&report)?)?,
        None => (),
    }
    print(&report.text(baseline.as_ref()))
}

/// Measures, unless the figures could not be compared with the `baseline`.
fn report(args: &Args, config: &Config, baseline: Option<&Report>) -> Result<Report, CliError> {
    let network = Network::of(args, config)?;
    let target = args.target(config)?;
    let isa = target.device.is_cpu().then(|| target.options.instructions.isa());
    let unit = isa.map_or_else(|| target.to_string(), |isa| isa.to_string());
    let mut report = network.blank(unit, args.seconds);
    baseline.map_or(Ok(()), |baseline| comparable(baseline, &report))?;
    let subject = network.compile(&target, args.reference).map_err(failed)?;
    let (batches, threads) = (sizes(&args.batches), args.threads(&subject.plan));
    let course = Course {
        batches: &batches,
        threads: &threads,
        rounds: args.rounds as usize,
        duration: Duration::from_secs_f64(args.seconds),
    };
    (report.points, report.peaks) = subject.points(&course, isa).map_err(failed)?;
    Ok(report.with_figures())
}

/// A network with weights.
struct Network {
    name: String,
    version: Version,
    graph: Graph,
    weights: Weights,
}

impl Network {
    fn of(args: &Args, config: &Config) -> Result<Self, CliError> {
        if let (Some(name), Some(input), Some(classes)) = (&args.arch, args.input, args.classes) {
            let graph = arch::build(name, input, classes as usize).map_err(data)?;
            return Ok(Self {
                name: name.clone(),
                version: Version::FIRST,
                weights: Weights::initialise(&graph, 0).map_err(data)?,
                graph,
            });
        }
        let loaded = version::load(config, args.model.as_ref(), args.version)?;
        Ok(Self {
            name: format!("{} version {}", loaded.name, loaded.version),
            version: loaded.version,
            graph: loaded.graph,
            weights: loaded.weights,
        })
    }

    fn compile(&self, target: &Target, reference: bool) -> Result<Subject, EngineError> {
        let (graph, weights) = (&self.graph, &self.weights);
        let reference = reference.then(|| Reference::new(graph, weights, &target.device));
        Ok(Subject {
            input: graph.input,
            plan: Plan::compile(self.version, graph, weights, target)?,
            reference: reference.transpose()?,
        })
    }

    /// A report without points, of what computes on `unit`.
    fn blank(&self, unit: String, seconds: f64) -> Report {
        let Input {
            channels,
            height,
            width,
        } = self.graph.input;
        Report {
            format: Report::FORMAT,
            sconce: env!("CARGO_PKG_VERSION").to_owned(),
            subject: self.name.clone(),
            input: format!("{channels}×{height}×{width}"),
            isa: unit,
            flops_per_image: self.graph.flops(),
            seconds,
            peaks: Vec::new(),
            points: Vec::new(),
        }
    }
}

impl Args {
    fn target(&self, config: &Config) -> Result<Target, CliError> {
        let chosen = engine::Config {
            device: self.device.unwrap_or(config.engine.device),
            precision: self.precision.unwrap_or(config.engine.precision),
            ..config.engine.clone()
        };
        chosen.open().map_err(failed)
    }

    fn threads(&self, plan: &Plan) -> Vec<usize> {
        if self.threads.is_empty() {
            return sizes(&[1, u32::try_from(plan.instances(0)).unwrap_or(1)]);
        }
        sizes(&self.threads)
    }
}

/// Ascending, each once.
fn sizes(numbers: &[u32]) -> Vec<usize> {
    let mut sizes: Vec<usize> = numbers.iter().map(|&number| number as usize).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// An earlier report.
fn read(path: &Path) -> Result<Report, CliError> {
    let told = |problem: String| CliError::Data(format!("{}: {problem}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| told(e.to_string()))?;
    file.take(MAX_BASELINE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| told(e.to_string()))?;
    let report: Report = serde_json::from_slice(&bytes).map_err(|e| told(e.to_string()))?;
    if report.format != Report::FORMAT {
        return Err(told(format!(
            "has format {}; {} is read",
            report.format,
            Report::FORMAT
        )));
    }
    Ok(report)
}

/// Figures of two networks say nothing of each other; nor do those of two kinds of processor or precisions.
fn comparable(baseline: &Report, report: &Report) -> Result<(), CliError> {
    let same = |what: &str, before: &str, now: &str| {
        if before == now {
            return Ok(());
        }
        Err(CliError::Data(format!(
            "the baseline has the {what} {before}, not {now}"
        )))
    };
    let network = |report: &Report| format!("{} of {} FLOP", report.input, report.flops_per_image);
    same("input", &network(baseline), &network(report))?;
    same("vector instructions", &baseline.isa, &report.isa)
}

/// A whole number in a range, both ends included.
fn count(low: u32, high: u32) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(low)..=i64::from(high))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("0 to 60 is expected".to_owned()),
    }
}

fn shape(text: &str) -> Result<Input, String> {
    let sides: Result<Vec<usize>, _> = text.split(['x', '×']).map(str::parse).collect();
    match sides.as_deref() {
        Ok(
            &[
                channels @ 1..=MAX_SIDE,
                height @ 1..=MAX_SIDE,
                width @ 1..=MAX_SIDE,
            ],
        ) => Ok(Input {
            channels,
            height,
            width,
        }),
        _ => Err(format!(
            "CxHxW is expected, such as 3x224x224, each 1 to {MAX_SIDE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::fixture::Models;
    use super::super::report::Executor;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Result<Args, clap::Error> {
        let all = ["engine"].iter().chain(flags);
        Line::try_parse_from(all).map(|line| line.args)
    }

    const QUICK: [&str; 4] = ["--rounds", "3", "--seconds", "0"];

    #[test]
    fn every_executor_batch_and_count_of_threads_is_a_point_of_all_rounds() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let flags = [
            "--model",
            "tiny",
            "--batches",
            "3,1,3",
            "--threads",
            "2,1",
            "--reference",
        ];
        let args = args(&[&flags[..], &QUICK].concat()).unwrap();
        let report = report(&args, &models.config(), None).unwrap();
        assert_eq!(report.subject, "tiny version 1");
        let places: Vec<_> = report
            .points
            .iter()
            .map(|point| {
                (
                    point.executor,
                    point.threads,
                    point.batch,
                    point.us_per_image.len(),
                )
            })
            .collect();
        let of =
            |executor| [(1, 1), (1, 3), (2, 1), (2, 3)].map(|(threads, batch)| (executor, threads, batch, 3));
        assert_eq!(places, [of(Executor::Plan), of(Executor::Candle)].concat());
        assert_eq!(
            report.peaks.iter().map(|peak| peak.threads).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(
            report
                .points
                .iter()
                .all(|point| point.figures.share_of_peak > Some(0.0))
        );
    }

    #[test]
    fn what_is_written_is_a_baseline_for_the_same_network_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let of = |input: &str, baseline: Option<&Report>| {
            let flags = [
                "--arch",
                "small-cnn",
                "--classes",
                "3",
                "--input",
                input,
                "--batches",
                "1",
            ];
            let args = args(&[&flags[..], &QUICK].concat()).unwrap();
            report(&args, &Config::default(), baseline)
        };
        let first = of("1x8x8", None).unwrap();
        write(&path, &json(&first).unwrap()).unwrap();
        let baseline = read(&path).unwrap();
        assert_eq!(baseline, first);
        of("1x8x8", Some(&baseline)).unwrap();
        let error = of("1x9x8", Some(&baseline)).unwrap_err().to_string();
        assert!(error.contains("1×8×8") && error.contains("1×9×8"), "{error}");
        write(&path, "{}").unwrap();
        assert!(matches!(read(&path), Err(CliError::Data(_))));
    }

    #[test]
    fn flags_outweigh_the_configuration_of_the_device() {
        let target = |flags: &[&str]| args(flags).unwrap().target(&Config::default());
        let cpu = target(&["--device", "cpu"]).unwrap();
        assert_eq!(cpu.to_string(), "cpu f32");
        let error = target(&["--device", "cpu", "--precision", "f16"]).unwrap_err();
        assert!(matches!(error, CliError::Usage(_)), "{error}");
    }

    #[test]
    fn values_outside_their_ranges_are_refused() {
        let check = |flags: &[&str], expected: bool| assert_eq!(args(flags).is_ok(), expected, "{flags:?}");
        let arch = ["--arch", "resnet18", "--classes", "10", "--input"];
        check(&[], true);
        check(&[&arch[..], &["3x224x224"]].concat(), true);
        check(&[&arch[..], &["3x224"]].concat(), false);
        check(&[&arch[..], &["0x224x224"]].concat(), false);
        check(&arch[..4], false);
        check(&["--input", "3x224x224"], false);
        check(&[&arch[..], &["3x224x224", "--model", "mnist"]].concat(), false);
        check(&["--batches", "0"], false);
        check(&["--batches", "1,4097"], false);
        check(&["--threads", "0"], false);
        check(&["--device", "cuda:1", "--precision", "bf16"], true);
        check(&["--device", "gpu"], false);
        check(&["--precision", "f8"], false);
        check(&["--rounds", "0"], false);
        check(&["--seconds", "-1"], false);
        check(&["--seconds", "NaN"], false);
    }
}
