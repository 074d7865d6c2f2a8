//! A run, from the request to its outcome.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{self, Plan, Precision, Target};
use crate::evaluate::gate::{DataReport, DataRules, Rules};
use crate::evaluate::probabilities;
use crate::model::{Graph, ModelName, Version, Weights};
use crate::preprocess::{Limits, Preprocessor};
use crate::registry::{Entry, Loaded, Registry};
use crate::store::{self, Example, Learner, Staged};
use crate::train::{self, Event, Fitted, History, Task};

use super::learners::{bar, version_of};
use super::library::{self, Library};
use super::material::Material;
use super::parent::{Beginning, beginning, check_body, graph};
use super::screen::{self, Opinion};
use super::shelf::Shelf;
use super::work::{self, Learning, Work};
use super::{
    Comparison, Config, DatasetName, EpochDone, Finished, Incoming, Phase, Progress, Request, RequestError,
    RetrainError,
};

/// Where a run reads and writes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The models.
    pub registry: Registry,
    /// The store.
    pub store: store::Config,
    /// What a request does not say.
    pub config: Config,
    /// What the gate asks.
    pub rules: Rules,
    /// What is asked of what came in.
    pub intake: DataRules,
    /// What an image may cost.
    pub images: Limits,
    /// How versions are served.
    pub engine: engine::Config,
    /// The run's own folder; a run that was killed there goes on.
    pub work: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// In short.
    pub finished: Finished,
    /// What the gate found, where it was asked.
    pub comparison: Option<Comparison>,
}

/// Told of every event; where it fails the run ends.
pub type Listener<'a> = dyn FnMut(&Progress) -> io::Result<()> + 'a;

/// Runs on the calling thread. May be killed at any time: what it published is whole, and the next call with the same
/// request and folder goes on, and makes no version twice.
///
/// # Errors
///
/// What hinders it; that the gate refuses is an outcome.
pub fn run(request: &Request, place: &Place, listener: &mut Listener<'_>) -> Result<Outcome, RetrainError> {
    request.check()?;
    let outcome = Run::open(request, place, listener)?.all()?;
    listener(&Progress::Finished(outcome.finished.clone())).map_err(RetrainError::Listener)?;
    Ok(outcome)
}

/// How often a run begins anew at most because of what was erased meanwhile.
const MAX_BEGINNINGS: usize = 5;
/// A run that was not heard of for so long is not gone on with: 30 days.
const FORGOTTEN_MS: i64 = 30 * 86_400_000;

pub(super) struct Run<'a> {
    pub(super) request: &'a Request,
    pub(super) place: &'a Place,
    pub(super) listener: &'a mut Listener<'a>,
    pub(super) shelf: Shelf,
    pub(super) work: Work,
    pub(super) entry: Entry,
    pub(super) graph: Graph,
    /// None where the model has no version yet and none is named: then it begins from fresh weights.
    pub(super) parent: Option<Loaded>,
    /// How versions are served.
    pub(super) target: Target,
    /// What was found in what came in, where the serving model could say.
    pub(super) report: Option<DataReport>,
}

impl<'a> Run<'a> {
    /// Reads everything but images.
    fn open(
        request: &'a Request,
        place: &'a Place,
        listener: &'a mut Listener<'a>,
    ) -> Result<Self, RetrainError> {
        // First of all: what another run does meanwhile would not be seen.
        let work = Work::open(&place.work, request)?;
        let entry = place.registry.entry(&request.model)?;
        let parent = match &work.plan {
            // An alias is what it was when the run set out.
            Some(plan) => plan.parent.map(|version| Beginning {
                model: request.parent_model.as_ref().unwrap_or(&entry.name).clone(),
                version,
            }),
            None => beginning(&place.registry, request, &entry)?,
        };
        let parent = parent.map(|parent| place.registry.load(&parent.model, parent.version));
        let parent = parent.transpose()?;
        if let Some(parent) = &parent {
            check_body((&entry.name, &entry.spec), (&parent.name, &parent.spec))?;
        }
        let graph = graph(&entry.name, &entry.spec)?;
        check_freeze(request, &graph)?;
        Ok(Self {
            target: place.engine.open()?,
            shelf: Shelf::open(&place.store)?,
            request,
            place,
            listener,
            work,
            entry,
            graph,
            parent,
            report: None,
        })
    }

