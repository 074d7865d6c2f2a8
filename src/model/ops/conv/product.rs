//! Convolution as a matrix product over the windows of an image.
//!
//! The matrix of one image is made a few output rows at a time, so that it is still in the cache when it is multiplied.

use std::ops::Range;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor};

use super::super::columns::{self, Sizes};
use super::super::{Real, read};
use super::{Gradients, Operands};

/// Numbers of a matrix that is made at once: 640 kB of f32 share a second-level cache with the product's own blocks.
const MATRIX: usize = 160 * 1024;

/// N×O×H'×W', flat.
pub(super) fn forward<T: Real>(sizes: &Sizes, operands: &Operands<'_, T>) -> Result<Vec<T>> {
    let (outputs, taps, pixels) = (per_group(sizes), sizes.taps(), sizes.pixels());
    let weights = weights_by_group(sizes, operands.weight)?;
    let matrix = Matrix::new::<T>(sizes)?;
    let mut y = vec![T::ZERO; sizes.images * sizes.outputs * pixels];
    let group_images = operands.x.chunks_exact(sizes.group_channels() * sizes.plane());
    let group_results = y.chunks_exact_mut(outputs * pixels);
    for (index, (x, y)) in group_images.zip(group_results).enumerate() {
        let group = index % sizes.geometry.groups;
        let bias = &operands.bias[group * outputs..][..outputs];
        for rows in matrix.blocks() {
            let block = matrix.fill(x, rows.clone())?;
            let product = weights[group].matmul(&block.reshape((taps, ()))?)?;
            let columns = rows.start * sizes.output[1]..rows.end * sizes.output[1];
            read::<T, _>(&product, |product| {
                let lines = y
                    .chunks_exact_mut(pixels)
                    .zip(product.chunks_exact(columns.len()));
                for ((y, product), &bias) in lines.zip(bias) {
                    for (y, &p) in y[columns.clone()].iter_mut().zip(product) {
                        *y = p + bias;
                    }
                }
            })?;
        }
    }
    Ok(y)
}

/// All gradients from that of the result.
pub(super) fn backward<T: Real>(
    sizes: &Sizes,
    x: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<Gradients<T>> {
    let (outputs, taps, pixels) = (per_group(sizes), sizes.taps(), sizes.pixels());
    let groups = sizes.geometry.groups;
    let weight = weight.reshape((groups, outputs, taps))?;
    let gradient_of = gradient.reshape((sizes.images * groups, outputs, pixels))?;
    let matrix = Matrix::new::<T>(sizes)?;
    let mut dx = sizes
        .geometry
        .input_gradient
        .then(|| vec![T::ZERO; sizes.images * sizes.image()]);
    let mut dw = vec![T::ZERO; sizes.outputs * taps];
    let part = sizes.group_channels() * sizes.plane();
    read::<T, _>(x, |x| {
        for (index, x) in x.chunks_exact(part).enumerate() {
            let group = index % groups;
            let weight = weight.get(group)?.t()?;
            let gradient = gradient_of.get(index)?;
            let dw = &mut dw[group * outputs * taps..][..outputs * taps];
            for rows in matrix.blocks() {
                let wide = sizes.output[1];
                let gradient = gradient.narrow(1, rows.start * wide, rows.len() * wide)?;
                let block = matrix.fill(x, rows.clone())?.reshape((taps, ()))?;
                read::<T, _>(&gradient.matmul(&block.t()?)?, |product| add(dw, product))?;
                if let Some(dx) = &mut dx {
                    let dx = &mut dx[index * part..][..part];
                    read::<T, _>(&weight.matmul(&gradient)?, |product| {
                        if sizes.is_pointwise() {
                            add_rows(dx, product, rows.start * wide, sizes.plane());
                        } else {
                            columns::gather(sizes, product, rows, dx);
                        }
                    })?;
                }
            }
        }
        Ok::<_, candle_core::Error>(())
    })??;
    Ok(Gradients {
        x: dx,
        weight: dw,
        bias: read::<T, _>(gradient, |g| super::bias_gradient(sizes, g))?,
    })
}

fn per_group(sizes: &Sizes) -> usize {
    sizes.outputs / sizes.geometry.groups
}

/// One O/g × taps matrix per group.
fn weights_by_group<T: Real>(sizes: &Sizes, weight: &[T]) -> Result<Vec<Tensor>> {
    let (outputs, taps) = (per_group(sizes), sizes.taps());
    let groups = weight.chunks_exact(outputs * taps);
    groups
        .map(|w| Tensor::from_slice(w, (outputs, taps), &Device::Cpu))
        .collect()
}

fn add<T: Real>(sum: &mut [T], values: &[T]) {
    for (sum, &value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Adds rows of a block of pixels, which begins at `start` of each plane.
fn add_rows<T: Real>(planes: &mut [T], block: &[T], start: usize, plane: usize) {
    let wide = block.len() / (planes.len() / plane);
    for (plane, block) in planes.chunks_exact_mut(plane).zip(block.chunks_exact(wide)) {
        add(&mut plane[start..start + wide], block);
    }
}

/// The matrix of some output rows of one group of one image; its memory is used for all of them in turn.
struct Matrix {
    sizes: Sizes,
    /// Output rows made at once.
    rows: usize,
    memory: Tensor,
}

impl Matrix {
    fn new<T: Real>(sizes: &Sizes) -> Result<Self> {
        let row = sizes.taps() * sizes.output[1];
        let rows = (MATRIX / row.max(1)).clamp(1, sizes.output[0]);
        // As many blocks as that gives, of nearly one size.
        let rows = sizes.output[0].div_ceil(sizes.output[0].div_ceil(rows));
        Ok(Self {
            sizes: *sizes,
            rows,
            memory: Tensor::zeros(rows * row, T::DTYPE, &Device::Cpu)?,
        })
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, all) = (self.rows, self.sizes.output[0]);
        (0..all)
            .step_by(rows)
            .map(move |start| start..(start + rows).min(all))
    }

    /// The matrix over `rows`, flat.
    fn fill<T: Real>(&self, x: &[T], rows: Range<usize>) -> Result<Tensor> {
        let block = self
            .memory
            .narrow(0, 0, self.sizes.taps() * self.sizes.output[1] * rows.len())?;
        block.inplace_op1(&Fill {
            sizes: &self.sizes,
            x,
            rows,
        })?;
        Ok(block)
    }
}

/// Overwrites a tensor with the matrix of `x` over `rows`.
struct Fill<'a, T> {
    sizes: &'a Sizes,
    x: &'a [T],
    rows: Range<usize>,
}

impl<T: Real> InplaceOp1 for Fill<'_, T> {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let matrix = &mut T::storage_mut(storage)?[..layout.shape().elem_count()];
        if !self.sizes.is_pointwise() {
            columns::fill(self.sizes, self.x, self.rows.clone(), matrix);
            return Ok(());
        }
        let start = self.rows.start * self.sizes.width;
        let count = self.rows.len() * self.sizes.width;
        let planes = self.x.chunks_exact(self.sizes.plane());
        for (line, plane) in matrix.chunks_exact_mut(count).zip(planes) {
            line.copy_from_slice(&plane[start..start + count]);
        }
        Ok(())
    }
}
