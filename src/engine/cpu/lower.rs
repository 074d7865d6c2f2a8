//! Turns the steps of a program into layers: kernels chosen, weights packed, values placed.

mod overwrite;
mod weighted;

use candle_core::{Result, bail};

use super::convolution::{Border, numbers};
use super::layer::{Kernel, Layer, Place};
use super::layout::Layout;
use super::memory::Lifetime;
use crate::engine::compile::Program;
use crate::engine::options::Options;
use crate::engine::step::{self, Step};
use crate::kernels::{Activation, Affine, Isa, LayerNorm, Windows};
use crate::model::Input;
use crate::model::graph::{Pool, Shape};

/// Layers in order, the storages they write, and where the answer lies.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) layers: Vec<Layer>,
    pub(super) storages: Vec<Lifetime>,
    pub(super) output: Place,
}

/// Lowers `program`, whose weights are on the CPU.
pub(super) fn lower(program: &Program, input: Input, options: &Options) -> Result<Lowered> {
    let shape = Shape::Map {
        channels: input.channels,
        height: input.height,
        width: input.width,
    };
    let mut lowering = Lowering {
        program,
        isa: options.instructions.isa(),
        winograd: options.winograd,
        layers: Vec::new(),
        storages: Vec::new(),
        values: vec![None; program.steps.len() + 1],
        shapes: std::iter::once(shape)
            .chain(program.steps.iter().map(|s| s.shape))
            .collect(),
        readers: readers(program),
        seen: (0..=program.steps.len())
            .map(|value| (value, Border::default()))
            .collect(),
        joins: vec![None; program.steps.len() + 1],
    };
    for index in 0..program.steps.len() {
        if lowering.values[index + 1].is_none() {
            lowering.step(index)?;
        }
    }
    let output = lowering.place(program.output)?;
    let end = lowering.layers.len();
    lowering.storages[output.storage].last = end;
    Ok(Lowered {
        layers: lowering.layers,
        storages: lowering.storages,
        output,
    })
}

/// The steps that read each value; the caller reads the output.
fn readers(program: &Program) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); program.steps.len() + 1];
    for (index, step) in program.steps.iter().enumerate() {
        step.inputs
            .iter()
            .for_each(|source| readers[source.value].push(index));
    }
    readers[program.output].push(program.steps.len());
    readers
}

struct Lowering<'a> {
    program: &'a Program,
    isa: Isa,
    winograd: bool,
    layers: Vec<Layer>,
    storages: Vec<Lifetime>,
    /// By value.
    values: Vec<Option<Place>>,
    shapes: Vec<Shape>,
    readers: Vec<Vec<usize>>,
    /// By value: what its readers read in its place, and the border they see around that; itself, where it is stored.
    seen: Vec<(usize, Border)>,
    /// By value: the place of a join that its reader makes.
    joins: Vec<Option<Place>>,
}