    fn all(mut self) -> Result<Outcome, RetrainError> {
        self.phase(Phase::Data)?;
        self.tell_parent()?;
        if let Some(version) = self.staged()? {
            let (_, material) = self.material(Some(version))?;
            self.note(format!("learns from {}", material.text))?;
            return self.prove(version, &material);
        }
        for _ in 0..MAX_BEGINNINGS {
            let (incoming, material) = self.material(None)?;
            let reasons = self.refused(&incoming)?;
            if !reasons.is_empty() {
                return Ok(Outcome::without_version(Some(false), reasons));
            }
            self.note(format!("learns from {}", material.text))?;
            if self.request.dry_run {
                return Ok(Outcome::without_version(None, Vec::new()));
            }
            if let Some(version) = self.made(&incoming, &material)? {
                return self.prove(version, &material);
            }
            self.note("an image that it learns from is erased".to_owned())?;
        }
        let text = format!("what it learnt from was erased {MAX_BEGINNINGS} times while it did");
        Ok(Outcome::without_version(Some(false), vec![text]))
    }

    /// Trains, and publishes a version; none as soon as something that it learns from is erased. The store knows what the run
    /// learns from before it does, so that whoever erases of it is told.
    fn made(&mut self, incoming: &Incoming, material: &Material) -> Result<Option<Version>, RetrainError> {
        self.tidy()?;
        let learning = self.begin(incoming, material)?;
        if !self.shelf.learns(&learning)?.is_empty() {
            return Ok(None);
        }
        let Some(fitted) = self.train(&learning.learner, material)? else {
            return Ok(None);
        };
        match self.stage(&learning, &fitted, material)? {
            Staged::Published(version) => Ok(Some(version)),
            Staged::Erased(_) => Ok(None),
        }
    }

