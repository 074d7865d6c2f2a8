//! Logits to a prediction: probabilities, the best classes, the margin.

use std::sync::Arc;

use serde::Serialize;

/// Class names in the network's order.
pub type Labels = Arc<[Arc<str>]>;

/// One class with its probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Class name.
    pub label: Arc<str>,
    /// Class number.
    pub index: usize,
    /// 0…1.
    pub probability: f64,
}

/// What the model says of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable class's name.
    pub label: Arc<str>,
    /// Its number.
    pub index: usize,
    /// Its probability, 0…1.
    pub probability: f64,
    /// Its probability less the second's, 0…1.
    pub margin: f64,
    /// The most probable classes, best first; ties in order of their numbers.
    pub top_k: Vec<Ranked>,
    /// Every class's probability in the network's order, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f64>>,
}

/// What the caller wants of a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Length of `top_k`; more than the classes means all of them.
    pub top_k: usize,
    /// Whether all probabilities are listed.
    pub probabilities: bool,
}

/// A logit is NaN or infinite, so there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model gave a number that is not finite")]
pub struct NonFinite;

/// exp(x − max) / Σ, in f64.
pub fn softmax(logits: &[f32]) -> Result<Vec<f64>, NonFinite> {
    if !logits.iter().all(|x| x.is_finite()) {
        return Err(NonFinite);
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f64> = logits
        .iter()
        .map(|&x| (f64::from(x) - f64::from(most)).exp())
        .collect();
    let sum: f64 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
    Ok(values)
}

/// The prediction of one row of logits, as long as `labels`.
pub fn predict(logits: &[f32], labels: &Labels, detail: Detail) -> Result<Prediction, NonFinite> {
    let probabilities = softmax(logits)?;
    // Two are needed for the margin, whatever is listed.
    let ranked = best(&probabilities, detail.top_k.max(2));
    let at = |rank: usize| ranked.get(rank).map_or(0.0, |&index| probabilities[index]);
    let index = ranked.first().copied().unwrap_or(0);
    let label = |index: usize| labels.get(index).map_or_else(|| "".into(), Arc::clone);
    let listed = ranked.iter().take(detail.top_k);
    let entry = |&index: &usize| Ranked {
        label: label(index),
        index,
        probability: probabilities[index],
    };
    Ok(Prediction {
        label: label(index),
        index,
        probability: at(0),
        margin: at(0) - at(1),
        top_k: listed.map(entry).collect(),
        probabilities: detail.probabilities.then_some(probabilities),
    })
}

/// Indices of the `count` largest, in order; the lower index first where equal.
fn best(values: &[f64], count: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    let mut indices: Vec<usize> = (0..values.len()).collect();
    let count = count.min(indices.len());
    if count < indices.len() && count > 0 {
        indices.select_nth_unstable_by(count - 1, order);
    }
    indices.truncate(count);
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(count: usize) -> Labels {
        (0..count).map(|i| Arc::from(format!("class {i}"))).collect()
    }

    const ALL: Detail = Detail {
        top_k: usize::MAX,
        probabilities: true,
    };

    #[test]
    fn a_prediction_tells_label_probability_and_margin() {
        let row = [0.0, (3.0f32).ln(), f32::MIN_POSITIVE.ln(), (2.0f32).ln()];
        let prediction = predict(
            &row,
            &labels(4),
            Detail {
                top_k: 2,
                probabilities: false,
            },
        )
        .unwrap();
        assert_eq!((&*prediction.label, prediction.index), ("class 1", 1));
        assert!((prediction.probability - 0.5).abs() < 1e-6);
        assert!((prediction.margin - 1.0 / 6.0).abs() < 1e-6);
        let listed: Vec<usize> = prediction.top_k.iter().map(|r| r.index).collect();
        assert_eq!((listed, prediction.probabilities), (vec![1, 3], None));
    }

    #[test]
    fn equal_classes_stand_in_order_of_their_numbers() {
        let prediction = predict(&[1.0, 2.0, 2.0, 2.0], &labels(4), ALL).unwrap();
        assert_eq!(
            prediction.top_k.iter().map(|r| r.index).collect::<Vec<_>>(),
            [1, 2, 3, 0]
        );
        assert_eq!(prediction.margin, 0.0);
    }

    #[test]
    fn what_is_not_finite_is_no_answer() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(predict(&[0.0, bad], &labels(2), ALL), Err(NonFinite));
        }
        assert!(predict(&[f32::MAX, f32::MIN], &labels(2), ALL).is_ok());
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one_and_keep_their_order(
            logits in prop::collection::vec(-50.0f32..50.0, 2..40), shift in -100.0f32..100.0
        ) {
            let prediction = predict(&logits, &labels(logits.len()), ALL).unwrap();
            let probabilities = prediction.probabilities.unwrap();
            prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for pair in prediction.top_k.windows(2) {
                prop_assert!(logits[pair[0].index] >= logits[pair[1].index]);
                prop_assert!(pair[0].probability >= pair[1].probability);
            }
            let shifted: Vec<f32> = logits.iter().map(|x| x + shift).collect();
            let moved = softmax(&shifted).unwrap();
            prop_assert!(probabilities.iter().zip(moved).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
