//! Windows of an image as the columns of a matrix, with the way back.

use std::ops::Range;

use candle_core::{Result, Shape};

use super::{ConvGeometry, Real, output_size};

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) kernel: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) geometry: ConvGeometry,
}

impl Sizes {
    /// Of an N×C×H×W image under as many kernels of kh×kw as there are outputs.
    pub(super) fn new(
        x: &Shape,
        (outputs, kernel): (usize, [usize; 2]),
        geometry: ConvGeometry,
    ) -> Result<Self> {
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
            outputs,
            height,
            width,
            kernel,
            output,
            geometry,
        })
    }

    /// Input channels that one output sees.
    pub(super) fn group_channels(&self) -> usize {
        self.channels / self.geometry.groups
    }

    /// Rows of a group's matrix: one per channel and tap.
    pub(super) fn taps(&self) -> usize {
        self.group_channels() * self.kernel[0] * self.kernel[1]
    }

    /// Columns of the matrix: one per output pixel.
    pub(super) fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Pixels of one channel of the input.
    pub(super) fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Numbers of one input image.
    pub(super) fn image(&self) -> usize {
        self.channels * self.plane()
    }

    /// Whether each window is one pixel at the output's own place: the image is its own matrix.
    pub(super) fn is_pointwise(&self) -> bool {
        let ConvGeometry { stride, padding, .. } = self.geometry;
        self.kernel == [1, 1] && stride == [1, 1] && padding == [0, 0]
    }

    /// Outputs of an axis whose pixel under `tap` lies inside the image, and the pixel of the first of them.
    fn inside(&self, axis: usize, tap: usize) -> (Range<usize>, usize) {
        let ConvGeometry {
            stride,
            padding,
            dilation,
            ..
        } = self.geometry;
        let (step, size) = (stride[axis], [self.height, self.width][axis]);
        let offset = tap * dilation[axis];
        let first = padding[axis].saturating_sub(offset).div_ceil(step);
        let last = (size + padding[axis])
            .saturating_sub(offset)
            .div_ceil(step)
            .min(self.output[axis]);
        let range = first.min(last)..last;
        let start = (range.start * step + offset).saturating_sub(padding[axis]);
        (range, start)
    }

    /// Calls `see` with each strip of one group's matrix over output rows `rows`, in the order of the matrix.
    fn strips(&self, rows: Range<usize>, mut see: impl FnMut(Strip)) {
        let [kh, kw] = self.kernel;
        for tap in 0..self.taps() {
            let (channel, top, left) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let (inside, first_row) = self.inside(0, top);
            let (columns, first_column) = self.inside(1, left);
            for row in rows.clone() {
                let down = row.saturating_sub(inside.start) * self.geometry.stride[0];
                see(Strip {
                    columns: if inside.contains(&row) {
                        columns.clone()
                    } else {
                        0..0
                    },
                    from: channel * self.plane() + (first_row + down) * self.width + first_column,
                });
            }
        }
    }
}

/// One output row under one tap.
struct Strip {
    /// Outputs whose pixel lies inside the image; the others see zeros.
    columns: Range<usize>,
    /// Place of the first one's pixel in the group's image.
    from: usize,
}

/// Writes the matrix of a group's image over output rows `rows`: taps × pixels of those rows.
pub(super) fn fill<T: Real>(sizes: &Sizes, x: &[T], rows: Range<usize>, matrix: &mut [T]) {
    let step = sizes.geometry.stride[1];
    let mut lines = matrix.chunks_exact_mut(sizes.output[1]);
    sizes.strips(rows, |Strip { columns, from }| {
        let line = lines.next().unwrap_or_default();
        line[..columns.start].fill(T::ZERO);
        line[columns.end..].fill(T::ZERO);
        let line = &mut line[columns];
        if line.is_empty() {
            return;
        }
        if step == 1 {
            let count = line.len();
            line.copy_from_slice(&x[from..from + count]);
        } else {
            for (to, &x) in line.iter_mut().zip(x[from..].iter().step_by(step)) {
                *to = x;
            }
        }
    });
}

/// Adds each number of the matrix to the pixel it stems from.
pub(super) fn gather<T: Real>(sizes: &Sizes, matrix: &[T], rows: Range<usize>, x: &mut [T]) {
    let step = sizes.geometry.stride[1];
    let mut lines = matrix.chunks_exact(sizes.output[1]);
    sizes.strips(rows, |Strip { columns, from }| {
        let line = &lines.next().unwrap_or_default()[columns];
        if line.is_empty() {
            return;
        }
        if step == 1 {
            for (x, &value) in x[from..].iter_mut().zip(line) {
                *x += value;
            }
        } else {
            for (x, &value) in x[from..].iter_mut().step_by(step).zip(line) {
                *x += value;
            }
        }
    });
}
