//! The inner loop of convolutions and dense layers: a tile of pixels times channels, held in registers.

#![expect(
    clippy::needless_range_loop,
    reason = "plain ranges unroll, so that the sums stay in registers"
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
    pub(super) function: Option<Activation>,
}

/// Computes one tile.
pub(super) type Kernel = unsafe fn(&Tile);

/// How many pixels a tile has at most, by vectors in a block.
pub(super) fn max_rows(isa: Isa, vectors: usize) -> usize {
    match (isa.0, vectors) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 4) => 7,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) => 14,
        (_, 4) => 2,
        _ => 6,
    }
}

/// `rows` sums of `vectors` vectors; written as they are, or where `POOL` is 4, the largest of each four.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(tile: &Tile) {
    // SAFETY: the caller's: every pointer is valid for what the fields say.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for (v, sum) in sums[0].iter_mut().enumerate() {
            *sum = V::load(tile.bias.add(v * V::LANES));
        }
        for row in 1..ROWS {
            sums[row] = sums[0];
        }
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

#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize, const POOL: usize>(
    tile: &Tile,
    mut sums: [[V; VECTORS]; ROWS],
) {
    // The branches stand outside the loops, which then unroll, so that the sums stay in registers.
    // SAFETY: the caller's.
    unsafe {
        for row in 0..ROWS / POOL {
            for other in 1..POOL {
                for v in 0..VECTORS {
                    sums[row * POOL][v] = sums[row * POOL][v].at_least(sums[row * POOL + other][v]);
                }
            }
        }
        if !tile.residual.is_null() {
            for row in 0..ROWS / POOL {
                for v in 0..VECTORS {
                    let more = V::load(tile.residual.add(row * tile.residual_stride + v * V::LANES));
                    sums[row * POOL][v] = sums[row * POOL][v].add(more);
                }
            }
        }
        let clamp = bounds(tile.function);
        let [low, high] = clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        let (low, high) = (V::splat(low), V::splat(high));
        for row in 0..ROWS / POOL {
            for v in 0..VECTORS {
                let y = sums[row * POOL][v].at_least(low).at_most(high);
                y.store(tile.out.add(row * tile.out_stride + v * V::LANES));
            }
        }
        if let (None, Some(function)) = (clamp, tile.function) {
            activate_block::<V>(function, tile.out, ROWS / POOL, tile.out_stride, VECTORS);
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
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's.
    unsafe { tile::<F32x8, ROWS, VECTORS, POOL>(t) }
}

unsafe fn portable<const ROWS: usize, const VECTORS: usize, const POOL: usize>(t: &Tile) {
    // SAFETY: the caller's.
    unsafe { tile::<F32x4, ROWS, VECTORS, POOL>(t) }
}

/// The kernels of `$set` for 1, 2, … rows of `$vectors` vectors.
macro_rules! rows {
    ($set:ident, $vectors:literal: $($rows:literal)*) => {
        &[$($set::<$rows, $vectors, 1>),*]
    };
}

/// The kernel for `rows` pixels, 1 to [`max_rows`], of blocks of 1, 2 or 4 vectors.
pub(super) fn kernel(isa: Isa, vectors: usize, rows: usize) -> Kernel {
    let by_rows: &[Kernel] = match (isa.0, vectors) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1) => rows!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 2) => rows!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _) => rows!(avx512, 4: 1 2 3 4 5 6 7),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 1) => rows!(avx2, 1: 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 2) => rows!(avx2, 2: 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, _) => rows!(avx2, 4: 1 2),
        (Kind::Portable, 1) => rows!(portable, 1: 1 2 3 4 5 6),
        (Kind::Portable, 2) => rows!(portable, 2: 1 2 3 4 5 6),
        (Kind::Portable, _) => rows!(portable, 4: 1 2),
    };
    by_rows[rows - 1]
}

/// Outputs of a pooled tile at most: each is the largest of four pixels.
pub(super) fn max_pooled(isa: Isa) -> usize {
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => 3,
        _ => 1,
    }
}

/// The kernel for `outputs` (1 to [`max_pooled`]) largest of four pixels each, blocks of 1 or 2 vectors.
pub(super) fn pooled(isa: Isa, vectors: usize, outputs: usize) -> Kernel {
    match (isa.0, vectors, outputs) {
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1, 1) => avx512::<4, 1, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1, 2) => avx512::<8, 1, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, 1, _) => avx512::<12, 1, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _, 1) => avx512::<4, 2, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _, 2) => avx512::<8, 2, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, _, _) => avx512::<12, 2, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, 1, _) => avx2::<4, 1, 4>,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx2, _, _) => avx2::<4, 2, 4>,
        (Kind::Portable, 1, _) => portable::<4, 1, 4>,
        (Kind::Portable, _, _) => portable::<4, 2, 4>,
    }
}
