//! Whether sets of classes that hold the truth nine times in ten on known images do so on the images that matter.

use serde::{Deserialize, Serialize};

use super::super::scores::Scores;
use super::checks::{p_text, sign_tests};
use super::{Pairs, Rules, Slice};

/// Share of images whose set is to hold the right class.
const NOMINAL: f64 = 0.9;
/// Chance that a model whose sets keep their promise is thought to break it. Five in a hundred, as a 95 % band has, would
/// stop one of twenty good models.
const BAND: f64 = 0.01;
/// Images to calibrate with at least: with 9 or fewer the set would hold every class.
const MIN_CALIBRATION: usize = 100;
/// Images of a slice at least.
const MIN_SLICE: usize = 30;

/// Coverage of prediction sets on one group of images, the sets' size having been set on the others.
///
/// Split-conformal sets: all classes of at least probability 1 − q, q being the ⌈(n + 1) · 0.9⌉-th smallest of the n
/// calibration images' scores 1 − p(right class) (Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers With
/// Bounded Error Levels", 2019). Of images like the calibration images, their count inside is beta-binomial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// The group: a slice, or half of all images.
    pub slice: String,
    /// Images that set the challenger's threshold.
    pub calibrated_on: usize,
    /// Images of the group.
    pub n: usize,
    /// The probability from which a class belongs to the challenger's sets.
    pub threshold: f64,
    /// Share of the group's images whose right class is in the challenger's set.
    pub challenger: f64,
    /// The same of the champion with its own threshold.
    pub champion: f64,
    /// Classes in a set of the challenger, on average.
    pub set_size: f64,
    /// Share that must not be fallen below: below lies a calibrated model with a chance of 1 %.
    pub band: f64,
    /// One-sided exact p-value by Holm's correction for the number of slices: that the champion alone would cover so many
    /// of the images that one of both covers, were both alike.
    pub p_holm: f64,
    /// Whether a failure here refuses the challenger: of slices, not of the half.
    pub decides: bool,
    /// Not below the band, or not worse than the champion.
    pub passed: bool,
}

/// A group of images by name, with whether each image is in it.
type Group = (String, Vec<bool>);

/// Sets of one model, set on the images outside a group.
struct Sets {
    threshold: f64,
    /// Of the images inside, whether the set holds the right class.
    covered: Vec<bool>,
    mean_size: f64,
}

