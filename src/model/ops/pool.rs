//! Max and average pooling on the CPU.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::{Real, by_type, contiguous, output_size, sum};
use crate::model::graph::Pool;

/// Largest of each window.
pub(super) fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pooling {
        pool,
        kind: Kind::Max,
    })
}

/// Mean of each window, padding counted.
pub(super) fn avg_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pooling {
        pool,
        kind: Kind::Mean,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Max,
    Mean,
}

#[derive(Clone, Copy)]
struct Pooling {
    pool: Pool,
    kind: Kind,
}

struct PoolingGradient(Pooling);

/// Which rows and columns of the image each output looks at, padding cut off.
struct Windows {
    planes: usize,
    height: usize,
    width: usize,
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
}

impl CustomOp1 for Pooling {
    fn name(&self) -> &'static str {
        "pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let windows = Windows::new(layout, self.pool)?;
        let (n, c, ..) = layout.shape().dims4()?;
        let shape = Shape::from((n, c, windows.rows.len(), windows.columns.len()));
        Ok((
            by_type!(storage, forward(self, &windows, storage, layout))?,
            shape,
        ))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(&gradient.contiguous()?, &PoolingGradient(*self))
            .map(Some)
    }
}

impl CustomOp2 for PoolingGradient {
    fn name(&self) -> &'static str {
        "pool2d-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let windows = Windows::new(x_layout, self.0.pool)?;
        let storage = by_type!(
            x,
            backward(&self.0, &windows, (x, x_layout), (gradient, gradient_layout))
        )?;
        Ok((storage, x_layout.shape().clone()))
    }
}

impl Windows {
    fn new(layout: &Layout, pool: Pool) -> Result<Self> {
        let (n, c, height, width) = layout.shape().dims4()?;
        let ranges = |size: usize, axis: usize| -> Result<Vec<Range<usize>>> {
            let (kernel, stride, padding) = (pool.kernel[axis], pool.stride[axis], pool.padding[axis]);
            if padding > kernel / 2 {
                bail!("padding {padding} is over half of the window {kernel}");
            }
            let cut = |output: usize| {
                let start = output * stride;
                start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(size)
            };
            Ok((0..output_size(size, kernel, stride, padding)?)
                .map(cut)
                .collect())
        };
        Ok(Self {
            planes: n * c,
            height,
            width,
            rows: ranges(height, 0)?,
            columns: ranges(width, 1)?,
        })
    }

    /// Whether there is one window, over the whole plane.
    fn are_whole(&self, pool: Pool) -> bool {
        pool.kernel == [self.height, self.width] && pool.padding == [0, 0]
    }

    /// Whether each output is the 2×2 block at twice its place.
    fn are_pairs(&self, pool: Pool) -> bool {
        pool == Pool::square(2)
    }
}

fn forward<T: Real>(op: &Pooling, windows: &Windows, x: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let x = contiguous::<T>(x, layout)?;
    let mut y = Vec::with_capacity(windows.planes * windows.rows.len() * windows.columns.len());
    let area = T::from_f64(1.0 / (op.pool.kernel[0] * op.pool.kernel[1]) as f64);
    for plane in x.chunks_exact(windows.height * windows.width) {
        if windows.are_whole(op.pool) && matches!(op.kind, Kind::Mean) {
            y.push(sum(plane) * area);
            continue;
        }
        for rows in &windows.rows {
            if windows.are_pairs(op.pool) && matches!(op.kind, Kind::Max) {
                let (upper, lower) = plane[rows.start * windows.width..].split_at(windows.width);
                let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                y.extend(pairs.map(|([a, b], [c, d])| larger(larger(*a, *b), larger(*c, *d))));
                continue;
            }
            for columns in &windows.columns {
                let cells = rows
                    .clone()
                    .map(|row| &plane[row * windows.width..][columns.clone()]);
                y.push(match op.kind {
                    Kind::Max => cells
                        .flatten()
                        .copied()
                        .reduce(larger)
                        .unwrap_or(T::from_f64(0.0)),
                    Kind::Mean => cells.flatten().fold(T::from_f64(0.0), |sum, &x| sum + x) * area,
                });
            }
        }
    }
    Ok(T::to_cpu_storage_owned(y))
}

/// The larger; the first where equal; NaN wins, so that it is not hidden.
fn larger<T: WithDType>(a: T, b: T) -> T {
    // `b != b` is true of NaN alone.
    #[expect(clippy::eq_op, reason = "the test for NaN of a type that only has PartialOrd")]
    let nan = b != b;
    if b > a || nan { b } else { a }
}

