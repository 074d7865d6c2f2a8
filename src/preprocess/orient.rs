//! Turns an image upright, as its EXIF orientation says.

use image::metadata::Orientation;

use super::Pixels;
use super::measure::STRIP_BYTES;

/// The image as it is meant to be seen. Beside the pixels it takes a strip of them, whatever their size.
pub(super) fn upright(mut pixels: Pixels, orientation: Orientation) -> Pixels {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270,
        Rotate270FlipH,
    };
    // Each is a flip in place, and half of them columns that become rows after it.
    match orientation {
        NoTransforms | Rotate90FlipH => {}
        FlipHorizontal | Rotate270 => flip_rows(&mut pixels),
        FlipVertical | Rotate90 => flip_columns(&mut pixels),
        Rotate180 | Rotate270FlipH => {
            flip_rows(&mut pixels);
            flip_columns(&mut pixels);
        }
    }
    match orientation {
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => transposed(pixels, STRIP_BYTES),
        NoTransforms | FlipHorizontal | FlipVertical | Rotate180 => pixels,
    }
}

/// The last pixel of each row becomes its first.
fn flip_rows(pixels: &mut Pixels) {
    let channels = usize::from(pixels.channels);
    for row in pixels.bytes.chunks_exact_mut(pixels.width as usize * channels) {
        row.reverse();
        for pixel in row.chunks_exact_mut(channels) {
            pixel.reverse();
        }
    }
}

/// The last row becomes the first.
fn flip_columns(pixels: &mut Pixels) {
    let row = pixels.width as usize * usize::from(pixels.channels);
    let middle = pixels.height as usize / 2 * row;
    let (upper, lower) = pixels.bytes.split_at_mut(middle);
    for (one, other) in upper.chunks_exact_mut(row).zip(lower.rchunks_exact_mut(row)) {
        one.swap_with_slice(other);
    }
}

/// Columns as rows. A large image is first cut into strips of some columns, from its last row on, while it is given back from
/// its end; then the strips are, one by one. So it is never there twice.
fn transposed(mut pixels: Pixels, strip_bytes: usize) -> Pixels {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let channels = usize::from(pixels.channels);
    // At least so many bytes, but for the last: a block of less would be kept by the allocator.
    let columns = strip_bytes.div_ceil(height * channels).min(width);
    let wide = |at: usize| columns.min(width - at) * channels;
    let mut strips: Vec<Vec<u8>> = (0..width)
        .step_by(columns)
        .map(|at| vec![0; wide(at) * height])
        .collect();
    let row_bytes = width * channels;
    let rows_at_once = (strip_bytes / row_bytes).max(1);
    for y in (0..height).rev() {
        let row = &pixels.bytes[y * row_bytes..][..row_bytes];
        for (strip, part) in strips.iter_mut().zip(row.chunks(columns * channels)) {
            strip[y * part.len()..][..part.len()].copy_from_slice(part);
        }
        if y % rows_at_once == 0 {
            pixels.bytes.truncate(y * row_bytes);
            pixels.bytes.shrink_to_fit();
        }
    }
    let mut bytes = Vec::with_capacity(row_bytes * height);
    for strip in strips {
        let row = strip.len() / height;
        for column in (0..row).step_by(channels) {
            for row in strip.chunks_exact(row) {
                bytes.extend_from_slice(&row[column..column + channels]);
            }
        }
    }
    Pixels {
        width: pixels.height,
        height: pixels.width,
        channels: pixels.channels,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_orientation_brings_the_image_upright() {
        // Where the upright image is  1 2 3 / 4 5 6, EXIF orientation k stores it as:
        let stored: [(u8, u32, &[u8]); 8] = [
            (1, 3, &[1, 2, 3, 4, 5, 6]),
            (2, 3, &[3, 2, 1, 6, 5, 4]),
            (3, 3, &[6, 5, 4, 3, 2, 1]),
            (4, 3, &[4, 5, 6, 1, 2, 3]),
            (5, 2, &[1, 4, 2, 5, 3, 6]),
            (6, 2, &[3, 6, 2, 5, 1, 4]),
            (7, 2, &[6, 3, 5, 2, 4, 1]),
            (8, 2, &[4, 1, 5, 2, 6, 3]),
        ];
        for (exif, width, bytes) in stored {
            let pixels = Pixels {
                width,
                height: 6 / width,
                channels: 1,
                bytes: bytes.to_vec(),
            };
            let upright = upright(pixels, Orientation::from_exif(exif).unwrap());
            assert_eq!((upright.width, upright.height), (3, 2), "orientation {exif}");
            assert_eq!(upright.bytes, [1, 2, 3, 4, 5, 6], "orientation {exif}");
        }
    }

    #[test]
    fn channels_stay_together() {
        let pixels = Pixels {
            width: 2,
            height: 1,
            channels: 3,
            bytes: vec![1, 2, 3, 4, 5, 6],
        };
        assert_eq!(
            upright(pixels, Orientation::FlipHorizontal).bytes,
            [4, 5, 6, 1, 2, 3]
        );
    }

    proptest! {
        #[test]
        fn columns_become_rows_in_strips_of_any_size(
            width in 1u32..30, height in 1u32..30, channels in 1u8..5, strip_bytes in 1usize..2000
        ) {
            let bytes: Vec<u8> = (0..width * height * u32::from(channels)).map(|i| (i * 7 % 251) as u8).collect();
            let pixels = Pixels { width, height, channels, bytes };
            let turned = transposed(pixels.clone(), strip_bytes);
            prop_assert_eq!((turned.width, turned.height), (height, width));
            let (size, deep) = (usize::from(channels), (width as usize, height as usize));
            for x in 0..deep.0 {
                for y in 0..deep.1 {
                    prop_assert_eq!(
                        &pixels.bytes[(y * deep.0 + x) * size..][..size],
                        &turned.bytes[(x * deep.1 + y) * size..][..size]
                    );
                }
            }
        }
    }
}
