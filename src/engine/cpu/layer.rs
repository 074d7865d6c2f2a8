//! One layer of a compiled plan: a kernel with its packed weights, and the places it reads and writes.

use std::sync::Arc;

use super::layout::Layout;
use super::memory::{Memory, Span};
use crate::engine::explain::LayerCost;
use crate::kernels::{
    self, Activation, Alone, Conv, First, Image, Isa, Job, Kernel as Computed, Map, Planes, Source, Task,
    Team, Winograd,
};

/// Floating-point operations in about the time in which a number is read and written.
const FLOPS_PER_NUMBER: u64 = 16;
/// Work of a layer, as numbers read and written, from which on several threads share it: some 20 µs of one.
const SHARED: u64 = 32 * 1024;

/// Computes one value, or a part of one.
#[derive(Debug)]
pub(super) struct Layer {
    /// Of the graph's layer it begins with.
    pub(super) name: String,
    pub(super) kernel: Kernel,
    /// At most two; for a convolution with a residual, that second.
    pub(super) inputs: Vec<Place>,
    pub(super) output: Place,
    /// Whether the kernel reads its output first, which is then not among the inputs.
    pub(super) in_place: bool,
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
    /// Of [`Layer::scratch`] numbers of the layer that needs most, for each thread of the team.
    pub(super) scratch: &'a mut [f32],
    /// The images of the whole batch, channels first.
    pub(super) images: &'a [f32],
    pub(super) span: Span,
    /// Shares the larger layers.
    pub(super) team: &'a dyn Team,
}

impl Layer {
    pub(super) fn run(&self, run: &mut Run<'_>) {
        let (isa, span, images) = (run.isa, run.span, run.images);
        let team = self.team(run.team, span.count);
        let scratch = std::mem::take(&mut run.scratch);
        let (inputs, output) = self.views(run);
        match &self.kernel {
            Kernel::Pack(first, image) => {
                let len = first.packed_len(span.count, *image);
                let images = &images[span.first * image.len()..][..span.count * image.len()];
                first.pack_image(images, *image, &mut output[..len]);
            }
            Kernel::Product => {
                let pairs = inputs[0].iter().zip(inputs[1]);
                output.iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = a * b);
            }
            Kernel::Rearrange => self.rearrange(inputs[0], output),
            _ => self.task(isa, (images, span), inputs).run(output, scratch, team),
        }
        run.scratch = scratch;
        if let Some(function) = self.then {
            let over = Task {
                isa,
                kernel: Computed::Activate(function),
                items: span.count,
                map: self.output.layout.map,
            };
            over.run(self.views(run).1, &mut [], team);
        }
    }

    /// The calling thread alone where waking the others takes longer than the work.
    fn team<'a>(&self, team: &'a dyn Team, items: usize) -> &'a dyn Team {
        if self.is_shared(items) { team } else { &Alone }
    }

    /// Whether the work for `items` is enough for several threads.
    pub(super) fn is_shared(&self, items: usize) -> bool {
        let work = self.flops / FLOPS_PER_NUMBER + self.traffic() as u64;
        work * items as u64 >= SHARED
    }

    /// The kernel over the items of `span`.
    fn task<'a>(&'a self, isa: Isa, (images, span): (&'a [f32], Span), inputs: [&'a [f32]; 2]) -> Task<'a> {
        let map = self.output.layout.map;
        let items = span.count;
        let job = |function| self.job(inputs, function, items);
        let source = |at: usize| Source {
            values: inputs[at],
            map: self.inputs[at].layout.map,
        };
        let kernel = match &self.kernel {
            Kernel::Image => Computed::FromPlanes(planes(images, span, map)),
            Kernel::First(first, image, function) => {
                let packed = &inputs[0][..first.packed_len(items, *image)];
                Computed::First(first, (packed, *image), *function)
            }
            Kernel::Conv(conv, function) => Computed::Conv(conv, job(*function)),
            Kernel::Winograd(conv, function) => Computed::Winograd(conv, job(*function)),
            Kernel::Depthwise(filters) => Computed::Depthwise(filters, source(0)),
            Kernel::MaxPool(windows) => Computed::MaxPool(*windows, source(0)),
            Kernel::AvgPool(windows) => Computed::AvgPool(*windows, source(0)),
            Kernel::GlobalAvgPool => Computed::GlobalAvgPool(source(0)),
            Kernel::Affine(affine) if self.in_place => Computed::AffineInPlace(affine),
            Kernel::Add(function) if self.in_place => Computed::AddInPlace(source(0), *function),
            Kernel::Scale if self.in_place => Computed::ScaleInPlace(inputs[0]),
            Kernel::Affine(affine) => Computed::Affine(affine, source(0)),
            Kernel::LayerNorm(norm) => Computed::LayerNorm(norm, source(0)),
            Kernel::Add(function) => Computed::Add([source(0), source(1)], *function),
            Kernel::Scale => Computed::Scale(source(0), inputs[1]),
            Kernel::Copy { offset } => Computed::CopyChannels(source(0), *offset),
            Kernel::Pad(start) => Computed::Pad(source(0), *start),
            Kernel::Pack(..) | Kernel::Product | Kernel::Rearrange => {
                unreachable!("{:?} is no task", self.kernel)
            }
        };
        Task {
            isa,
            kernel,
            items,
            map,
        }
    }

    /// Numbers of an item that it reads and writes.
    pub(super) fn traffic(&self) -> usize {
        let again = self.in_place.then_some(&self.output);
        let places = self.inputs.iter().chain([&self.output]).chain(again);
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

    /// Numbers that the layer needs beside its values for a batch of `items`, for each thread.
    pub(super) fn scratch(&self, items: usize) -> usize {
        match &self.kernel {
            Kernel::Winograd(conv, _) => conv.scratch_len(items, self.output.layout.map),
            _ => 0,
        }
    }

    fn job<'a>(&self, inputs: [&'a [f32]; 2], function: Option<Activation>, items: usize) -> Job<'a> {
        let residual = self.inputs.get(1).map(|place| (inputs[1], place.layout.map));
        Job {
            values: inputs[0],
            map: self.inputs[0].layout.map,
            items,
            residual,
            function,
        }
    }

    fn rearrange(&self, from: &[f32], to: &mut [f32]) {
        let (layout, item) = (self.inputs[0].layout, self.output.layout.map.item());
        for (from, to) in from
            .chunks_exact(layout.map.item())
            .zip(to.chunks_exact_mut(item))
        {
            // What pads the row is read too, times 0.
            let (row, padding) = to.split_at_mut(layout.numbers());
            padding.fill(0.0);
            let places = layout.places().zip(row);
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

/// The images of `span`, channels first.
fn planes(images: &[f32], span: Span, map: Map) -> Planes<'_> {
    let item = map.channels * map.pixels();
    Planes {
        values: &images[span.first * item..][..span.count * item],
        height: map.height,
        width: map.width,
    }
}
