//! Where the values of a plan lie in one arena, for batches of any size.

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

/// Places for one item. Several take as many times each: what does not overlap for one does not for n.
#[derive(Clone, Debug, Default)]
struct Places {
    places: Vec<Range<usize>>,
    len: usize,
}

impl Places {
    /// Lays values out so that those which live at one time lie apart: the largest first, each at the lowest place
    /// that is free for its whole life.
    fn plan(values: &[Lifetime]) -> Self {
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

    fn place(&self, value: usize, items: usize) -> Range<usize> {
        let place = &self.places[value];
        place.start * items..place.end * items
    }
}

/// The layers before [`Memory::cut`] run for few items at a time, so that what they write stays in the cache; those after
/// it for the whole batch, so that their weights are read once. Values that only the first use lie in memory for those
/// few items; all others in memory for the batch.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Layers that run for few items at a time.
    pub(super) cut: usize,
    /// Numbers of an item, by value.
    lens: Vec<usize>,
    /// By value: whether it lies with the first layers, and its place there.
    values: Vec<(bool, usize)>,
    few: Places,
    all: Places,
}

/// The items that a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Items of the batch.
    pub(super) batch: usize,
    /// Items at a time of the first layers.
    pub(super) few: usize,
    /// The first that the layer computes.
    pub(super) first: usize,
    /// How many it computes.
    pub(super) count: usize,
}

impl Memory {
    /// Lays out values that the layers up to `cut` compute for few items at a time.
    pub(super) fn plan(lives: &[Lifetime], cut: usize) -> Self {
        let (mut few, mut all) = (Vec::new(), Vec::new());
        let mut values = Vec::new();
        for life in lives {
            let with_few = life.last < cut;
            let list = if with_few { &mut few } else { &mut all };
            values.push((with_few, list.len()));
            // What outlives the first layers is written again for every few items.
            let first = if life.first < cut && !with_few {
                0
            } else {
                life.first
            };
            list.push(Lifetime {
                first,
                ..life.clone()
            });
        }
        Self {
            cut,
            lens: lives.iter().map(|life| life.len).collect(),
            values,
            few: Places::plan(&few),
            all: Places::plan(&all),
        }
    }

    /// Items at a time of the first layers in a batch of `items`: at most as many as `numbers` hold, in even shares, so
    /// that the last is not a small one.
    pub(super) fn few(&self, items: usize, numbers: usize) -> usize {
        let items = items.max(1);
        let most = (numbers / self.few.len.max(1)).clamp(1, items);
        items.div_ceil(items.div_ceil(most))
    }

    /// Numbers of the arena.
    pub(super) fn len(&self, batch: usize, few: usize) -> usize {
        self.few.len * few + self.all.len * batch
    }

    /// Where the items of `span` lie of `value`; up to the end of its place, which may be a little longer.
    pub(super) fn place(&self, value: usize, span: Span) -> Range<usize> {
        let (with_few, index) = self.values[value];
        if with_few {
            return self.few.place(index, span.few);
        }
        let place = self.all.place(index, span.batch);
        let before = self.few.len * span.few;
        before + place.start + span.first * self.lens[value]..before + place.end
    }
}

impl Span {
    /// A whole batch.
    pub(super) fn whole(items: usize, few: usize) -> Self {
        Self {
            batch: items,
            few,
            first: 0,
            count: items,
        }
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
        let memory = Memory::plan(&chain, 0);
        assert_eq!(memory.len(1, 1), 112 + 64);
        assert_eq!(memory.len(5, 2), 5 * memory.len(1, 1));
        let span = Span::whole(1, 1);
        assert_eq!(memory.place(0, span), memory.place(2, span));
    }

    #[test]
    fn what_the_first_layers_alone_use_is_laid_out_for_few_items() {
        let chain = [life(160, 0, 1), life(16, 1, 2), life(32, 2, 3)];
        let memory = Memory::plan(&chain, 2);
        assert_eq!(memory.len(8, 2), 2 * 160 + 8 * (16 + 32));
        let span = Span {
            batch: 8,
            few: 2,
            first: 4,
            count: 2,
        };
        assert_eq!(memory.place(0, span), 0..320);
        // The second value is kept for the batch; its fifth item lies behind the first four, the value itself behind
        // the larger third.
        assert_eq!(memory.place(1, span).start, 320 + 8 * 32 + 4 * 16);
        assert_eq!(
            [memory.few(8, 340), memory.few(8, 10), memory.few(1, 9999)],
            [2, 1, 1]
        );
        assert_eq!(
            [32, 22, 21].map(|items| memory.few(items, 21 * 160)),
            [16, 11, 21]
        );
    }

    proptest! {
        #[test]
        fn what_lives_at_one_time_lies_apart(
            lives in prop::collection::vec((1usize..200, 0usize..12, 0usize..5), 1..20),
            (batch, few, cut) in (1usize..5, 1usize..4, 0usize..14),
        ) {
            let lives: Vec<_> = lives.into_iter().map(|(len, first, more)| life(len, first, first + more)).collect();
            let (memory, few) = (Memory::plan(&lives, cut), few.min(batch));
            for (a, one) in lives.iter().enumerate() {
                let whole = Span::whole(batch, few);
                let items = if one.last < cut { few } else { batch };
                let place = memory.place(a, whole);
                prop_assert!(place.len() >= one.len * items && place.end <= memory.len(batch, few));
                prop_assert_eq!(place.start % LINE, 0);
                for (b, other) in lives.iter().enumerate().skip(a + 1) {
                    // While the first layers run again, what outlives them is there already.
                    let from = |life: &Lifetime| if life.first < cut && life.last >= cut { 0 } else { life.first };
                    let together = from(one) <= other.last && from(other) <= one.last;
                    let apart = memory.place(b, whole);
                    prop_assert!(!together || place.end <= apart.start || apart.end <= place.start);
                }
            }
        }
    }
}
