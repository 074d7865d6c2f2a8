//! The plan on the CPU: layers of our own kernels over one arena of memory.

use std::sync::{Mutex, PoisonError};

use candle_core::Result;

use super::compile::Program;
use super::explain::{Laps, LayerCost};
use crate::kernels::{self, Aligned, Batch, Isa, Source};
use crate::model::Input;
use layer::{Layer, Place, Run};
use memory::{Memory, Span};

mod convolution;
mod layer;
mod layout;
mod lower;
mod memory;
#[cfg(test)]
mod tests;

/// Numbers that the first layers may keep for the items they compute at a time: what the second cache of a core holds.
const CACHED: usize = 128 * 1024;

/// A program lowered to kernels, shared by the instances that run it.
#[derive(Debug)]
pub(super) struct Cpu {
    isa: Isa,
    layers: Vec<Layer>,
    memory: Memory,
    output: Place,
    /// Arenas that no instance is using. One is taken for each batch and given back, so that there are as many as ever
    /// ran at once, each as large as its largest batch.
    spare: Mutex<Vec<Arena>>,
}

/// The memory of one instance while it computes a batch.
#[derive(Debug)]
struct Arena {
    values: Aligned,
    scratch: Aligned,
}

impl Cpu {
    /// Lowers `program`, whose weights are on the CPU, to the instructions `isa`.
    pub(super) fn lower(program: &Program, input: Input, isa: Isa) -> Result<Self> {
        let lowered = lower::lower(program, input, isa)?;
        Ok(Self {
            isa,
            memory: Memory::plan(&lowered.storages, cut(&lowered.layers)),
            layers: lowered.layers,
            output: lowered.output,
            spare: Mutex::new(Vec::new()),
        })
    }

    /// The vector instructions in use.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    /// Answers `items` images laid end to end, channels first, with `logits`, items × classes.
    pub(super) fn run(&self, images: &[f32], items: usize, logits: &mut [f32]) {
        let few = self.memory.few(items, CACHED);
        let mut arena = self.arena(items, few);
        self.each(items, few, |layer, span| {
            self.layers[layer].run(&mut self.start(&mut arena, images, span));
        });
        let place = self.memory.place(self.output.storage, Span::whole(items, few));
        let values = &arena.values[place][self.output.offset..];
        let map = self.output.layout.map;
        kernels::to_planes(
            self.isa,
            Source { values, map },
            logits.into(),
            Batch::whole(items),
        );
        self.spares().push(arena);
    }

    /// What each layer costs: the medians over `rounds` runs.
    pub(super) fn explain(&self, images: &[f32], items: usize, rounds: usize) -> Vec<LayerCost> {
        let mut laps = vec![Laps::default(); self.layers.len()];
        let few = self.memory.few(items, CACHED);
        let mut arena = self.arena(items, few);
        for _ in 0..rounds {
            laps.iter_mut().for_each(Laps::begin);
            self.each(items, few, |layer, span| {
                let mut run = self.start(&mut arena, images, span);
                laps[layer].time(|| self.layers[layer].run(&mut run));
            });
        }
        self.spares().push(arena);
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

    fn start<'a>(&'a self, arena: &'a mut Arena, images: &'a [f32], span: Span) -> Run<'a> {
        Run {
            isa: self.isa,
            memory: &self.memory,
            arena: &mut arena.values,
            scratch: &mut arena.scratch,
            images,
            span,
        }
    }

    /// A spare arena that is large enough for `items`, or one made so.
    fn arena(&self, items: usize, few: usize) -> Arena {
        let values = self.memory.len(items, few);
        let scratch = self
            .layers
            .iter()
            .map(|layer| layer.scratch(items))
            .max()
            .unwrap_or(0);
        match self.spares().pop() {
            Some(arena) if arena.values.len() >= values && arena.scratch.len() >= scratch => arena,
            _ => Arena {
                values: Aligned::zeros(values),
                scratch: Aligned::zeros(scratch),
            },
        }
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Arena>> {
        // A panic leaves the list whole.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many layers run for few items at a time: those up to the last that reads and writes more numbers for an item than
/// it has weights.
fn cut(layers: &[Layer]) -> usize {
    let heavy = |layer: &Layer| layer.traffic() > layer.weights && layer.weights > 0;
    layers.iter().rposition(heavy).map_or(0, |last| last + 1)
}
