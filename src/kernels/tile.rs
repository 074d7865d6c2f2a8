//! The inner loop of convolutions and dense layers: a tile of pixels times channels, held in registers.
#![expect(
    clippy::needless_range_loop,
    reason = "loops over registers, by one index of several arrays, which unroll whole"
)]

use super::activation::{Activation, activate_block, bounds};
use super::isa::{Isa, Kind};
use super::vector::{F32x4, Vector};
#[cfg(target_arch = "x86_64")]
use super::vector::{F32x8, F32x16};

/// One tile: `rows` pixels (a number the kernel is chosen by) by one block of output channels. The sum for a pixel runs
/// over the taps in order and over each tap's `run` numbers in order, whatever the tile, so that it never depends on the
/// batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// A pointer for each pixel of the tile.
    pub(super) pixels: *const *const f32,
    /// From a tap's pointers to the next tap's, in tiles: 0 where all taps share them, else 1.
    pub(super) next_tap: usize,
    /// Numbers added to the pointers, by tap.
    pub(super) offsets: *const usize,
    /// Numbers added to every pointer: the first channel of the block's group.
    pub(super) first: usize,
    pub(super) taps: usize,
    /// Numbers read at each tap.
    pub(super) run: usize,
    /// Taps × run × block.
    pub(super) weights: *const f32,
    /// One block.
    pub(super) bias: *const f32,
    /// Added before the activation, in the layout of `out`; null for none.
    pub(super) residual: *const f32,
    pub(super) residual_stride: usize,
    pub(super) out: *mut f32,
    /// From a pixel to the next.
    pub(super) out_stride: usize,
    /// What finished sums are clamped to.
    pub(super) bounds: [f32; 2],
    /// Applied to finished sums, where it is more than a clamp.
    pub(super) function: Option<Activation>,
    /// Whether `out` holds sums to go on from, in the place of the bias.
    pub(super) resumed: bool,
    /// Whether the sums are whole. Others are written as they are, without residual and function.
    pub(super) finished: bool,
}

impl Tile {
    /// A tile that reads and writes nothing.
    pub(super) const EMPTY: Self = Self {
        pixels: std::ptr::null(),
        next_tap: 0,
        offsets: &0,
        first: 0,
        taps: 1,
        run: 0,
        weights: std::ptr::null(),
        bias: std::ptr::null(),
        residual: std::ptr::null(),
        residual_stride: 0,
        out: std::ptr::null_mut(),
        out_stride: 0,
        bounds: [f32::NEG_INFINITY, f32::INFINITY],
        function: None,
        resumed: false,
        finished: true,
    };

    /// Moves output and residual from where those of the first output are to the tile that begins `pixels` pixels later.
    ///
    /// One tile is moved from place to place, rather than copied: a copy by vectors of what was just written by numbers
    /// would wait for all stores before it, the last tile's sums among them.
    pub(super) fn move_to(&mut self, (out, residual): (*mut f32, *const f32), pixels: usize) {
        self.out = out.wrapping_add(pixels * self.out_stride);
        if !residual.is_null() {
            self.residual = residual.wrapping_add(pixels * self.residual_stride);
        }
    }

    /// With a function, as a clamp where it is one.
    pub(super) fn with(self, function: Option<Activation>) -> Self {
        match bounds(function) {
            Some(bounds) => Self { bounds, ..self },
            None => Self { function, ..self },
        }
    }
}

/// Computes one tile of a block.
pub(super) type Kernel = unsafe fn(&Tile);

/// Channels of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    /// 1, 2 or 4; 1 or 3 where they are narrow.
    pub(super) vectors: usize,
    /// Whether vectors are half as long as the set's longest. Their tiles write zeros up to the next whole vector.
    pub(super) narrow: bool,
}

impl Width {
    /// Whether a set has narrow vectors.
    pub(super) fn has_narrow(isa: Isa) -> bool {
        match isa.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => true,
            _ => false,
        }
    }

    /// Output channels.
    pub(super) fn channels(self, isa: Isa) -> usize {
        self.vectors * isa.lanes() / if self.narrow { 2 } else { 1 }
    }
}

/// `rows` sums of `vectors` vectors; written as they are, or where `POOL` is 4, the largest of each four.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(tile: &Tile) {
    // SAFETY: the caller's: every pointer is valid for what the fields say.
    unsafe {
        let mut sums = start::<V, ROWS, VECTORS, POOL>(tile);
        let mut weights = tile.weights;
        for tap in 0..tile.taps {
            let pixels = tile
                .pixels
                .add(tap * tile.next_tap * ROWS)
                .cast::<[*const f32; ROWS]>();
            let offset = *tile.offsets.add(tap) + tile.first;
            for at in offset..offset + tile.run {
                let mut w = [V::splat(0.0); VECTORS];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(v * V::LANES));
                }
                for row in 0..ROWS {
                    let x = V::splat(*(*pixels)[row].add(at));
                    for v in 0..VECTORS {
                        sums[row][v] = x.fma(w[v], sums[row][v]);
                    }
                }
                weights = weights.add(VECTORS * V::LANES);
            }
        }
        finish::<V, ROWS, VECTORS, POOL>(tile, sums);
    }
}

