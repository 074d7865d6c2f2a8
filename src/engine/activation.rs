//! Bias and activation written over a layer's fresh output: one pass and no allocation on the CPU.

use candle_core::cpu::erf::erf_f32;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use crate::model::graph::Activation;

/// Activates `x`. Nothing else may share its storage, which is overwritten on the CPU.
pub(super) fn activate(x: Tensor, function: Activation) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed(&x, function);
    }
    x.inplace_op1(&Activate(function))?;
    Ok(x)
}

/// Adds a bias of F to the rows of `x`, N×F, under the same condition.
pub(super) fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.broadcast_add(bias);
    }
    x.inplace_op2(bias, &AddBias)?;
    Ok(x)
}

struct Activate(Activation);

struct AddBias;

impl InplaceOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        overwrite(contiguous(storage, layout)?, self.0);
        Ok(())
    }
}

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(bias), Some((start, end))) = (bias, bias_layout.contiguous_offsets()) else {
            bail!("the bias is not contiguous f32");
        };
        let bias = &bias[start..end];
        for row in contiguous(storage, layout)?.chunks_exact_mut(bias.len().max(1)) {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        Ok(())
    }
}

fn contiguous<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("the value is not contiguous f32"),
    }
}

/// NaN stays NaN in each, so that it is not hidden.
fn overwrite(values: &mut [f32], function: Activation) {
    // The choice stands outside the loops, which the compiler then vectorises one by one.
    match function {
        Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::Relu6 => each(values, |x| x.clamp(0.0, 6.0)),
        Activation::Silu => each(values, |x| x / (1.0 + (-x).exp())),
        Activation::HardSwish => each(values, |x| x * ((x + 3.0).clamp(0.0, 6.0) / 6.0)),
        Activation::HardSigmoid => each(values, |x| (x + 3.0).clamp(0.0, 6.0) / 6.0),
        Activation::Sigmoid => each(values, |x| 1.0 / (1.0 + (-x).exp())),
        Activation::Gelu => each(values, |x| {
            0.5 * x * (1.0 + erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
        }),
    }
}

fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|x| *x = function(*x));
}

/// The same of candle's own operators, for devices without a kernel of ours.
fn composed(x: &Tensor, function: Activation) -> Result<Tensor> {
    let gate = |x: &Tensor| (x + 3.0)?.clamp(0.0, 6.0)? / 6.0;
    match function {
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x.silu(),
        Activation::HardSwish => x * gate(x)?,
        Activation::HardSigmoid => gate(x),
        Activation::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip(),
        Activation::Gelu => x.gelu_erf(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const ALL: [Activation; 7] = [
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid,
        Activation::Sigmoid,
        Activation::Gelu,
    ];

    fn row() -> Tensor {
        Tensor::new(
            &[-90.0f32, -3.5, -1.0, -0.25, 0.0, 0.5, 2.0, 3.5, 7.0, 90.0],
            &Device::Cpu,
        )
        .unwrap()
    }

    #[test]
    fn the_composition_equals_the_kernels() {
        for function in ALL {
            let expected = composed(&row(), function).unwrap().to_vec1::<f32>().unwrap();
            let found = activate(row(), function).unwrap().to_vec1::<f32>().unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
            assert!(
                found.iter().zip(&expected).all(near),
                "{function:?}: {found:?} {expected:?}"
            );
        }
    }

    #[test]
    fn values_are_torchs() {
        let check = |function, expected: [f32; 3]| {
            let x = Tensor::new(&[-1.0f32, 0.5, 7.0], &Device::Cpu).unwrap();
            let found = activate(x, function).unwrap().to_vec1::<f32>().unwrap();
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(near, "{function:?}: {found:?}");
        };
        check(Activation::Relu, [0.0, 0.5, 7.0]);
        check(Activation::Relu6, [0.0, 0.5, 6.0]);
        check(Activation::Silu, [-0.268_941, 0.311_230, 6.993_623]);
        check(Activation::HardSwish, [-0.333_333, 0.291_667, 7.0]);
        check(Activation::HardSigmoid, [0.333_333, 0.583_333, 1.0]);
        check(Activation::Sigmoid, [0.268_941, 0.622_459, 0.999_089]);
        check(Activation::Gelu, [-0.158_655, 0.345_731, 7.0]);
    }

    #[test]
    fn a_bias_is_added_to_each_row() {
        let bias = Tensor::new(&[1.0f32, -10.0], &Device::Cpu).unwrap();
        let x = Tensor::new(&[[0.5f32, 2.0], [-3.0, 12.0]], &Device::Cpu).unwrap();
        let sum = add_bias(x, &bias).unwrap();
        assert_eq!(sum.to_vec2::<f32>().unwrap(), [[1.5, -8.0], [-2.0, 2.0]]);
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        for function in ALL {
            let x = Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap();
            let y = activate(x, function).unwrap().to_vec1::<f32>().unwrap();
            assert!(y[0].is_nan() && y[1].is_finite(), "{function:?}: {y:?}");
        }
    }
}
