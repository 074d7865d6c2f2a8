//! `sconce doctor`: what this machine can do, and how each version is served best on it.

use std::time::Duration;

use crate::config::Config;
use crate::engine::machine::{Machine, flushes_subnormals, load};
use crate::engine::timing::{peak_gflops, read_gbytes};
use crate::engine::tune::{Asked, Cache, Course, Key, Plans, Split, choose, measure};
use crate::engine::{Target, available_cores, prepare_thread};
use crate::kernels::Isa;
use crate::model::ModelName;
use crate::registry::{Entry, Loaded, Registry};

use super::table::json;
use super::version::{data, engine, registry};
use super::{CliError, Common, print};
use report::{Able, Examined, Figures, Report};

mod report;

/// Flags of `sconce doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this model [default: every model]
    #[arg(long, value_name = "NAME")]
    model: Option<ModelName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds for each version; larger batches are left out where they do not suffice
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
}

/// For one figure of the machine.
const LONGEST_FIGURE: Duration = Duration::from_millis(500);
/// Figures of the machine: two for one thread, two for all.
const FIGURES: u32 = 4;

/// Runs it. What is timed of a version is kept for `sconce serve`.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::config(common)?;
    if args.json {
        let report = examine(args, &config, |_| Ok(()))?;
        return print(&json(&report)?);
    }
    // Each part is printed when it is there: all together take long.
    examine(args, &config, |text| print(&text)).map(drop)
}

/// Measures everything, handing the text of each part to `tell`.
fn examine(
    args: &Args,
    config: &Config,
    tell: impl Fn(String) -> Result<(), CliError>,
) -> Result<Report, CliError> {
    prepare_thread();
    let registry = registry(config)?;
    let entries = entries(&registry, args.model.as_ref())?;
    let target = cpu(config)?;
    let before = load();
    let limit = Duration::from_secs_f64(args.seconds);
    let able = able(target.options.instructions.isa(), limit)?;
    tell(able.text())?;
    let mut examined = Vec::new();
    for entry in entries {
        for &version in &entry.versions {
            let loaded = registry.load(&entry.name, version).map_err(data)?;
            let version = version_on(&target, config, &loaded, limit)?;
            tell(version.text())?;
            examined.push(version);
        }
    }
    let busiest = before.into_iter().chain(load()).max_by(f64::total_cmp);
    let warnings = able.machine.warnings(busiest, flushes_subnormals());
    tell(report::warnings_text(&warnings))?;
    Ok(Report {
        format: Report::FORMAT,
        sconce: env!("CARGO_PKG_VERSION").to_owned(),
        machine: able,
        warnings,
        versions: examined,
    })
}

/// The configured device, which must be the CPU.
fn cpu(config: &Config) -> Result<Target, CliError> {
    let target = config.engine.open().map_err(engine)?;
    if target.device.is_cpu() {
        return Ok(target);
    }
    let text = "the CPU is examined: ask for --set engine.device=cpu";
    Err(CliError::Usage(text.to_owned()))
}

/// The model asked for, or every one.
fn entries(registry: &Registry, model: Option<&ModelName>) -> Result<Vec<Entry>, CliError> {
    match model {
        Some(name) => registry.entry(name).map(|entry| vec![entry]),
        None => registry.list(),
    }
    .map_err(data)
}

/// The machine, and the figures of one thread and of one for each core.
fn able(isa: Isa, limit: Duration) -> Result<Able, CliError> {
    let each = (limit / FIGURES).min(LONGEST_FIGURE);
    let cores = available_cores();
    let mut figures = Vec::new();
    for threads in [1, cores] {
        if figures.iter().all(|done: &Figures| done.threads != threads) {
            figures.push(Figures {
                threads,
                gflops: peak_gflops(isa, threads, each).map_err(engine)?,
                read_gbytes: read_gbytes(isa, threads, each).map_err(engine)?,
            });
        }
    }
    Ok(Able {
        machine: Machine::read(),
        used: isa.to_string(),
        figures,
    })
}

