//! Convolution over channels-last maps: each output is a sum of runs of channels, read through a pointer for each pixel
//! and tap, so that strides, borders and dilation cost no copy of the input.

mod pack;
mod strip;
mod table;

pub(super) use self::pack::Cut;
use self::pack::{Block, Packed};
use self::table::{Storage, Table, Tiling};
use super::activation::Activation;
use super::tile::{self, Kernel, Tile};
use super::{Aligned, Isa, Map, Output, Part, Windows};

/// Pointers held at once: tiles of a group, their pixels and taps.
const POINTERS: usize = 2048;
/// Tiles that share a table at most.
const MAX_GROUP: usize = 32;
/// Taps of a window at most: a pooled tile points at four windows.
pub const MAX_TAPS: usize = POINTERS / 4;
/// Stride, dilation and border at most: no place in a map wraps around.
pub(super) const MAX_STEP: usize = 1 << 12;
/// Parts at most: far more than there are cores.
const MAX_PARTS: usize = 1 << 12;
/// Numbers of the input that a group of tiles reads, and weights of a pass: both stay in the second cache together.
const CACHED: usize = 64 * 1024;

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
pub struct Job<'a> {
    /// The input's numbers.
    pub values: &'a [f32],
    /// Their layout.
    pub map: Map,
    /// Items of the batch.
    pub items: usize,
    /// Numbers in the layout of the output, added to the sums.
    pub residual: Option<(&'a [f32], Map)>,
    /// Applied last.
    pub function: Option<Activation>,
}

impl Conv {
    /// Packs weights. `wide` blocks are quicker for few pixels (dense layers), others for many.
    ///
    /// # Panics
    /// Where lengths do not meet, a window has more than 512 taps, or steps are none or beyond 4096.
    pub fn pack(isa: Isa, filters: Filters<'_>, windows: Windows, wide: bool) -> Self {
        let cut = if wide { Cut::Wide } else { Cut::Tight };
        Self::pack_cut(isa, filters, windows, cut)
    }

    /// [`pack`](Self::pack) with a choice of blocks.
    pub(super) fn pack_cut(isa: Isa, filters: Filters<'_>, windows: Windows, cut: Cut) -> Self {
        let taps = windows.tap_count();
        assert!((1..=MAX_TAPS).contains(&taps), "a window of {taps} taps");
        let [steps, distances] = [windows.stride, windows.dilation];
        assert!(
            [steps, distances]
                .as_flattened()
                .iter()
                .all(|step| (1..=MAX_STEP).contains(step))
                && windows.padding.iter().all(|&border| border <= MAX_STEP),
            "steps of {windows:?}"
        );
        filters.check(taps);
        let Packed { blocks, run, weights } = pack::pack(isa, filters, taps, cut);
        Self {
            isa,
            windows,
            taps,
            run,
            blocks,
            weights,
            bias: filters.padded_bias(isa),
            outside: Aligned::zeros(filters.channels),
            pooled: false,
        }
    }

    /// With the largest of each 2×2 square of outputs in their place (max-pool 2, stride 2).
    ///
    /// # Panics
    /// Where blocks are wide.
    pub fn pooled(mut self) -> Self {
        assert!(
            self.blocks.iter().all(|b| b.width.vectors < 4),
            "a pooled tile of a wide block"
        );
        self.pooled = true;
        self
    }

    /// Outputs along a side of the square that one number comes from: 2 where they are pooled.
    pub(super) fn side(&self) -> usize {
        if self.pooled { 2 } else { 1 }
    }

    /// Convolves `part` of the outputs.
    ///
    /// # Panics
    /// Where numbers are too few for their layouts.
    pub(super) fn run(&self, source: Job<'_>, out: &Output<'_>, to: Map, part: Part) {
        self.check(&source, out, to);
        part.check();
        if self.has_strips(source.map, to) {
            return self.strips(&source, (out, to), part);
        }
        let tiling = self.tiling(&source, to);
        let mut storage = Storage::new();
        let mut table = Table::new(self, &source, to, &mut storage);
        let mut filled = usize::MAX;
        for unit in part.range(tiling.groups * self.blocks.len()) {
            let (group, block) = (unit / self.blocks.len(), &self.blocks[unit % self.blocks.len()]);
            if filled != group {
                table.fill(&tiling, group);
                filled = group;
            }
            self.group(&source, (out, to), block, (&table, &tiling, group));
        }
    }

