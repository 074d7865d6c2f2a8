//! Layers that train: candle custom operators whose gradients are right and quick on the CPU.
//!
//! candle 0.11.1's own pools have wrong backward passes, and its convolution's is slow.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};

mod activation;
mod batch_norm;
mod columns;
mod conv;
mod linear;
mod norm;
mod pool;
mod real;
mod windows;

use super::graph::Pool;

pub use activation::activate;
pub use batch_norm::{Clamp, batch_norm};
pub use conv::{ConvGeometry, conv2d};
pub use linear::linear;
pub use norm::layer_norm;

use real::{Real, dot, sum};

/// Largest of each window; ties give the gradient to the first in row order, as torch does.
pub fn max_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    if ours(x) {
        pool::max_pool2d(x, pool)
    } else {
        windows::max_pool2d(x, pool)
    }
}

/// Mean of each window, padding counted, as torch's default.
pub fn avg_pool2d(x: &Tensor, pool: Pool) -> Result<Tensor> {
    if ours(x) {
        pool::avg_pool2d(x, pool)
    } else {
        windows::avg_pool2d(x, pool)
    }
}

/// Mean over rows and columns: N×C×H×W → N×C×1×1.
pub fn global_avg_pool2d(x: &Tensor) -> Result<Tensor> {
    if !ours(x) {
        return widened(x, |x| x.mean_keepdim(3)?.mean_keepdim(2));
    }
    let (_, _, height, width) = x.dims4()?;
    let whole = Pool {
        kernel: [height, width],
        stride: [1; 2],
        padding: [0; 2],
    };
    pool::avg_pool2d(x, whole)
}

/// Whether loops of ours compute it: f32 or f64 in host memory. All else is composed of candle's operators.
fn ours(x: &Tensor) -> bool {
    x.device().is_cpu() && !is_half(x)
}

fn is_half(x: &Tensor) -> bool {
    matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// `compute` of x, in f32 where x is in half precision; the result is rounded to x's type once. For sums of many numbers:
/// f16 and bf16 count to 2048 and 256.
fn widened(x: &Tensor, compute: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if is_half(x) {
        compute(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
    } else {
        compute(x)
    }
}

/// A product of matrices or a convolution. A GPU sums one of half precision in f32; in host memory that is done here, where
/// candle has none of bf16.
fn product(
    a: &Tensor,
    b: &Tensor,
    compute: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if a.device().is_cpu() {
        widened(a, |a| compute(a, &b.to_dtype(a.dtype())?))
    } else {
        compute(a, b)
    }
}

/// ⌊(in + 2·padding − kernel)/stride⌋ + 1.
fn output_size(size: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize> {
    match (size + 2 * padding).checked_sub(kernel) {
        Some(room) if kernel > 0 && stride > 0 => Ok(room / stride + 1),
        _ => bail!("a window of {kernel}, stride {stride}, padding {padding} does not fit {size}"),
    }
}

/// The elements of a storage whose layout is contiguous.
fn contiguous<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("the operator needs a contiguous tensor"),
    }
}

/// Shows `see` the elements of a contiguous tensor in host memory.
fn read<T: WithDType, R>(tensor: &Tensor, see: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(see(contiguous::<T>(storage, layout)?)),
        _ => bail!("the operator computes in host memory"),
    }
}

/// Calls `$function::<f32>` or `::<f64>` by the storage's type.
macro_rules! by_type {
    ($storage:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => $function::<f32>($($argument),*),
            candle_core::CpuStorage::F64(_) => $function::<f64>($($argument),*),
            _ => candle_core::bail!("only f32 and f64 are computed by this operator"),
        }
    };
}
use by_type;

#[cfg(test)]
pub(super) mod gradient {
    //! Holds analytic gradients against central differences, in f64.

    use candle_core::{DType, Device, Result, Tensor, Var};

    use crate::model::rng::{Rng, Stream};

    /// Standard normal numbers.
    pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = Rng::new(seed, Stream::Init, 0);
        let values: Vec<f64> = (0..shape.iter().product())
            .map(|_| f64::from(rng.normal()))
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Checks every element's gradient of `f`'s weighted sum with respect to each of `inputs`, to 1e-3 relative.
    pub(crate) fn check(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let vars: Vec<Var> = inputs
            .iter()
            .map(|t| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap())
            .collect();
        let plain = |vars: &[Var]| -> Vec<Tensor> { vars.iter().map(|v| v.as_tensor().clone()).collect() };
        let output = f(&plain(&vars)).unwrap();
        let weights = random(output.dims(), 99);
        let loss = |inputs: &[Tensor]| (f(inputs).unwrap() * &weights).unwrap().sum_all().unwrap();
        let gradients = loss(&plain(&vars)).backward().unwrap();
        for (which, var) in vars.iter().enumerate() {
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{name}: input {which} has no gradient"));
            let analytic = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let shape = var.dims();
            let base = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (at, &analytic) in analytic.iter().enumerate() {
                let moved = |step: f64| {
                    let mut values = base.clone();
                    values[at] += step;
                    let mut inputs = plain(&vars);
                    inputs[which] = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                    loss(&inputs).to_scalar::<f64>().unwrap()
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let allowed = 1e-3 * numeric.abs().max(analytic.abs()).max(1e-2);
                let off = (numeric - analytic).abs();
                assert!(
                    off <= allowed,
                    "{name}: input {which}[{at}]: {analytic} but differences say {numeric}"
                );
            }
        }
    }
}
