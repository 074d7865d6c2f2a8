//! Convolution over channels-last maps: each output is a sum of runs of channels, read through a pointer for each pixel
//! and tap, so that strides, borders and dilation cost no copy of the input.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::activation::Activation;
use super::tile::{self, Tile};
use super::{Aligned, Batch, Isa, Map, Output, Part, Source, Target, Windows};

/// Pointers held at once: tiles of a group, their pixels and taps.
const POINTERS: usize = 2048;
/// Taps of a window at most.
pub const MAX_TAPS: usize = POINTERS;
/// Tiles that share a table at most.
const MAX_GROUP: usize = 32;
/// Pixels of a tile at most.
const MAX_PIXELS: usize = 14;

/// A convolution's weights, packed for one set of instructions. A dense layer is one over maps of a single pixel.
#[derive(Debug)]
pub struct Conv {
    isa: Isa,
    windows: Windows,
    /// Runs of a window and numbers in each: taps and input channels, or rows of taps where rows are contiguous.
    taps: usize,
    run: usize,
    blocks: Vec<Block>,
    weights: Aligned,
    bias: Aligned,
    /// Zeros for what lies outside the map, as many as a tap may reach.
    outside: Aligned,
    pooled: bool,
    function: Option<Activation>,
}

/// Output channels computed together.
#[derive(Clone, Copy, Debug)]
struct Block {
    vectors: usize,
    /// First input channel.
    from: usize,
    /// First output channel.
    to: usize,
    /// Where its weights begin.
    weights: usize,
}

/// Weights of a convolution as torch has them.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    /// Output × input/groups × kh × kw.
    pub weight: &'a [f32],
    /// One per output, or empty for zeros.
    pub bias: &'a [f32],
    /// Output channels.
    pub out: usize,
    /// Input channels.
    pub channels: usize,
    /// Channel groups.
    pub groups: usize,
}

/// What a kernel reads, and what it does with its sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    /// The input's numbers.
    pub(super) values: &'a [f32],
    /// Their layout.
    pub(super) map: Map,
    /// Items of the batch.
    pub(super) items: usize,
    /// Numbers in the layout of the output, added to the sums.
    pub(super) residual: Option<(&'a [f32], Map)>,
    /// Applied last.
    pub(super) function: Option<Activation>,
}

impl Conv {
    /// Packs weights. `wide` blocks are quicker for few pixels (dense layers), others for many.
    ///
    /// # Panics
    /// Where lengths do not meet.
    pub fn pack(isa: Isa, filters: Filters<'_>, windows: Windows, wide: bool) -> Self {
        let lanes = isa.lanes();
        let Filters {
            weight,
            bias,
            out,
            channels,
            groups,
        } = filters;
        let taps = windows.kernel[0] * windows.kernel[1];
        assert_eq!(
            weight.len(),
            out * (channels / groups) * taps,
            "weights of {out} filters"
        );
        assert!(
            bias.is_empty() || bias.len() == out,
            "{} biases for {out} filters",
            bias.len()
        );
        // A group whose outputs are no whole vectors would begin inside one: zeros stand for what it does not read.
        let dense = groups > 1 && !(out / groups).is_multiple_of(lanes);
        let (groups, run) = if dense {
            (1, channels)
        } else {
            (groups, channels / groups)
        };
        let weight_at = |o: usize, tap: usize, i: usize| -> f32 {
            let (own_in, own_out) = (channels / filters.groups, out / filters.groups);
            let first = if dense { o / own_out * own_in } else { 0 };
            match i.checked_sub(first) {
                Some(i) if i < own_in => weight[(o * own_in + i) * taps + tap],
                _ => 0.0,
            }
        };
        let blocks = blocks(isa, [out, channels], groups, wide, taps * run);
        let total = blocks
            .last()
            .map_or(0, |b| b.weights + taps * run * b.vectors * lanes);
        let mut packed = Aligned::zeros(total);
        for block in &blocks {
            let width = block.vectors * lanes;
            let rows = packed[block.weights..][..taps * run * width].chunks_exact_mut(width);
            for (row, values) in rows.enumerate() {
                for (o, value) in (block.to..out.min(block.to + width)).zip(values) {
                    *value = weight_at(o, row / run, row % run);
                }
            }
        }
        let mut padded_bias = Aligned::zeros(isa.padded(out) + 4 * lanes);
        padded_bias[..bias.len()].copy_from_slice(bias);
        Self {
            isa,
            windows,
            taps,
            run,
            blocks,
            weights: packed,
            bias: padded_bias,
            outside: Aligned::zeros(channels),
            pooled: false,
            function: None,
        }
    }

