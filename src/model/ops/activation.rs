//! Elementwise functions whose gradients take one pass.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::{Real, by_type, contiguous, ours, read};
use crate::model::graph::Activation;

/// The function of each element; NaN stays NaN.
pub fn activate(x: &Tensor, function: Activation) -> Result<Tensor> {
    if ours(x) && function != Activation::Gelu {
        return x.contiguous()?.apply_op1(Elementwise(function));
    }
    let gate = |x: &Tensor| (x + 3.0)?.clamp(0.0, 6.0)? / 6.0;
    match function {
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x.silu(),
        Activation::HardSwish => x * gate(x)?,
        Activation::HardSigmoid => gate(x),
        Activation::Sigmoid => composed_sigmoid(x),
        Activation::Gelu => x.gelu_erf(),
    }
}

/// 1/(1 + e^-x), composed of operators that have gradients.
fn composed_sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

struct Elementwise(Activation);

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((
            by_type!(storage, forward(self.0, storage, layout))?,
            layout.shape().clone(),
        ))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        match x.dtype() {
            DType::F32 => backward::<f32>(self.0, [x, y, &gradient]).map(Some),
            _ => backward::<f64>(self.0, [x, y, &gradient]).map(Some),
        }
    }
}

fn forward<T: Real>(function: Activation, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let x = contiguous::<T>(storage, layout)?;
    let of = T::from_f64;
    let (three, six) = (of(3.0), of(6.0));
    let gate = |x: T| clamp(x + three, T::ZERO, six) / six;
    let y: Vec<T> = match function {
        Activation::Relu => x.iter().map(|&x| if x < T::ZERO { T::ZERO } else { x }).collect(),
        Activation::Relu6 => x.iter().map(|&x| clamp(x, T::ZERO, six)).collect(),
        Activation::HardSigmoid => x.iter().map(|&x| gate(x)).collect(),
        Activation::HardSwish => x.iter().map(|&x| x * gate(x)).collect(),
        Activation::Sigmoid => x.iter().map(|&x| sigmoid(x)).collect(),
        Activation::Silu => x.iter().map(|&x| x * sigmoid(x)).collect(),
        Activation::Gelu => candle_core::bail!("gelu is composed of candle's operators"),
    };
    Ok(T::to_cpu_storage_owned(y))
}

#[inline(always)]
fn clamp<T: Real>(x: T, low: T, high: T) -> T {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let one = T::from_f64(1.0);
    one / (one + (T::ZERO - x).exp())
}

/// Where a function has a corner, the gradient is torch's.
fn backward<T: Real>(function: Activation, [x, y, gradient]: [&Tensor; 3]) -> Result<Tensor> {
    let of = T::from_f64;
    let (one, three, six) = (of(1.0), of(3.0), of(6.0));
    let dx = match function {
        Activation::Relu => where_inside(y, gradient, [T::ZERO, of(f64::INFINITY)], one),
        Activation::Relu6 => where_inside(y, gradient, [T::ZERO, six], one),
        Activation::HardSigmoid => where_inside(x, gradient, [T::ZERO - three, three], one / six),
        Activation::HardSwish => by_slope(x, gradient, |x| {
            if x < T::ZERO - three {
                T::ZERO
            } else if x > three {
                one
            } else {
                x / three + of(0.5)
            }
        }),
        Activation::Sigmoid => by_slope(y, gradient, |y| y * (one - y)),
        Activation::Silu => by_slope(x, gradient, |x| {
            let s = sigmoid(x);
            s * (one + x * (one - s))
        }),
        Activation::Gelu => candle_core::bail!("gelu is composed of candle's operators"),
    };
    Tensor::from_vec(dx?, x.shape(), x.device())
}

/// slope·g where the source lies between the bounds, else 0.
fn where_inside<T: Real>(source: &Tensor, gradient: &Tensor, bounds: [T; 2], slope: T) -> Result<Vec<T>> {
    let [low, high] = bounds;
    // Not `&&`, and the product outside: the compiler makes a mask of this and a branch of the other.
    let pick = move |(&s, &g): (&T, &T)| {
        let inside = if (s > low) & (s < high) { g } else { T::ZERO };
        inside * slope
    };
    read::<T, _>(source, |source| {
        read::<T, _>(gradient, |gradient| {
            source.iter().zip(gradient).map(pick).collect()
        })
    })?
}

fn by_slope<T: Real>(source: &Tensor, gradient: &Tensor, slope: impl Fn(T) -> T) -> Result<Vec<T>> {
    let product = |(&s, &g): (&T, &T)| g * slope(s);
    read::<T, _>(source, |source| {
        read::<T, _>(gradient, |gradient| {
            source.iter().zip(gradient).map(product).collect()
        })
    })?
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::gradient;
    use super::*;

    #[test]
    fn gradients_are_right() {
        let x = (gradient::random(&[3, 15], 1) * 3.0).unwrap();
        for function in Activation::ALL {
            gradient::check(&format!("{function:?}"), std::slice::from_ref(&x), |x| {
                activate(&x[0], function)
            });
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        let x = Tensor::new(&[-1.0f32, 0.0, 2.0, f32::NAN], &Device::Cpu).unwrap();
        for function in Activation::ALL {
            let y = activate(&x, function).unwrap().to_vec1::<f32>().unwrap();
            assert!(y[..3].iter().all(|y| y.is_finite()), "{function:?}");
            assert!(y[3].is_nan(), "{function:?}");
        }
    }

    #[test]
    fn values_are_torchs() {
        let check = |function, expected: [f32; 5]| {
            let x = Tensor::new(&[-4.0f32, -1.0, 0.0, 2.0, 7.0], &Device::Cpu).unwrap();
            let y = activate(&x, function).unwrap().to_vec1::<f32>().unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
            assert!(y.iter().zip(&expected).all(near), "{function:?}: {y:?}");
        };
        check(Activation::Relu, [0.0, 0.0, 0.0, 2.0, 7.0]);
        check(Activation::Relu6, [0.0, 0.0, 0.0, 2.0, 6.0]);
        check(
            Activation::Silu,
            [-0.071_944_84, -0.268_941_4, 0.0, 1.761_594_2, 6.993_622_3],
        );
        check(Activation::HardSwish, [0.0, -0.333_333_3, 0.0, 1.666_666_6, 7.0]);
        check(Activation::HardSigmoid, [0.0, 0.333_333_3, 0.5, 0.833_333_3, 1.0]);
        check(
            Activation::Sigmoid,
            [0.017_986_21, 0.268_941_43, 0.5, 0.880_797_1, 0.999_089],
        );
        check(
            Activation::Gelu,
            [-0.000_126_69, -0.158_655_25, 0.0, 1.954_499_7, 7.0],
        );
    }
}
