//! Verdicts on answers made up, and how often each check errs.

use super::*;
use crate::model::rng::{Rng, Stream};

fn names(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}

/// Two models by who is right on each image, each as sure of its class as it is often right.
struct Made {
    champion: Vec<f64>,
    challenger: Vec<f64>,
    labels: Vec<u32>,
    names: Vec<String>,
}

impl Made {
    fn new(classes: usize, outcomes: &[(u32, [bool; 2])]) -> Self {
        let rows = |model: usize| {
            let hits = outcomes.iter().filter(|(_, right)| right[model]).count();
            let sure = hits as f64 / outcomes.len() as f64;
            let rest = (1.0 - sure) / (classes - 1) as f64;
            let row = |(label, right): &(u32, [bool; 2])| {
                let answer = *label as usize + usize::from(!right[model]);
                (0..classes).map(move |class| if class == answer % classes { sure } else { rest })
            };
            outcomes.iter().flat_map(row).collect()
        };
        Self {
            champion: rows(0),
            challenger: rows(1),
            labels: outcomes.iter().map(|(label, _)| *label).collect(),
            names: names(classes),
        }
    }

    fn answers(&self) -> Answers<'_> {
        Answers {
            champion: &self.champion,
            challenger: &self.challenger,
            labels: &self.labels,
            names: &self.names,
        }
    }

    fn compare(&self, slices: &[Slice]) -> Verdict {
        compare(self.answers(), slices, None, &Rules::default()).unwrap()
    }
}

/// So many images of a class: both right, lost, won, neither.
fn class(label: u32, counts: [usize; 4]) -> Vec<(u32, [bool; 2])> {
    let kinds = [[true, true], [true, false], [false, true], [false, false]];
    let all = kinds.into_iter().zip(counts);
    all.flat_map(|(right, count)| vec![(label, right); count])
        .collect()
}

fn everything(n: usize) -> Slice {
    Slice {
        name: "all images".to_owned(),
        rows: (0..n).collect(),
    }
}

#[test]
fn a_better_model_is_blessed() {
    let made = Made::new(
        2,
        &[class(0, [900, 5, 40, 55]), class(1, [900, 5, 40, 55])].concat(),
    );
    let verdict = made.compare(&[everything(2000)]);
    assert!(verdict.blessed, "{:?}", verdict.reasons);
    assert_eq!((verdict.champion.value, verdict.challenger.value), (0.905, 0.94));
    let superiority = &verdict.superiority[0];
    assert_eq!((superiority.pairs.won, superiority.pairs.lost), (80, 10));
    assert!(verdict.text().starts_with("blessed: the challenger"));
}

#[test]
fn each_check_says_why_it_fails() {
    let check = |made: &Made, slices: &[Slice], expected: &[&str]| {
        let verdict = made.compare(slices);
        assert_eq!(verdict.reasons, expected);
        assert!(!verdict.blessed && verdict.text().contains(expected[0]));
    };
    let few = Made::new(2, &[class(0, [490, 0, 9, 0]), class(1, [490, 0, 9, 0])].concat());
    check(
        &few,
        &[],
        &["998 images are fewer than the 1000 that a verdict needs"],
    );
    let alike = Made::new(2, &[class(0, [480, 8, 9, 3]), class(1, [480, 8, 9, 3])].concat());
    let better =
        "it is not shown to be better on all images (18 won, 16 lost, p = 0.432) (p < 0.05 is needed)";
    check(
        &alike,
        &[everything(1000)],
        &[
            "its accuracy may be 0.76 points lower (95 % bound), 0.50 are allowed",
            better,
        ],
    );
    // Class 1 gains what class 0 loses.
    let unfair = Made::new(
        2,
        &[class(0, [460, 20, 0, 20]), class(1, [440, 0, 40, 20])].concat(),
    );
    check(
        &unfair,
        &[],
        &["recall of class 0 fell 4.00 points (p = 1.9e-6, n = 500)"],
    );
}

#[test]
fn a_challenger_that_is_too_sure_or_too_slow_is_refused() {
    let made = Made::new(2, &class(0, [900, 0, 0, 100]));
    let sure: Vec<f64> = made
        .champion
        .iter()
        .map(|&p| if p > 0.5 { 0.99 } else { 0.01 })
        .collect();
    let answers = Answers {
        challenger: &sure,
        ..made.answers()
    };
    let verdict = compare(answers, &[], Some([1e-3, 1.3e-3]), &Rules::default()).unwrap();
    assert_eq!(
        verdict.reasons,
        [
            "its calibration error is 0.0900, the champion's 0.0000 (top-1, 15 bins), 0.01 more is allowed",
            "one image takes 1.300 ms at the 99th percentile, 1.30 times the champion's; 1.2 times is allowed",
        ]
    );
    let read: Verdict = serde_json::from_str(&serde_json::to_string(&verdict).unwrap()).unwrap();
    assert_eq!(read, verdict);
}