    /// Convolves the tiles of a group, in passes over weights that stay in the cache.
    fn group(
        &self,
        source: &Job<'_>,
        (out, to): (&Output<'_>, Map),
        block: &Block,
        (table, tiling, group): (&Table<'_>, &Tiling, usize),
    ) {
        let tiles = tiling.tiles_of(group);
        let kernels = self.kernels(block);
        let mut work = self.tile(source, (out, to), block);
        let (start, weights) = ((work.out, work.residual), work.weights);
        let of = if tiles.len() == 1 { 1 } else { self.passes(block) };
        for index in 0..of {
            let (tap, at, taps, run) = self.pass(Part { index, of });
            (work.taps, work.run, work.first) = (taps, run, block.from + at);
            work.weights = weights.wrapping_add((tap * self.run + at) * block.width.channels(self.isa));
            (work.resumed, work.finished) = (index > 0, index + 1 == of);
            for (slot, tile) in tiles.clone().enumerate() {
                let range = tiling.outputs_of(tile);
                let (pixels, next_tap, offsets) = table.slot(slot);
                work.pixels = pixels.wrapping_add(tap * next_tap * range.len());
                (work.next_tap, work.offsets) = (next_tap, offsets.wrapping_add(tap));
                // Within output and residual: `check` has seen their whole reach.
                work.move_to(start, range.start);
                // SAFETY: `check` holds the layouts to the lengths; the table points at `run` numbers of the input or of
                // `outside` for each pixel and tap; tiles write disjoint outputs, and parts have disjoint tiles.
                unsafe { kernels[range.len() - 1](&work) };
            }
        }
    }

    fn kernels(&self, block: &Block) -> &'static [Kernel] {
        if self.pooled {
            tile::pooled(self.isa, block.width)
        } else {
            tile::kernels(self.isa, block.width)
        }
    }

    /// What all tiles of a block have alike.
    fn tile(&self, source: &Job<'_>, (out, to): (&Output<'_>, Map), block: &Block) -> Tile {
        let (residual, residual_stride) = match source.residual {
            Some((values, map)) => (values[block.to..].as_ptr(), map.stride),
            None => (std::ptr::null(), 0),
        };
        Tile {
            first: block.from,
            taps: self.taps,
            run: self.run,
            weights: self.weights[block.weights..].as_ptr(),
            bias: self.bias[block.to..].as_ptr(),
            residual,
            residual_stride,
            out: out.start().wrapping_add(block.to),
            out_stride: to.stride,
            ..Tile::EMPTY
        }
        .with(source.function)
    }

    /// Into how many passes a block's weights are cut: between taps, or within the only tap. Pooled tiles do not resume.
    fn passes(&self, block: &Block) -> usize {
        let weights = self.taps * self.run * block.width.channels(self.isa);
        let cuts = match self.taps {
            _ if self.pooled => 1,
            1 => self.run,
            taps => taps,
        };
        weights.div_ceil(CACHED).clamp(1, cuts.max(1))
    }

    /// The first tap of a pass, the first number of its runs, and how many of each.
    fn pass(&self, part: Part) -> (usize, usize, usize, usize) {
        if self.taps > 1 {
            let taps = part.range(self.taps);
            (taps.start, 0, taps.len(), self.run)
        } else {
            let run = part.range(self.run);
            (0, run.start, 1, run.len())
        }
    }

    fn tiling(&self, source: &Job<'_>, to: Map) -> Tiling {
        let most = self.blocks.iter().map(|block| self.kernels(block).len());
        let most = most.min().unwrap_or(1);
        let windows = self.side() * self.side();
        let most = most.min(POINTERS / (self.taps * windows)).max(1);
        let pointers = self.taps * most * windows;
        let [down, right] = self.windows.stride;
        // Each pass over the weights of a single tap reads its own share of the input.
        let passes = self.blocks.iter().map(|block| self.passes(block)).max();
        let shares = if self.taps == 1 { passes.unwrap_or(1) } else { 1 };
        let inputs = most * windows * down * right * self.outside.len() / shares;
        let group = (POINTERS / pointers)
            .min(CACHED / inputs.max(1))
            .clamp(1, MAX_GROUP);
        Tiling::new(source.items * to.pixels(), most, group)
    }

    fn check(&self, source: &Job<'_>, out: &Output<'_>, to: Map) {
        source.check_outputs(out, to, self.bias.len(), self.isa);
        let Job {
            values, map, items, ..
        } = source;
        // The last column that a tap may begin in; a run may reach beyond its pixel where rows of taps are contiguous.
        let columns = to.width * self.side();
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.windows;
        let last = (columns.saturating_sub(1) * stride[1] + (kernel[1] - 1) * dilation[1])
            .saturating_sub(padding[1]);
        let last = last.min(map.width.saturating_sub(1));
        let rows = items.saturating_mul(map.height).saturating_sub(1);
        let begin = rows.saturating_mul(map.width).saturating_add(last);
        let reach = begin
            .saturating_mul(map.stride)
            .saturating_add(self.outside.len());
        assert!(
            *items == 0 || values.len() >= reach,
            "an input of {} numbers for {map:?}",
            values.len()
        );
    }
}

impl Filters<'_> {
    /// Asserts that the numbers are as many as `taps` taps need.
    pub(super) fn check(&self, taps: usize) {
        let Self {
            weight,
            bias,
            out,
            channels,
            groups,
        } = *self;
        assert!(
            groups > 0 && channels.is_multiple_of(groups) && out.is_multiple_of(groups),
            "{groups} groups of {channels} and {out} channels"
        );
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
    }

    /// The bias with zeros up to the next whole vector.
    pub(super) fn padded_bias(&self, isa: Isa) -> Aligned {
        let mut padded = Aligned::zeros(isa.padded(self.out));
        padded[..self.bias.len()].copy_from_slice(self.bias);
        padded
    }
}

impl Part {
    /// Asserts that there is such a part.
    pub(super) fn check(self) {
        let Self { index, of } = self;
        assert!(index < of && of <= MAX_PARTS, "part {index} of {of}");
    }
}

impl Job<'_> {
    /// Asserts that output and residual have room for `padded` channels of all items.
    pub(super) fn check_outputs(&self, out: &Output<'_>, to: Map, padded: usize, isa: Isa) {
        assert!(
            isa.padded(to.channels) == padded && to.stride >= padded,
            "{to:?} of {padded} channels"
        );
        assert!(
            out.len() >= to.reach(self.items, padded),
            "an output of {} numbers for {to:?}",
            out.len()
        );
        if let Some((values, map)) = self.residual {
            assert!(
                (map.height, map.width) == (to.height, to.width) && map.stride >= padded,
                "residual {map:?}, {to:?}"
            );
            assert!(
                values.len() >= map.reach(self.items, padded),
                "a residual of {} numbers",
                values.len()
            );
        }
    }
}

#[cfg(test)]
mod tests;
