//! The places of a queue: how many are taken, and how small a batch those that hold them allow.

/// A place that is taken until it is freed.
#[derive(Debug)]
pub(super) struct Held {
    /// Places are numbered in the order in which they were given.
    pub(super) number: u64,
    /// The largest batch that the item may be in, at least 1; as [`Places::allowed`] has it.
    pub(super) largest: usize,
}

/// Counts of the places that are taken, in constant time and memory.
#[derive(Debug)]
pub(super) struct Places {
    max_batch: usize,
    given: u64,
    taken: usize,
    /// Those that allow a batch of at most 2ⁿ, and no full one, at n.
    small: [usize; usize::BITS as usize],
}

impl Places {
    pub(super) fn new(max_batch: usize) -> Self {
        Self {
            max_batch,
            given: 0,
            taken: 0,
            small: [0; usize::BITS as usize],
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Items that allow no full batch.
    pub(super) fn small(&self) -> usize {
        self.small.iter().sum()
    }

    /// The smallest batch that an item allows.
    pub(super) fn smallest(&self) -> usize {
        let class = self.small.iter().position(|&count| count > 0);
        class.map_or(self.max_batch, |class| 1 << class)
    }

    /// The largest batch that an item may be in, where `largest`, at least 1, would be in time: a full one or a power of two.
    pub(super) fn allowed(&self, largest: usize) -> usize {
        if largest >= self.max_batch {
            self.max_batch
        } else {
            1 << largest.ilog2()
        }
    }

    /// Takes a place; `largest` is one that is [`Places::allowed`].
    pub(super) fn take(&mut self, largest: usize) -> Held {
        self.taken += 1;
        self.given += 1;
        if largest < self.max_batch {
            self.small[largest.ilog2() as usize] += 1;
        }
        Held {
            number: self.given,
            largest,
        }
    }

    pub(super) fn free(&mut self, held: &Held) {
        self.taken -= 1;
        if held.largest < self.max_batch {
            self.small[held.largest.ilog2() as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_batch_is_known_whoever_comes_and_goes() {
        let mut places = Places::new(20);
        let check = |places: &Places, expected: [usize; 3]| {
            assert_eq!([places.taken(), places.small(), places.smallest()], expected);
        };
        assert_eq!(
            [1, 2, 3, 17, 19, 20, 99].map(|n| places.allowed(n)),
            [1, 2, 2, 16, 16, 20, 20]
        );
        check(&places, [0, 0, 20]);
        let [full, sixteen, two] = [20, 16, 2].map(|largest| places.take(largest));
        check(&places, [3, 2, 2]);
        places.free(&two);
        check(&places, [2, 1, 16]);
        places.free(&sixteen);
        places.free(&full);
        check(&places, [0, 0, 20]);
        assert!(full.number < sixteen.number && sixteen.number < two.number);
    }
}