    /// With the largest of each 2×2 square of outputs in their place (max-pool 2, stride 2).
    pub fn pooled(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// With a function after the sums and the residual.
    pub fn activated(mut self, function: Option<Activation>) -> Self {
        self.function = function;
        self
    }

    /// The convolution of `source`, with `residual` (of the target's size) added before the function.
    ///
    /// # Panics
    /// Where numbers are too few for their layouts, or layouts do not meet.
    pub fn run(&self, source: Source<'_>, residual: Option<Source<'_>>, target: &Target<'_>, batch: Batch) {
        let job = Job {
            values: source.values,
            map: source.map,
            items: batch.items,
            residual: residual.map(|r| (r.values, r.map)),
            function: self.function,
        };
        self.compute(job, &target.values, target.map, batch.part);
    }

    fn compute(&self, source: Job<'_>, out: &Output<'_>, to: Map, part: Part) {
        self.check(&source, out, to);
        let outputs = source.items * to.pixels();
        let tiling = self.tiling(outputs);
        let mut table = Table::new(self, &source, to);
        let mut filled = usize::MAX;
        for unit in part.range(tiling.groups * self.blocks.len()) {
            let (group, block) = (unit / self.blocks.len(), &self.blocks[unit % self.blocks.len()]);
            if filled != group {
                table.fill(&tiling, group);
                filled = group;
            }
            for (slot, tile) in tiling.tiles_of(group).enumerate() {
                let range = tiling.outputs_of(tile);
                let work = self.tile(&source, (out, to), (block, range.start), table.slot(slot));
                let kernel = if self.pooled {
                    tile::pooled(self.isa, block.vectors, range.len())
                } else {
                    tile::kernel(self.isa, block.vectors, range.len())
                };
                // SAFETY: `check` holds the layouts to the lengths; the table points at `run` numbers of the input or of
                // `outside` for each pixel and tap; tiles write disjoint outputs, and parts have disjoint tiles.
                unsafe { kernel(&work) };
            }
        }
    }

    fn tile(
        &self,
        source: &Job<'_>,
        (out, to): (&Output<'_>, Map),
        (block, first): (&Block, usize),
        (pixels, next_tap, offsets): (*const *const f32, usize, *const usize),
    ) -> Tile {
        let (residual, residual_stride) = match source.residual {
            Some((values, map)) => (values[first * map.stride + block.to..].as_ptr(), map.stride),
            None => (std::ptr::null(), 0),
        };
        Tile {
            pixels,
            next_tap,
            offsets,
            first: block.from,
            taps: self.taps,
            run: self.run,
            weights: self.weights[block.weights..].as_ptr(),
            bias: self.bias[block.to..].as_ptr(),
            residual,
            residual_stride,
            // Within the output: `check` has seen its whole reach.
            out: out.start().wrapping_add(first * to.stride + block.to),
            out_stride: to.stride,
            function: source.function,
        }
    }

    fn tiling(&self, outputs: usize) -> Tiling {
        let (most, per_output) = if self.pooled {
            (tile::max_pooled(self.isa), 4)
        } else {
            let rows = self.blocks.iter().map(|b| tile::max_rows(self.isa, b.vectors));
            (rows.min().unwrap_or(1), 1)
        };
        let most = most.min(POINTERS / (self.taps * per_output));
        let tiles = outputs.div_ceil(most);
        let pointers = self.taps * most * per_output;
        let group = (POINTERS / pointers).min(MAX_GROUP);
        Tiling {
            outputs,
            tiles,
            group,
            groups: tiles.div_ceil(group),
        }
    }

    fn check(&self, source: &Job<'_>, out: &Output<'_>, to: Map) {
        let Job {
            values,
            map,
            items,
            residual,
            ..
        } = source;
        let padded = self
            .blocks
            .last()
            .map_or(0, |b| b.to + b.vectors * self.isa.lanes());
        assert!(
            self.isa.padded(to.channels) == padded && to.stride >= padded,
            "{to:?} of {padded} channels"
        );
        assert!(
            out.len() >= to.reach(*items, padded),
            "an output of {} numbers for {to:?}",
            out.len()
        );
        if let Some((values, map)) = residual {
            assert!(
                (map.height, map.width) == (to.height, to.width) && map.stride >= padded,
                "residual {map:?}, {to:?}"
            );
            assert!(
                values.len() >= map.reach(*items, padded),
                "a residual of {} numbers",
                values.len()
            );
        }
        // The last column that a tap may begin in; a run may reach beyond its pixel where rows of taps are contiguous.
        let columns = to.width * if self.pooled { 2 } else { 1 };
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.windows;
        let last = (columns.saturating_sub(1) * stride[1] + (kernel[1] - 1) * dilation[1])
            .saturating_sub(padding[1]);
        let last = last.min(map.width.saturating_sub(1));
        let begin = (items * map.height).saturating_sub(1) * map.width + last;
        let reach = begin * map.stride + self.outside.len();
        assert!(
            *items == 0 || values.len() >= reach,
            "an input of {} numbers for {map:?}",
            values.len()
        );
    }
}

/// Outputs in tiles, tiles in groups that share one table of pointers.
struct Tiling {
    outputs: usize,
    tiles: usize,
    group: usize,
    groups: usize,
}

impl Tiling {
    fn tiles_of(&self, group: usize) -> Range<usize> {
        group * self.group..self.tiles.min((group + 1) * self.group)
    }

    fn outputs_of(&self, tile: usize) -> Range<usize> {
        self.outputs * tile / self.tiles..self.outputs * (tile + 1) / self.tiles
    }
}

/// Pointers to what the tiles of a group read.
struct Table<'a> {
    windows: Windows,
    pooled: bool,
    map: Map,
    to: Map,
    values: &'a [f32],
    outside: &'a [f32],
    taps: usize,
    slots: [(usize, bool); MAX_GROUP],
    pointers: [MaybeUninit<*const f32>; POINTERS],
    /// By tap, for tiles that lie wholly inside the map.
    inside: [MaybeUninit<usize>; POINTERS],
}

/// An output's window: its first tap's place, which may lie outside the map.
#[derive(Clone, Copy)]
struct Window {
    item: usize,
    row: isize,
    column: isize,
}

impl<'a> Table<'a> {
    fn new(conv: &'a Conv, source: &Job<'a>, to: Map) -> Self {
        let Windows { kernel, dilation, .. } = conv.windows;
        let mut inside = [const { MaybeUninit::uninit() }; POINTERS];
        for (tap, offset) in inside.iter_mut().take(conv.taps).enumerate() {
            let (row, column) = (tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]);
            offset.write((row * source.map.width + column) * source.map.stride);
        }
        Self {
            windows: conv.windows,
            pooled: conv.pooled,
            map: source.map,
            to,
            values: source.values,
            outside: &conv.outside,
            taps: conv.taps,
            slots: [(0, false); MAX_GROUP],
            pointers: [const { MaybeUninit::uninit() }; POINTERS],
            inside,
        }
    }

