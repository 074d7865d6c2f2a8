//! One layer of a compiled plan: a kernel with its packed weights, and the places it reads and writes.

use std::sync::Arc;

use super::layout::Layout;
use super::memory::{Memory, Span};
use crate::engine::explain::LayerCost;
use crate::kernels::{
    self, Activation, Batch, Conv, First, Image, Isa, Job, Map, Output, Planes, Source, Target, Winograd,
};

/// Computes one value, or a part of one.
#[derive(Debug)]
pub(super) struct Layer {
    /// Of the graph's layer it begins with.
    pub(super) name: String,
    pub(super) kernel: Kernel,
    /// At most two; for a convolution with a residual, that second.
    pub(super) inputs: Vec<Place>,
    pub(super) output: Place,
    /// Applied over the output, where the kernel does not do it itself.
    pub(super) then: Option<Activation>,
    /// What people call it.
    pub(super) title: String,
    /// Floating-point operations for one image.
    pub(super) flops: u64,
    /// Numbers of weights.
    pub(super) weights: usize,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which of the arena's storages.
    pub(super) storage: usize,
    /// Its first channel's place in the storage's pixels.
    pub(super) offset: usize,
    pub(super) layout: Layout,
}

#[derive(Debug)]
pub(super) enum Kernel {
    /// The image, channels first, to channels-last.
    Image,
    /// The image to what its first layer reads.
    Pack(Arc<First>, Image),
    /// A convolution of such an image.
    First(Arc<First>, Image, Option<Activation>),
    Conv(Box<Conv>, Option<Activation>),
    Winograd(Box<Winograd>, Option<Activation>),
    Depthwise(Box<kernels::Depthwise>),
    MaxPool(kernels::Windows),
    AvgPool(kernels::Windows),
    GlobalAvgPool,
    /// x·scale + shift by channel, with a function.
    Affine(kernels::Affine),
    LayerNorm(kernels::LayerNorm),
    /// The sum, with a function.
    Add(Option<Activation>),
    /// A map by its channels' factors.
    Scale,
    /// Number by number.
    Product,
    /// Channels to their place in a wider map, or a copy.
    Copy {
        /// The first channel there.
        offset: usize,
    },
    /// A map in the middle of zeros: top, left.
    Pad([usize; 2]),
    /// A row of features whose numbers lie as they did in a map, in the graph's order.
    Rearrange,
}

/// What a layer works with.
pub(super) struct Run<'a> {
    pub(super) isa: Isa,
    pub(super) memory: &'a Memory,
    pub(super) arena: &'a mut [f32],
    /// Of [`Layer::scratch`] numbers of the layer that needs most.
    pub(super) scratch: &'a mut [f32],
    /// The images of the whole batch, channels first.
    pub(super) images: &'a [f32],
    pub(super) span: Span,
}