#[test]
fn with_few_discordant_images_the_exact_bound_holds() {
    let lower = |lost: usize| {
        let made = Made::new(2, &class(0, [1000 - lost, lost, 0, 0]));
        made.compare(&[]).non_inferiority.lower_bound
    };
    assert_eq!(lower(0), 0.0);
    // The normal bound is lower still.
    assert!((lower(2) + 0.002 + Z_05 * (2f64 - 0.004).sqrt() / 1000.0).abs() < 1e-12);
    let exact = Pairs {
        both: 980,
        won: 10,
        lost: 10,
        neither: 0,
    };
    // scipy.stats.beta.ppf(0.05, 10, 11) = 0.301954; 20·(2·0.301954 − 1)/1000
    let bound = NonInferiority::test(exact, &Rules::default()).lower_bound;
    assert!((bound + 0.007_921_8).abs() < 1e-6, "{bound}");
}

const Z_05: f64 = 1.644_853_626_951_472_7;

#[test]
fn what_does_not_match_is_refused() {
    let made = Made::new(2, &class(0, [10, 0, 0, 0]));
    let answers = Answers {
        challenger: &made.challenger[2..],
        ..made.answers()
    };
    assert!(compare(answers, &[], None, &Rules::default()).is_err());
    let beyond = compare(made.answers(), &[everything(11)], None, &Rules::default());
    assert_eq!(
        beyond.unwrap_err().to_string(),
        "evaluation: slice all images names row 10 of 10"
    );
}

/// A verdict with everything in it that a verdict may have, on `won` and `lost` images of class 0.
fn whole(won: usize, lost: usize) -> Verdict {
    use intake::{Golden, NewExample, check_data};
    let made = Made::new(
        2,
        &[class(0, [900, lost, won, 5]), class(1, [900, 5, 40, 55])].concat(),
    );
    let sure = [0.99, 0.01];
    let golden = Golden::of(&[0.9, 0.1, 0.1, 0.9].repeat(50), &[0, 1].repeat(50), 2).unwrap();
    let example = |place: usize| NewExample {
        sha256: "0123456789abcdef",
        label: u32::from(place < 40),
        source: if place < 60 { "<b>app</b>" } else { "site" },
        dhash: place as u64 / 2,
        probabilities: &sure,
        hold_out: false,
    };
    let examples: Vec<NewExample<'_>> = (0..300).map(example).collect();
    let report = check_data(&examples, &golden, &DataRules::default())
        .unwrap()
        .report;
    let missed = Missed {
        file: "0/<x>.png".to_owned(),
        label: "0".to_owned(),
        answer: "1".to_owned(),
        probability: 0.75,
    };
    let slices = [
        everything(1_940),
        Slice {
            name: "feedback & more".to_owned(),
            rows: (1_500..1_900).collect(),
        },
    ];
    let verdict = compare(made.answers(), &slices, Some([1e-3, 1.1e-3]), &Rules::default()).unwrap();
    let pinned = Pinned {
        n: 3,
        wrong: vec![missed],
    };
    verdict
        .with_new_examples(report)
        .with_pinned(Some(pinned))
        .with_uses(25)
}

#[test]
fn everything_found_is_told_in_every_form() {
    let verdict = whole(40, 70);
    let expected = [
        "it answers 1 of 3 pinned images wrong: 0/<x>.png (1, 75.00 %)",
        "recall of class 0 fell",
    ];
    let (text, page) = (verdict.text(), verdict.html("tiny & co"));
    let json = serde_json::to_string(&verdict).unwrap();
    for part in expected {
        let told = verdict.reasons.iter().any(|reason| reason.starts_with(part));
        assert!(told, "{part}: {:?}", verdict.reasons);
    }
    assert!(verdict.warnings[0].starts_with("25 verdicts were given on these images"));
    for reason in verdict.reasons.iter().chain(&verdict.warnings) {
        assert!(
            text.contains(reason.as_str()) && page.contains(&super::super::escape(reason)),
            "{reason}"
        );
    }
    assert!(page.contains("tiny &amp; co") && !page.contains("<b>app") && !page.contains("<x>"));
    assert!(page.contains("feedback &amp; more") && page.contains("source &lt;b&gt;app&lt;/b&gt;"));
    assert!(!page.contains("http"), "a page links to nothing");
    assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    let balanced = |tag: &str| {
        let open = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    };
    for tag in [
        "section", "table", "tr", "td", "svg", "figure", "div", "ul", "li", "p", "dl",
    ] {
        balanced(tag);
    }
}

#[test]
fn the_first_line_says_why() {
    let verdict = Verdict {
        reasons: vec!["recall of class 4 fell 3.10 points (p = 0.002, n = 480)".to_owned()],
        ..whole(40, 5)
    };
    let expected = "blessed: false, because recall of class 4 fell 3.10 points (p = 0.002, n = 480)";
    assert_eq!(verdict.headline(), expected);
    assert!(verdict.text().starts_with(expected));
}

