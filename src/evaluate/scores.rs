//! Rows of probabilities with their labels, checked.

use super::EvaluateError;

/// How far a row's sum may be from 1.
const SUM_TOLERANCE: f64 = 1e-6;

/// At least one row of probabilities, each with the class that is right.
pub(super) struct Scores<'a> {
    probabilities: &'a [f64],
    labels: &'a [u32],
    classes: usize,
}

impl<'a> Scores<'a> {
    pub(super) fn new(
        probabilities: &'a [f64],
        labels: &'a [u32],
        classes: usize,
    ) -> Result<Self, EvaluateError> {
        if classes < 2 {
            let problem = format!("{classes} classes; at least two are needed");
            return Err(EvaluateError::Shape(problem));
        }
        if labels.len().checked_mul(classes) != Some(probabilities.len()) {
            let problem = format!(
                "{} probabilities are not {} rows of {classes}",
                probabilities.len(),
                labels.len()
            );
            return Err(EvaluateError::Shape(problem));
        }
        if labels.is_empty() {
            return Err(EvaluateError::Empty);
        }
        for (row, (values, &label)) in probabilities.chunks_exact(classes).zip(labels).enumerate() {
            if label as usize >= classes {
                return Err(EvaluateError::Label { row, label, classes });
            }
            check_row(values).map_err(|problem| EvaluateError::Row { row, problem })?;
        }
        Ok(Self {
            probabilities,
            labels,
            classes,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// Each row with its label.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'a [f64], usize)> {
        let labels = self.labels.iter().map(|&label| label as usize);
        self.probabilities.chunks_exact(self.classes).zip(labels)
    }
}

/// The most probable class; the first of equal ones, as numpy's argmax.
pub(super) fn top_1(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best })
}

fn check_row(row: &[f64]) -> Result<(), String> {
    if let Some(value) = row.iter().find(|value| !value.is_finite()) {
        return Err(format!("{value} is not finite"));
    }
    if let Some(value) = row
        .iter()
        .find(|&&value| !(0.0..=1.0 + SUM_TOLERANCE).contains(&value))
    {
        return Err(format!("{value} is not a probability"));
    }
    let sum: f64 = row.iter().sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(format!("its probabilities sum to {sum}, not 1"));
    }
    Ok(())
}
