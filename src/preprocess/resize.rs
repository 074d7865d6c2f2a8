//! Antialiased resampling, as Pillow and torchvision do it.

use std::ops::Range;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::model::spec::{Filter, Resize};

/// Reach of the bicubic filter, the wider of the two, in output pixels.
const MAX_SUPPORT: f64 = 2.0;

/// Opaque 8-bit pixels of 1 or 3 channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opaque {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) bytes: Vec<u8>,
}

/// How to reach a size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) resize: Resize,
    /// For `crop`: the shorter side before the middle is cut out; `None`: the least that fills the target.
    pub(super) shorter_side: Option<usize>,
    pub(super) filter: Filter,
    pub(super) background: u8,
}

/// One axis of a resized image over the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    /// Pixels after resizing, seen or not.
    length: usize,
    /// Where the first of them lies; below 0 it is cut off.
    at: isize,
    /// Pixels of the target.
    room: usize,
}

impl Opaque {
    /// An image of one colour.
    pub(super) fn filled(width: usize, height: usize, channels: usize, value: u8) -> Self {
        Self {
            width,
            height,
            channels,
            bytes: vec![value; width * height * channels],
        }
    }

    /// The image in the target's size.
    pub(super) fn resized(self, target: Target) -> Self {
        let (wide, high) = (
            target.width as f64 / self.width as f64,
            target.height as f64 / self.height as f64,
        );
        let scale = match (target.resize, target.shorter_side) {
            (Resize::Stretch, _) => return self.stretched(target.width, target.height, target.filter),
            (Resize::Fit, _) => wide.min(high),
            (Resize::Crop, None) => wide.max(high),
            (Resize::Crop, Some(side)) => return self.resized_and_cropped(side, target),
        };
        let axis = |length: usize, room: usize| {
            let length = ((length as f64 * scale).round() as usize).max(1);
            let at = (room as isize - length as isize) / 2;
            Axis { length, at, room }
        };
        let axes = [axis(self.width, target.width), axis(self.height, target.height)];
        self.placed(axes, target)
    }

    /// torchvision's `Resize(shorter_side)`, then `CenterCrop` to the target (torchvision/transforms/functional.py,
    /// `_compute_resized_output_size` and `center_crop`).
    fn resized_and_cropped(self, shorter_side: usize, target: Target) -> Self {
        let (width, height) = (self.width, self.height);
        let longer = |long: usize, short: usize| shorter_side * long / short;
        let (wide, high) = if width <= height {
            (shorter_side, longer(height, width))
        } else {
            (longer(width, height), shorter_side)
        };
        self.placed(
            [
                Axis::cropped(wide, target.width),
                Axis::cropped(high, target.height),
            ],
            target,
        )
    }

    /// The image resized to the axes' lengths and laid on the target. Only the part that is seen is computed, from all
    /// the pixels that the whole would be computed from: one pixel by 4096 costs no more than a square.
    fn placed(self, [x, y]: [Axis; 2], target: Target) -> Self {
        let (columns, rows) = (x.seen(), y.seen());
        let (left, top) = (x.at + columns.start as isize, y.at + rows.start as isize);
        let scaled = if (self.width, self.height) == (x.length, y.length) {
            self.cut(columns, rows)
        } else {
            let boxes = [x.of_source(self.width, &columns), y.of_source(self.height, &rows)];
            self.sampled([columns.len(), rows.len()], boxes, target.filter)
        };
        if (scaled.width, scaled.height) == (target.width, target.height) {
            return scaled;
        }
        let mut canvas = Self::filled(target.width, target.height, scaled.channels, target.background);
        canvas.paste(&scaled, left, top);
        canvas
    }

    /// Exactly `width` × `height`, proportions aside.
    pub(super) fn stretched(self, width: usize, height: usize, filter: Filter) -> Self {
        if (self.width, self.height) == (width, height) {
            return self;
        }
        let boxes = [[0.0, self.width as f64], [0.0, self.height as f64]];
        self.sampled([width, height], boxes, filter)
    }

    /// `width` × `height` samples of the box that lies from `left` over `wide` and from `top` over `high` pixels; taps
    /// reach beyond the box where the image does. Along rows first, then along columns, rounded between, as Pillow does
    /// it: the other order is off by a level in a fifth of the values.
    fn sampled(&self, [width, height]: [usize; 2], [x, [top, high]]: [[f64; 2]; 2], filter: Filter) -> Self {
        let rows = rows_reached([top, high], height, self.height);
        let first = rows.start as f64;
        let narrow = self.pass([width, rows.len()], [x, [first, rows.len() as f64]], filter);
        let y = within(top - first, high, rows.len());
        narrow.pass([width, height], [[0.0, width as f64], y], filter)
    }