fn backward<T: WithDType>(
    op: &Pooling,
    windows: &Windows,
    (x, x_layout): (&CpuStorage, &Layout),
    (gradient, gradient_layout): (&CpuStorage, &Layout),
) -> Result<CpuStorage> {
    let x = contiguous::<T>(x, x_layout)?;
    let gradient = contiguous::<T>(gradient, gradient_layout)?;
    let mut dx = vec![T::from_f64(0.0); x.len()];
    let area = T::from_f64(1.0 / (op.pool.kernel[0] * op.pool.kernel[1]) as f64);
    let mut gradients = gradient.iter().copied();
    let size = windows.height * windows.width;
    for (plane, dx) in x.chunks_exact(size).zip(dx.chunks_exact_mut(size)) {
        for rows in &windows.rows {
            for (columns, g) in windows.columns.iter().zip(&mut gradients) {
                match op.kind {
                    Kind::Max => dx[first_largest(plane, windows.width, rows, columns)] += g,
                    Kind::Mean => {
                        for row in rows.clone() {
                            dx[row * windows.width..][columns.clone()]
                                .iter_mut()
                                .for_each(|d| *d += g * area);
                        }
                    }
                }
            }
        }
    }
    Ok(T::to_cpu_storage_owned(dx))
}

fn first_largest<T: WithDType>(
    plane: &[T],
    width: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> usize {
    let mut best = rows.start * width + columns.start;
    let mut most = plane[best];
    for row in rows.clone() {
        let start = row * width + columns.start;
        for (at, &x) in (start..).zip(&plane[start..][..columns.len()]) {
            if x > most {
                (best, most) = (at, x);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::gradient;
    use super::*;

    fn window(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Pool {
        Pool {
            kernel,
            stride,
            padding,
        }
    }

    #[test]
    fn gradients_are_right_for_odd_sizes_overlaps_and_borders() {
        for pool in [
            Pool::square(2),
            window([3, 3], [2, 2], [0, 0]),
            window([3, 3], [1, 1], [1, 1]),
            window([2, 2], [3, 3], [0, 0]),
            window([3, 2], [2, 1], [1, 1]),
            window([5, 5], [5, 5], [2, 2]),
        ] {
            for (height, width) in [(5, 5), (6, 7), (5, 8)] {
                let x = gradient::random(&[2, 2, height, width], (height * width) as u64);
                gradient::check(&format!("max {pool:?}"), std::slice::from_ref(&x), |x| {
                    max_pool2d(&x[0], pool)
                });
                gradient::check(&format!("avg {pool:?}"), &[x], |x| avg_pool2d(&x[0], pool));
            }
        }
    }

    #[test]
    fn a_tie_gives_its_gradient_to_the_first() {
        let x = Var::new(
            &[[[[1.0f32, 1.0, 0.0], [1.0, 1.0, 2.0], [9.0, 9.0, 9.0]]]],
            &Device::Cpu,
        )
        .unwrap();
        let sum = max_pool2d(&x, Pool::square(2)).unwrap().sum_all().unwrap();
        let gradients = sum.backward().unwrap();
        let dx = gradients
            .get(&x)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(dx, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let all = max_pool2d(&x, window([3, 3], [1, 1], [1, 1]))
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let dx = all
            .get(&x)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(dx.iter().sum::<f32>(), 9.0);
        assert_eq!(dx, [1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 2.0, 0.0]);
    }

    #[test]
    fn values_are_torchs() {
        let x: Vec<f32> = (0..25).map(|v| v as f32).collect();
        let x = Tensor::from_vec(x, (1, 1, 5, 5), &Device::Cpu).unwrap();
        let check = |y: Result<Tensor>, expected: &[f32]| {
            assert_eq!(
                y.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
                expected
            );
        };
        check(max_pool2d(&x, Pool::square(2)), &[6.0, 8.0, 16.0, 18.0]);
        check(
            max_pool2d(&x, window([3, 3], [2, 2], [1, 1])),
            &[6.0, 8.0, 9.0, 16.0, 18.0, 19.0, 21.0, 23.0, 24.0],
        );
        check(
            avg_pool2d(&x, window([2, 2], [2, 2], [0, 0])),
            &[3.0, 5.0, 13.0, 15.0],
        );
        check(
            avg_pool2d(&x, window([4, 4], [4, 4], [2, 2])),
            &[0.75, 2.0625, 5.8125, 10.125],
        );
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        let x = Tensor::new(&[[[[1.0f32, 5.0], [f32::NAN, 2.0]]]], &Device::Cpu).unwrap();
        let y = max_pool2d(&x, Pool::square(2)).unwrap();
        assert!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
    }

    #[test]
    fn windows_that_do_not_fit_are_errors() {
        let x = gradient::random(&[1, 1, 3, 3], 1);
        assert!(max_pool2d(&x, Pool::square(4)).is_err());
        assert!(max_pool2d(&x, window([2, 2], [0, 1], [0, 0])).is_err());
        assert!(avg_pool2d(&x, window([2, 2], [1, 1], [2, 2])).is_err());
    }
}
