//! How a batch of maps lies in memory.

/// Channels-last: item, row, column, channel. `channels` numbers of each pixel count; the numbers up to the next whole
/// vector are written by every kernel, hold anything finite and are read by none as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels that count.
    pub channels: usize,
    /// Numbers from a pixel to the next, at least the padded channels. More where the map is part of a wider one.
    pub stride: usize,
}

impl Map {
    /// Numbers from an item to the next.
    pub fn item(&self) -> usize {
        self.height * self.width * self.stride
    }

    /// Pixels of an item.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Numbers that `items` items reach over, given the padded channels: the last pixel may end where its channels do. More
    /// than can be are as many as a number holds, so that no slice has them.
    pub fn reach(&self, items: usize, padded: usize) -> usize {
        let pixels = items.saturating_mul(self.height).saturating_mul(self.width);
        pixels
            .checked_sub(1)
            .map_or(0, |last| last.saturating_mul(self.stride).saturating_add(padded))
    }
}
