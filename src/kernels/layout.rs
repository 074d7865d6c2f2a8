//! Maps moved into other maps and out of planes.

use super::batch::Batch;
use super::isa::Isa;
use super::map::Map;
use super::output::Output;
use super::vector::{Vector, dispatch};
use super::view::{Source, Target};

/// Items of planes to read: item, channel, row, column, side by side.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    /// All numbers.
    pub values: &'a [f32],
    /// Rows of a plane.
    pub height: usize,
    /// Columns of a plane.
    pub width: usize,
}

/// Copies every channel of `source` into `target`, whose channels from `offset` on they become; its others stay.
///
/// # Panics
/// Where the maps do not fit each other or their numbers.
pub(super) fn copy_channels(isa: Isa, source: Source<'_>, target: Target<'_>, offset: usize, batch: Batch) {
    source.check(isa, batch.items);
    let target = target.checked(isa, batch.items);
    let (from, to) = (source.map, target.map);
    assert_eq!(
        [from.height, from.width],
        [to.height, to.width],
        "maps of one size"
    );
    let end = offset.checked_add(from.channels);
    assert!(
        end.is_some_and(|end| end <= to.channels),
        "channels beyond the last"
    );
    // What pads the last channels is to be finite too.
    let zeros = if end == Some(to.channels) {
        isa.padded(to.channels) - to.channels
    } else {
        0
    };
    for (item, rows) in batch.rows(to.height) {
        let first = rows.start * to.width;
        let copy = Copy {
            from: source.pixel(item, first),
            to: target.pixel(item, first).wrapping_add(offset),
            strides: [from.stride, to.stride],
            pixels: rows.len() * to.width,
            channels: from.channels,
            zeros,
        };
        // SAFETY: all pixels of both maps lie in their numbers, the channels and zeros in the padded ones.
        unsafe { copy_pixels(isa, &copy) }
    }
}

/// Copies `source` into `target` from row and column `start` on; zeros around it.
///
/// # Panics
/// Where the maps do not fit each other or their numbers.
pub(super) fn pad(isa: Isa, source: Source<'_>, target: Target<'_>, start: [usize; 2], batch: Batch) {
    source.check(isa, batch.items);
    let target = target.checked(isa, batch.items);
    let (from, to) = (source.map, target.map);
    assert_eq!(from.channels, to.channels, "maps of other channels");
    check_inside(start, [from.height, from.width], &to);
    for (item, rows) in batch.rows(to.height) {
        for row in rows {
            // SAFETY: all pixels of both maps lie in their numbers, and the source's row in the target's.
            unsafe {
                frame_row(isa, &target, item, row, [start[1], from.width]);
                if (start[0]..start[0] + from.height).contains(&row) {
                    let copy = Copy {
                        from: source.pixel(item, (row - start[0]) * from.width),
                        to: target.pixel(item, row * to.width + start[1]),
                        strides: [from.stride, to.stride],
                        pixels: from.width,
                        channels: from.channels,
                        zeros: isa.padded(from.channels) - from.channels,
                    };
                    copy_pixels(isa, &copy);
                } else {
                    zero_pixels(isa, target.pixel(item, row * to.width + start[1]), to, from.width);
                }
            }
        }
    }
}

/// Copies planes into `target` from row and column `start` on; zeros around them and behind the channels of each pixel.
///
/// # Panics
/// Where the planes are not items × channels of `target`, or do not fit it, or it does not fit its numbers.
pub(super) fn from_planes(isa: Isa, planes: Planes<'_>, target: Target<'_>, start: [usize; 2], batch: Batch) {
    let target = target.checked(isa, batch.items);
    let to = target.map;
    check_inside(start, [planes.height, planes.width], &to);
    let plane = planes.height * planes.width;
    assert_eq!(
        planes.values.len(),
        batch.items * to.channels * plane,
        "a plane for each channel of each item"
    );
    for (item, rows) in batch.rows(to.height) {
        for row in rows {
            // SAFETY: all pixels of the map lie in its numbers, the planes' row in its row; the planes are as many as
            // it has channels.
            unsafe {
                frame_row(isa, &target, item, row, [start[1], planes.width]);
                let y = target.pixel(item, row * to.width + start[1]);
                zero_pixels(isa, y, to, planes.width);
                if (start[0]..start[0] + planes.height).contains(&row) {
                    let first = item * to.channels * plane + (row - start[0]) * planes.width;
                    interleave(planes.values.as_ptr().add(first), [plane, planes.width], y, &to);
                }
            }
        }
    }
}

