//! The training loop.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use crate::dataset::batches::Order;
use crate::dataset::{Batch, Batches, Dataset, Split};
use crate::model::autograd::{Mode, Network};
use crate::model::rng::{Rng, Stream};
use crate::model::{Graph, Weights};

use super::checkpoint::Checkpoint;
use super::early_stopping::{Tracker, Verdict};
use super::history::Tally;
use super::identity::{self, Identity};
use super::loss::{cross_entropy, right_answers};
use super::optimizer::Optimizer;
use super::parameters::Parameters;
use super::regularise;
use super::schedule::Pace;
use super::{Config, EpochRecord, History, Score, TrainError};

/// What to train, on what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// Its weights before the first step.
    pub initial: &'a Weights,
    /// The images.
    pub data: &'a Dataset,
    /// Which of them to train on, and which (`hold_out`, may be empty) to validate on after each epoch.
    pub split: &'a Split,
    /// Per channel, what augmentation fills with: `Preprocessor::background`.
    pub background: &'a [f32],
    /// Hyper-parameters.
    pub config: &'a Config,
    /// Where the network runs. The same task gives the same bits on the CPU only.
    pub device: &'a Device,
    /// A file that keeps the state after each epoch. The run goes on from what is there.
    pub checkpoint: Option<&'a Path>,
    /// No epoch begins after the ones before it took so long, over all runs of the checkpoint; the first always begins.
    pub time: Option<Duration>,
}

/// Progress, for whoever listens.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the epoch, from 1.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// Means over the epoch so far.
        score: Score,
    },
    /// An epoch is done, and its checkpoint is written. The last record is this epoch's.
    Epoch(&'a History),
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Of the kept epoch.
    pub weights: Weights,
    /// Every epoch.
    pub history: History,
    /// The last epoch, or the best one where early stopping watched; from 1.
    pub kept_epoch: usize,
}

/// Called with each [`Event`]; `Break` ends the run with [`TrainError::Stopped`].
pub type Listener<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Images per validation batch.
const VALIDATION_BATCH: usize = 256;

/// Trains on the calling thread. Same task, same bits (on the CPU), whether or not it was interrupted and went on from
/// its checkpoint.
pub fn fit(task: Task<'_>, listener: &mut Listener<'_>) -> Result<Fitted, TrainError> {
    task.check()?;
    keep_freed_memory();
    let mut run = Run::start(task)?;
    while run.goes_on() {
        let record = run.epoch(listener)?;
        run.conclude(record)?;
        if listener(Event::Epoch(&run.history)).is_break() {
            return Err(TrainError::Stopped(record.epoch));
        }
    }
    run.finish()
}

/// Makes glibc keep the tens of megabytes that each step frees and the next one asks for again: it gives free memory back
/// to the system from twice the largest block that was ever freed, and lets that grow up to blocks of 32 MiB. Saves a
/// fifth of a small network's training time; does nothing elsewhere, nor where the environment says more, as `sconce
/// train` lets it.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

impl Task<'_> {
    fn check(&self) -> Result<(), TrainError> {
        self.config.check()?;
        let refuse = |text: String| Err(TrainError::Data(text));
        if (self.data.input, self.data.classes) != (self.graph.input, self.graph.classes()) {
            return refuse(format!(
                "images of {:?} in {} classes do not fit a network for {:?} in {}",
                self.data.input,
                self.data.classes,
                self.graph.input,
                self.graph.classes()
            ));
        }
        let layers = self.graph.layers();
        if self.config.freeze >= layers {
            return Err(TrainError::Config {
                key: "freeze",
                problem: format!("must be below {layers}, the network's layers: nothing would be trained"),
            });
        }
        if self.split.train.is_empty() {
            return refuse("there are no images to train on".to_owned());
        }
        if self.config.early_stopping.is_some() && self.split.hold_out.is_empty() {
            return refuse("early stopping needs validation images, and there are none".to_owned());
        }
        Ok(())
    }

    fn steps_per_epoch(&self) -> usize {
        self.split.train.len().div_ceil(self.config.batch_size)
    }

    fn identity(&self) -> Result<Identity, TrainError> {
        let images = identity::images(self.data, self.split);
        let initial = identity::sha256(&self.initial.to_safetensors(&BTreeMap::new())?);
        Ok(Identity::new(self.config, images, initial))
    }

    fn order(&self, epoch: usize) -> Order {
        Order {
            batch_size: self.config.batch_size,
            seed: self.config.seed,
            epoch: epoch as u64,
            augment: self.config.augment,
            background: self.background.to_vec(),
        }
    }

    fn tensor(&self, images: Vec<f32>, count: usize) -> candle_core::Result<Tensor> {
        let input = self.graph.input;
        let shape = (count, input.channels, input.height, input.width);
        Tensor::from_vec(images, shape, self.device)
    }
}

