//! The plan on the CPU: layers of our own kernels over one arena of memory.

use std::sync::{Mutex, PoisonError};

use candle_core::Result;

use super::compile::Program;
use super::explain::{Laps, LayerCost};
use super::options::Options;
use crate::kernels::{Aligned, Alone, Isa, Kernel, Source, Task, Team};
use crate::model::Input;
use crew::Crew;
use layer::{Layer, Place, Run};
use memory::{Memory, Span};

mod convolution;
mod crew;
mod layer;
mod layout;
mod lower;
mod memory;
#[cfg(test)]
mod tests;

/// Numbers that the first layers may keep for the items they compute at a time: what the second cache of a core holds.
const CACHED: usize = 128 * 1024;

/// Items that a plan of few weights computes at once: enough that the weights, which then stay in a cache beside the core,
/// are read as quickly as they are used, and few enough that what the layers write stays in the nearer one.
const FEW_WEIGHTS: usize = 1024 * 1024;
/// See [`FEW_WEIGHTS`].
const ITEMS_AT_ONCE: usize = 16;

/// A program lowered to kernels, shared by the instances that run it.
#[derive(Debug)]
pub(super) struct Cpu {
    isa: Isa,
    /// Threads that share each batch.
    threads: usize,
    /// Larger batches are computed in parts.
    most_items: usize,
    layers: Vec<Layer>,
    memory: Memory,
    output: Place,
    /// Workplaces that no instance is using. One is taken for each batch and given back, so that there are as many as
    /// ever ran at once.
    spare: Mutex<Vec<Workplace>>,
}

/// What one instance computes a batch with.
#[derive(Debug)]
struct Workplace {
    crew: Crew,
    arena: Arena,
}

/// The memory for a batch, as large as the largest so far.
#[derive(Debug, Default)]
struct Arena {
    values: Aligned,
    scratch: Aligned,
}

impl Cpu {
    /// Lowers `program`, whose weights are on the CPU.
    pub(super) fn lower(program: &Program, input: Input, options: &Options) -> Result<Self> {
        let lowered = lower::lower(program, input, options)?;
        Ok(Self {
            isa: options.instructions.isa(),
            threads: options.threads.max(1),
            most_items: most_items(&lowered.layers),
            memory: Memory::plan(&lowered.storages, cut(&lowered.layers)),
            layers: lowered.layers,
            output: lowered.output,
            spare: Mutex::new(Vec::new()),
        })
    }

    /// Threads that share each batch.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// The vector instructions in use.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Answers `items` images laid end to end, channels first, with `logits`, items × classes.
    pub(super) fn run(&self, images: &[f32], items: usize, logits: &mut [f32]) {
        let at_once = self.at_once(items);
        let [image, row] = [images.len(), logits.len()].map(|len| len / items);
        let parts = images
            .chunks(at_once * image)
            .zip(logits.chunks_mut(at_once * row));
        parts.for_each(|(images, logits)| self.part(images, images.len() / image, logits));
    }

    /// Items computed at once of a batch of `items`, in parts as even as can be.
    fn at_once(&self, items: usize) -> usize {
        let parts = items.div_ceil(self.most_items);
        items.div_ceil(parts.max(1)).max(1)
    }

    fn part(&self, images: &[f32], items: usize, logits: &mut [f32]) {
        let few = self.memory.few(items, CACHED);
        let Workplace { crew, mut arena } = self.workplace(items, few);
        let mut work = |team: &dyn Team| {
            self.each(items, few, |layer, span| {
                self.layers[layer].run(&mut self.start((&mut arena, team), images, span));
            });
        };
        if self.layers.iter().any(|layer| layer.is_shared(items)) {
            crew.work(work);
        } else {
            work(&Alone);
        }
        self.read(self.output, &arena.values, Span::whole(items, few), logits);
        self.spares().push(Workplace { crew, arena });
    }

    /// Copies what lies at `place` out of an arena, channels first.
    fn read(&self, place: Place, arena: &[f32], span: Span, numbers: &mut [f32]) {
        let values = &arena[self.memory.place(place.storage, span)][place.offset..];
        let map = place.layout.map;
        let task = Task {
            isa: self.isa,
            kernel: Kernel::ToPlanes(Source { values, map }),
            items: span.count,
            map,
        };
        task.run(numbers, &mut [], &Alone);
    }