    /// [`Opaque::sampled`] along one axis, the other being whole pixels; a copy where neither is resampled.
    fn pass(
        &self,
        [width, height]: [usize; 2],
        [[left, wide], [top, high]]: [[f64; 2]; 2],
        filter: Filter,
    ) -> Self {
        let kind = if self.channels == 1 {
            PixelType::U8
        } else {
            PixelType::U8x3
        };
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(left, top, wide, high)
            .use_alpha(false);
        let mut output = Image::new(width as u32, height as u32, kind);
        let source = ImageRef::new(self.width as u32, self.height as u32, &self.bytes, kind);
        let source = source.expect("the buffer is width · height · channels long, which every Opaque is");
        Resizer::new()
            .resize(&source, &mut output, &options)
            .expect("both images have the same pixel type and the box lies inside the image");
        Self {
            width,
            height,
            channels: self.channels,
            bytes: output.into_vec(),
        }
    }

    /// The pixels of these columns and rows.
    fn cut(self, columns: Range<usize>, rows: Range<usize>) -> Self {
        if (columns.len(), rows.len()) == (self.width, self.height) {
            return self;
        }
        let mut part = Self::filled(columns.len(), rows.len(), self.channels, 0);
        part.paste(&self, -(columns.start as isize), -(rows.start as isize));
        part
    }

    /// Copies `other` with its corner at (left, top); what lies outside is cut off.
    pub(super) fn paste(&mut self, other: &Self, left: isize, top: isize) {
        let overlap = |at: isize, length: usize, room: usize| Axis { length, at, room }.seen();
        let columns = overlap(left, other.width, self.width);
        let count = columns.len() * self.channels;
        for row in overlap(top, other.height, self.height) {
            let from = (row * other.width + columns.start) * self.channels;
            let to_row = (row as isize + top) as usize;
            let to_column = (columns.start as isize + left).max(0) as usize;
            let to = (to_row * self.width + to_column) * self.channels;
            if count > 0 {
                self.bytes[to..to + count].copy_from_slice(&other.bytes[from..from + count]);
            }
        }
    }
}

impl Axis {
    /// torchvision's `center_crop`: half the surplus is cut off, rounded to the even number as Python rounds; what is
    /// missing is added, the smaller half first.
    fn cropped(length: usize, room: usize) -> Self {
        let at = if length >= room {
            let surplus = length - room;
            let half = surplus / 2;
            let rounded = if surplus.is_multiple_of(2) {
                half
            } else {
                half + half % 2
            };
            -(rounded as isize)
        } else {
            ((room - length) / 2) as isize
        };
        Self { length, at, room }
    }

    /// The resized pixels that lie on the target.
    fn seen(self) -> Range<usize> {
        let first = (-self.at).clamp(0, self.length as isize) as usize;
        let last = (self.room as isize - self.at).clamp(0, self.length as isize) as usize;
        first..last.max(first)
    }

    /// Begin and length, in the `source` pixels that were resized, of a part of the resized ones.
    fn of_source(self, source: usize, part: &Range<usize>) -> [f64; 2] {
        if part.len() == self.length {
            return [0.0, source as f64];
        }
        let place = |pixel: usize| (pixel * source) as f64 / self.length as f64;
        let begin = place(part.start);
        within(begin, place(part.end) - begin, source)
    }
}

/// Begin and length; the last bit of their sum must not put the end outside.
fn within(begin: f64, mut length: f64, end: usize) -> [f64; 2] {
    while begin + length > end as f64 {
        length = length.next_down();
    }
    [begin, length]
}