    /// Points at the windows of the tiles of `group`.
    fn fill(&mut self, tiling: &Tiling, group: usize) {
        let mut begin = 0;
        for (slot, tile) in tiling.tiles_of(group).enumerate() {
            let mut windows = [Window {
                item: 0,
                row: 0,
                column: 0,
            }; MAX_PIXELS];
            let count = self.windows_of(tiling.outputs_of(tile), &mut windows);
            let windows = &windows[..count];
            let inside = windows.iter().all(|w| self.is_inside(*w));
            self.slots[slot] = (begin, inside);
            begin += self.point(begin, windows, inside);
        }
    }

    fn windows_of(&self, outputs: Range<usize>, windows: &mut [Window; MAX_PIXELS]) -> usize {
        let Windows { stride, padding, .. } = self.windows;
        let window = |item: usize, row: usize, column: usize| Window {
            item,
            row: (row * stride[0]).cast_signed() - padding[0].cast_signed(),
            column: (column * stride[1]).cast_signed() - padding[1].cast_signed(),
        };
        let mut count = 0;
        let (mut column, rest) = (outputs.start % self.to.width, outputs.start / self.to.width);
        let (mut row, mut item) = (rest % self.to.height, rest / self.to.height);
        for _ in outputs {
            if self.pooled {
                for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    windows[count] = window(item, 2 * row + y, 2 * column + x);
                    count += 1;
                }
            } else {
                windows[count] = window(item, row, column);
                count += 1;
            }
            column += 1;
            if column == self.to.width {
                (column, row) = (0, row + 1);
                if row == self.to.height {
                    (row, item) = (0, item + 1);
                }
            }
        }
        count
    }

    fn is_inside(&self, window: Window) -> bool {
        let Windows { kernel, dilation, .. } = self.windows;
        let last = |axis: usize| ((kernel[axis] - 1) * dilation[axis]).cast_signed();
        window.row >= 0
            && window.column >= 0
            && window.row + last(0) < self.map.height.cast_signed()
            && window.column + last(1) < self.map.width.cast_signed()
    }

    /// Writes the pointers of one tile from place `begin` on; returns how many.
    fn point(&mut self, begin: usize, windows: &[Window], inside: bool) -> usize {
        let taps = if inside { 1 } else { self.taps };
        let Windows { kernel, dilation, .. } = self.windows;
        for tap in 0..taps {
            let step = [tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]];
            for (i, window) in windows.iter().enumerate() {
                let row = usize::try_from(window.row + step[0].cast_signed());
                let column = usize::try_from(window.column + step[1].cast_signed());
                let pointer = match (row, column) {
                    (Ok(row), Ok(column)) if row < self.map.height && column < self.map.width => {
                        let pixel = (window.item * self.map.height + row) * self.map.width + column;
                        self.values[pixel * self.map.stride..].as_ptr()
                    }
                    _ => self.outside.as_ptr(),
                };
                self.pointers[begin + tap * windows.len() + i].write(pointer);
            }
        }
        taps * windows.len()
    }

    /// The pointers of a tile of the group, how far one tap's lie from the next's, and what each tap adds to them.
    fn slot(&self, slot: usize) -> (*const *const f32, usize, *const usize) {
        let (begin, inside) = self.slots[slot];
        let pointers = self.pointers[begin..].as_ptr().cast();
        if inside {
            (pointers, 0, self.inside.as_ptr().cast())
        } else {
            (pointers, 1, NOTHING.as_ptr())
        }
    }
}

static NOTHING: [usize; POINTERS] = [0; POINTERS];

/// Blocks of 4, 2 and 1 vectors that cover the outputs of each group.
fn blocks(isa: Isa, [out, channels]: [usize; 2], groups: usize, wide: bool, depth: usize) -> Vec<Block> {
    let lanes = isa.lanes();
    let mut blocks = Vec::new();
    let mut weights = 0;
    for group in 0..groups {
        let (first, count) = (group * (out / groups), (out / groups).div_ceil(lanes));
        let mut done = 0;
        while done < count {
            let vectors = match count - done {
                4.. if wide => 4,
                2.. => 2,
                _ => 1,
            };
            blocks.push(Block {
                vectors,
                from: group * (channels / groups),
                to: first + done * lanes,
                weights,
            });
            weights += depth * vectors * lanes;
            done += vectors;
        }
    }
    blocks
}