/// One for each slice that leaves enough other images; where there is none such, one for half of all images, which can
/// tell how large sets are, and nothing against the challenger.
pub(super) fn coverage(both: [&Scores<'_>; 2], slices: &[Slice], rules: &Rules) -> Vec<Coverage> {
    let n = both[0].len();
    let mut groups: Vec<Group> = slices
        .iter()
        .map(|slice| inside(slice, n))
        .filter(enough)
        .collect();
    let decides = !groups.is_empty();
    if !decides {
        groups.push(("half of the images".to_owned(), (0..n).map(drawn).collect()));
        groups.retain(enough);
    }
    let sets: Vec<[Sets; 2]> = groups
        .iter()
        .map(|(_, inside)| both.map(|scores| Sets::of(scores, inside)))
        .collect();
    let all: Vec<Pairs> = sets.iter().map(pairs).collect();
    let tests = sign_tests(&all, |pairs| pairs.lost);
    let mut found = Vec::new();
    for (((group, sets), pairs), [_, p_holm]) in groups.into_iter().zip(&sets).zip(&all).zip(tests) {
        let test = Coverage::new(group.0, n, (&sets[1], pairs), p_holm);
        let worse = test.challenger < test.band && p_holm < rules.alpha;
        found.push(Coverage {
            decides,
            passed: !(decides && worse),
            ..test
        });
    }
    found
}

fn inside(slice: &Slice, n: usize) -> Group {
    let mut inside = vec![false; n];
    for &row in &slice.rows {
        inside[row] = true;
    }
    (slice.name.clone(), inside)
}

fn enough((_, inside): &Group) -> bool {
    let within = inside.iter().filter(|&&inside| inside).count();
    within >= MIN_SLICE && inside.len() - within >= MIN_CALIBRATION
}

/// Half of all rows, whatever order they are in: the top bit of a mixed row number (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
fn drawn(row: usize) -> bool {
    let mut z = (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 63 == 1
}

impl Sets {
    fn of(scores: &Scores<'_>, inside: &[bool]) -> Self {
        let rows = || scores.rows().zip(inside);
        let outside = rows().filter(|&(_, &inside)| !inside);
        let mut calibration: Vec<f64> = outside.map(|((row, label), _)| 1.0 - row[label]).collect();
        calibration.sort_by(f64::total_cmp);
        // Within the list, which has at least MIN_CALIBRATION numbers.
        let threshold = 1.0 - calibration[rank(calibration.len()) - 1];
        let mut size = 0;
        let mut covered = Vec::new();
        for ((row, label), _) in rows().filter(|&(_, &inside)| inside) {
            covered.push(row[label] >= threshold);
            size += row
                .iter()
                .filter(|&&probability| probability >= threshold)
                .count();
        }
        Self {
            threshold,
            mean_size: size as f64 / covered.len().max(1) as f64,
            covered,
        }
    }
}

/// Which of `n` scores, from 1.
fn rank(n: usize) -> usize {
    ((n + 1) as f64 * NOMINAL).ceil() as usize
}

fn pairs([champion, challenger]: &[Sets; 2]) -> Pairs {
    let both = champion.covered.iter().zip(&challenger.covered);
    Pairs::of(both.map(|(&champion, &challenger)| [champion, challenger]))
}

impl Coverage {
    fn new(slice: String, all: usize, (sets, pairs): (&Sets, &Pairs), p_holm: f64) -> Self {
        let n = pairs.n();
        let calibrated_on = all - n;
        Self {
            slice,
            calibrated_on,
            n,
            threshold: sets.threshold,
            challenger: pairs.challenger_hits() as f64 / n as f64,
            champion: pairs.champion_hits() as f64 / n as f64,
            set_size: sets.mean_size,
            band: lowest(calibrated_on, n) as f64 / n as f64,
            p_holm,
            decides: false,
            passed: true,
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        (!self.passed).then(|| {
            format!(
                "its 90 % sets hold the right class of {:.2} % of {} only, the champion's of {:.2} % ({}, n = {}, \
                 {:.2} % is the least)",
                self.challenger * 100.0,
                self.slice,
                self.champion * 100.0,
                p_text(self.p_holm),
                self.n,
                self.band * 100.0
            )
        })
    }
}

/// The fewest of `m` images that sets calibrated on `n` cover but with a chance of [`BAND`]: of a beta-binomial variable,
/// since the threshold is a random one, too (Vovk, "Conditional validity of inductive conformal predictors", 2012).
fn lowest(n: usize, m: usize) -> usize {
    let (a, b) = (rank(n) as f64, (n + 1 - rank(n)) as f64);
    let start = |i: usize| ((b + i as f64) / (a + b + i as f64)).ln();
    let mut term: f64 = (0..m).map(start).sum();
    let mut below = 0.0;
    for count in 0..m {
        below += term.exp();
        if below >= BAND {
            return count;
        }
        let j = count as f64;
        term += ((m as f64 - j) * (a + j) / ((j + 1.0) * (b + m as f64 - j - 1.0))).ln();
    }
    m
}

#[cfg(test)]
mod tests {
    use super::super::super::scores::Scores;
    use super::*;
    use crate::model::rng::{Rng, Stream};

    /// Probabilities of a two-class model: right with the probability it says, which spreads evenly over ½ to 1; on the
    /// last `hard` images it is as sure and right in half of them.
    struct Made {
        probabilities: Vec<f64>,
        labels: Vec<u32>,
    }

    impl Made {
        fn new(n: usize, hard: usize, seed: u64) -> Self {
            let mut rng = Rng::new(seed, Stream::Init, n as u64);
            let mut made = Self {
                probabilities: Vec::new(),
                labels: Vec::new(),
            };
            for place in 0..n {
                let sure = 0.5 + f64::from(rng.unit()) / 2.0;
                let right = if place < n - hard { sure } else { 0.5 };
                made.probabilities.extend([sure, 1.0 - sure]);
                made.labels.push(u32::from(f64::from(rng.unit()) >= right));
            }
            made
        }

        fn scores(&self) -> Scores<'_> {
            Scores::new(&self.probabilities, &self.labels, 2).unwrap()
        }
    }

    fn last(n: usize, of: usize) -> Slice {
        Slice {
            name: "feedback".to_owned(),
            rows: (of - n..of).collect(),
        }
    }

    #[test]
    fn the_band_is_that_of_scipy() {
        // n = 1000, m = 500: scipy.stats.betabinom(500, 901, 100).ppf(0.01)
        assert_eq!(rank(1_000), 901);
        assert_eq!(lowest(1_000, 500), 430);
        // m = 30: betabinom(30, 91, 10)
        assert_eq!(lowest(100, 30), 22);
    }

    #[test]
    fn calibrated_sets_are_refused_as_rarely_as_the_band_says() {
        let (mut below, mut refused) = (0, 0);
        const DRAWS: u64 = 1_000;
        for draw in 0..DRAWS {
            let [champion, challenger] = [2 * draw, 2 * draw + 1].map(|seed| Made::new(600, 0, seed));
            let found = coverage(
                [&champion.scores(), &challenger.scores()],
                &[last(200, 600)],
                &Rules::default(),
            );
            below += usize::from(found[0].challenger < found[0].band);
            refused += usize::from(!found[0].passed);
        }
        let share = |count: usize| count as f64 / DRAWS as f64;
        // Four standard errors of 1 % among so many.
        assert!(share(below) <= BAND + 0.0126, "{}", share(below));
        assert!(refused <= below && share(refused) <= 0.01, "{}", share(refused));
    }

    #[test]
    fn lost_coverage_refuses_where_the_champion_has_it() {
        let (good, bad) = (Made::new(1_000, 0, 1), Made::new(1_000, 200, 1));
        let check = |champion: &Made, challenger: &Made, passed: bool| {
            let both = [&champion.scores(), &challenger.scores()];
            let found = coverage(both, &[last(200, 1_000)], &Rules::default());
            assert_eq!((found[0].passed, found[0].decides), (passed, true), "{found:?}");
            let told = found[0].failure();
            assert_eq!(told.is_none(), passed);
            told.unwrap_or_default()
        };
        let told = check(&good, &bad, false);
        assert!(
            told.starts_with("its 90 % sets hold the right class of ") && told.contains("of feedback only")
        );
        check(&bad, &good, true);
        // Below the band, but the champion is there as well: hard images are no reason to keep the worse model.
        check(&bad, &bad, true);
    }

    #[test]
    fn without_a_slice_of_its_own_half_is_told_and_decides_nothing() {
        let made = Made::new(1_000, 0, 1);
        let scores = made.scores();
        let found = coverage([&scores, &scores], &[last(1_000, 1_000)], &Rules::default());
        assert_eq!(found.len(), 1);
        assert!(!found[0].decides && found[0].passed && found[0].n.abs_diff(500) < 80);
        let few = Made::new(150, 0, 1);
        assert!(coverage([&few.scores(), &few.scores()], &[], &Rules::default()).is_empty());
    }
}