/// Copies `source` into planes: item, channel, row, column, side by side.
///
/// # Panics
/// Where there are not as many numbers in `planes` as in the maps, or the maps do not fit theirs.
pub(super) fn to_planes(isa: Isa, source: Source<'_>, planes: Output<'_>, batch: Batch) {
    /// Channels at a time, as many as lie in one cache line.
    const BLOCK: usize = 16;
    source.check(isa, batch.items);
    let from = source.map;
    let item_len = from.channels * from.pixels();
    let planes = exactly(planes, batch.items * item_len);
    for (item, rows) in batch.rows(from.height) {
        let pixels = rows.start * from.width..rows.end * from.width;
        for first in (0..from.channels).step_by(BLOCK) {
            let channels = first..(first + BLOCK).min(from.channels);
            for channel in channels {
                let x = source.pixel(item, 0).wrapping_add(channel);
                let to = planes
                    .start()
                    .wrapping_add(item * item_len + channel * from.pixels());
                for pixel in pixels.clone() {
                    // SAFETY: the pixel lies in the map's numbers, and in the plane of the channel of the item.
                    unsafe { *to.add(pixel) = *x.add(pixel * from.stride) };
                }
            }
        }
    }
}

fn exactly(planes: Output<'_>, len: usize) -> Output<'_> {
    assert_eq!(planes.len(), len, "a number for each of the map");
    planes
}

fn check_inside(start: [usize; 2], size: [usize; 2], to: &Map) {
    let ends = [0, 1].map(|axis| start[axis].checked_add(size[axis]));
    assert!(
        ends[0].is_some_and(|end| end <= to.height) && ends[1].is_some_and(|end| end <= to.width),
        "{size:?} from {start:?} on lie beyond {to:?}"
    );
}

/// Zeros left and right of `width` pixels from column `left` on.
///
/// # Safety
/// The row is one of the map, the pixels lie in it, and the map in its numbers.
unsafe fn frame_row(isa: Isa, target: &Target<'_>, item: usize, row: usize, [left, width]: [usize; 2]) {
    let to = target.map;
    // SAFETY: the caller's.
    unsafe {
        zero_pixels(isa, target.pixel(item, row * to.width), to, left);
        let right = left + width;
        zero_pixels(
            isa,
            target.pixel(item, row * to.width + right),
            to,
            to.width - right,
        );
    }
}

/// Numbers of some planes into the first of each pixel.
///
/// # Safety
/// `x` is valid for `width` numbers of each of the map's channels, `plane` numbers apart, and `y` for as many pixels.
unsafe fn interleave(x: *const f32, [plane, width]: [usize; 2], y: *mut f32, to: &Map) {
    for column in 0..width {
        for channel in 0..to.channels {
            // SAFETY: the caller's.
            unsafe { *y.add(column * to.stride + channel) = *x.add(channel * plane + column) };
        }
    }
}

/// Pixels to copy, of each `channels` numbers, then `zeros`.
struct Copy {
    from: *const f32,
    to: *mut f32,
    /// Numbers from a pixel to the next.
    strides: [usize; 2],
    pixels: usize,
    channels: usize,
    zeros: usize,
}

dispatch! {
    unsafe fn copy_pixels(copy: &Copy) = copies
}

dispatch! {
    unsafe fn zero_pixels(to: *mut f32, map: Map, pixels: usize) = zeros
}

#[inline(always)]
unsafe fn copies<V: Vector>(copy: &Copy) {
    let whole = copy.channels / V::LANES * V::LANES;
    for pixel in 0..copy.pixels {
        // SAFETY: the caller's.
        unsafe {
            let from = copy.from.add(pixel * copy.strides[0]);
            let to = copy.to.add(pixel * copy.strides[1]);
            let mut at = 0;
            while at < whole {
                V::load(from.add(at)).store(to.add(at));
                at += V::LANES;
            }
            for at in whole..copy.channels {
                *to.add(at) = *from.add(at);
            }
            for at in copy.channels..copy.channels + copy.zeros {
                *to.add(at) = 0.0;
            }
        }
    }
}

#[inline(always)]
unsafe fn zeros<V: Vector>(to: *mut f32, map: Map, pixels: usize) {
    for pixel in 0..pixels {
        let mut at = 0;
        while at < map.channels {
            // SAFETY: the caller's.
            unsafe { V::splat(0.0).store(to.add(pixel * map.stride + at)) };
            at += V::LANES;
        }
    }
}

#[cfg(test)]
mod tests;