/// A run between two epochs.
struct Run<'a> {
    task: Task<'a>,
    /// Where the task keeps a checkpoint.
    identity: Option<Identity>,
    network: Network,
    parameters: Parameters,
    optimizer: Optimizer,
    history: History,
    tracker: Option<Tracker>,
    /// The best epoch, from 1, and its weights, where early stopping watches.
    best: Option<(usize, Weights)>,
}

impl<'a> Run<'a> {
    fn start(task: Task<'a>) -> Result<Self, TrainError> {
        let mut graph = task.graph.clone();
        graph.freeze(task.config.freeze);
        let network = Network::new(graph, task.initial, task.device)?;
        let parameters = Parameters::of(&network)?;
        let identity = match task.checkpoint {
            Some(_) => Some(task.identity()?),
            None => None,
        };
        let mut run = Self {
            optimizer: Optimizer::new(task.config.optimizer, &parameters.sizes()),
            tracker: task.config.early_stopping.map(|rule| Tracker::new(rule, &[])),
            history: History::default(),
            best: None,
            task,
            identity,
            network,
            parameters,
        };
        if let Some(path) = task.checkpoint
            && let Some(checkpoint) = Checkpoint::read(path, run.network.graph())?
        {
            run.resume(path, checkpoint)?;
        }
        Ok(run)
    }

    fn resume(&mut self, path: &Path, checkpoint: Checkpoint) -> Result<(), TrainError> {
        let refuse = |problem: String| TrainError::Checkpoint {
            path: path.to_owned(),
            problem,
        };
        let identity = self.identity.as_ref();
        if let Some(difference) = identity.and_then(|own| own.difference(&checkpoint.identity)) {
            return Err(refuse(format!("belongs to a run with {difference}")));
        }
        if !self.optimizer.restore(checkpoint.steps, checkpoint.memory) {
            return Err(refuse("holds another optimiser's memory".to_owned()));
        }
        self.network.set_weights(&checkpoint.weights)?;
        self.parameters = Parameters::of(&self.network)?;
        let rule = self.task.config.early_stopping;
        self.tracker = rule.map(|rule| Tracker::new(rule, &checkpoint.history.epochs));
        (self.history, self.best) = (checkpoint.history, checkpoint.best);
        Ok(())
    }

    fn goes_on(&self) -> bool {
        let is_spent = self.tracker.as_ref().is_some_and(Tracker::is_spent);
        self.history.epochs.len() < self.task.config.epochs && !is_spent && self.has_time()
    }

    fn has_time(&self) -> bool {
        let seconds = self.history.epochs.iter().map(|record| f64::from(record.seconds));
        let spent: f64 = seconds.sum();
        let time = self.task.time.map(|time| time.as_secs_f64());
        self.history.epochs.is_empty() || time.is_none_or(|time| spent < time)
    }

    /// Trains one epoch, then validates.
    fn epoch(&mut self, listener: &mut Listener<'_>) -> Result<EpochRecord, TrainError> {
        let (task, start, done) = (self.task, Instant::now(), self.history.epochs.len());
        let (epoch, steps) = (done + 1, task.steps_per_epoch());
        let mut dropout = Rng::new(task.config.seed, Stream::Dropout, done as u64);
        let mut tally = Tally::default();
        let mut learning_rate = task.config.learning_rate;
        for (index, batch) in Batches::new(task.data, &task.split.train, task.order(done)).enumerate() {
            let pace = task.config.schedule.pace(
                done * steps + index,
                task.config.epochs * steps,
                task.config.learning_rate,
            );
            let step = index + 1;
            let images = batch.labels.len();
            let (loss, right) = self.step(batch, pace, &mut dropout)?;
            if !loss.is_finite() {
                return Err(TrainError::NotFinite { epoch, step });
            }
            tally.add(loss, right, images);
            learning_rate = pace.learning_rate;
            let score = tally.score().unwrap_or_default();
            let event = Event::Step {
                epoch,
                step,
                steps,
                score,
            };
            if listener(event).is_break() {
                return Err(TrainError::Stopped(done));
            }
        }
        Ok(EpochRecord {
            epoch,
            train: tally.score().unwrap_or_default(),
            valid: self.validate()?,
            learning_rate: learning_rate as f32,
            seconds: start.elapsed().as_secs_f32(),
        })
    }

