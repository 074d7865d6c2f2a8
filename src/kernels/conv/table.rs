//! Pointers to what the tiles of a convolution read.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::super::{Job, Map, Windows};
use super::{Conv, MAX_GROUP, MAX_TAPS, POINTERS};

/// Outputs in tiles, tiles in groups that share one table.
pub(super) struct Tiling {
    outputs: usize,
    tiles: usize,
    group: usize,
    pub(super) groups: usize,
}

impl Tiling {
    /// Tiles of at most `most` outputs, groups of at most `group` tiles.
    pub(super) fn new(outputs: usize, most: usize, group: usize) -> Self {
        let tiles = outputs.div_ceil(most);
        Self {
            outputs,
            tiles,
            group,
            groups: tiles.div_ceil(group),
        }
    }

    pub(super) fn tiles_of(&self, group: usize) -> Range<usize> {
        group * self.group..self.tiles.min((group + 1) * self.group)
    }

    pub(super) fn outputs_of(&self, tile: usize) -> Range<usize> {
        self.outputs * tile / self.tiles..self.outputs * (tile + 1) / self.tiles
    }
}

/// Room for a table, too large to be moved.
pub(super) struct Storage {
    pointers: [MaybeUninit<*const f32>; POINTERS],
    inside: [MaybeUninit<usize>; MAX_TAPS],
    slots: [(usize, bool); MAX_GROUP],
}

impl Storage {
    pub(super) const fn new() -> Self {
        Self {
            pointers: [const { MaybeUninit::uninit() }; POINTERS],
            inside: [const { MaybeUninit::uninit() }; MAX_TAPS],
            slots: [(0, false); MAX_GROUP],
        }
    }
}

/// Pointers to what the tiles of a group read.
pub(super) struct Table<'a> {
    windows: Windows,
    taps: usize,
    /// Outputs along a side of the square that a pooled output comes from; 1 where none are pooled.
    side: usize,
    /// One tap on each pixel: the whole batch is like one row.
    one_row: bool,
    map: Map,
    to: Map,
    values: *const f32,
    outside: *const f32,
    /// Where each tile's pointers begin, and whether all its windows lie inside the map. Those have pointers for the
    /// first tap alone, and share the distances of `inside`.
    storage: &'a mut Storage,
}

/// Outputs of one row.
#[derive(Clone, Copy)]
struct Segment {
    /// How many of the tile come before.
    before: usize,
    item: usize,
    row: usize,
    columns: [usize; 2],
}

impl<'a> Table<'a> {
    pub(super) fn new(conv: &'a Conv, source: &Job<'a>, to: Map, storage: &'a mut Storage) -> Self {
        let windows = conv.windows;
        let map = source.map;
        for (tap, offset) in storage.inside.iter_mut().take(conv.taps).enumerate() {
            let [row, column] = step(windows, tap);
            offset.write((row * map.width + column) * map.stride);
        }
        let side = conv.side();
        let alike = (map.height, map.width) == (to.height, to.width);
        Self {
            windows,
            taps: conv.taps,
            side,
            one_row: windows == Windows::POINT && side == 1 && alike,
            map,
            to,
            values: source.values.as_ptr(),
            outside: conv.outside.as_ptr(),
            storage,
        }
    }

    /// Points at the windows of the tiles of `group`.
    pub(super) fn fill(&mut self, tiling: &Tiling, group: usize) {
        if self.one_row {
            return self.fill_row(tiling, group);
        }
        let mut begin = 0;
        for (slot, tile) in tiling.tiles_of(group).enumerate() {
            let outputs = tiling.outputs_of(tile);
            let inside = self.segments(outputs.clone()).all(|s| self.holds(s));
            self.storage.slots[slot] = (begin, inside);
            let taps = if inside { 1 } else { self.taps };
            let pixels = outputs.len() * self.side * self.side;
            for tap in 0..taps {
                self.point(tap, outputs.clone(), begin + tap * pixels);
            }
            begin += taps * pixels;
        }
    }

    /// As [`fill`](Self::fill), where each output reads the pixel in its own place.
    fn fill_row(&mut self, tiling: &Tiling, group: usize) {
        let tiles = tiling.tiles_of(group);
        let first = tiling.outputs_of(tiles.start).start;
        let mut end = first;
        for (slot, tile) in self.storage.slots.iter_mut().zip(tiles) {
            *slot = (end - first, true);
            end = tiling.outputs_of(tile).end;
        }
        for (output, place) in (first..end).zip(&mut self.storage.pointers) {
            place.write(self.values.wrapping_add(output * self.map.stride));
        }
    }

    fn segments(&self, outputs: Range<usize>) -> impl Iterator<Item = Segment> + use<> {
        let Map { height, width, .. } = self.to;
        let mut at = outputs.start;
        std::iter::from_fn(move || {
            let (column, row) = (at % width, at / width);
            let segment = Segment {
                before: at - outputs.start,
                item: row / height,
                row: row % height,
                columns: [column, width.min(column + outputs.end - at)],
            };
            at += segment.columns[1] - column;
            (segment.before < outputs.len()).then_some(segment)
        })
    }

    /// Whether all windows of a segment lie inside the map.
    fn holds(&self, segment: Segment) -> bool {
        let Windows {
            kernel,
            stride,
            padding,
            dilation,
        } = self.windows;
        let within = |axis: usize, [first, end]: [usize; 2], size: usize| {
            let last = (end * self.side - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis];
            first * self.side * stride[axis] >= padding[axis] && last < size + padding[axis]
        };
        within(0, [segment.row, segment.row + 1], self.map.height)
            && within(1, segment.columns, self.map.width)
    }

    /// Writes the pointers of one tap of a tile from place `begin` on.
    fn point(&mut self, tap: usize, outputs: Range<usize>, begin: usize) {
        let (Windows { stride, padding, .. }, map, side) = (self.windows, self.map, self.side);
        let [down, right] = step(self.windows, tap);
        for segment in self.segments(outputs) {
            for square in 0..side * side {
                // Wrapped around where it lies before the map.
                let row = (segment.row * side + square / side) * stride[0] + down;
                let row = row.wrapping_sub(padding[0]);
                let line = (segment.item * map.height)
                    .wrapping_add(row)
                    .wrapping_mul(map.width);
                let [first, end] = segment.columns;
                let places =
                    self.storage.pointers[begin + segment.before * side * side + square..].iter_mut();
                for (output, place) in (first..end).zip(places.step_by(side * side)) {
                    let column = (output * side + square % side) * stride[1] + right;
                    let column = column.wrapping_sub(padding[1]);
                    let pixel = line.wrapping_add(column).wrapping_mul(map.stride);
                    let inside = row < map.height && column < map.width;
                    place.write(if inside {
                        self.values.wrapping_add(pixel)
                    } else {
                        self.outside
                    });
                }
            }
        }
    }

    /// The pointers of a tile of the group, how far one tap's lie from the next's, and what each tap adds to them.
    pub(super) fn slot(&self, slot: usize) -> (*const *const f32, usize, *const usize) {
        let (begin, inside) = self.storage.slots[slot];
        let pointers = self.storage.pointers[begin..].as_ptr().cast();
        if inside {
            (pointers, 0, self.storage.inside.as_ptr().cast())
        } else {
            (pointers, 1, NOTHING.as_ptr())
        }
    }
}

static NOTHING: [usize; MAX_TAPS] = [0; MAX_TAPS];

/// Rows and columns from the first tap to `tap`.
fn step(Windows { kernel, dilation, .. }: Windows, tap: usize) -> [usize; 2] {
    [tap / kernel[1] * dilation[0], tap % kernel[1] * dilation[1]]
}
