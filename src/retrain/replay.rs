//! Which images of a dataset are shown again, so that what they taught is not forgotten.
//!
//! Why: docs/decisions/0012-replay.md.

use crate::dataset::Dataset;
use crate::model::rng::{Rng, Stream};

/// Images that are replayed at least, where there are so many: with fewer, an epoch is a handful of steps and each of
/// them follows a handful of images.
pub(super) const MIN_REPLAY: usize = 1_000;

/// The `size` images among `from` that may be replayed: as many of each class as there are, those of the lowest sha256.
/// Nothing but the images decides, so the choice is the same in every run, and further images move few of it.
pub(super) fn reservoir(data: &Dataset, from: &[usize], size: usize) -> Vec<usize> {
    let mut ordered = from.to_vec();
    ordered.sort_unstable_by_key(|&index| data.hashes[index]);
    balanced(data, ordered, size)
}

/// `count` images of the reservoir, as many of each class as there are, by seed; all where it has no more.
pub(super) fn draw(data: &Dataset, reservoir: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let mut shuffled = reservoir.to_vec();
    Rng::new(seed, Stream::Replay, 0).shuffle(&mut shuffled);
    balanced(data, shuffled, count)
}

/// How many images are replayed beside `new` ones.
pub(super) fn count(new: usize, ratio: f64) -> usize {
    // At most 100 times 10,000,000: exact in f64, and rounding up is what is wanted.
    ((new as f64 * ratio).ceil() as usize).max(MIN_REPLAY)
}

/// The first `size`, counted off class by class in turns: equal shares, but for classes that run out.
fn balanced(data: &Dataset, mut indices: Vec<usize>, size: usize) -> Vec<usize> {
    let mut seen = vec![0_usize; data.classes];
    let mut turns: Vec<(usize, usize)> = Vec::with_capacity(indices.len());
    for index in indices.drain(..) {
        let turn = &mut seen[data.labels[index] as usize];
        turns.push((*turn, index));
        *turn += 1;
    }
    // Stable: within a turn, the order that was given.
    turns.sort_by_key(|(turn, _)| *turn);
    turns.truncate(size);
    turns.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::model::Spec;

    /// Images of these classes; the image at `i` has the same hash in every dataset.
    fn data(labels: &[u32]) -> Dataset {
        let text = "architecture = 'seed-cnn'\nlabels = ['a', 'b', 'c']\n\
                    input = { channels = 1, height = 1, width = 1 }";
        let mut data = Dataset::empty(&Spec::parse(text).unwrap());
        for (image, &label) in labels.iter().enumerate() {
            data.push(Sha256::digest(image.to_le_bytes()).into(), label, &[0.0]);
        }
        data
    }

    fn counts(data: &Dataset, chosen: &[usize]) -> Vec<usize> {
        let of = |class| chosen.iter().filter(|&&i| data.labels[i] == class).count();
        (0..3).map(of).collect()
    }

    #[test]
    fn classes_have_equal_shares_until_they_run_out() {
        let labels: Vec<u32> = (0..100)
            .map(|i| if i < 3 { 2 } else { u32::from(i >= 60) })
            .collect();
        let data = data(&labels);
        let all: Vec<usize> = (0..100).collect();
        let check = |size: usize, expected: [usize; 3]| {
            assert_eq!(counts(&data, &reservoir(&data, &all, size)), expected);
            assert_eq!(counts(&data, &draw(&data, &all, size, 7)), expected);
        };
        check(9, [3, 3, 3]);
        check(43, [20, 20, 3]);
        check(1000, [57, 40, 3]);
        check(0, [0, 0, 0]);
    }

    #[test]
    fn replay_follows_the_ratio_above_its_least() {
        let check = |new, ratio, expected| assert_eq!(count(new, ratio), expected);
        check(2_000, 4.0, 8_000);
        check(1_001, 1.5, 1_502);
        check(10, 4.0, MIN_REPLAY);
        check(0, 4.0, MIN_REPLAY);
    }

    proptest! {
        #[test]
        fn further_images_only_take_the_places_that_they_win(
            labels in prop::collection::vec(0u32..3, 1..120), more in 0usize..60, size in 1usize..60
        ) {
            let old = labels.len().saturating_sub(more).max(1);
            let data = data(&labels);
            let choose = |count: usize| reservoir(&data, &(0..count).collect::<Vec<_>>(), size);
            let (before, after) = (choose(old), choose(labels.len()));
            // What stays out because of new images was pushed out by one of its class or by another class's share.
            let came = after.iter().filter(|&&index| index >= old).count();
            let left = before.iter().filter(|index| !after.contains(index)).count();
            prop_assert!(left <= came);
            let mut reversed: Vec<usize> = (0..labels.len()).rev().collect();
            reversed = reservoir(&data, &reversed, size);
            prop_assert_eq!(reversed, after);
        }

        #[test]
        fn a_draw_is_of_the_reservoir_and_by_its_seed(seed: u64, count in 0usize..50) {
            let data = data(&(0..60).map(|i| i % 3).collect::<Vec<_>>());
            let reservoir: Vec<usize> = (0..60).step_by(2).collect();
            let first = draw(&data, &reservoir, count, seed);
            prop_assert_eq!(&first, &draw(&data, &reservoir, count, seed));
            prop_assert_eq!(first.len(), count.min(30));
            prop_assert!(first.iter().all(|index| reservoir.contains(index)));
        }
    }
}