impl Layer {
    pub(super) fn run(&self, run: &mut Run<'_>) {
        let (isa, span) = (run.isa, run.span);
        let (images, batch) = (run.images, Batch::whole(span.count));
        let scratch = std::mem::take(&mut run.scratch);
        let (inputs, output) = self.views(run);
        let to = self.output.layout.map;
        match &self.kernel {
            Kernel::Image => {
                let item = to.channels * to.pixels();
                self.image(
                    isa,
                    &images[span.first * item..][..span.count * item],
                    output,
                    batch,
                );
            }
            Kernel::Pack(first, image) => {
                let len = first.packed_len(batch.items, *image);
                let images = &images[span.first * image.len()..][..span.count * image.len()];
                first.pack_image(images, *image, &mut output[..len]);
            }
            Kernel::First(first, image, function) => {
                let len = first.packed_len(batch.items, *image);
                let packed = (&inputs[0][..len], *image, batch.items);
                first.run(packed, *function, (&Output::from(output), to), batch.part);
            }
            Kernel::Conv(conv, function) => {
                conv.run(
                    self.job(inputs, *function, batch),
                    &Output::from(output),
                    to,
                    batch.part,
                );
            }
            Kernel::Winograd(conv, function) => {
                let job = self.job(inputs, *function, batch);
                conv.run(job, (&Output::from(output), to), scratch, batch.part);
            }
            Kernel::Product => {
                let pairs = inputs[0].iter().zip(inputs[1]);
                output.iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = a * b);
            }
            Kernel::Rearrange => self.rearrange(inputs[0], output),
            kernel => match self.sources(inputs) {
                [Some(source), second] => kernel.run(isa, (source, second), self.target(output), batch),
                _ => unreachable!("a kernel of maps reads one"),
            },
        }
        run.scratch = scratch;
        if let Some(function) = self.then {
            kernels::activate(isa, function, self.views(run).1);
        }
    }

    /// Numbers of an item that it reads and writes.
    pub(super) fn traffic(&self) -> usize {
        let places = self.inputs.iter().chain([&self.output]);
        places.map(|place| place.layout.numbers()).sum()
    }

    /// What it costs for one image, given the time.
    pub(super) fn cost(&self, seconds: f64) -> LayerCost {
        let Map {
            height,
            width,
            channels,
            ..
        } = self.output.layout.map;
        let numbers = self.weights + self.traffic();
        LayerCost {
            name: self.name.clone(),
            kernel: self.kernel_text(),
            output: format!("{channels}×{height}×{width}"),
            flops: self.flops,
            bytes: 4 * numbers as u64,
            seconds,
        }
    }

    fn kernel_text(&self) -> String {
        let (title, function) = match &self.kernel {
            Kernel::Image => ("channels last", None),
            Kernel::Pack(..) => ("pack image", None),
            Kernel::First(_, _, function) | Kernel::Conv(_, function) | Kernel::Winograd(_, function) => {
                (&*self.title, *function)
            }
            Kernel::Depthwise(filters) => (&*self.title, filters.function()),
            Kernel::MaxPool(_) => ("max-pool", None),
            Kernel::AvgPool(_) => ("avg-pool", None),
            Kernel::GlobalAvgPool => ("global avg-pool", None),
            Kernel::Affine(affine) => ("scale and shift", affine.function()),
            Kernel::LayerNorm(_) => ("layer-norm", None),
            Kernel::Add(function) => ("add", *function),
            Kernel::Scale => ("scale channels", None),
            Kernel::Product => ("multiply", None),
            Kernel::Copy { .. } => ("copy", None),
            Kernel::Pad(_) => ("pad", None),
            Kernel::Rearrange => ("rearrange", None),
        };
        let sum = matches!(self.kernel, Kernel::Conv(..) | Kernel::Winograd(..)) && self.inputs.len() > 1;
        let mut text = title.to_owned();
        if sum {
            text += " + sum";
        }
        for function in [function, self.then].into_iter().flatten() {
            text += &format!(" + {function}");
        }
        text
    }

    /// Numbers that the layer needs beside its values for a batch of `items`.
    pub(super) fn scratch(&self, items: usize) -> usize {
        match &self.kernel {
            Kernel::Winograd(conv, _) => conv.scratch_len(items, self.output.layout.map),
            _ => 0,
        }
    }

    fn job<'a>(&self, inputs: [&'a [f32]; 2], function: Option<Activation>, batch: Batch) -> Job<'a> {
        let residual = self.inputs.get(1).map(|place| (inputs[1], place.layout.map));
        Job {
            values: inputs[0],
            map: self.inputs[0].layout.map,
            items: batch.items,
            residual,
            function,
        }
    }

    fn sources<'a>(&self, inputs: [&'a [f32]; 2]) -> [Option<Source<'a>>; 2] {
        std::array::from_fn(|i| {
            let map = self.inputs.get(i)?.layout.map;
            Some(Source {
                values: inputs[i],
                map,
            })
        })
    }

    fn target<'a>(&self, output: &'a mut [f32]) -> Target<'a> {
        Target {
            map: self.output.layout.map,
            values: output.into(),
        }
    }

    fn image(&self, isa: Isa, images: &[f32], output: &mut [f32], batch: Batch) {
        let Map { height, width, .. } = self.output.layout.map;
        let planes = Planes {
            values: images,
            height,
            width,
        };
        kernels::from_planes(isa, planes, self.target(output), [0; 2], batch);
    }

    fn rearrange(&self, from: &[f32], to: &mut [f32]) {
        let (layout, item) = (self.inputs[0].layout, self.output.layout.map.item());
        for (from, to) in from
            .chunks_exact(layout.map.item())
            .zip(to.chunks_exact_mut(item))
        {
            let places = layout.places().zip(to);
            places.for_each(|(place, y)| *y = from[place]);
        }
    }

    /// The numbers of the inputs and of the output, which lie apart.
    fn views<'a>(&self, run: &'a mut Run<'_>) -> ([&'a [f32]; 2], &'a mut [f32]) {
        let span = run.span;
        let range = |place: &Place| {
            let range = run.memory.place(place.storage, span);
            let reach = place.layout.map.item() * span.count;
            range.start + place.offset..range.end.min(range.start + place.offset + reach)
        };
        let output = range(&self.output);
        let inputs: [_; 2] = std::array::from_fn(|i| self.inputs.get(i).map_or(0..0, range));
        let apart = "the plan lays a layer's values apart";
        if inputs[0] == inputs[1] {
            let [x, y] = run
                .arena
                .get_disjoint_mut([inputs[0].clone(), output])
                .expect(apart);
            return ([x; 2], y);
        }
        let [first, second] = inputs;
        let [a, b, y] = run.arena.get_disjoint_mut([first, second, output]).expect(apart);
        ([a, b], y)
    }
}

impl Kernel {
    /// Those that read one or two maps and write one.
    fn run(
        &self,
        isa: Isa,
        (source, second): (Source<'_>, Option<Source<'_>>),
        target: Target<'_>,
        batch: Batch,
    ) {
        match (self, second) {
            (Self::Depthwise(filters), _) => filters.run(source, target, batch),
            (Self::MaxPool(windows), _) => kernels::max_pool(isa, *windows, source, target, batch),
            (Self::AvgPool(windows), _) => kernels::avg_pool(isa, *windows, source, target, batch),
            (Self::GlobalAvgPool, _) => kernels::global_avg_pool(isa, source, target, batch),
            (Self::Affine(affine), _) => affine.run(source, target, batch),
            (Self::LayerNorm(norm), _) => norm.run(source, target, batch),
            (Self::Add(function), Some(other)) => {
                kernels::add(isa, [source, other], target, *function, batch);
            }
            (Self::Scale, Some(factors)) => kernels::multiply(isa, source, factors.values, target, batch),
            (Self::Copy { offset }, _) => kernels::copy_channels(isa, source, target, *offset, batch),
            (Self::Pad(start), _) => kernels::pad(isa, source, target, *start, batch),
            (kernel, _) => unreachable!("{kernel:?} has not the maps it reads"),
        }
    }
}
