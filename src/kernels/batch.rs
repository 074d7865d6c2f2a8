//! How many items a kernel does, and which share of the work.

use std::ops::Range;

use super::output::Part;

/// Items one after another in memory, of whose work one share is done. What is written for an item depends on neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Items.
    pub(super) items: usize,
    /// Which share of them.
    pub(super) part: Part,
}

/// Far more than any processor has threads, and so few that no product with them wraps around.
const MOST_PARTS: usize = 1 << 12;

impl Batch {
    /// All the work of `items` items.
    #[cfg(test)]
    pub(super) fn whole(items: usize) -> Self {
        Self {
            items,
            part: Part::WHOLE,
        }
    }

    /// This share when every item has `height` rows: items, each with its rows.
    ///
    /// # Panics
    /// Where there is no such share.
    pub(super) fn rows(self, height: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let Part { index, of } = self.part;
        assert!(
            index < of && of <= MOST_PARTS,
            "there is no share {index} of {of}"
        );
        let share = self.part.range(self.items * height);
        let items = share.start / height.max(1)..share.end.div_ceil(height.max(1));
        items.map(move |item| {
            let first = item * height;
            (
                item,
                share.start.max(first) - first..share.end.min(first + height) - first,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_every_row_of_every_item_once() {
        for (items, height) in [(0, 3), (1, 0), (1, 1), (3, 1), (1, 7), (4, 5)] {
            for of in 1..9 {
                let rows = (0..of).flat_map(|index| {
                    let part = Part { index, of };
                    let shares = Batch { items, part }.rows(height).collect::<Vec<_>>();
                    shares
                        .into_iter()
                        .flat_map(|(item, rows)| rows.map(move |row| (item, row)))
                });
                let all = (0..items).flat_map(|item| (0..height).map(move |row| (item, row)));
                assert_eq!(rows.collect::<Vec<_>>(), all.collect::<Vec<_>>());
            }
        }
    }
}
