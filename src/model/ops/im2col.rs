//! Windows of an image as the columns of a matrix, with the way back.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

use super::{ConvGeometry, by_type, contiguous, output_size};

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) kernel: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) geometry: ConvGeometry,
}

impl Sizes {
    /// Of an N×C×H×W image under kernels of kh×kw.
    pub(super) fn new(x: &Shape, kernel: [usize; 2], geometry: ConvGeometry) -> Result<Self> {
        let (images, channels, height, width) = x.dims4()?;
        let output = |size: usize, axis: usize| {
            let reach =
                geometry.dilation[axis] * kernel[axis].saturating_sub(1) + usize::from(kernel[axis] > 0);
            output_size(size, reach, geometry.stride[axis], geometry.padding[axis])
        };
        let output = [output(height, 0)?, output(width, 1)?];
        Ok(Self {
            images,
            channels,
            height,
            width,
            kernel,
            output,
            geometry,
        })
    }

    /// Rows of the matrix: one per channel and tap.
    pub(super) fn taps(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// Columns of the matrix: one per output pixel.
    pub(super) fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Source row or column of output `at` under tap `tap`, where it is inside the image.
    fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let ConvGeometry {
            stride,
            padding,
            dilation,
            ..
        } = self.geometry;
        let place = (at * stride[axis] + tap * dilation[axis]).checked_sub(padding[axis])?;
        (place < [self.height, self.width][axis]).then_some(place)
    }

    /// Calls `row` with (place in the matrix, place in the image) of every matching pixel of one image, tap by tap.
    fn each(&self, mut pixel: impl FnMut(usize, usize)) {
        let [rows, columns] = self.output;
        let mut line = 0;
        for channel in 0..self.channels {
            for top in 0..self.kernel[0] {
                for left in 0..self.kernel[1] {
                    for row in 0..rows {
                        if let Some(y) = self.source(0, row, top) {
                            let from = (channel * self.height + y) * self.width;
                            for column in 0..columns {
                                if let Some(x) = self.source(1, column, left) {
                                    pixel(line + column, from + x);
                                }
                            }
                        }
                        line += columns;
                    }
                }
            }
        }
    }
}

/// N×C×H×W → N × C·kh·kw × H'·W'.
pub(super) fn columns(x: &Tensor, sizes: Sizes) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Columns(sizes))
}

/// N × C·kh·kw × H'·W' → N×C×H×W, summing what stems from one pixel.
pub(super) fn image(columns: &Tensor, sizes: Sizes) -> Result<Tensor> {
    columns.contiguous()?.apply_op1_no_bwd(&Image(sizes))
}

struct Columns(Sizes);

struct Image(Sizes);

impl CustomOp1 for Columns {
    fn name(&self) -> &'static str {
        "im2col"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = Shape::from((self.0.images, self.0.taps(), self.0.pixels()));
        Ok((by_type!(storage, im2col(&self.0, storage, layout))?, shape))
    }
}

impl CustomOp1 for Image {
    fn name(&self) -> &'static str {
        "col2im"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Sizes {
            images,
            channels,
            height,
            width,
            ..
        } = self.0;
        Ok((
            by_type!(storage, col2im(&self.0, storage, layout))?,
            Shape::from((images, channels, height, width)),
        ))
    }
}

fn im2col<T: WithDType>(sizes: &Sizes, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let x = contiguous::<T>(storage, layout)?;
    let matrix = sizes.taps() * sizes.pixels();
    let mut columns = vec![T::from_f64(0.0); sizes.images * matrix];
    let image = sizes.channels * sizes.height * sizes.width;
    for (x, columns) in x.chunks_exact(image).zip(columns.chunks_exact_mut(matrix)) {
        sizes.each(|to, from| columns[to] = x[from]);
    }
    Ok(T::to_cpu_storage_owned(columns))
}

fn col2im<T: WithDType>(sizes: &Sizes, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let columns = contiguous::<T>(storage, layout)?;
    let matrix = sizes.taps() * sizes.pixels();
    let image = sizes.channels * sizes.height * sizes.width;
    let mut x = vec![T::from_f64(0.0); sizes.images * image];
    for (x, columns) in x.chunks_exact_mut(image).zip(columns.chunks_exact(matrix)) {
        sizes.each(|from, to| x[to] += columns[from]);
    }
    Ok(T::to_cpu_storage_owned(x))
}
