//! How small a batch those that have a place in a queue allow.

/// Counts of items by the largest batch that each may be in, in constant time and memory.
#[derive(Debug)]
pub(super) struct Sizes {
    max_batch: usize,
    /// Those that allow a batch of at most 2ⁿ, and no full one, at n.
    small: [usize; usize::BITS as usize],
}

impl Sizes {
    pub(super) fn new(max_batch: usize) -> Self {
        Self {
            max_batch,
            small: [0; usize::BITS as usize],
        }
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

    /// Counts an item in; `largest` is one that is [`Sizes::allowed`].
    pub(super) fn add(&mut self, largest: usize) {
        if largest < self.max_batch {
            self.small[largest.ilog2() as usize] += 1;
        }
    }

    pub(super) fn remove(&mut self, largest: usize) {
        if largest < self.max_batch {
            self.small[largest.ilog2() as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_batch_is_known_whoever_comes_and_goes() {
        let mut sizes = Sizes::new(20);
        let check = |sizes: &Sizes, expected: [usize; 2]| {
            assert_eq!([sizes.small(), sizes.smallest()], expected);
        };
        assert_eq!(
            [1, 2, 3, 17, 19, 20, 99].map(|n| sizes.allowed(n)),
            [1, 2, 2, 16, 16, 20, 20]
        );
        check(&sizes, [0, 20]);
        for largest in [20, 16, 2] {
            sizes.add(largest);
        }
        check(&sizes, [2, 2]);
        sizes.remove(2);
        check(&sizes, [1, 16]);
        sizes.remove(16);
        sizes.remove(20);
        check(&sizes, [0, 20]);
    }
}