#[test]
fn a_verdict_of_the_first_form_is_still_read() {
    let verdict = whole(40, 5);
    let mut value = serde_json::to_value(&verdict).unwrap();
    let object = value.as_object_mut().unwrap();
    for key in [
        "warnings",
        "new_examples",
        "pinned",
        "uses",
        "coverage",
        "latency",
    ] {
        assert!(object.remove(key).is_some(), "{key}");
    }
    let rules = object["rules"].as_object_mut().unwrap();
    assert!(rules.remove("max_uses").is_some());
    let read: Verdict = serde_json::from_value(value).unwrap();
    assert_eq!((read.harm, read.new_examples), (verdict.harm, None));
}

/// How often each rule would promote among `draws` of `n` images where 6 % are discordant and the challenger is `better`.
struct Rates {
    naive: f64,
    superior: f64,
    non_inferior: f64,
}

fn rates(n: usize, better: f64, draws: u64) -> Rates {
    let (discordant, rules) = (0.06, Rules::default());
    let (won, lost) = ((discordant + better) / 2.0, (discordant - better) / 2.0);
    let mut counts = [0usize; 3];
    for draw in 0..draws {
        let mut rng = Rng::new(draw, Stream::Init, n as u64);
        let outcomes: Vec<[bool; 2]> = (0..n)
            .map(|_| match f64::from(rng.unit()) {
                u if u < won => [false, true],
                u if u < won + lost => [true, false],
                _ => [true, true],
            })
            .collect();
        let pairs = Pairs::of(outcomes.iter().copied());
        let test = checks::superiority(&outcomes, &[everything(n)], &rules).unwrap();
        counts[0] += usize::from(pairs.won > pairs.lost);
        counts[1] += usize::from(test[0].passed);
        counts[2] += usize::from(NonInferiority::test(pairs, &rules).passed);
    }
    let [naive, superior, non_inferior] = counts.map(|count| count as f64 / draws as f64);
    Rates {
        naive,
        superior,
        non_inferior,
    }
}

#[test]
fn promotions_err_as_rarely_as_they_should() {
    const DRAWS: u64 = 1500;
    // Four standard errors of a share among so many draws.
    let near = |found: f64, expected: f64| {
        let error = 4.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt() + 0.01;
        assert!((found - expected).abs() <= error, "{found}, not {expected}");
    };
    for (n, naive, superior, non_inferior) in [(1_000, 0.47, 0.03, 0.16), (5_000, 0.48, 0.05, 0.42)] {
        let equal = rates(n, 0.0, DRAWS);
        near(equal.naive, naive);
        near(equal.superior, superior);
        near(equal.non_inferior, non_inferior);
        assert!(equal.superior <= 0.05 + 0.015, "{n}: {}", equal.superior);
    }
    let better = rates(1_000, 0.01, DRAWS);
    near(better.superior, 0.32);
    near(better.non_inferior, 0.64);
    let worse = rates(1_000, -0.01, DRAWS);
    near(worse.naive, 0.08);
    assert!(worse.non_inferior <= 0.02, "{}", worse.non_inferior);
}

#[test]
fn classes_are_rarely_blocked_for_nothing_and_surely_for_something() {
    const CLASSES: usize = 10;
    let blocked = |per_class: usize, drop: f64, draws: u64| {
        let mut count = 0;
        let (labels, names) = (
            (0..CLASSES as u32)
                .flat_map(|label| vec![label; per_class])
                .collect::<Vec<_>>(),
            names(CLASSES),
        );
        for draw in 0..draws {
            let mut rng = Rng::new(draw, Stream::Init, per_class as u64);
            let mut outcome = |&label: &u32| {
                let drop = if label == 3 { drop } else { 0.0 };
                let (lost, won) = ((0.06 + drop) / 2.0, (0.06 - drop) / 2.0);
                match f64::from(rng.unit()) {
                    u if u < lost => [true, false],
                    u if u < lost + won => [false, true],
                    _ => [true, true],
                }
            };
            let outcomes: Vec<[bool; 2]> = labels.iter().map(&mut outcome).collect();
            let answers = Answers {
                champion: &[],
                challenger: &[],
                labels: &labels,
                names: &names,
            };
            let all = checks::harm(&outcomes, &answers, &Rules::default());
            count += usize::from(all.iter().any(|class| class.blocked));
        }
        count as f64 / draws as f64
    };
    for per_class in [100, 500] {
        let false_blocks = blocked(per_class, 0.0, 1000);
        assert!(false_blocks <= 0.05, "{per_class}: {false_blocks}");
    }
    let found = blocked(500, 0.05, 500);
    assert!(found >= 0.97, "a drop of 5 points among 500 images: {found}");
}
