//! Counts of predictions and labels to how good each version is.

use std::collections::BTreeMap;

use crate::evaluate::Interval;
use crate::model::{ModelName, Version};
use crate::store::Tally;

/// How good a version's judged predictions are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quality {
    /// Predictions whose image has an accepted label, at least one.
    pub(super) judged: u64,
    /// Share that is right.
    pub(super) accuracy: f64,
    /// Its 95 % Wilson interval.
    pub(super) interval: Interval,
    /// Mean F1, 2·hits / (labelled + predicted), over the classes that were labelled or predicted (scikit-learn's
    /// `average="macro"` with its own choice of labels).
    pub(super) macro_f1: f64,
}

/// One class's counts.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    hits: u64,
    labelled: u64,
    predicted: u64,
}

/// Every version that has a judged prediction.
pub(super) fn qualities(tallies: &[Tally]) -> BTreeMap<(ModelName, Version), Quality> {
    let mut classes: BTreeMap<(ModelName, Version), BTreeMap<u32, Class>> = BTreeMap::new();
    for tally in tallies {
        let of = classes.entry((tally.model.clone(), tally.version)).or_default();
        let n = tally.predictions;
        of.entry(tally.predicted).or_default().predicted += n;
        let labelled = of.entry(tally.label).or_default();
        labelled.labelled += n;
        labelled.hits += if tally.predicted == tally.label { n } else { 0 };
    }
    let quality = |classes: BTreeMap<u32, Class>| quality(&classes.into_values().collect::<Vec<_>>());
    classes
        .into_iter()
        .map(|(version, classes)| (version, quality(classes)))
        .collect()
}

fn quality(classes: &[Class]) -> Quality {
    let sum = |of: fn(&Class) -> u64| classes.iter().map(of).sum::<u64>();
    let (hits, judged) = (sum(|class| class.hits), sum(|class| class.labelled));
    let f1 = |class: &Class| 2.0 * class.hits as f64 / (class.labelled + class.predicted) as f64;
    Quality {
        judged,
        accuracy: hits as f64 / judged as f64,
        interval: Interval::wilson(hits as usize, judged as usize),
        macro_f1: classes.iter().map(f1).sum::<f64>() / classes.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(version: u32, predicted: u32, label: u32, predictions: u64) -> Tally {
        Tally {
            model: "digits".parse().unwrap(),
            version: version.try_into().unwrap(),
            predicted,
            label,
            predictions,
        }
    }

    #[test]
    fn figures_are_those_of_scikit_learn() {
        let tallies = [
            tally(1, 0, 0, 8),
            tally(1, 1, 0, 2),
            tally(1, 2, 2, 5),
            tally(2, 3, 4, 1),
        ];
        let found = qualities(&tallies);
        let of = |version: u32| &found[&("digits".parse().unwrap(), version.try_into().unwrap())];
        // accuracy_score and f1_score(average="macro") of [0]*10 + [2]*5 and [0]*8 + [1]*2 + [2]*5: the classes' F1 are
        // 8/9, 0 and 1.
        let first = of(1);
        assert_eq!((first.judged, first.accuracy), (15, 13.0 / 15.0));
        assert!((first.macro_f1 - 17.0 / 27.0).abs() < 1e-15);
        assert_eq!(first.interval, Interval::wilson(13, 15));
        assert_eq!((of(2).accuracy, of(2).macro_f1), (0.0, 0.0));
        assert!(qualities(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn shares_are_shares_and_nothing_is_lost(
            counts in proptest::collection::vec((1_u32..4, 0_u32..5, 0_u32..5, 1_u64..100), 1..30),
        ) {
            let tallies: Vec<Tally> = counts.iter().map(|&(v, p, l, n)| tally(v, p, l, n)).collect();
            let found = qualities(&tallies);
            let judged: u64 = found.values().map(|quality| quality.judged).sum();
            prop_assert_eq!(judged, counts.iter().map(|&(.., n)| n).sum::<u64>());
            for Quality { accuracy, interval, macro_f1, .. } in found.into_values() {
                prop_assert!((0.0..=1.0).contains(&macro_f1));
                // Of all and of none right, the interval's end is the share but for rounding.
                prop_assert!(interval.low - 1e-12 <= accuracy && accuracy <= interval.high + 1e-12);
                // Every class with a miss has an F1 below 1, and only then.
                prop_assert_eq!(accuracy == 1.0, macro_f1 == 1.0);
            }
        }
    }
}
