//! What a version's own figures say against it.

use serde_json::Value;

use crate::model::Spec;

use super::Measured;

/// Classes named as those that are known least.
const SMALLEST: usize = 3;

/// A sentence for each limit.
pub(super) fn of(spec: &Spec, evaluation: &[Measured], gate: Option<&Value>) -> Vec<String> {
    let input = spec.input;
    let mut limits = vec![
        format!(
            "It gives one of its {} classes to any image, also to one of something else.",
            spec.labels.len()
        ),
        format!(
            "It sees {} of {}×{} pixels: what is lost at that size it cannot see.",
            if input.channels == 1 {
                "grey images"
            } else {
                "colour images"
            },
            input.height,
            input.width
        ),
        "Images unlike those it was measured on (another camera, place or time) were not measured."
            .to_owned(),
    ];
    match evaluation.first() {
        Some(measured) => limits.extend(figures(measured)),
        None => limits.push("Nothing was measured when it was made.".to_owned()),
    }
    limits.push(match gate {
        None => "The gate was not asked about it.".to_owned(),
        Some(gate) => uses(gate),
    });
    limits
}

fn figures(measured: &Measured) -> Vec<String> {
    let mut limits = Vec::new();
    if let Some(ece) = measured.ece {
        limits.push(format!(
            "Its probabilities are {:.2} points off on average (calibration error on {} images).",
            ece * 100.0,
            measured.n
        ));
    }
    let mut classes: Vec<_> = measured.per_class.iter().collect();
    classes.sort_by_key(|class| class.support);
    let smallest: Vec<String> = classes
        .iter()
        .take(SMALLEST)
        .map(|class| {
            format!(
                "{} ({} images, recall {:.1}–{:.1} %)",
                class.label,
                class.support,
                class.recall_interval.low * 100.0,
                class.recall_interval.high * 100.0
            )
        })
        .collect();
    limits.push(if smallest.is_empty() {
        "It was not measured by class.".to_owned()
    } else {
        format!("Least is known of the classes {}.", smallest.join(", "))
    });
    limits
}

fn uses(gate: &Value) -> String {
    match gate["uses"].as_u64() {
        None => "How often the gate's images were used before is not known.".to_owned(),
        Some(1) => "The gate's images gave their first verdict on it.".to_owned(),
        Some(uses) => format!(
            "The gate's images had given {} verdicts before: the more, the less they tell.",
            uses - 1
        ),
    }
}
