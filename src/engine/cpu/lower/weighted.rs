//! Convolutions and dense layers: which kernel computes them, and their weights packed for it.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::super::convolution::{Convolution, numbers};
use super::super::layer::{Kernel, Place};
use super::super::layout::Layout;
use super::Lowering;
use crate::engine::step;
use crate::kernels::{Activation, Conv, Depthwise, Filters, First, Image, Isa, Square, Windows, Winograd};
use crate::model::graph::{Pool, Shape};

/// Channels of an image at most that a first layer reads packed.
const MAX_PACKED: usize = 4;

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, index: usize, inputs: Vec<Place>) -> Result<()> {
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
    pub(super) fn first(&mut self, index: usize) -> Result<bool> {
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
    pub(super) fn dense(
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
}
