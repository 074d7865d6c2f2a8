//! `sconce retrain`: a new version of a model from what came in, and the gate's word on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::engine::prepare_thread;
use crate::evaluate::gate::intake::Suspect;
use crate::model::ModelName;
use crate::retrain::{
    self, DatasetName, Fault, Finished, Listener, Outcome, Parent, Phase, Place, Progress, Request,
    RetrainError,
};
use crate::train::Recipe;

use super::version::registry;
use super::{CliError, Common, config, print};

/// Suspect labels that a terminal shows.
const SHOWN: usize = 10;

/// Flags of `sconce retrain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The whole request as JSON, from a file or - for standard input, in place of the flags that follow
    #[arg(long, value_name = "FILE", conflicts_with = "asked")]
    request: Option<PathBuf>,
    /// Write an event per line, as JSON, on standard output. A refusal by the gate is then an outcome and no failure
    #[arg(long)]
    lines: bool,
    /// The run's own folder; a run that was killed there goes on [default: runs/retrain-NAME-TIME]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
}

/// A request in flags.
#[derive(Debug, clap::Args)]
#[group(id = "asked", multiple = true)]
struct Asked {
    /// The model
    #[arg(long, value_name = "NAME", required_unless_present = "request")]
    model: Option<ModelName>,
    /// A dataset of the configured folder, to learn from or to replay [default: the one that the parent learnt from]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Learn from the dataset alone
    #[arg(long, requires = "dataset")]
    no_feedback: bool,
    /// Replayed images for each image of feedback [default: 4]
    #[arg(long, value_name = "X")]
    replay_ratio: Option<f64>,
    /// Learn from feedback alone, knowing that what is not in it is forgotten
    #[arg(long)]
    without_replay: bool,
    /// The version to begin from, by its number or an alias [default: champion]
    #[arg(long, value_name = "VERSION")]
    parent: Option<Parent>,
    /// The model of that version, of the same network but for the last layer [default: the model itself]
    #[arg(long, value_name = "NAME")]
    parent_model: Option<ModelName>,
    /// Layers with weights, from the input, that stay as they are
    #[arg(long, value_name = "N", default_value_t = 0)]
    freeze: usize,
    /// Begin from fresh weights in the last layer
    #[arg(long)]
    new_head: bool,
    /// Hyper-parameters: seed or fast, as of `sconce train` [default: as configured for going on with a model]
    #[arg(long, value_name = "NAME")]
    recipe: Option<Recipe>,
    /// Passes over the images [default: the recipe's, or as configured]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// End with the first epoch that ends after so many minutes
    #[arg(long, value_name = "X")]
    minutes: Option<f64>,
    /// Highest learning rate [default: the recipe's, or as configured]
    #[arg(long, value_name = "X")]
    learning_rate: Option<f64>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Leave the promotion to a person, whatever the gate says
    #[arg(long)]
    no_promote: bool,
    /// Read and check everything, say what would be done, and train nothing
    #[arg(long)]
    dry_run: bool,
}

/// A request is a page at most.
const MAX_REQUEST_BYTES: u64 = 1 << 20;

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    prepare_thread();
    let config = config(common)?;
    let request = args.request()?;
    let work = args.work.clone().unwrap_or_else(|| folder(&request.model));
    let place = place(&config, work)?;
    if args.lines {
        retrain::run(&request, &place, &mut line).map_err(failed)?;
        return Ok(());
    }
    let outcome = run_for_people(&request, &place, &mut |event| say(&text(event)))?;
    print(&told(&request.model, &outcome, &place.work))?;
    refusal(&outcome.finished)
}

fn run_for_people(
    request: &Request,
    place: &Place,
    listener: &mut Listener<'_>,
) -> Result<Outcome, CliError> {
    retrain::run(request, place, listener).map_err(failed)
}

fn place(config: &Config, work: PathBuf) -> Result<Place, CliError> {
    Ok(Place {
        registry: registry(config)?,
        store: config.store.clone(),
        config: config.retrain.clone(),
        rules: config.gate,
        intake: config.intake,
        images: config.images,
        engine: config.engine.clone(),
        work,
    })
}

/// `runs/retrain-NAME-TIME`.
fn folder(model: &ModelName) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Path::new("runs").join(format!("retrain-{model}-{}", now.as_secs()))
}

impl Args {
    fn request(&self) -> Result<Request, CliError> {
        match (&self.request, &self.asked.model) {
            (Some(path), _) => read(path),
            (None, Some(model)) => Ok(self.asked.request(model)),
            (None, None) => Err(CliError::Usage("--model or --request is needed".to_owned())),
        }
    }
}

impl Asked {
    fn request(&self, model: &ModelName) -> Request {
        let plain = Request::new(model.clone());
        Request {
            feedback: !self.no_feedback,
            dataset: self.dataset.clone(),
            replay_ratio: self.replay_ratio.unwrap_or(plain.replay_ratio),
            without_replay: self.without_replay,
            parent: self.parent,
            parent_model: self.parent_model.clone(),
            freeze: self.freeze,
            new_head: self.new_head,
            recipe: self.recipe,
            epochs: self.epochs,
            minutes: self.minutes,
            learning_rate: self.learning_rate,
            seed: self.seed,
            promote: !self.no_promote,
            dry_run: self.dry_run,
            ..plain
        }
    }
}

fn read(path: &Path) -> Result<Request, CliError> {
    let told = |error: &dyn std::fmt::Display| CliError::Usage(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin()
            .lock()
            .take(MAX_REQUEST_BYTES)
            .read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_REQUEST_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| told(&error))?;
    serde_json::from_str(&text).map_err(|error| told(&error))
}

