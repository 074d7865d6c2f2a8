//! Turns the steps of a program into layers: kernels chosen, weights packed, values placed.

mod overwrite;

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::convolution::{Border, Convolution, numbers};
use super::layer::{Kernel, Layer, Place};
use super::layout::Layout;
use super::memory::Lifetime;
use crate::engine::compile::Program;
use crate::engine::options::Options;
use crate::engine::step::{self, Step};
use crate::kernels::{
    Activation, Affine, Conv, Depthwise, Filters, First, Image, Isa, LayerNorm, Square, Windows, Winograd,
};
use crate::model::Input;
use crate::model::graph::{Pool, Shape};

/// Channels of an image at most that a first layer reads packed.
const MAX_PACKED: usize = 4;

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

    fn convolution(&mut self, index: usize, inputs: Vec<Place>) -> Result<()> {
        let step = &self.program.steps[index];
        let weights = Convolution::of(step, self.seen[step.inputs[0].value].1)?;
        if weights.is_depthwise() {
            return self.depthwise(index, &inputs, &weights);
        }
        let pool = self.pooled(index);
        let output = self.target(pool.unwrap_or(index) + 1);
        let to = output.layout.map;
        let square = match pool {
            None if self.winograd && weights.is_square() => Square::choose(weights.channels, to),
            _ => None,
        };
        let kernel = if let Some(square) = square {
            let packed = Winograd::pack(self.isa, weights.filters(), weights.windows.padding, square);
            Kernel::Winograd(Box::new(packed), step.then)
        } else {
            let packed = Conv::pack(
                self.isa,
                weights.filters(),
                weights.windows,
                to.pixels() == 1 && pool.is_none(),
            );
            let packed = if pool.is_some() { packed.pooled() } else { packed };
            Kernel::Conv(Box::new(packed), step.then)
        };
        self.convolved(index, pool, (kernel, inputs, output), &weights);
        Ok(())
    }

    /// A convolution that reads nothing but the image: packed for it. False where the step is none.
    fn first(&mut self, index: usize) -> Result<bool> {
        let step = &self.program.steps[index];
        let (from, border) = self.seen[step.inputs[0].value];
        if !matches!(step.kernel, step::Kernel::Conv2d { .. }) || step.inputs.len() != 1 || from != 0 {
            return Ok(false);
        }
        let weights = Convolution::of(step, border)?;
        if weights.groups > 1 || weights.windows.dilation[1] > 1 || weights.channels > MAX_PACKED {
            return Ok(false);
        }
        let Shape::Map {
            channels,
            height,
            width,
        } = self.shapes[0]
        else {
            return Ok(false);
        };
        let image = Image {
            channels,
            height,
            width,
        };
        let pool = self.pooled(index);
        let first = Arc::new(First::pack(
            self.isa,
            weights.filters(),
            weights.windows,
            weights.after,
            pool.is_some(),
        ));
        let packed = self.fresh(Layout::of(Shape::Flat(first.packed_len(1, image)), Isa::PORTABLE));
        self.layer(
            "input",
            Kernel::Pack(Arc::clone(&first), image),
            Vec::new(),
            packed,
        );
        let output = self.target(pool.unwrap_or(index) + 1);
        let kernel = Kernel::First(first, image, step.then);
        self.convolved(index, pool, (kernel, vec![packed], output), &weights);
        Ok(true)
    }

    /// Adds the layer of a convolution, pooled by the step `pool`.
    fn convolved(
        &mut self,
        index: usize,
        pool: Option<usize>,
        layer: (Kernel, Vec<Place>, Place),
        weights: &Convolution,
    ) {
        let (kernel, inputs, output) = layer;
        let value = pool.unwrap_or(index) + 1;
        let way = match &kernel {
            Kernel::First(..) => "first conv".to_owned(),
            Kernel::Winograd(winograd, _) => format!("winograd F({0}×{0})", winograd.side()),
            _ => "conv".to_owned(),
        };
        self.push(value, kernel, inputs, output);
        let title = match pool {
            Some(_) => format!("{way} {} + max-pool 2", weights.size()),
            None => format!("{way} {}", weights.size()),
        };
        self.costs(&self.program.steps[index], title, weights.weight.len());
        if let Some(pool) = pool {
            self.after(self.program.steps[pool].then);
            self.values[index + 1] = Some(output);
        }
        self.values[value] = Some(output);
    }

    /// The step that alone reads the convolution `index` and takes the largest of each 2×2 of its outputs, if its function
    /// may come after: one that never falls.
    fn pooled(&self, index: usize) -> Option<usize> {
        let &[reader] = &self.readers[index + 1][..] else {
            return None;
        };
        let (conv, step) = (&self.program.steps[index], self.program.steps.get(reader)?);
        let halves = matches!(
            step.kernel,
            step::Kernel::MaxPool(Pool {
                kernel: [2, 2],
                stride: [2, 2],
                padding: [0, 0]
            })
        );
        let rises = matches!(
            conv.then,
            None | Some(Activation::Relu | Activation::Relu6 | Activation::Sigmoid | Activation::HardSigmoid)
        );
        (halves && rises && !conv.adds && step.then.is_none()).then_some(reader)
    }

    fn depthwise(&mut self, index: usize, inputs: &[Place], weights: &Convolution) -> Result<()> {
        let step = &self.program.steps[index];
        let value = index + 1;
        let bias = (!weights.bias.is_empty()).then_some(&*weights.bias);
        let function = if step.adds { None } else { step.then };
        let packed = Depthwise::pack(self.isa, &weights.weight, bias, weights.windows, function);
        let output = if step.adds {
            self.own(value)
        } else {
            self.target(value)
        };
        self.push(
            value,
            Kernel::Depthwise(Box::new(packed)),
            vec![inputs[0]],
            output,
        );
        let title = format!("depthwise {}", weights.size());
        self.costs(step, title, weights.weight.len());
        self.values[value] = Some(output);
        if step.adds {
            let sum = self.target(value);
            self.push(value, Kernel::Add(step.then), vec![output, inputs[1]], sum);
            self.values[value] = Some(sum);
        }
        Ok(())
    }

    /// A dense layer: a convolution over one pixel, whose channels are the places of the row it reads.
    fn dense(
        &mut self,
        index: usize,
        mut inputs: Vec<Place>,
        (weight, bias): (&Tensor, Option<&Tensor>),
    ) -> Result<()> {
        let step = &self.program.steps[index];
        // What is added to the sums lies as they do.
        if let Some(added) = inputs.get_mut(1) {
            *added = self.in_order(*added);
        }
        let (out, features) = weight.dims2()?;
        let weight = numbers(weight)?;
        let bias = bias.map(numbers).transpose()?.unwrap_or_default();
        let layout = inputs[0].layout;
        let item = layout.map.item();
        let mut placed = vec![0.0; out * item];
        for (row, to) in weight.chunks_exact(features).zip(placed.chunks_exact_mut(item)) {
            layout.places().zip(row).for_each(|(place, &w)| to[place] = w);
        }
        inputs[0].layout = Layout::of(Shape::Flat(item), self.isa);
        let filters = Filters {
            weight: &placed,
            bias: &bias,
            out,
            channels: item,
            groups: 1,
        };
        let packed = Conv::pack(self.isa, filters, Windows::POINT, true);
        let output = self.own(index + 1);
        let kernel = Kernel::Conv(Box::new(packed), step.then);
        self.push(index + 1, kernel, inputs, output);
        self.costs(step, "dense".to_owned(), weight.len());
        self.values[index + 1] = Some(output);
        Ok(())
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
