//! Everything a run reads before it begins.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config as ServerConfig;
use crate::dataset::{Dataset, DatasetError, Part, Source, Split};
use crate::engine::{self, Precision, Target};
use crate::model::{Graph, ModelName, Version, Weights};
use crate::preprocess::{Limits, Preprocessor};
use crate::registry::{Entry, Registry};
use crate::train::{Config, Recipe, Task};

use super::{Args, CliError, failed};

/// The model, its initial weights, the images and the hyper-parameters, read and checked.
pub(super) struct Subject {
    pub(super) registry: Registry,
    pub(super) entry: Entry,
    pub(super) graph: Graph,
    /// The version that training begins from.
    pub(super) parent: Option<Version>,
    initial: Weights,
    /// The data as they were given.
    pub(super) data_path: PathBuf,
    /// What the data are called: the last part of the path that was given.
    pub(super) data_name: String,
    pub(super) data: Dataset,
    pub(super) split: Split,
    /// The data's own test part.
    pub(super) test: Option<Dataset>,
    background: Vec<f32>,
    pub(super) recipe: Recipe,
    pub(super) config: Config,
    /// Where it trains, and how the version is compiled for its evaluation.
    pub(super) target: Target,
}

impl Subject {
    /// Reads the model's folder and the data.
    pub(super) fn read(args: &Args, config: &ServerConfig) -> Result<Self, CliError> {
        let registry = Registry::open(&config.models).map_err(wrong)?;
        let entry = registry.entry(&args.model).map_err(wrong)?;
        let hyper = args.hyper.config(entry.spec.augment)?;
        let spec = &entry.spec;
        let graph = spec.graph().map_err(wrong)?;
        let initial = match args.from {
            Some(version) => registry.load(&args.model, version).map_err(wrong)?.weights,
            None => Weights::initialise(&graph, hyper.seed).map_err(|e| failed(e.into()))?,
        };
        let target = engine::Config {
            device: args.device,
            precision: Precision::F32,
            ..config.engine.clone()
        };
        let target = target.open().map_err(|e| CliError::Failed(e.to_string()))?;
        let source = Source::detect(&args.data, Part::Train).map_err(wrong)?;
        let data = Dataset::read(&source, spec, &config.images).map_err(wrong)?;
        let test = test_part(&args.data, &entry, &config.images)?;
        Ok(Self {
            parent: args.from,
            data_path: args.data.clone(),
            data_name: name(&args.data),
            split: split(&data, test.is_some(), args.all_images)?,
            background: Preprocessor::new(Arc::new(spec.clone())).background(),
            recipe: args.hyper.recipe,
            config: hyper,
            registry,
            graph,
            initial,
            data,
            test,
            target,
            entry,
        })
    }

    /// The model's name.
    pub(super) fn name(&self) -> &ModelName {
        &self.entry.name
    }

    /// The run.
    pub(super) fn task<'a>(&'a self, checkpoint: Option<&'a Path>) -> Task<'a> {
        Task {
            graph: &self.graph,
            initial: &self.initial,
            data: &self.data,
            split: &self.split,
            background: &self.background,
            config: &self.config,
            device: &self.target.device,
            checkpoint,
            time: None,
        }
    }

    /// For a terminal: what would be trained, on what, and how.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "model      {}, {}, {} parameters\n",
            self.name(),
            self.entry.spec.architecture,
            self.graph.parameters()
        );
        let parent = self
            .parent
            .map_or("fresh weights".to_owned(), |v| format!("version {v}"));
        let _ = writeln!(text, "from       {parent}");
        let _ = writeln!(
            text,
            "data       {}, sha256 {}",
            self.data_name,
            self.data.sha256()
        );
        let test = self.test.as_ref().map_or(0, Dataset::len);
        let (train, hold_out) = (self.split.train.len(), self.split.hold_out.len());
        let _ = writeln!(
            text,
            "images     {train} to train on, {hold_out} held out, {test} to test on"
        );
        let _ = writeln!(text, "recipe     {}", self.recipe);
        let config = serde_json::to_string_pretty(&self.config).unwrap_or_default();
        let _ = writeln!(text, "training   {config}");
        text
    }
}

/// The data's own test part; `None` where there is none.
fn test_part(path: &Path, entry: &Entry, limits: &Limits) -> Result<Option<Dataset>, CliError> {
    let source = match Source::detect(path, Part::Test) {
        Ok(source) => source,
        Err(error @ (DatasetError::Io { .. } | DatasetError::Format { .. })) => return Err(wrong(error)),
        // The training part was found, so what is missing is the test part alone.
        Err(_) => return Ok(None),
    };
    let data = Dataset::read(&source, &entry.spec, limits).map_err(wrong)?;
    Ok((!data.is_empty()).then_some(data))
}

fn split(data: &Dataset, has_test: bool, all_images: bool) -> Result<Split, CliError> {
    match (all_images, has_test) {
        (false, _) => Ok(data.split()),
        (true, true) => Ok(Split {
            train: (0..data.len()).collect(),
            hold_out: Vec::new(),
        }),
        (true, false) => Err(CliError::Usage(
            "--all-images needs data with a test part of their own: nothing would be left to judge the model by".to_owned(),
        )),
    }
}

fn name(path: &Path) -> String {
    let name = path
        .components()
        .next_back()
        .map(|part| part.as_os_str().to_string_lossy());
    name.unwrap_or_default().into_owned()
}

/// Something that was given is not right.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn wrong(error: impl ToString) -> CliError {
    CliError::Data(error.to_string())
}