    /// Makes workplaces for so many instances at once, with memory for batches of `items`.
    pub(super) fn reserve(&self, instances: usize, items: usize) {
        let items = self.at_once(items);
        let few = self.memory.few(items, CACHED);
        let workplaces: Vec<_> = (0..instances).map(|_| self.workplace(items, few)).collect();
        for mut workplace in workplaces {
            // The system gives a page when it is written first.
            workplace.arena.values.fill(0.0);
            workplace.arena.scratch.fill(0.0);
            self.spares().push(workplace);
        }
    }

    /// What each layer costs on one thread: the medians over `rounds` runs.
    pub(super) fn explain(&self, images: &[f32], items: usize, rounds: usize) -> Vec<LayerCost> {
        let mut laps = vec![Laps::default(); self.layers.len()];
        let items = self.at_once(items);
        let few = self.memory.few(items, CACHED);
        let Workplace { crew, mut arena } = self.workplace(items, few);
        for _ in 0..rounds {
            laps.iter_mut().for_each(Laps::begin);
            self.each(items, few, |layer, span| {
                let mut run = self.start((&mut arena, &Alone), images, span);
                laps[layer].time(|| self.layers[layer].run(&mut run));
            });
        }
        self.spares().push(Workplace { crew, arena });
        let costs = self.layers.iter().zip(&laps);
        costs
            .map(|(layer, laps)| layer.cost(laps.median() / items.max(1) as f64))
            .collect()
    }

    /// Calls `run` for every layer in order: the first layers for few items, and again for the next few; then the others.
    fn each(&self, items: usize, few: usize, mut run: impl FnMut(usize, Span)) {
        let (cut, whole) = (self.memory.cut, Span::whole(items, few));
        let starts = if cut > 0 { 0..items } else { 0..0 };
        for first in starts.step_by(few) {
            let count = few.min(items - first);
            let span = Span {
                first,
                count,
                ..whole
            };
            (0..cut).for_each(|layer| run(layer, span));
        }
        (cut..self.layers.len()).for_each(|layer| run(layer, whole));
    }

    fn start<'a>(
        &'a self,
        (arena, team): (&'a mut Arena, &'a dyn Team),
        images: &'a [f32],
        span: Span,
    ) -> Run<'a> {
        Run {
            isa: self.isa,
            memory: &self.memory,
            arena: &mut arena.values,
            scratch: &mut arena.scratch,
            images,
            span,
            team,
        }
    }

    /// A spare workplace, or a new one, with memory enough for `items`.
    fn workplace(&self, items: usize, few: usize) -> Workplace {
        let values = self.memory.len(items, few);
        let scratch = self.layers.iter().map(|layer| layer.scratch(items)).max();
        let scratch = scratch.unwrap_or(0) * self.threads;
        let spare = self.spares().pop();
        let mut workplace = spare.unwrap_or_else(|| Workplace {
            crew: Crew::new(self.threads),
            arena: Arena::default(),
        });
        let arena = &mut workplace.arena;
        if arena.values.len() < values || arena.scratch.len() < scratch {
            *arena = Arena {
                values: Aligned::zeros(values),
                scratch: Aligned::zeros(scratch),
            };
        }
        workplace
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Workplace>> {
        // A panic leaves the list whole.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Items of a batch that are worth computing at once.
fn most_items(layers: &[Layer]) -> usize {
    let weights: usize = layers.iter().map(|layer| layer.weights).sum();
    if weights <= FEW_WEIGHTS {
        ITEMS_AT_ONCE
    } else {
        usize::MAX
    }
}

/// How many layers run for few items at a time: those up to the last that reads and writes more numbers for an item than
/// it has weights.
fn cut(layers: &[Layer]) -> usize {
    let heavy = |layer: &Layer| layer.traffic() > layer.weights && layer.weights > 0;
    layers.iter().rposition(heavy).map_or(0, |last| last + 1)
}
