//! Dense layer: one product forward, two backward.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};

use super::{ours, product};

/// x·Wᵀ + b: x N×in, W out×in, b out → N×out. `input_gradient`: whether the gradient of x is wanted.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, input_gradient: bool) -> Result<Tensor> {
    let Some(bias) = bias.filter(|_| ours(x)) else {
        let y = product(x, &weight.t()?, Tensor::matmul)?;
        return bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias));
    };
    let y = x
        .detach()
        .matmul(&weight.detach().t()?)?
        .broadcast_add(&bias.detach())?;
    let (storage, layout) = y.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("the dense layer computes in host memory");
    };
    let dense = Dense {
        product: Mutex::new(Some((storage.clone(), layout.shape().clone()))),
        input_gradient,
    };
    x.apply_op3(weight, bias, dense)
}

struct Dense {
    /// The result, until candle asks for it: candle's product needs tensors, its operators are given slices.
    product: Mutex<Option<(CpuStorage, Shape)>>,
    input_gradient: bool,
}

impl CustomOp3 for Dense {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        _weight: &CpuStorage,
        _weight_layout: &Layout,
        _bias: &CpuStorage,
        _bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match self.product.lock().map(|mut product| product.take()) {
            Ok(Some(product)) => Ok(product),
            _ => bail!("the dense layer was run twice"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, weight) = (x.detach(), weight.detach());
        let dx = self
            .input_gradient
            .then(|| gradient.matmul(&weight))
            .transpose()?;
        let dw = gradient.t()?.matmul(&x)?;
        Ok((dx, Some(dw), Some(gradient.sum(0)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient;
    use super::*;

    fn operands() -> Vec<Tensor> {
        [vec![4, 5], vec![3, 5], vec![3]]
            .iter()
            .map(|shape| gradient::random(shape, shape.len() as u64))
            .collect()
    }

    #[test]
    fn gradients_are_right() {
        let t = operands();
        gradient::check("linear", &t, |t| linear(&t[0], &t[1], Some(&t[2]), true));
        gradient::check("without bias", &t[..2], |t| linear(&t[0], &t[1], None, true));
    }

    #[test]
    fn the_first_layer_is_spared_its_input_gradient() {
        let t = operands();
        let x = candle_core::Var::from_tensor(&t[0]).unwrap();
        let sum = |wanted| linear(&x, &t[1], Some(&t[2]), wanted).unwrap().sum_all().unwrap();
        assert!(sum(false).backward().unwrap().get(&x).is_none());
        assert!(sum(true).backward().unwrap().get(&x).is_some());
    }
}
