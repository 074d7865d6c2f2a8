//! Layer-norm over channels.

use candle_core::{Result, Tensor};

use super::widened;

/// (x − μ)/√(σ² + ε)·γ + β at each place of N×C×H×W, with mean μ and biased variance σ² of its C values; `weight` γ and
/// `bias` β hold C numbers (Ba et al., arXiv 1607.06450). In half precision all but the result is f32.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    widened(x, |x| {
        let per_channel = |t: &Tensor| t.to_dtype(x.dtype())?.reshape((1, (), 1, 1));
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(1)? + eps)?.sqrt()?;
        centred
            .broadcast_div(&deviation)?
            .broadcast_mul(&per_channel(weight)?)?
            .broadcast_add(&per_channel(bias)?)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_place_is_normalised_over_its_channels() {
        // Places (1, 3) and (5, 5): means 2 and 5, variances 1 and 0.
        let x = Tensor::new(&[[[[1.0f64, 5.0]], [[3.0, 5.0]]]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[2.0f64, 4.0], &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.5f64, -1.0], &Device::Cpu).unwrap();
        let y = layer_norm(&x, &weight, &bias, 3.0).unwrap();
        let y = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(y, [-0.5, 0.5, 1.0, -1.0]);
    }
}