/// The bias, or the sums so far.
#[inline(always)]
pub(super) unsafe fn start<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(
    tile: &Tile,
) -> [[V; VECTORS]; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        if POOL == 1 && tile.resumed {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    sums[row][v] = V::load(tile.out.add(row * tile.out_stride + v * V::LANES));
                }
            }
        } else {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    sums[row][v] = V::load(tile.bias.add(v * V::LANES));
                }
            }
        }
        sums
    }
}

/// Pools, adds the residual, applies the function, writes.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(
    tile: &Tile,
    mut sums: [[V; VECTORS]; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        for row in 0..ROWS / POOL {
            for other in 1..POOL {
                for v in 0..VECTORS {
                    sums[row * POOL][v] = sums[row * POOL][v].at_least(sums[row * POOL + other][v]);
                }
            }
        }
        if tile.finished {
            complete::<V, ROWS, VECTORS, POOL>(tile, &mut sums);
        }
        for row in 0..ROWS / POOL {
            for v in 0..VECTORS {
                sums[row * POOL][v].store(tile.out.add(row * tile.out_stride + v * V::LANES));
            }
        }
        if let (true, Some(function)) = (tile.finished, tile.function) {
            activate_block::<V>(function, tile.out, ROWS / POOL, tile.out_stride, VECTORS);
        }
    }
}

/// Adds the residual and clamps. The branches stand outside the loops, which then unroll, so that the sums stay in
/// registers.
#[inline(always)]
unsafe fn complete<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(
    tile: &Tile,
    sums: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        if !tile.residual.is_null() {
            for row in 0..ROWS / POOL {
                for v in 0..VECTORS {
                    let more = V::load(tile.residual.add(row * tile.residual_stride + v * V::LANES));
                    sums[row * POOL][v] = sums[row * POOL][v].add(more);
                }
            }
        }
        let [low, high] = tile.bounds;
        if low > f32::NEG_INFINITY {
            let low = V::splat(low);
            for row in 0..ROWS / POOL {
                for v in 0..VECTORS {
                    sums[row * POOL][v] = sums[row * POOL][v].at_least(low);
                }
            }
        }
        if high < f32::INFINITY {
            let high = V::splat(high);
            for row in 0..ROWS / POOL {
                for v in 0..VECTORS {
                    sums[row * POOL][v] = sums[row * POOL][v].at_most(high);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn avx512<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's.
    unsafe { tile::<F32x16, ROWS, VECTORS, POOL>(t) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn narrow<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's; an odd number of narrow vectors leaves room for one more in each pixel.
    unsafe {
        tile::<F32x8, ROWS, VECTORS, POOL>(t);
        for row in 0..ROWS / POOL {
            F32x8::splat(0.0).store(t.out.add(row * t.out_stride + VECTORS * F32x8::LANES));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's.
    unsafe { tile::<F32x8, ROWS, VECTORS, POOL>(t) }
}

unsafe fn portable<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's.
    unsafe { tile::<F32x4, ROWS, VECTORS, POOL>(t) }
}

/// The kernels of `$set` for `$rows` pixels of `$vectors` vectors.
macro_rules! rows {
    ($set:ident, $vectors:literal, $pool:literal: $($rows:literal)*) => {
        &[$($set::<$rows, $vectors, $pool>),*]
    };
}

/// The kernels for 1, 2, … pixels of a block.
pub(super) fn kernels(isa: Isa, width: Width) -> &'static [Kernel] {
    match (isa.0, width.vectors) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1) if width.narrow => rows!(narrow, 1, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) if width.narrow => rows!(narrow, 3, 1: 1 2 3 4 5 6 7 8 9),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1) => rows!(avx512, 1, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 2) => rows!(avx512, 2, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) => rows!(avx512, 4, 1: 1 2 3 4 5 6 7),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 1) => rows!(avx2, 1, 1: 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 2) => rows!(avx2, 2, 1: 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, _) => rows!(avx2, 4, 1: 1 2),
        (Kind::Portable, 1) => rows!(portable, 1, 1: 1 2 3 4 5 6),
        (Kind::Portable, 2) => rows!(portable, 2, 1: 1 2 3 4 5 6),
        (Kind::Portable, _) => rows!(portable, 4, 1: 1 2),
    }
}

/// The kernels for 1, 2, … largest of four pixels each, of a block of at most 2 vectors or 3 narrow ones.
pub(super) fn pooled(isa: Isa, width: Width) -> &'static [Kernel] {
    match (isa.0, width.vectors) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1) if width.narrow => rows!(narrow, 1, 4: 4 8 12),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) if width.narrow => rows!(narrow, 3, 4: 4 8),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1) => rows!(avx512, 1, 4: 4 8 12),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) => rows!(avx512, 2, 4: 4 8 12),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 1) => rows!(avx2, 1, 4: 4),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, _) => rows!(avx2, 2, 4: 4),
        (Kind::Portable, 1) => rows!(portable, 1, 4: 4),
        (Kind::Portable, _) => rows!(portable, 2, 4: 4),
    }
}
