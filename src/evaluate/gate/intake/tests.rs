//! New examples made up: what is left out, what is told.

use super::*;
use crate::model::rng::{Rng, Stream};

const CLASSES: usize = 10;

/// An answer: `sure` for one class, the rest for another.
fn row(class: usize, sure: f64, other: usize) -> Vec<f64> {
    let mut row = vec![0.0; CLASSES];
    row[class] = sure;
    row[other] += 1.0 - sure;
    row
}

/// A champion that is right on 98 of 100 trusted images, sure by 0.97, and confidently wrong on one in ten of the others.
fn golden() -> Golden {
    let mut rows = Vec::new();
    let mut labels = Vec::new();
    for place in 0..2_000 {
        let label = place % CLASSES;
        let answer = match place % 500 {
            0 => row((label + 1) % CLASSES, 0.99, label),
            1..=9 => row((label + 1) % CLASSES, 0.6, label),
            _ => row(label, 0.99, (label + 1) % CLASSES),
        };
        rows.extend(answer);
        labels.push(label as u32);
    }
    Golden::of(&rows, &labels, CLASSES).unwrap()
}

/// Examples that own what [`NewExample`] borrows.
#[derive(Default)]
struct Made(Vec<(u32, String, Vec<f64>)>);

impl Made {
    /// `count` examples of a source: a share is hard for the champion, a share is labelled wrong.
    fn add(&mut self, source: &str, count: usize, shares: [f64; 2], seed: u64) {
        let mut rng = Rng::new(seed, Stream::Init, count as u64);
        for _ in 0..count {
            let [label, shift] = [rng.unit(), rng.unit()].map(|u| (f64::from(u) * CLASSES as f64) as usize);
            let wrong = (label + 1 + shift % (CLASSES - 1)) % CLASSES;
            let hard = f64::from(rng.unit()) < shares[0];
            let answer = if hard {
                row(wrong, 0.7, label)
            } else {
                row(label, 0.999, wrong)
            };
            let flipped = f64::from(rng.unit()) < shares[1];
            let given = if flipped {
                (label + 1 + shift % 9) % CLASSES
            } else {
                label
            };
            self.0.push((given as u32, source.to_owned(), answer));
        }
    }