/// The rows of an image of `height` that `count` samples of a box reach, with a row to spare on each side.
fn rows_reached([top, high]: [f64; 2], count: usize, height: usize) -> Range<usize> {
    let reach = MAX_SUPPORT * (high / count as f64).max(1.0) + 1.0;
    let first = (top - reach).floor().max(0.0) as usize;
    let last = (top + high + reach).ceil().min(height as f64) as usize;
    first..last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grey(width: usize, height: usize, bytes: &[u8]) -> Opaque {
        Opaque {
            width,
            height,
            channels: 1,
            bytes: bytes.to_vec(),
        }
    }

    fn target(width: usize, height: usize, resize: Resize) -> Target {
        Target {
            width,
            height,
            resize,
            shorter_side: None,
            filter: Filter::Bilinear,
            background: 9,
        }
    }

    #[test]
    fn an_image_of_the_right_size_is_left_alone() {
        let image = grey(3, 2, &[1, 2, 3, 4, 5, 6]);
        for resize in [Resize::Stretch, Resize::Fit, Resize::Crop] {
            assert_eq!(image.clone().resized(target(3, 2, resize)), image);
        }
    }

    #[test]
    fn fitting_adds_borders_where_cropping_cuts() {
        let wide = grey(4, 2, &[10, 20, 30, 40, 10, 20, 30, 40]);
        let fitted = wide.clone().resized(target(4, 4, Resize::Fit));
        assert_eq!(
            fitted.bytes,
            [9, 9, 9, 9, 10, 20, 30, 40, 10, 20, 30, 40, 9, 9, 9, 9]
        );
        assert_eq!(wide.resized(target(2, 2, Resize::Crop)).bytes, [20, 30, 20, 30]);
    }

    #[test]
    fn pasting_outside_is_cut_off() {
        let patch = grey(2, 2, &[1, 2, 3, 4]);
        let check = |left, top, expected: &[u8]| {
            let mut canvas = Opaque::filled(3, 2, 1, 0);
            canvas.paste(&patch, left, top);
            assert_eq!(canvas.bytes, expected, "at {left}, {top}");
        };
        check(0, 0, &[1, 2, 0, 3, 4, 0]);
        check(2, 1, &[0, 0, 0, 0, 0, 1]);
        check(-1, -1, &[4, 0, 0, 0, 0, 0]);
        check(5, 0, &[0; 6]);
        check(-5, 0, &[0; 6]);
        check(0, 7, &[0; 6]);
    }

    #[test]
    fn the_middle_is_where_torchvision_cuts_it() {
        // torchvision.transforms.functional.center_crop of range(length) to room: its first number, or the zeros before.
        for (length, room, at) in [
            (5, 5, 0),
            (6, 4, -1),
            (5, 4, 0),
            (7, 4, -2),
            (9, 4, -2),
            (11, 4, -4),
            (4, 5, 0),
            (4, 6, 1),
            (4, 7, 1),
        ] {
            assert_eq!(Axis::cropped(length, room), Axis { length, at, room });
        }
    }

    #[test]
    fn the_shorter_side_is_resized_and_the_longer_rounded_down() {
        let check = |(width, height): (usize, usize), side, expected: (usize, usize)| {
            let image = Opaque::filled(width, height, 1, 200);
            let target = Target {
                shorter_side: Some(side),
                ..target(40, 40, Resize::Crop)
            };
            let resized = image.resized(target);
            let lit = |bytes: &mut dyn Iterator<Item = &u8>| bytes.filter(|&&v| v == 200).count();
            let (row, column) = (20 * 40, 20);
            let wide = lit(&mut resized.bytes[row..row + 40].iter());
            let high = lit(&mut resized.bytes[column..].iter().step_by(40));
            assert_eq!((wide, high), expected, "{width}×{height} to {side}");
        };
        check((10, 10), 20, (20, 20));
        check((30, 19), 20, (31, 20));
        check((19, 30), 20, (20, 31));
        check((1000, 1), 20, (40, 20));
        check((1, 1000), 50, (40, 40));
    }

    proptest! {
        #[test]
        fn the_part_that_is_seen_is_that_of_the_whole(
            width in 1usize..40, height in 1usize..40, side in 1usize..60, seed in 1usize..1000,
        ) {
            let bytes = (0..width * height).map(|i| (i * i * seed % 251) as u8).collect();
            let image = Opaque { width, height, channels: 1, bytes };
            let cropped = Target { shorter_side: Some(side), ..target(16, 24, Resize::Crop) };
            let found = image.clone().resized(cropped);
            let short = width.min(height);
            let (wide, high) = (side * width / short, side * height / short);
            let whole = image.stretched(wide, high, Filter::Bilinear);
            let mut expected = Opaque::filled(16, 24, 1, 9);
            expected.paste(&whole, Axis::cropped(wide, 16).at, Axis::cropped(high, 24).at);
            // The same sums of taps, whose weights may differ in their last bit: a level at most in each of two passes.
            let off = found.bytes.iter().zip(&expected.bytes).map(|(a, b)| a.abs_diff(*b)).max();
            prop_assert!(off <= Some(2), "{off:?}");
        }
    }
}