/// Times a version, chooses and keeps the timings.
fn version_on(
    target: &Target,
    config: &Config,
    loaded: &Loaded,
    limit: Duration,
) -> Result<Examined, CliError> {
    let (asked, cores) = (config.asked(), available_cores());
    let splits = splits(&asked, cores);
    let plans = Plans::new(loaded, target).for_splits(&splits).map_err(engine)?;
    let course = Course {
        at_least_one: true,
        ..Course::within(limit, &asked, splits.len())
    };
    let timings = measure(&plans, &asked, &course).map_err(engine)?;
    let choice = choose(&asked, cores, &timings);
    let choice = choice.ok_or_else(|| CliError::Failed("a split was not timed".to_owned()))?;
    let kept = Cache::new(&config.engine.cache).write(&Key::of(loaded, &target.options), &timings);
    Ok(Examined::new(loaded, &timings, choice, kept))
}

/// Every way to share the cores out, those beside what is set too: they show what setting it costs.
fn splits(asked: &Asked, cores: usize) -> Vec<Split> {
    let open = Asked {
        instances: 0,
        threads: 0,
        ..*asked
    };
    let mut splits = open.splits(cores);
    for split in asked.splits(cores) {
        if !splits.contains(&split) {
            splits.push(split);
        }
    }
    splits
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0 to 3600 is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::super::fixture::Models;
    use super::*;

    fn args(model: Option<&str>) -> Args {
        Args {
            model: model.map(|name| name.parse().unwrap()),
            json: false,
            seconds: 0.0,
        }
    }

    /// What is told and returned, with the cache in `cache`.
    fn examined(models: &Models, model: Option<&str>, cache: &Path) -> (String, Report) {
        let mut config = models.config();
        config.engine.cache = cache.to_owned();
        let told = RefCell::new(String::new());
        let tell = |text: String| {
            told.borrow_mut().push_str(&text);
            Ok(())
        };
        let report = examine(&args(model), &config, tell).unwrap();
        (told.into_inner(), report)
    }

    #[test]
    fn every_version_is_examined_and_kept() {
        let models = Models::new(&["one", "two"]);
        models.publish("one", 1);
        models.publish("one", 2);
        models.publish("two", 3);
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let (told, report) = examined(&models, None, &cache);
        let names: Vec<String> = report.versions.iter().map(Examined::title).collect();
        assert_eq!(names, ["one version 1", "one version 2", "two version 1"]);
        assert!(names.iter().all(|name| told.contains(name)), "{told}");
        let kept = std::fs::read_dir(&cache).unwrap().count();
        assert_eq!(kept, 3);
        for version in &report.versions {
            let choice = &version.choice;
            assert!(choice.split.instances * choice.split.threads <= available_cores());
            assert_eq!(choice.why.len(), 3);
            assert!(version.kept.as_ref().unwrap().starts_with(&cache));
            assert!(
                version
                    .timings
                    .iter()
                    .all(|timing| timing.images_per_second > 0.0)
            );
        }
        assert_eq!(examined(&models, Some("two"), &cache).1.versions.len(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_and_no_failure() {
        let models = Models::new(&["tiny"]);
        models.publish("tiny", 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        let (told, report) = examined(&models, None, &file.path().join("cache"));
        assert_eq!(report.versions[0].kept, None);
        assert!(told.contains("not kept: "), "{told}");
        let (told, _) = examined(&models, None, Path::new(""));
        assert!(told.contains("not kept: engine.cache is empty"), "{told}");
    }

    #[test]
    fn a_model_that_is_not_there_is_told() {
        let models = Models::new(&["tiny"]);
        let error = examine(&args(Some("other")), &models.config(), |_| Ok(()));
        assert!(matches!(error, Err(CliError::Data(text)) if text.contains("other")));
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("0.5") == Ok(0.5));
    }
}
