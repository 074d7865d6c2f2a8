//! The number types that the operators compute in.

use candle_core::{CpuStorage, Result, WithDType, bail};

/// f32, or f64 for the tests against differences.
pub(super) trait Real: WithDType {
    /// 0.
    const ZERO: Self;

    /// e to this power.
    fn exp(self) -> Self;

    /// The numbers of a storage of this type, to be written over.
    fn storage_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
}

/// Sums kept apart, so that the compiler may add in vectors.
const LANES: usize = 16;

/// Σ x, in 16 partial sums.
pub(super) fn sum<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += x;
        }
    }
    rest.iter().chain(&lanes).fold(T::ZERO, |sum, &x| sum + x)
}

/// Σ a·b, in 16 partial sums.
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest = a_rest
        .iter()
        .zip(b_rest)
        .fold(T::ZERO, |sum, (&a, &b)| sum + a * b);
    lanes.iter().fold(rest, |sum, &lane| sum + lane)
}

macro_rules! real {
    ($type:ty, $variant:ident) => {
        impl Real for $type {
            const ZERO: Self = 0.0;

            fn exp(self) -> Self {
                <$type>::exp(self)
            }

            fn storage_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Ok(values),
                    _ => bail!("the operator was given another number type"),
                }
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);