impl Lowering<'_> {
    /// The image as a map like any other, for layers that cannot read it packed.
    fn image(&mut self) -> Place {
        let output = self.own(0);
        self.layer("input", Kernel::Image, Vec::new(), output);
        self.values[0] = Some(output);
        output
    }

    fn step(&mut self, index: usize) -> Result<()> {
        let step = &self.program.steps[index];
        let value = index + 1;
        if self.sees_border(index) || self.first(index)? {
            return Ok(());
        }
        let inputs = step
            .inputs
            .iter()
            .map(|source| self.place(source.value))
            .collect::<Result<Vec<_>>>()?;
        match &step.kernel {
            step::Kernel::Conv2d { .. } => self.convolution(index, inputs)?,
            step::Kernel::Linear { weight, bias } => self.dense(index, inputs, (weight, bias.as_ref()))?,
            step::Kernel::Affine { scale, shift } => {
                let affine = Affine::pack(self.isa, &numbers(scale)?, &numbers(shift)?, step.then);
                self.plain(value, Kernel::Affine(affine), inputs, None);
            }
            step::Kernel::LayerNorm { weight, bias, eps } => {
                let norm = LayerNorm::pack(self.isa, &numbers(weight)?, &numbers(bias)?, *eps as f32);
                self.plain(value, Kernel::LayerNorm(norm), inputs, step.then);
            }
            step::Kernel::MaxPool(pool) => {
                self.plain(value, Kernel::MaxPool(windows(*pool)), inputs, step.then);
            }
            step::Kernel::AvgPool(pool) => {
                self.plain(value, Kernel::AvgPool(windows(*pool)), inputs, step.then);
            }
            step::Kernel::GlobalAvgPool => self.plain(value, Kernel::GlobalAvgPool, inputs, step.then),
            step::Kernel::Flatten => self.values[value] = inputs.first().map(|place| flattened(*place)),
            step::Kernel::Add => {
                let inputs = self.alike(inputs);
                self.plain(value, Kernel::Add(step.then), inputs, None);
            }
            step::Kernel::Mul => self.product(value, step, inputs),
            step::Kernel::Concat => self.join(value, inputs),
            step::Kernel::Pad([top, _, left, _]) => {
                self.plain(value, Kernel::Pad([*top, *left]), inputs, step.then);
            }
            step::Kernel::Copy => self.copy(value, step, inputs),
        }
        Ok(())
    }

    /// A kernel that writes `value` over an input, or to a place of its own.
    fn plain(&mut self, value: usize, kernel: Kernel, mut inputs: Vec<Place>, then: Option<Activation>) {
        if let Some(at) = self.overwritten(value, &kernel, &inputs) {
            let output = inputs.remove(at);
            self.push(value, kernel, inputs, output);
            self.in_place();
            self.after(then);
            self.values[value] = Some(output);
            return;
        }
        let output = match kernel {
            Kernel::MaxPool(_) | Kernel::AvgPool(_) if then.is_none() => self.target(value),
            // A row of features goes on lying as its terms do.
            Kernel::Add(_) | Kernel::Product => self.fresh(inputs[0].layout),
            _ => self.own(value),
        };
        self.push(value, kernel, inputs, output);
        self.after(then);
        self.values[value] = Some(output);
    }

    fn product(&mut self, value: usize, step: &Step, inputs: Vec<Place>) {
        let factors = inputs[1].layout.map;
        if factors.pixels() == 1 && inputs[0].layout.map.pixels() > 1 {
            return self.plain(value, Kernel::Scale, inputs, step.then);
        }
        let inputs = self.alike(inputs);
        self.plain(value, Kernel::Product, inputs, step.then);
    }

    /// A value of its own for an activation.
    fn copy(&mut self, value: usize, step: &Step, inputs: Vec<Place>) {
        let output = self.fresh(inputs[0].layout);
        self.push(value, Kernel::Copy { offset: 0 }, inputs, output);
        self.after(step.then);
        self.values[value] = Some(output);
    }

    /// Whether a step puts zeros around a map that only convolutions read, which then see them as their own border: it
    /// needs no layer.
    fn sees_border(&mut self, index: usize) -> bool {
        let (step, value) = (&self.program.steps[index], index + 1);
        let step::Kernel::Pad([top, bottom, left, right]) = step.kernel else {
            return false;
        };
        let (from, border) = self.seen[step.inputs[0].value];
        let Shape::Map { height, width, .. } = self.shapes[from] else {
            return false;
        };
        let border = border.within(Border {
            before: [top, left],
            after: [bottom, right],
        });
        let size = [height + border.before[0], width + border.before[1]];
        let readers = &self.readers[value];
        let seen = step.then.is_none() && readers.iter().all(|&reader| self.is_border(reader, value, size));
        if seen {
            self.seen[value] = (from, border);
        }
        seen
    }

    /// Whether step `reader` can take the zeros around `value` for a border: a convolution that does not add them to its
    /// sums, whose windows all begin within `size`, the rows and columns up to the map's end.
    fn is_border(&self, reader: usize, value: usize, size: [usize; 2]) -> bool {
        let Some(step) = self.program.steps.get(reader) else {
            return false;
        };
        let (step::Kernel::Conv2d { geometry, .. }, Shape::Map { height, width, .. }) =
            (&step.kernel, step.shape)
        else {
            return false;
        };
        let adds = step.inputs.iter().skip(1).any(|source| source.value == value);
        let begins = |axis: usize, count: usize| {
            (count - 1) * geometry.stride[axis] < size[axis] + geometry.padding[axis]
        };
        !adds && begins(0, height) && begins(1, width)
    }

    /// Parts that their producers have not written to their place yet are copied there.
    fn join(&mut self, value: usize, inputs: Vec<Place>) {
        let mut offset = 0;
        for from in inputs {
            let part = self.part(value, offset, from.layout.map.channels);
            if let (false, Some(whole)) = (part == from, self.joins[value]) {
                self.push(value, Kernel::Copy { offset }, vec![from], whole);
            }
            offset += from.layout.map.channels;
        }
        self.values[value] = self.joins[value];
    }

    /// Channels of the joined `value`, whose storage begins to live here if it does not yet.
    fn part(&mut self, value: usize, offset: usize, channels: usize) -> Place {
        let whole = match self.joins[value] {
            Some(whole) => whole,
            None => self.own(value),
        };
        self.joins[value] = Some(whole);
        let mut layout = whole.layout;
        layout.map.channels = channels;
        Place {
            offset,
            layout,
            ..whole
        }
    }

    /// Where `value` is written: in the join that alone reads it, if it makes whole vectors there; else by itself.
    fn target(&mut self, value: usize) -> Place {
        let Some((join, offset)) = self.only_joined(value) else {
            return self.own(value);
        };
        let Shape::Map { channels, .. } = self.shapes[value] else {
            return self.own(value);
        };
        self.part(join, offset, channels)
    }

    /// The join that alone reads `value`, and the channels before it there.
    fn only_joined(&self, value: usize) -> Option<(usize, usize)> {
        let &[reader] = &self.readers[value][..] else {
            return None;
        };
        let step = self.program.steps.get(reader)?;
        if !matches!(step.kernel, step::Kernel::Concat) {
            return None;
        }
        let channels = |value: usize| match self.shapes[value] {
            Shape::Map { channels, .. } => channels,
            Shape::Flat(features) => features,
        };
        let at = step.inputs.iter().position(|source| source.value == value)?;
        let offset: usize = step.inputs[..at]
            .iter()
            .map(|source| channels(source.value))
            .sum();
        let lanes = self.isa.lanes();
        let last = at + 1 == step.inputs.len();
        let whole = offset.is_multiple_of(lanes) && (last || channels(value).is_multiple_of(lanes));
        whole.then_some((reader + 1, offset))
    }

    /// Two rows of features whose numbers lie in one order.
    fn alike(&mut self, inputs: Vec<Place>) -> Vec<Place> {
        if inputs[0].layout.map == inputs[1].layout.map {
            return inputs;
        }
        inputs.into_iter().map(|place| self.in_order(place)).collect()
    }

    fn in_order(&mut self, from: Place) -> Place {
        let map = from.layout.map;
        let plain = Layout::of(Shape::Flat(map.channels * map.pixels()), self.isa);
        if !from.layout.flat || plain == from.layout {
            return from;
        }
        let output = self.fresh(plain);
        self.layer("rearranged", Kernel::Rearrange, vec![from], output);
        output
    }

    fn place(&mut self, value: usize) -> Result<Place> {
        let (value, _) = self.seen[value];
        match self.values[value] {
            Some(place) => Ok(place),
            None if value == 0 => Ok(self.image()),
            None => bail!("a step reads a value that comes after it"),
        }
    }

    fn own(&mut self, value: usize) -> Place {
        self.fresh(Layout::of(self.shapes[value], self.isa))
    }

    fn fresh(&mut self, layout: Layout) -> Place {
        let now = self.layers.len();
        self.storages.push(Lifetime {
            len: layout.map.item(),
            first: now,
            last: now,
        });
        Place {
            storage: self.storages.len() - 1,
            offset: 0,
            layout,
        }
    }

    fn push(&mut self, value: usize, kernel: Kernel, inputs: Vec<Place>, output: Place) {
        let name = self.program.steps[value - 1].name.clone();
        self.layer(&name, kernel, inputs, output);
    }

    fn layer(&mut self, name: &str, kernel: Kernel, inputs: Vec<Place>, output: Place) {
        let now = self.layers.len();
        for place in inputs.iter().chain([&output]) {
            self.storages[place.storage].last = now;
        }
        self.layers.push(Layer {
            name: name.to_owned(),
            kernel,
            inputs,
            output,
            in_place: false,
            then: None,
            title: String::new(),
            flops: 0,
            weights: 0,
        });
    }

    /// A function over what the last layer wrote.
    fn after(&mut self, then: Option<Activation>) {
        if let (Some(function), Some(layer)) = (then, self.layers.last_mut()) {
            layer.then = Some(function);
        }
    }

    /// Says of the last layer what it stands for and costs.
    fn costs(&mut self, step: &Step, title: String, weights: usize) {
        if let Some(layer) = self.layers.last_mut() {
            layer.name.clone_from(&step.name);
            layer.title = title;
            layer.flops = step.flops;
            layer.weights = weights;
        }
    }
}

fn flattened(place: Place) -> Place {
    Place {
        layout: place.layout.flattened(),
        ..place
    }
}

fn windows(pool: Pool) -> Windows {
    Windows {
        kernel: pool.kernel,
        stride: pool.stride,
        padding: pool.padding,
        dilation: [1; 2],
    }
}