    /// Settles what runs left that came to no end: a version is tied to what it learnt from, and a run that nobody has gone on
    /// with for a month is forgotten.
    fn tidy(&self) -> Result<(), RetrainError> {
        for (learner, age_ms) in self.shelf.learners(self.name())? {
            match version_of(&self.place.registry, &learner)? {
                Some(version) => {
                    let images = Vec::new();
                    let erased = self.shelf.learnt(&Learning { learner, images }, version)?;
                    if !erased.is_empty() {
                        bar(&self.place.registry, self.name(), version)?;
                    }
                }
                None if age_ms > FORGOTTEN_MS => self.shelf.forget(&learner)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Reads and mixes the images: those that an interrupted run set out with, unless they are not there any more.
    fn material(&mut self, staged: Option<Version>) -> Result<(Incoming, Material), RetrainError> {
        let examples = match self.request.feedback {
            true => self.shelf.examples(&self.entry.name)?,
            false => Vec::new(),
        };
        let begun = self.work.plan.as_ref();
        let begun = begun.map(|plan| (plan.known(examples.clone()), plan.data.clone()));
        if let Some((known, data)) = begun {
            let (incoming, material) = self.mixed(known)?;
            if staged.is_some() || material.data.sha256() == data {
                return Ok((incoming, material));
            }
            self.note(
                "the images of the interrupted run are not all there any more: it begins anew".to_owned(),
            )?;
        }
        let (incoming, material) = self.mixed(examples)?;
        if incoming.unreadable > 0 {
            let left_out = incoming.unreadable;
            self.note(format!(
                "{left_out} images of the store cannot be read and are left out"
            ))?;
        }
        let nothing = match self.request.feedback {
            true => incoming.split.train.is_empty(),
            false => material.split.train.is_empty(),
        };
        if nothing {
            let text = format!("there is nothing to learn from for model '{}'", self.entry.name);
            return Err(RetrainError::Data(text));
        }
        Ok((incoming, material))
    }

    fn mixed(&mut self, examples: Vec<Example>) -> Result<(Incoming, Material), RetrainError> {
        let (spec, limits) = (&self.entry.spec, &self.place.images);
        let mut incoming = Incoming::read(&self.shelf, examples, spec, limits)?;
        let mut without = self.shelf.erased()?;
        // What came in is what its sources say, whatever a dataset says of the same image.
        without.extend(&incoming.data.hashes);
        let library = self.library(&without)?;
        self.report = self.screened(&mut incoming, library.as_ref())?;
        let spec = &self.entry.spec;
        let reservoir = self.place.config.reservoir;
        let material = Material::mix(self.request, spec, &incoming, library.as_ref(), reservoir);
        Ok((incoming, material))
    }

    /// The dataset asked for, else the one that the parent learnt from, where it is there.
    fn library(&self, without: &HashSet<[u8; 32]>) -> Result<Option<Library>, RetrainError> {
        let parent = self.parent.as_ref().map(|parent| Beginning {
            model: parent.name.clone(),
            version: parent.version,
        });
        let (registry, datasets) = (&self.place.registry, &self.place.config.datasets);
        let found = library::replayed((registry, datasets), self.request, &self.entry, parent.as_ref())?;
        let read = |(name, path): (DatasetName, PathBuf)| {
            Library::read(&name, &path, (&self.entry.spec, &self.place.images), without)
        };
        found.map(read).transpose()
    }

    /// Has the serving model look at what came in; none where there is nothing new, nobody to look, or no image to learn the
    /// looker's own mistakes from.
    fn screened(
        &self,
        incoming: &mut Incoming,
        library: Option<&Library>,
    ) -> Result<Option<DataReport>, RetrainError> {
        let (Some(champion), Some(library)) = (self.entry.aliases.champion, library) else {
            return Ok(None);
        };
        if !self.request.feedback {
            return Ok(None);
        }
        let (data, trusted) = library.trusted();
        if trusted.is_empty() || incoming.examples.is_empty() {
            return Ok(None);
        }
        let plan = self.compiled(&self.place.registry.load(&self.entry.name, champion)?)?;
        let all: Vec<usize> = (0..incoming.data.len()).collect();
        let labels: Vec<u32> = trusted.iter().map(|&index| data.labels[index]).collect();
        let opinion = Opinion {
            incoming: &probabilities(&plan, &incoming.data, &all)?,
            trusted: &probabilities(&plan, data, &trusted)?,
            labels: &labels,
        };
        Ok(Some(screen::screen(incoming, &opinion, &self.place.intake)?))
    }

    /// The reasons for which what came in may not be learnt from; tells of what was found.
    fn refused(&mut self, incoming: &Incoming) -> Result<Vec<String>, RetrainError> {
        let Some(report) = self.report.clone() else {
            let few = match self.request.feedback {
                true => screen::enough(incoming, &self.place.intake),
                false => None,
            };
            return Ok(few.into_iter().collect());
        };
        for note in &report.notes {
            self.note(note.clone())?;
        }
        if let Some(suspects) = screen::suspects(&report) {
            self.tell(&suspects)?;
        }
        self.tell(&screen::told(&report))?;
        Ok(report.reasons)
    }

    /// Writes the plan, unless an interrupted run goes on by it.
    fn begin(&mut self, incoming: &Incoming, material: &Material) -> Result<Learning, RetrainError> {
        let data = material.data.sha256();
        let before = self.work.plan.take();
        let before = match before {
            Some(plan) if plan.data == data => return self.work.plan.insert(plan).learning(),
            before => before.map(|plan| plan.learning()).transpose()?,
        };
        let parent = self.parent.as_ref().map(|parent| parent.version);
        let plan = work::Plan::new(self.request, parent, &incoming.examples, data);
        let learning = plan.learning()?;
        self.work.begin(plan)?;
        if let Some(before) = before {
            self.shelf.forget(&before.learner)?;
        }
        Ok(learning)
    }

    /// None where something that it learns from is erased, which is looked up after each epoch.
    fn train(&mut self, learner: &Learner, material: &Material) -> Result<Option<Fitted>, RetrainError> {
        self.phase(Phase::Train)?;
        let (request, spec) = (self.request, &self.entry.spec);
        let config = self.place.config.training(request, spec.augment);
        let (initial, target) = (self.initial()?, self.training_target()?);
        let checkpoint = self.work.checkpoint();
        let task = Task {
            graph: &self.graph,
            initial: &initial,
            data: &material.data,
            split: &material.split,
            background: &Preprocessor::new(Arc::new(spec.clone())).background(),
            config: &config,
            device: &target.device,
            checkpoint: Some(&checkpoint),
            time: request.minutes.map(minutes),
        };
        let (listener, shelf) = (&mut *self.listener, &self.shelf);
        let mut cut = None;
        let fitted = train::fit(task, &mut |event| {
            let Event::Epoch(history) = event else {
                return ControlFlow::Continue(());
            };
            let told =
                epoch(history, config.epochs).map_or(Ok(()), |epoch| listener(&Progress::Epoch(epoch)));
            let told = told.map_err(RetrainError::Listener);
            match told.and_then(|()| shelf.is_spoilt(learner)) {
                Ok(false) => return ControlFlow::Continue(()),
                Ok(true) => cut = Some(Ok(None)),
                Err(error) => cut = Some(Err(error)),
            }
            ControlFlow::Break(())
        });
        cut.unwrap_or_else(|| Ok(Some(fitted?)))
    }

    /// The weights before the first step: the parent's, with a fresh last layer where that is asked for or its classes are
    /// others.
    fn initial(&self) -> Result<Weights, RetrainError> {
        let seed = self.request.seed;
        let Some(parent) = &self.parent else {
            return Ok(Weights::initialise(&self.graph, seed)?);
        };
        match self.has_fresh_head(parent) {
            true => Ok(parent.weights.with_fresh_head(&self.graph, seed)?),
            false => Ok(parent.weights.clone()),
        }
    }

    fn has_fresh_head(&self, parent: &Loaded) -> bool {
        self.request.new_head || parent.spec.labels != self.entry.spec.labels
    }

    /// The parent, where it is of another model.
    pub(super) fn other(&self) -> Option<&Loaded> {
        self.parent
            .as_ref()
            .filter(|parent| parent.name != self.entry.name)
    }

    /// Tells what is begun from, where that is another model.
    fn tell_parent(&mut self) -> Result<(), RetrainError> {
        let Some(parent) = self.other() else {
            return Ok(());
        };
        let head = match self.has_fresh_head(parent) {
            true => "a fresh last layer",
            false => "its last layer, since the classes are the same",
        };
        let (version, name) = (parent.version, &parent.name);
        let prepared = match parent.spec.preprocess == self.entry.spec.preprocess {
            true => "",
            false => "; its images were prepared otherwise ([preprocess])",
        };
        self.note(format!(
            "begins from version {version} of '{name}' with {head}{prepared}"
        ))
    }

    fn training_target(&self) -> Result<Target, RetrainError> {
        let config = engine::Config {
            device: self.place.config.device,
            precision: Precision::F32,
            ..self.place.engine.clone()
        };
        Ok(config.open()?)
    }

    /// The plan that would serve a version.
    pub(super) fn compiled(&self, loaded: &Loaded) -> Result<Arc<Plan>, RetrainError> {
        let plan = Plan::compile(loaded.version, &loaded.graph, &loaded.weights, &self.target);
        Ok(plan?)
    }

    pub(super) fn name(&self) -> &ModelName {
        &self.entry.name
    }

    pub(super) fn phase(&mut self, phase: Phase) -> Result<(), RetrainError> {
        self.tell(&Progress::Phase { phase })
    }

    pub(super) fn note(&mut self, text: String) -> Result<(), RetrainError> {
        self.tell(&Progress::Note { text })
    }

    pub(super) fn tell(&mut self, event: &Progress) -> Result<(), RetrainError> {
        (self.listener)(event).map_err(RetrainError::Listener)
    }
}

impl Outcome {
    fn without_version(blessed: Option<bool>, reasons: Vec<String>) -> Self {
        let finished = Finished {
            version: None,
            blessed,
            reasons,
            promoted: false,
        };
        Self {
            finished,
            comparison: None,
        }
    }
}

fn check_freeze(request: &Request, graph: &Graph) -> Result<(), RequestError> {
    let layers = graph.layers();
    if request.freeze < layers {
        return Ok(());
    }
    Err(RequestError {
        key: "freeze",
        problem: format!("must be below {layers}, the network's layers with weights"),
    })
}

/// A week at most: longer ones mean no end.
fn minutes(minutes: f64) -> Duration {
    Duration::from_secs_f64((minutes * 60.0).min(604_800.0))
}

/// The last epoch's figures.
fn epoch(history: &History, epochs: usize) -> Option<EpochDone> {
    let record = history.epochs.last()?;
    let spent: f64 = history.epochs.iter().map(|epoch| f64::from(epoch.seconds)).sum();
    let left = epochs.saturating_sub(record.epoch) as f64;
    Some(EpochDone {
        epoch: record.epoch,
        epochs,
        loss: f64::from(record.train.loss),
        accuracy: f64::from(record.train.accuracy),
        hold_out_accuracy: record.valid.map(|score| f64::from(score.accuracy)),
        eta_seconds: left * spent / record.epoch as f64,
    })
}
