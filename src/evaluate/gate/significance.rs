//! Exact tests on images that two models answer differently.

/// P(X ≥ `wins`) where each of `trials` falls either way with the same chance: the one-sided p-value of McNemar's exact
/// test. 1 where there are no trials.
pub(super) fn sign_test(wins: usize, trials: usize) -> f64 {
    upper_tail(wins, trials, 0.5)
}

/// The lower end of the one-sided confidence interval of a share, `wins` of `trials`, that misses with probability `alpha`
/// (Clopper and Pearson, "The use of confidence or fiducial limits", 1934).
pub(super) fn lower_bound(wins: usize, trials: usize, alpha: f64) -> f64 {
    if wins == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Halving a double's interval more often changes nothing.
    for _ in 0..64 {
        let share = (low + high) / 2.0;
        if upper_tail(wins, trials, share) < alpha {
            low = share;
        } else {
            high = share;
        }
    }
    low
}

/// The upper end of the same interval; 1 of no trials.
pub(super) fn upper_bound(wins: usize, trials: usize, alpha: f64) -> f64 {
    1.0 - lower_bound(trials - wins, trials, alpha)
}

/// P(X ≥ `wins`) where each of `trials` is one with a chance of `share`: the one-sided p-value of the exact test.
pub(super) fn binomial_test(wins: usize, trials: usize, share: f64) -> f64 {
    if share >= 1.0 || wins == 0 {
        1.0
    } else if share <= 0.0 {
        0.0
    } else {
        upper_tail(wins, trials, share)
    }
}

/// P(X ≥ `wins`) of a binomial variable, 0 < `share` < 1.
fn upper_tail(wins: usize, trials: usize, share: f64) -> f64 {
    if wins == 0 {
        return 1.0;
    }
    if wins > trials {
        return 0.0;
    }
    // The logarithm of each term from that of the one before, the first summed up.
    let odds = share.ln() - (1.0 - share).ln();
    let step = |k: usize| ((trials - k) as f64).ln() - ((k + 1) as f64).ln() + odds;
    let mut term = trials as f64 * (1.0 - share).ln() + (0..wins).map(step).sum::<f64>();
    let mut tail = 0.0;
    for k in wins..=trials {
        tail += term.exp();
        if k < trials {
            term += step(k);
        }
    }
    f64::min(tail, 1.0)
}

/// Holm's adjusted p-values: below alpha, a rejection holds with a chance of at most alpha that any is wrong (Holm, "A
/// simple sequentially rejective multiple test procedure", 1979).
pub(super) fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        let left = (p_values.len() - rank) as f64;
        largest = largest.max((left * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-10 * expected.max(1e-3),
            "{found}, not {expected}"
        );
    }

    #[test]
    fn p_values_are_those_of_scipy() {
        // scipy.stats.binomtest(wins, trials, 0.5, alternative="greater").pvalue
        close(sign_test(0, 0), 1.0);
        close(sign_test(0, 7), 1.0);
        close(sign_test(7, 7), 1.0 / 128.0);
        close(sign_test(5, 7), 29.0 / 128.0);
        close(sign_test(9, 10), 11.0 / 1024.0);
        close(sign_test(256, 379), 3.678_009_560_462_825e-12);
        close(sign_test(5_100, 10_000), 0.023_292_763_852_473_225);
    }

    #[test]
    fn bounds_are_those_of_scipy() {
        // scipy.stats.beta.ppf(alpha, wins, trials - wins + 1)
        close(lower_bound(0, 5, 0.05), 0.0);
        close(lower_bound(5, 5, 0.05), 0.549_280_271_653_058_8);
        close(lower_bound(3, 10, 0.05), 0.087_264_433_914_150_33);
        close(lower_bound(1, 24, 0.05), 0.002_134_938_369_701_545);
    }

    #[test]
    fn holm_multiplies_by_what_is_left_and_never_falls() {
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
        assert_eq!(holm(&[0.9, 0.5]), [1.0, 1.0]);
    }

    proptest! {
        #[test]
        fn tails_fall_with_each_win(trials in 1usize..400, share in 0.01f64..0.99) {
            let tails: Vec<f64> = (0..=trials + 1).map(|wins| upper_tail(wins, trials, share)).collect();
            prop_assert_eq!((tails[0], tails[trials + 1]), (1.0, 0.0));
            prop_assert!(tails.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12));
        }
    }
}
