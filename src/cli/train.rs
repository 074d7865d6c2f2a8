//! `sconce train`: a new version of a model from labelled images.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::engine::{DeviceChoice, prepare_thread};
use crate::model::{ModelName, Version};
use crate::train::{self, Event, Fitted, TrainError, cross_validation};

use super::{CliError, Common, command_line, config, print};

mod hyper;
mod progress;
mod publication;
mod run_folder;
mod subject;

use progress::Progress;
use run_folder::RunFolder;
use subject::Subject;

/// Flags of `sconce train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: its models/NAME/model.toml says architecture, labels and input
    #[arg(long, value_name = "NAME")]
    model: ModelName,
    /// Labelled images: a folder of idx files, a folder with one folder per label, or a CSV file with path,label
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Begin with the weights of this version [default: fresh ones by the seed]
    #[arg(long, value_name = "VERSION")]
    from: Option<Version>,
    /// Train on the hold-out as well; for data with a test part of their own
    #[arg(long, conflicts_with_all = ["folds", "early_stopping"])]
    all_images: bool,
    /// Cross-validate in K parts, print the scores and publish nothing
    #[arg(long, value_name = "K", conflicts_with_all = ["run_dir", "dry_run"])]
    folds: Option<usize>,
    /// Where curves, history, TensorBoard events and the checkpoint go [default: runs/NAME-TIME]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Go on from the checkpoint in the run's folder
    #[arg(long, requires = "run_dir")]
    resume: bool,
    /// Read and check everything, print what would be done and stop
    #[arg(long)]
    dry_run: bool,
    /// cpu, auto or cuda:N; only the cpu gives the same bits every time
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
    // Last, because its heading holds for all that follows; boxed, because it is many times as large as the rest.
    #[command(flatten)]
    hyper: Box<hyper::Flags>,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    run_as(args, common, &command_line::text(std::env::args()))
}

/// Runs it under the command line that the manifest will tell.
fn run_as(args: &Args, common: &Common, command: &str) -> Result<(), CliError> {
    prepare_thread();
    let subject = Subject::read(args, &config(common)?)?;
    if args.dry_run {
        return print(&subject.text());
    }
    if let Some(folds) = args.folds {
        return cross_validate(&subject, folds);
    }
    let mut folder = RunFolder::open(args.run_dir.as_deref(), subject.name(), args.resume)?;
    let fitted = fit(&subject, &mut folder)?;
    let published = publication::publish(&subject, &fitted, command)?;
    print(&format!("{published}{}\n", folder.text()))
}

/// Trains; the run's folder is up to date after each epoch.
fn fit(subject: &Subject, folder: &mut RunFolder) -> Result<Fitted, CliError> {
    let mut progress = Progress::new(subject.config.epochs);
    let checkpoint = folder.checkpoint();
    let mut failure = None;
    let mut listener = |event: Event<'_>| {
        progress.show(event);
        if let Event::Epoch(history) = event
            && let Err(error) = folder.update(history, subject.name())
        {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let fitted = train::fit(subject.task(Some(&checkpoint)), &mut listener);
    progress.finish();
    if let Some(error) = failure {
        return Err(error);
    }
    let fitted = fitted.map_err(failed)?;
    // A run that was already finished had no epoch to tell of.
    folder.update(&fitted.history, subject.name())?;
    Ok(fitted)
}

fn cross_validate(subject: &Subject, folds: usize) -> Result<(), CliError> {
    let mut progress = Progress::new(subject.config.epochs);
    let mut listener = |event: Event<'_>| {
        progress.show(event);
        ControlFlow::Continue(())
    };
    let mut started = |fold| Progress::say(&format!("fold {fold} of {folds}"));
    let result = cross_validation::cross_validate(subject.task(None), folds, &mut started, &mut listener);
    progress.finish();
    let result = result.map_err(failed)?;
    let mut text = String::from("fold   loss  accuracy\n");
    for (fold, score) in (1..).zip(&result.folds) {
        text += &format!("{fold:>4} {:6.4}  {:6.2} %\n", score.loss, score.accuracy * 100.0);
    }
    let (loss, accuracy) = (result.loss, result.accuracy);
    text += &format!("mean {:6.4}  {:6.2} %\n", loss.mean, accuracy.mean * 100.0);
    text += &format!(
        "  sd {:6.4}  {:6.2} %\n",
        loss.deviation,
        accuracy.deviation * 100.0
    );
    print(&text)
}

/// Whose fault a failed run is.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn failed(error: TrainError) -> CliError {
    match error {
        TrainError::Config { .. } => CliError::Usage(error.to_string()),
        TrainError::Data(_) | TrainError::Checkpoint { .. } => CliError::Data(error.to_string()),
        _ => CliError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
