//! Where the values of a plan lie in one arena.

use std::ops::Range;

/// Numbers between the starts of two values: a cache line.
const LINE: usize = 16;

/// The place and time of one value: numbers per item, and the layers between whose first and last it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Numbers for one item.
    pub(super) len: usize,
    /// The layer that writes it first.
    pub(super) first: usize,
    /// The layer that reads or writes it last.
    pub(super) last: usize,
}

/// Offsets for one item. A batch of n takes n times each: what does not overlap for one does not for n.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    places: Vec<Range<usize>>,
    len: usize,
}

impl Memory {
    /// Lays values out so that those which live at one time lie apart: the largest first, each at the lowest place
    /// that is free for its whole life.
    pub(super) fn plan(values: &[Lifetime]) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|&value| std::cmp::Reverse(values[value].len));
        let mut places = vec![0..0; values.len()];
        for (done, &value) in order.iter().enumerate() {
            let mut taken: Vec<Range<usize>> = order[..done]
                .iter()
                .filter(|&&other| meet(&values[value], &values[other]))
                .map(|&other| places[other].clone())
                .collect();
            taken.sort_by_key(|place| place.start);
            let len = values[value].len.next_multiple_of(LINE);
            let start = lowest_gap(&taken, len);
            places[value] = start..start + len;
        }
        let len = places.iter().map(|place| place.end).max().unwrap_or(0);
        Self { places, len }
    }

    /// Numbers of the arena for a batch of `items`.
    pub(super) fn len(&self, items: usize) -> usize {
        self.len * items
    }

    /// Where `value` lies in it.
    pub(super) fn place(&self, value: usize, items: usize) -> Range<usize> {
        let place = &self.places[value];
        place.start * items..place.end * items
    }
}

fn meet(a: &Lifetime, b: &Lifetime) -> bool {
    a.first <= b.last && b.first <= a.last
}

fn lowest_gap(taken: &[Range<usize>], len: usize) -> usize {
    let mut start = 0;
    for place in taken {
        if start + len <= place.start {
            break;
        }
        start = start.max(place.end);
    }
    start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(len: usize, first: usize, last: usize) -> Lifetime {
        Lifetime { len, first, last }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let chain = [life(100, 0, 1), life(60, 1, 2), life(100, 2, 3), life(10, 3, 4)];
        let memory = Memory::plan(&chain);
        assert_eq!(memory.len(1), 112 + 64);
        assert_eq!(memory.len(5), 5 * memory.len(1));
        assert_eq!(memory.place(0, 1), memory.place(2, 1));
    }

    proptest! {
        #[test]
        fn what_lives_at_one_time_lies_apart(
            lives in prop::collection::vec((1usize..200, 0usize..12, 0usize..5), 1..20),
            items in 1usize..5,
        ) {
            let lives: Vec<_> = lives.into_iter().map(|(len, first, more)| life(len, first, first + more)).collect();
            let memory = Memory::plan(&lives);
            for (a, one) in lives.iter().enumerate() {
                let place = memory.place(a, items);
                prop_assert!(place.len() >= one.len * items && place.end <= memory.len(items));
                prop_assert_eq!(place.start % LINE, 0);
                for (b, other) in lives.iter().enumerate().skip(a + 1) {
                    let apart = memory.place(b, items);
                    prop_assert!(!meet(one, other) || place.end <= apart.start || apart.end <= place.start);
                }
            }
        }
    }
}