    /// One step of the optimiser, unless the loss is not finite; returns the batch's mean loss and right answers.
    fn step(&mut self, batch: Batch, pace: Pace, rng: &mut Rng) -> Result<(f32, usize), TrainError> {
        let config = self.task.config;
        let images = self.task.tensor(batch.images, batch.labels.len())?;
        let mut mode = Mode::Train {
            rng,
            dropout: config.dropout,
        };
        let logits = self.network.forward(&images, &mut mode)?;
        let loss = cross_entropy(&logits, &batch.labels, config.label_smoothing)?;
        let (value, right) = (loss.to_scalar::<f32>()?, right_answers(&logits, &batch.labels)?);
        if value.is_finite() {
            let mut gradients = self.parameters.gradients(&loss.backward()?)?;
            self.regularise(&mut gradients);
            self.optimizer.step(&mut self.parameters.values, &gradients, pace);
            self.parameters.write_back()?;
        }
        Ok((value, right))
    }

    fn regularise(&self, gradients: &mut [Vec<f32>]) {
        let Config {
            l1, l2, clip_norm, ..
        } = *self.task.config;
        if l1 > 0.0 || l2 > 0.0 {
            let parameters = self.parameters.values.iter().zip(self.parameters.are_weights());
            for (gradient, (values, is_weight)) in gradients.iter_mut().zip(parameters) {
                if is_weight {
                    regularise::add_penalties(gradient, values, l1 as f32, l2 as f32);
                }
            }
        }
        if let Some(max_norm) = clip_norm {
            regularise::clip(gradients, max_norm);
        }
    }

    /// The score on the validation images as they would be served; `None` where there are none.
    fn validate(&self) -> Result<Option<Score>, TrainError> {
        let data = self.task.data;
        let mut tally = Tally::default();
        for indices in self.task.split.hold_out.chunks(VALIDATION_BATCH) {
            let images = indices.iter().flat_map(|&index| data.tensor(index)).copied();
            let labels: Vec<u32> = indices.iter().map(|&index| data.labels[index]).collect();
            let images = self.task.tensor(images.collect(), indices.len())?;
            let logits = self.network.forward(&images, &mut Mode::Eval)?;
            let loss = cross_entropy(&logits, &labels, 0.0)?.to_scalar()?;
            tally.add(loss, right_answers(&logits, &labels)?, indices.len());
        }
        Ok(tally.score())
    }

    /// Enters an epoch into the history and writes the checkpoint.
    fn conclude(&mut self, record: EpochRecord) -> Result<(), TrainError> {
        let weights = self.network.weights()?;
        if let (Some(tracker), Some(valid)) = (&mut self.tracker, record.valid)
            && tracker.observe(valid) == Verdict::Best
        {
            self.best = Some((record.epoch, weights.clone()));
        }
        self.history.epochs.push(record);
        let (Some(path), Some(identity)) = (self.task.checkpoint, &self.identity) else {
            return Ok(());
        };
        let memory = self.optimizer.slots().iter();
        let checkpoint = Checkpoint {
            identity: identity.clone(),
            history: self.history.clone(),
            weights,
            best: self.best.clone(),
            steps: self.optimizer.steps(),
            memory: memory
                .map(|slot| (slot.first.clone(), slot.second.clone()))
                .collect(),
        };
        checkpoint.write(path, self.network.graph())
    }

    fn finish(self) -> Result<Fitted, TrainError> {
        let (kept_epoch, weights) = match self.best {
            Some(best) => best,
            None => (self.history.epochs.len(), self.network.weights()?),
        };
        Ok(Fitted {
            weights,
            history: self.history,
            kept_epoch,
        })
    }
}

#[cfg(test)]
mod tests;