/// An event as a line on standard output, at once.
fn line(event: &Progress) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, event)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// An event as a line on standard error.
fn say(text: &str) -> io::Result<()> {
    // Nobody reads it where this fails, and the run is what matters.
    let _ = writeln!(io::stderr().lock(), "{text}");
    Ok(())
}

fn text(event: &Progress) -> String {
    match event {
        Progress::Phase { phase } => phase_text(*phase).to_owned(),
        Progress::Epoch(epoch) => {
            let hold_out = epoch
                .hold_out_accuracy
                .map(|share| format!("  hold-out {:.2} %", share * 100.0));
            format!(
                "epoch {}/{}  loss {:.4} accuracy {:.2} %{}  {:.0} s left",
                epoch.epoch,
                epoch.epochs,
                epoch.loss,
                epoch.accuracy * 100.0,
                hold_out.unwrap_or_default(),
                epoch.eta_seconds
            )
        }
        Progress::Check { check, passed, text } => {
            format!("{check}: {text}  {}", if *passed { "ok" } else { "NO" })
        }
        Progress::Suspects { suspects } => {
            let first = suspects.iter().take(SHOWN).map(|one| {
                let Suspect {
                    sha256,
                    source,
                    label,
                    champion,
                    ..
                } = one;
                format!("\n  {sha256} of {source}: class {label}, or is it {champion}?")
            });
            let count = suspects.len();
            format!(
                "{count} labels to look at, the likeliest to be wrong first{}",
                first.collect::<String>()
            )
        }
        Progress::Note { text } => text.clone(),
        Progress::Finished(_) => "done".to_owned(),
    }
}

fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Data => "reading the images",
        Phase::Train => "training",
        Phase::Stage => "making a version",
        Phase::Gate => "comparing it with the champion",
        Phase::Promote => "promoting it",
    }
}

/// For a terminal: what came of it.
fn told(model: &ModelName, outcome: &Outcome, work: &Path) -> String {
    let mut text = outcome
        .comparison
        .as_ref()
        .map_or_else(String::new, |gate| gate.text() + "\n");
    let Finished {
        version, promoted, ..
    } = outcome.finished;
    text += &match (version, promoted) {
        (None, _) => "no version was made\n".to_owned(),
        (Some(version), true) => format!("{model} version {version} is the champion\n"),
        (Some(version), false) => format!("{model} version {version} is staged and answers nobody\n"),
    };
    text + &format!(
        "{}: what the run keeps to go on, and may be removed\n",
        work.display()
    )
}

/// The gate's no.
fn refusal(finished: &Finished) -> Result<(), CliError> {
    match finished.blessed {
        Some(false) => Err(CliError::Refused(format!(
            "the gate says no: {}",
            finished.reasons.join("; ")
        ))),
        _ => Ok(()),
    }
}

/// Whose fault a failed run is.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
pub(super) fn failed(error: RetrainError) -> CliError {
    let text = error.to_string();
    match error.fault() {
        Fault::Request => CliError::Usage(text),
        Fault::Data => CliError::Data(text),
        Fault::Disk => CliError::Disk(text),
        Fault::Busy => CliError::Busy(text),
        Fault::Machine => CliError::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::atomic;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("retrain").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    #[test]
    fn flags_are_the_request() {
        let check = |line: &str, expected: &Value| {
            let request = parsed(line).unwrap().request().unwrap();
            let plain = serde_json::to_value(Request::new("digits".parse().unwrap())).unwrap();
            let mut found = serde_json::to_value(request).unwrap();
            let found = found.as_object_mut().unwrap();
            found.retain(|key, value| plain.get(key) != Some(value));
            assert_eq!(&Value::Object(found.clone()), expected, "{line}");
        };
        check("--model digits", &json!({}));
        check(
            "--model digits --dataset mnist --no-feedback --parent 2 --freeze 1 --new-head",
            &json!({"dataset": "mnist", "feedback": false, "parent": 2, "freeze": 1, "new_head": true}),
        );
        check(
            "--model digits --parent-model pets --parent challenger",
            &json!({"parent": "challenger", "parent_model": "pets"}),
        );
        check(
            "--model digits --without-replay --replay-ratio 0 --epochs 2 --minutes 1.5 --learning-rate 0.1 --recipe fast",
            &json!({"without_replay": true, "replay_ratio": 0.0, "epochs": 2, "minutes": 1.5, "learning_rate": 0.1, "recipe": "fast"}),
        );
        check(
            "--model digits --seed 7 --no-promote --dry-run --lines --work w",
            &json!({"seed": 7, "promote": false, "dry_run": true}),
        );
    }

    #[test]
    fn a_request_is_a_file_or_flags_and_not_both() {
        assert!(parsed("").is_err());
        assert!(parsed("--request r.json --model digits").is_err());
        assert!(parsed("--model digits --no-feedback").is_err());
        assert!(parsed("--model digits --parent newest").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.json");
        let request = |text: &str| {
            atomic::write(&path, text.as_bytes()).unwrap();
            parsed(&format!("--lines --request {}", path.display()))
                .unwrap()
                .request()
        };
        assert_eq!(request(r#"{"model": "digits", "seed": 3}"#).unwrap().seed, 3);
        for wrong in ["", "{}", r#"{"model": "digits", "epoch": 3}"#] {
            let error = request(wrong).unwrap_err();
            assert_eq!(error.code(), 64, "{error}");
        }
    }
}
