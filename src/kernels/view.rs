//! A batch of maps to read or to write.

use super::isa::Isa;
use super::map::Map;
use super::output::Output;

/// Maps to read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The first item's first number, and all that follow.
    pub values: &'a [f32],
    /// How each item lies in them.
    pub map: Map,
}

/// Maps to write.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The first item's first number, and all that follow.
    pub(super) values: Output<'a>,
    /// How each item lies in them.
    pub(super) map: Map,
}

impl Source<'_> {
    /// # Panics
    /// Where `items` items reach beyond the numbers, or pixels are narrower than their padded channels.
    pub(super) fn check(&self, isa: Isa, items: usize) {
        check(&self.map, isa, items, self.values.len());
    }

    /// Where a pixel of an item begins, counted row by row.
    pub(super) fn pixel(&self, item: usize, pixel: usize) -> *const f32 {
        let start = self.values.as_ptr();
        start.wrapping_add(item * self.map.item() + pixel * self.map.stride)
    }
}

impl Target<'_> {
    /// Itself, checked as [`Source::check`] does.
    ///
    /// # Panics
    /// As that.
    pub(super) fn checked(self, isa: Isa, items: usize) -> Self {
        check(&self.map, isa, items, self.values.len());
        self
    }

    /// Where a pixel of an item begins, counted row by row.
    pub(super) fn pixel(&self, item: usize, pixel: usize) -> *mut f32 {
        let start = self.values.start();
        start.wrapping_add(item * self.map.item() + pixel * self.map.stride)
    }
}

/// More than fit memory; fewer than could wrap around in a product with a stride or a number of shares.
const MOST_ROWS: usize = 1 << 48;

fn check(map: &Map, isa: Isa, items: usize, len: usize) {
    let padded = isa.padded(map.channels);
    assert!(
        map.stride >= padded,
        "pixels of {} numbers hold no {padded} channels",
        map.stride
    );
    let rows = items.checked_mul(map.height);
    assert!(
        rows.is_some_and(|rows| rows <= MOST_ROWS) && map.reach(items, padded) <= len,
        "{items} items of {map:?} do not lie in {len} numbers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(map: Map, items: usize, len: usize) -> bool {
        let values = vec![0.0; len];
        std::panic::catch_unwind(|| Source { values: &values, map }.check(Isa::PORTABLE, items)).is_ok()
    }

    #[test]
    fn maps_must_lie_within_their_numbers() {
        let map = |height, width, channels, stride| Map {
            height,
            width,
            channels,
            stride,
        };
        let cases = [
            (map(2, 3, 5, 8), 1, 48, true),
            (map(2, 3, 5, 8), 1, 47, false),
            (map(2, 3, 5, 8), 2, 95, false),
            (map(2, 3, 5, 20), 1, 108, true),
            (map(2, 3, 5, 20), 1, 107, false),
            (map(2, 3, 5, 7), 1, 100, false),
            (map(2, 3, 5, 8), 0, 0, true),
            (map(0, 3, 5, 8), 4, 0, true),
            (map(usize::MAX, 2, 4, 4), 1, 100, false),
            (map(1 << 32, 1 << 32, 4, 4), 1, 100, false),
            (map(1 << 50, 0, 4, 4), 1, 100, false),
        ];
        for (map, items, len, expected) in cases {
            assert_eq!(holds(map, items, len), expected, "{map:?} {items} {len}");
        }
    }
}
