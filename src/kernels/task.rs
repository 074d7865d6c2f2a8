//! One kernel over one batch, shared by the threads of a team.

use super::activation::activate;
use super::elementwise::{add, add_in_place, multiply, multiply_in_place};
use super::layout::{copy_channels, from_planes, pad, to_planes};
use super::output::{Output, Part};
use super::pool::{avg_pool, global_avg_pool, max_pool};
use super::team::{Team, each_part};
use super::view::{Source, Target};
use super::{
    Activation, Affine, Batch, Conv, Depthwise, First, Image, Isa, Job, LayerNorm, Map, Planes, Windows,
    Winograd,
};

/// A kernel, and what it reads. Maps say how many windows there are; what one number becomes depends neither on the other
/// items nor on the team.
#[derive(Clone, Copy, Debug)]
pub enum Kernel<'a> {
    /// A convolution or a dense layer.
    Conv(&'a Conv, Job<'a>),
    /// A convolution by Winograd's method.
    Winograd(&'a Winograd, Job<'a>),
    /// A convolution of images that [`First::pack_image`] has packed.
    First(&'a First, (&'a [f32], Image), Option<Activation>),
    /// A depthwise convolution.
    Depthwise(&'a Depthwise, Source<'a>),
    /// The largest number of each window.
    MaxPool(Windows, Source<'a>),
    /// The mean of each window.
    AvgPool(Windows, Source<'a>),
    /// The mean of each channel.
    GlobalAvgPool(Source<'a>),
    /// x·scale + shift by channel.
    Affine(&'a Affine, Source<'a>),
    /// x·scale + shift by channel of what is there.
    AffineInPlace(&'a Affine),
    /// Layer-norm of each pixel.
    LayerNorm(&'a LayerNorm, Source<'a>),
    /// The sum of two maps, then a function.
    Add([Source<'a>; 2], Option<Activation>),
    /// A map added to what is there, then a function.
    AddInPlace(Source<'a>, Option<Activation>),
    /// Each channel by its factor; items × padded channels.
    Scale(Source<'a>, &'a [f32]),
    /// Each channel of what is there by its factor; items × padded channels.
    ScaleInPlace(&'a [f32]),
    /// Channels to their place in a wider map, from this channel on.
    CopyChannels(Source<'a>, usize),
    /// A map in zeros, from this row and column on.
    Pad(Source<'a>, [usize; 2]),
    /// Planes to channels-last.
    FromPlanes(Planes<'a>),
    /// Channels-last to planes, side by side: the layout written is theirs.
    ToPlanes(Source<'a>),
    /// A function of what is there already: whole vectors, whatever they belong to.
    Activate(Activation),
}

/// One kernel over one batch.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The vector instructions that its weights were packed for.
    pub isa: Isa,
    /// What is computed.
    pub kernel: Kernel<'a>,
    /// Items of the batch.
    pub items: usize,
    /// How each item is written.
    pub map: Map,
}

impl Task<'_> {
    /// Writes the outputs over `values`, as many parts at once as `team` has threads.
    ///
    /// # Panics
    /// Where maps do not fit each other, the kernel or their numbers, or scratch is less than
    /// [`Winograd::scratch_len`] for each of the team's threads.
    pub fn run(&self, values: &mut [f32], scratch: &mut [f32], team: &dyn Team) {
        let of = team.threads();
        let share = match self.kernel {
            Kernel::Winograd(conv, _) => conv.scratch_len(self.items, self.map),
            _ => 0,
        };
        assert!(
            share
                .checked_mul(of)
                .is_some_and(|needed| needed <= scratch.len()),
            "scratch of {} numbers, not {of} times {share}",
            scratch.len()
        );
        let (out, scratch) = (Output::from(values), Output::from(scratch));
        each_part(team, of, |part| {
            // SAFETY: each part is run once, with a share of the scratch that is its own, all of which lie in it.
            let own = unsafe {
                std::slice::from_raw_parts_mut(scratch.start().wrapping_add(part.index * share), share)
            };
            // SAFETY: all outputs go to one kernel, whose parts are disjoint.
            let out = unsafe { Output::new(out.start(), out.len()) };
            self.part(out, own, part);
        });
    }

    fn part(&self, out: Output<'_>, scratch: &mut [f32], part: Part) {
        let Self {
            isa,
            kernel,
            items,
            map,
        } = *self;
        let batch = Batch { items, part };
        let target = |values| Target { values, map };
        match kernel {
            Kernel::Conv(conv, job) => conv.run(job, &out, map, part),
            Kernel::Winograd(conv, job) => conv.run(job, (&out, map), scratch, part),
            Kernel::First(first, (packed, image), function) => {
                first.run((packed, image, items), function, (&out, map), part);
            }
            Kernel::Depthwise(filters, source) => filters.run(source, target(out), batch),
            Kernel::MaxPool(windows, source) => max_pool(isa, windows, source, target(out), batch),
            Kernel::AvgPool(windows, source) => avg_pool(isa, windows, source, target(out), batch),
            Kernel::GlobalAvgPool(source) => global_avg_pool(isa, source, target(out), batch),
            Kernel::Affine(affine, source) => affine.run(source, target(out), batch),
            Kernel::AffineInPlace(affine) => affine.run_in_place(target(out), batch),
            Kernel::LayerNorm(norm, source) => norm.run(source, target(out), batch),
            Kernel::Add(sources, function) => add(isa, sources, target(out), function, batch),
            Kernel::AddInPlace(source, function) => add_in_place(isa, source, target(out), function, batch),
            Kernel::ScaleInPlace(factors) => multiply_in_place(isa, target(out), factors, batch),
            Kernel::Scale(source, factors) => multiply(isa, source, factors, target(out), batch),
            Kernel::CopyChannels(source, offset) => copy_channels(isa, source, target(out), offset, batch),
            Kernel::Pad(source, start) => pad(isa, source, target(out), start, batch),
            Kernel::FromPlanes(planes) => from_planes(isa, planes, target(out), [0; 2], batch),
            Kernel::ToPlanes(source) => to_planes(isa, source, out, batch),
            Kernel::Activate(function) => {
                let lanes = isa.lanes();
                assert!(out.len().is_multiple_of(lanes), "numbers are not whole vectors");
                let vectors = part.range(out.len() / lanes);
                // SAFETY: these vectors are this part's alone, and all lie in the output.
                let own = unsafe {
                    std::slice::from_raw_parts_mut(
                        out.start().wrapping_add(vectors.start * lanes),
                        vectors.len() * lanes,
                    )
                };
                activate(isa, function, own);
            }
        }
    }
}

#[cfg(test)]
mod tests;
