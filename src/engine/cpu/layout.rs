//! How a value of the graph lies in the arena.

use crate::kernels::{Isa, Map};
use crate::model::graph::Shape;

/// Channels-last, and where a row of features was a map, still as that map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) map: Map,
    /// Whether the graph sees a row of features.
    pub(super) flat: bool,
}

impl Layout {
    /// Of a value by itself, its pixels side by side.
    pub(super) fn of(shape: Shape, isa: Isa) -> Self {
        let (channels, height, width, flat) = match shape {
            Shape::Map {
                channels,
                height,
                width,
            } => (channels, height, width, false),
            Shape::Flat(features) => (features, 1, 1, true),
        };
        let map = Map {
            height,
            width,
            channels,
            stride: isa.padded(channels),
        };
        Self { map, flat }
    }

    /// The same numbers as one row, which keeps their places.
    pub(super) fn flattened(self) -> Self {
        Self { flat: true, ..self }
    }

    /// Numbers of an item that count.
    pub(super) fn numbers(self) -> usize {
        self.map.channels * self.map.pixels()
    }

    /// Every place of an item in the order of the graph: channel, row, column.
    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        let Map { channels, stride, .. } = self.map;
        let pixels = self.map.pixels();
        (0..channels).flat_map(move |channel| (0..pixels).map(move |pixel| pixel * stride + channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_by_channel_then_row_then_column() {
        let shape = Shape::Map {
            channels: 2,
            height: 1,
            width: 3,
        };
        let layout = Layout::of(shape, Isa::PORTABLE);
        assert_eq!(layout.map.item(), 12);
        assert_eq!(layout.places().collect::<Vec<_>>(), [0, 4, 8, 1, 5, 9]);
        let row = Layout::of(Shape::Flat(5), Isa::PORTABLE);
        assert!(row.flat && layout.flattened().flat);
        assert_eq!((row.map.item(), row.places().count()), (8, 5));
    }
}
