//! The loss that is minimised.

use candle_core::{D, DType, Result, Tensor, bail};
use candle_nn::ops::log_softmax;

/// Mean cross-entropy in nats of `logits` N×K against `labels` (N classes), label smoothing ε as torch's:
/// −Σ t·log softmax(logits)/N with t = 1 − ε + ε/K at the label and ε/K elsewhere. Has gradients.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f32) -> Result<Tensor> {
    let (images, classes) = logits.dims2()?;
    let targets = targets(labels, classes, smoothing)?;
    if labels.len() != images || images == 0 {
        bail!("{} labels for {images} rows of logits", labels.len());
    }
    let targets = Tensor::from_vec(targets, (images, classes), logits.device())?.to_dtype(logits.dtype())?;
    let total = (log_softmax(logits, D::Minus1)? * targets)?.sum_all()?;
    total.affine(-1.0 / images as f64, 0.0)
}

/// How many rows of `logits` N×K have their largest value, the first where several are equal, at the label.
pub fn right_answers(logits: &Tensor, labels: &[u32]) -> Result<usize> {
    let rows = logits.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let is_right = |(row, label): &(&Vec<f32>, &u32)| largest(row) == **label as usize;
    Ok(rows.iter().zip(labels).filter(is_right).count())
}

fn largest(row: &[f32]) -> usize {
    let better = |best, (index, &value): (usize, &f32)| if value > row[best] { index } else { best };
    row.iter().enumerate().fold(0, better)
}

fn targets(labels: &[u32], classes: usize, smoothing: f32) -> Result<Vec<f32>> {
    let spread = smoothing / classes as f32;
    let mut targets = vec![spread; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(labels) {
        match row.get_mut(label as usize) {
            Some(target) => *target += 1.0 - smoothing,
            None => bail!("label {label} is not one of {classes} classes"),
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use serde_json::Value;

    use super::*;

    fn logits(values: &[[f64; 3]]) -> Var {
        let flat = values.concat();
        Var::from_vec(flat, (values.len(), 3), &Device::Cpu).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-7 * b.abs().max(1.0);
        assert!(
            found.iter().zip(expected).all(near),
            "{found:?} is not {expected:?}"
        );
    }

    #[test]
    fn the_loss_has_its_closed_form() {
        let check = |values: &[[f64; 3]], labels: &[u32], smoothing: f32, expected: f64| {
            let loss = cross_entropy(&logits(values), labels, smoothing).unwrap();
            close(&[loss.to_scalar().unwrap()], &[expected]);
        };
        let third = 3.0f64.ln();
        check(&[[0.0; 3]], &[1], 0.0, third);
        check(&[[0.0; 3], [7.0; 3]], &[1, 2], 0.5, third);
        // p = 1/2, 1/4, 1/4.
        let row = [2.0f64.ln(), 0.0, 0.0];
        check(&[row], &[0], 0.0, 2.0f64.ln());
        check(&[row, row], &[0, 2], 0.0, 1.5 * 2.0f64.ln());
        // (1 − 0.75)·ln 2 + 0.25·(ln 2 + ln 4 + ln 4)
        check(&[row], &[0], 0.75, 1.5 * 2.0f64.ln());
        // Large logits neither overflow nor lose the answer.
        check(&[[1000.0, 0.0, 0.0]], &[0], 0.0, 0.0);
        check(&[[1000.0, 0.0, 0.0]], &[1], 0.0, 1000.0);
    }

    #[test]
    fn the_gradient_is_softmax_minus_target() {
        let values = logits(&[[2.0f64.ln(), 0.0, 0.0], [0.0; 3]]);
        let loss = cross_entropy(&values, &[0, 2], 0.3).unwrap();
        let gradients = loss.backward().unwrap();
        let gradient = gradients
            .get(&values)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f64>()
            .unwrap();
        let third = 1.0 / 3.0;
        let expected = [
            0.5 - 0.8,
            0.25 - 0.1,
            0.25 - 0.1,
            third - 0.1,
            third - 0.1,
            third - 0.8,
        ];
        close(&gradient, &expected.map(|g| g / 2.0));
    }

    #[test]
    fn loss_and_gradient_are_torchs() {
        let golden: Value =
            serde_json::from_str(include_str!("../../tests/golden/train_torch.json")).unwrap();
        for case in golden["cross_entropy"].as_array().unwrap() {
            let rows: Vec<[f64; 3]> = serde_json::from_value(case["logits"].clone()).unwrap();
            let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
            let expected: Vec<f64> = serde_json::from_value(case["gradient"].clone()).unwrap();
            let values = logits(&rows);
            let smoothing = case["smoothing"].as_f64().unwrap() as f32;
            let loss = cross_entropy(&values, &labels, smoothing).unwrap();
            close(&[loss.to_scalar().unwrap()], &[case["loss"].as_f64().unwrap()]);
            let gradients = loss.backward().unwrap();
            let gradient = gradients.get(&values).unwrap().flatten_all().unwrap();
            close(&gradient.to_vec1().unwrap(), &expected);
        }
    }

    #[test]
    fn the_first_of_equal_logits_answers() {
        let rows = logits(&[[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [f64::NAN, 1.0, 0.0]]);
        assert_eq!(right_answers(&rows, &[0, 1, 1]).unwrap(), 2);
        assert_eq!(right_answers(&rows, &[1, 2, 2]).unwrap(), 0);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let rows = logits(&[[0.0; 3]]);
        for labels in [&[3][..], &[0, 1], &[]] {
            assert!(cross_entropy(&rows, labels, 0.0).is_err(), "{labels:?}");
        }
    }
}
