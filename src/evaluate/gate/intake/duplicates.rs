//! Images that look alike.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::super::numbers::counted;
use super::{DataRules, NewExample};

/// Bits in which the hashes of near duplicates differ at most.
const DISTANCE: u32 = 2;
/// Parts of a hash: where at most two bits differ, one of three parts is the same.
const PARTS: [(u32, u32); 3] = [(0, 22), (22, 21), (43, 21)];

/// Groups of images within two bits of the group's first one. No image is in two groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearDuplicates {
    /// Groups of two or more.
    pub groups: usize,
    /// Images in groups beyond the first one of each.
    pub beyond_first: usize,
    /// Images in the largest group.
    pub largest: usize,
    /// Of the images beyond the first, those whose label is not the first one's. Many of them say that the hash cannot
    /// tell the classes apart.
    pub labels_differ: usize,
}

/// The places of images that are beyond the first of their group, and what there is to tell. In the order of the examples.
pub(super) fn find(examples: &[NewExample<'_>], kept: &[bool]) -> (Vec<usize>, NearDuplicates) {
    let mut firsts = Firsts::default();
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    let (mut beyond, mut found) = (Vec::new(), NearDuplicates::default());
    for (place, example) in examples.iter().enumerate().filter(|&(place, _)| kept[place]) {
        let Some(first) = firsts.near(example.dhash) else {
            firsts.add(example.dhash, place);
            continue;
        };
        *sizes.entry(first).or_insert(1) += 1;
        found.labels_differ += usize::from(examples[first].label != example.label);
        beyond.push(place);
    }
    found.groups = sizes.len();
    found.beyond_first = beyond.len();
    found.largest = sizes.into_values().max().unwrap_or(0);
    (beyond, found)
}

/// The first image of each group, found by any part of its hash that is the same.
#[derive(Default)]
struct Firsts {
    exact: HashMap<u64, usize>,
    by_part: [HashMap<u64, Vec<(u64, usize)>>; PARTS.len()],
}

impl Firsts {
    /// The nearest; of equally near ones the earliest.
    fn near(&self, hash: u64) -> Option<usize> {
        if let Some(&place) = self.exact.get(&hash) {
            return Some(place);
        }
        let candidates = parts(hash).zip(&self.by_part);
        let candidates = candidates.filter_map(|(part, known)| known.get(&part)).flatten();
        candidates
            .map(|&(other, place)| ((hash ^ other).count_ones(), place))
            .filter(|&(distance, _)| distance <= DISTANCE)
            .min()
            .map(|(_, place)| place)
    }

    fn add(&mut self, hash: u64, place: usize) {
        self.exact.insert(hash, place);
        for (part, known) in parts(hash).zip(&mut self.by_part) {
            known.entry(part).or_default().push((hash, place));
        }
    }
}

fn parts(hash: u64) -> impl Iterator<Item = u64> {
    PARTS
        .into_iter()
        .map(move |(from, bits)| hash >> from & ((1 << bits) - 1))
}

impl NearDuplicates {
    pub(super) fn note(&self, rules: &DataRules) -> Option<String> {
        let what = if rules.leave_out_near_duplicates {
            "left out"
        } else {
            "kept: only leave_out_near_duplicates = true leaves them out"
        };
        (self.beyond_first > 0).then(|| {
            format!(
                "{} much like an earlier one ({} under another label), {what}",
                match self.beyond_first {
                    1 => "1 image looks".to_owned(),
                    many => format!("{} look", counted(many, "image", "images")),
                },
                self.labels_differ
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples(hashes: &[u64]) -> Vec<NewExample<'static>> {
        let example = |(place, &dhash): (usize, &u64)| NewExample {
            sha256: "",
            label: place as u32 % 3,
            source: "a",
            dhash,
            probabilities: &[],
            hold_out: false,
        };
        hashes.iter().enumerate().map(example).collect()
    }

    #[test]
    fn groups_gather_around_their_first() {
        let all = examples(&[0, 0b11, 0b111, 0b1111, u64::MAX, u64::MAX >> 2, 1]);
        let (beyond, found) = find(&all, &[true; 7]);
        // 0b111 is three bits from 0 and a first of its own; 0b1111 and 1 are near it or 0.
        assert_eq!(beyond, [1, 3, 5, 6]);
        let expected = NearDuplicates {
            groups: 3,
            beyond_first: 4,
            largest: 3,
            labels_differ: 3,
        };
        assert_eq!(found, expected);
        assert_eq!(find(&all, &[false; 7]), (Vec::new(), NearDuplicates::default()));
    }

    proptest! {
        #[test]
        fn firsts_are_far_apart_and_all_others_near_one(
            seeds in prop::collection::vec((0u64..6, prop::collection::vec(0u32..64, 0..4)), 1..60)
        ) {
            let hashes: Vec<u64> = seeds
                .iter()
                .map(|(seed, bits)| bits.iter().fold(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), |h, bit| h ^ 1 << bit))
                .collect();
            let all = examples(&hashes);
            let (beyond, _) = find(&all, &vec![true; all.len()]);
            let firsts: Vec<usize> = (0..all.len()).filter(|place| !beyond.contains(place)).collect();
            let distance = |a: usize, b: usize| (hashes[a] ^ hashes[b]).count_ones();
            for &a in &firsts {
                prop_assert!(firsts.iter().all(|&b| a == b || distance(a, b) > DISTANCE));
            }
            for &other in &beyond {
                prop_assert!(firsts.iter().any(|&first| first < other && distance(first, other) <= DISTANCE));
            }
        }
    }
}