    fn check(&self, rules: &DataRules) -> DataCheck {
        let names: Vec<String> = (0..self.0.len()).map(|place| format!("{place:064x}")).collect();
        let examples: Vec<NewExample<'_>> = self
            .0
            .iter()
            .zip(&names)
            .enumerate()
            .map(|(place, ((label, source, probabilities), sha256))| NewExample {
                sha256,
                label: *label,
                source,
                dhash: (place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                probabilities,
                hold_out: place % 10 == 0,
            })
            .collect();
        check_data(&examples, &golden(), rules).unwrap()
    }
}

fn one_source() -> DataRules {
    DataRules {
        max_source_share: 1.0,
        ..DataRules::default()
    }
}

#[test]
fn rules_out_of_their_range_are_named() {
    let check = |rules: DataRules, expected: &str| {
        assert_eq!(rules.check().unwrap_err().split(':').next(), Some(expected));
    };
    assert_eq!(DataRules::default().check(), Ok(()));
    let rules = DataRules::default();
    check(
        DataRules {
            max_suspects: 1.5,
            ..rules
        },
        "max_suspects",
    );
    check(
        DataRules {
            alpha: f64::NAN,
            ..rules
        },
        "alpha",
    );
    check(
        DataRules {
            suspicious_ratio: 0.5,
            ..rules
        },
        "suspicious_ratio",
    );
}

#[test]
fn honest_examples_pass_however_hard_they_are() {
    for hard in [0.0, 0.2, 0.5, 1.0] {
        let mut made = Made::default();
        made.add("app", 500, [hard, 0.0], 1);
        let DataCheck { report, leave_out } = made.check(&one_source());
        assert!(
            report.passed && leave_out.is_empty(),
            "{hard}: {:?}",
            report.reasons
        );
        assert_eq!(
            (report.kept, report.hold_out, report.suspects.contradicted),
            (500, 50, 0)
        );
    }
}

#[test]
fn flips_are_held_and_ranked() {
    for flipped in [0.1, 0.3] {
        let mut made = Made::default();
        made.add("app", 2_000, [0.1, flipped], 2);
        let report = made.check(&one_source()).report;
        assert!(!report.passed && report.suspects.held);
        assert!(
            report.reasons[0].contains("they wait for a person"),
            "{:?}",
            report.reasons
        );
        let ranked = &report.suspects.ranked;
        assert!(ranked.len() >= 150 && ranked.is_sorted_by(|a, b| a.confidence <= b.confidence));
        assert!(ranked.iter().all(|suspect| suspect.label != suspect.champion));
    }
}

#[test]
fn a_source_of_flips_is_left_out_and_the_rest_passes() {
    let mut made = Made::default();
    for (seed, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        made.add(name, 300, [0.1, 0.0], seed as u64);
    }
    made.add("hard", 300, [0.9, 0.0], 8);
    made.add("poison", 300, [0.1, 0.3], 9);
    let DataCheck { report, leave_out } = made.check(&DataRules::default());
    assert!(report.passed, "{:?}", report.reasons);
    assert_eq!(leave_out, (1_500..1_800).collect::<Vec<_>>());
    let suspicious: Vec<&str> = report
        .sources
        .iter()
        .filter(|source| source.suspicious)
        .map(|source| &*source.name)
        .collect();
    assert_eq!(suspicious, ["poison"]);
    assert!(report.notes[0].starts_with("source poison: the champion contradicts "));
    assert_eq!(report.sources[0].share, 0.2);
    let read: DataReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(read, report);
}

#[test]
fn too_few_and_too_much_of_one_source_are_told() {
    let check = |counts: &[(&str, usize)], expected: &[&str]| {
        let mut made = Made::default();
        counts
            .iter()
            .for_each(|&(name, count)| made.add(name, count, [0.0, 0.0], 4));
        let rules = DataRules {
            min_per_class: 1,
            ..DataRules::default()
        };
        assert_eq!(made.check(&rules).report.reasons, expected);
    };
    check(
        &[("a", 100), ("b", 100), ("c", 100), ("d", 200)],
        &[
            "source d gave 40.00 % of the new examples, 25.00 % is allowed (intake.max_source_share = 1 where one source is all \
           there is)",
        ],
    );
    check(
        &[("a", 40), ("b", 40), ("c", 40), ("d", 40)],
        &["160 new examples are fewer than the 200 that a new training needs"],
    );
}

#[test]
fn a_class_with_few_examples_waits() {
    let mut made = Made::default();
    made.add("app", 300, [0.0, 0.0], 5);
    made.0.retain(|(label, ..)| *label != 7);
    let before = made.0.len();
    made.0
        .extend(std::iter::repeat_n((7, "app".to_owned(), row(7, 0.999, 1)), 4));
    let DataCheck { report, leave_out } = made.check(&one_source());
    assert_eq!(leave_out, (before..before + 4).collect::<Vec<_>>());
    assert_eq!(
        report.notes,
        ["class number 7 has 4 new examples, fewer than 5: left out until there are more"]
    );
    assert!(report.classes.iter().all(|&(class, _)| class != 7));
}

#[test]
fn a_class_that_the_champion_does_not_know_is_not_judged() {
    let mut made = Made::default();
    made.add("app", 300, [0.0, 0.0], 6);
    made.0.iter_mut().for_each(|(label, ..)| *label = CLASSES as u32);
    let report = made.check(&one_source()).report;
    assert!(report.passed && report.suspects.judged == 0);
}

/// Shares of draws in which a source among five is left out, and in which the whole is held.
fn rates(examples: usize, shares: [f64; 2], draws: u64) -> [f64; 2] {
    let mut counts = [0usize; 2];
    for draw in 0..draws {
        let mut made = Made::default();
        for source in 0..4 {
            made.add(&format!("s{source}"), 200, [0.02, 0.002], draw * 10 + source);
        }
        made.add("one", examples, shares, draw * 10 + 9);
        let report = made.check(&DataRules::default()).report;
        counts[0] += usize::from(report.sources.iter().any(|source| source.suspicious));
        counts[1] += usize::from(report.suspects.held);
    }
    counts.map(|count| count as f64 / draws as f64)
}

#[test]
fn small_sources_are_not_left_out_by_chance() {
    for (examples, shares) in [(10, [0.02, 0.002]), (50, [0.5, 0.01]), (200, [0.9, 0.01])] {
        let [flagged, held] = rates(examples, shares, 60);
        assert!(
            flagged <= 0.05 && held == 0.0,
            "{examples} {shares:?}: {flagged} {held}"
        );
    }
    let [flagged, _] = rates(100, [0.02, 0.3], 60);
    assert!(flagged >= 0.99, "{flagged}");
}
