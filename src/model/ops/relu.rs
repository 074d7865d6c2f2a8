//! ReLU with a one-pass gradient.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

use super::{by_type, contiguous};

/// max(x, 0), elementwise; NaN stays NaN.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.contiguous()?.apply_op1(Relu)
    } else {
        x.relu()
    }
}

struct Relu;

struct ReluGradient;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((
            by_type!(storage, forward(storage, layout))?,
            layout.shape().clone(),
        ))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        y.apply_op2_no_bwd(&gradient.contiguous()?, &ReluGradient)
            .map(Some)
    }
}

impl CustomOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "relu-gradient"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        y_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let storage = by_type!(y, backward(y, y_layout, gradient, gradient_layout))?;
        Ok((storage, y_layout.shape().clone()))
    }
}

fn forward<T: WithDType>(storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
    let zero = T::from_f64(0.0);
    let x = contiguous::<T>(storage, layout)?;
    Ok(T::to_cpu_storage_owned(
        x.iter().map(|&x| if x < zero { zero } else { x }).collect(),
    ))
}

fn backward<T: WithDType>(
    y: &CpuStorage,
    y_layout: &Layout,
    gradient: &CpuStorage,
    gradient_layout: &Layout,
) -> Result<CpuStorage> {
    let zero = T::from_f64(0.0);
    let pairs = contiguous::<T>(y, y_layout)?
        .iter()
        .zip(contiguous::<T>(gradient, gradient_layout)?);
    Ok(T::to_cpu_storage_owned(
        pairs.map(|(&y, &g)| if y > zero { g } else { zero }).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::gradient;
    use super::*;

    #[test]
    fn the_gradient_is_right() {
        gradient::check("relu", &[gradient::random(&[3, 5], 1)], |x| relu(&x[0]));
    }

    #[test]
    fn what_is_not_a_number_is_not_hidden() {
        let x = Tensor::new(&[-1.0f32, 0.0, 2.0, f32::NAN], &Device::Cpu).unwrap();
        let y = relu(&x).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y[..3], [0.0, 0.0, 2.0]);
        assert!(y[3].is_nan());
    }
}
