//! Antialiased resampling, as Pillow and torchvision do it.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::model::spec::{Filter, Resize};

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
    pub(super) filter: Filter,
    pub(super) background: u8,
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

    /// The image in the target's size; unchanged where it has it.
    pub(super) fn resized(self, target: Target) -> Self {
        let (wide, high) = (
            target.width as f64 / self.width as f64,
            target.height as f64 / self.height as f64,
        );
        let scale = match target.resize {
            Resize::Stretch => return self.stretched(target.width, target.height, target.filter),
            Resize::Fit => wide.min(high),
            Resize::Crop => wide.max(high),
        };
        let side = |length: usize| ((length as f64 * scale).round() as usize).max(1);
        let (width, height) = (side(self.width), side(self.height));
        let scaled = self.stretched(width, height, target.filter);
        let left = (target.width as isize - width as isize) / 2;
        let top = (target.height as isize - height as isize) / 2;
        let mut canvas = Self::filled(target.width, target.height, scaled.channels, target.background);
        canvas.paste(&scaled, left, top);
        canvas
    }

    /// Exactly `width` × `height`, proportions aside.
    pub(super) fn stretched(self, width: usize, height: usize, filter: Filter) -> Self {
        if (self.width, self.height) == (width, height) {
            return self;
        }
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
            .use_alpha(false);
        let mut output = Image::new(width as u32, height as u32, kind);
        let source = ImageRef::new(self.width as u32, self.height as u32, &self.bytes, kind);
        let source = source.expect("the buffer is width · height · channels long, which every Opaque is");
        Resizer::new()
            .resize(&source, &mut output, &options)
            .expect("both images have the same pixel type");
        Self {
            width,
            height,
            channels: self.channels,
            bytes: output.into_vec(),
        }
    }

    /// Copies `other` with its corner at (left, top); what lies outside is cut off.
    pub(super) fn paste(&mut self, other: &Self, left: isize, top: isize) {
        let overlap = |at: isize, length: usize, room: usize| {
            let first = (-at).clamp(0, length as isize) as usize;
            let last = (room as isize - at).clamp(0, length as isize) as usize;
            first..last.max(first)
        };
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

#[cfg(test)]
mod tests {
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
}
