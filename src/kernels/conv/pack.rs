//! Weights in the order in which tiles read them.

use super::super::tile::Width;
use super::super::{Aligned, Isa};
use super::Filters;

/// Output channels computed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) width: Width,
    /// First input channel.
    pub(super) from: usize,
    /// First output channel.
    pub(super) to: usize,
    /// Where its weights begin.
    pub(super) weights: usize,
}

/// How output channels are cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Cut {
    /// At most two vectors, for many pixels; narrow ones where the last would be half empty.
    Tight,
    /// At most two whole vectors.
    Whole,
    /// At most four whole vectors, for few pixels.
    Wide,
}

/// Blocks × taps × input channels × the block's output channels.
pub(super) struct Packed {
    pub(super) blocks: Vec<Block>,
    /// Input channels that an output reads.
    pub(super) run: usize,
    pub(super) weights: Aligned,
}

/// Packs the weights of `taps` taps.
pub(super) fn pack(isa: Isa, filters: Filters<'_>, taps: usize, cut: Cut) -> Packed {
    let Filters {
        weight,
        out,
        channels,
        groups,
        ..
    } = filters;
    let (own_in, own_out) = (channels / groups, out / groups);
    // A group whose outputs are no whole vectors would begin inside one: zeros stand for what it does not read.
    let dense = groups > 1 && !own_out.is_multiple_of(isa.lanes());
    let (groups, run) = if dense { (1, channels) } else { (groups, own_in) };
    let weight_at = |o: usize, tap: usize, i: usize| -> f32 {
        let first = if dense { o / own_out * own_in } else { 0 };
        match i.checked_sub(first) {
            Some(i) if i < own_in => weight[(o * own_in + i) * taps + tap],
            _ => 0.0,
        }
    };
    let blocks = blocks(isa, [out, channels], groups, cut, taps * run);
    let total = blocks
        .last()
        .map_or(0, |b| b.weights + taps * run * b.width.channels(isa));
    let mut weights = Aligned::zeros(total);
    for block in &blocks {
        let width = block.width.channels(isa);
        let rows = weights[block.weights..][..taps * run * width].chunks_exact_mut(width);
        for (row, values) in rows.enumerate() {
            for (o, value) in (block.to..out.min(block.to + width)).zip(values) {
                *value = weight_at(o, row / run, row % run);
            }
        }
    }
    Packed { blocks, run, weights }
}

/// Blocks that cover the outputs of each group.
fn blocks(isa: Isa, [out, channels]: [usize; 2], groups: usize, cut: Cut, depth: usize) -> Vec<Block> {
    let lanes = isa.lanes();
    let mut blocks = Vec::new();
    let mut weights = 0;
    for group in 0..groups {
        let (first, own) = (group * (out / groups), out / groups);
        let mut done = 0;
        while done < own {
            let (width, vectors) = width(isa, own - done, cut);
            blocks.push(Block {
                width,
                from: group * (channels / groups),
                to: first + done,
                weights,
            });
            weights += depth * width.channels(isa);
            done += vectors * lanes;
        }
    }
    blocks
}

/// The width of the next block where `left` output channels are left, and how many whole vectors it covers.
///
/// A last vector that is half empty goes with the one before as three narrow ones, which takes three quarters of the time.
fn width(isa: Isa, left: usize, cut: Cut) -> (Width, usize) {
    let vectors = left.div_ceil(isa.lanes());
    let half =
        cut == Cut::Tight && Width::has_narrow(isa) && (1..=isa.lanes() / 2).contains(&(left % isa.lanes()));
    let (vectors, narrow, covered) = match vectors {
        1 if half => (1, true, 1),
        2 if half => (3, true, 2),
        3 if half => (1, false, 1),
        4.. if cut == Cut::Wide => (4, false, 4),
        2.. => (2, false, 2),
        _ => (1, false, 1),
    };
    (Width { vectors, narrow }, covered)
}
