//! A hash of what an image looks like: near duplicates have near hashes.

use super::Pixels;

/// Columns and rows to which an image is averaged; each row gives one bit fewer than it has columns.
const COLUMNS: usize = 9;
const ROWS: usize = 8;
/// Neighbours whose difference is less than this part of the image's contrast count as equal, so that the noise of a
/// flat ground sets no bits.
const FLAT: u64 = 64;

/// The difference hash: the image's luma averaged to 9×8, and a bit wherever a cell is brighter than the one to its right
/// (Krawetz, "Kind of like that", 2013). It hardly changes with encoding, size and brightness. The number of bits in
/// which two hashes differ says how different the images look; 0 of an image without pixels.
pub fn dhash(pixels: &Pixels) -> u64 {
    let cells = cells(pixels);
    let all = || cells.iter().flatten().copied();
    let contrast = all().max().unwrap_or(0) - all().min().unwrap_or(0);
    let mut hash = 0;
    for row in &cells {
        for pair in row.windows(2) {
            let brighter = pair[0].saturating_sub(pair[1]) > contrast / FLAT;
            hash = hash << 1 | u64::from(brighter);
        }
    }
    hash
}

/// Sums of luma over equal areas, a pixel that lies in several being shared out among them. The unit is the same for all.
fn cells(pixels: &Pixels) -> [[u64; COLUMNS]; ROWS] {
    let (width, height, channels) = (
        pixels.width as usize,
        pixels.height as usize,
        pixels.channels as usize,
    );
    let mut cells = [[0; COLUMNS]; ROWS];
    let columns = shares(width, COLUMNS);
    let rows = shares(height, ROWS);
    for (line, (row, vertical)) in rows
        .iter()
        .flat_map(|(y, parts)| parts.iter().map(move |part| (y, part)))
    {
        let start = line * width * channels;
        let line = pixels
            .bytes
            .get(start..start + width * channels)
            .unwrap_or_default();
        for (x, parts) in &columns {
            let luma = line.get(x * channels..(x + 1) * channels).map_or(0, luma);
            for (column, horizontal) in parts {
                cells[*row][*column] += luma * vertical * horizontal;
            }
        }
    }
    cells
}

/// Each of `length` pixels with the cells it lies in and how much of it, in parts of which a pixel has `count`.
fn shares(length: usize, count: usize) -> Vec<(usize, Vec<(usize, u64)>)> {
    let share = |pixel: usize| {
        let (start, end) = (pixel * count, (pixel + 1) * count);
        let cells = start / length..=(end - 1) / length;
        let parts = cells.map(|cell| {
            let overlap = end.min((cell + 1) * length) - start.max(cell * length);
            (cell, overlap as u64)
        });
        (pixel, parts.collect())
    };
    (0..length).map(share).collect()
}

/// Brightness of a pixel by ITU-R BT.601, a transparent one on black, in units of 1/255 000.
fn luma(pixel: &[u8]) -> u64 {
    let [red, green, blue, alpha] = match *pixel {
        [grey] => [grey, grey, grey, 255],
        [grey, alpha] => [grey, grey, grey, alpha],
        [red, green, blue] => [red, green, blue, 255],
        [red, green, blue, alpha] => [red, green, blue, alpha],
        _ => [0; 4],
    }
    .map(u64::from);
    (299 * red + 587 * green + 114 * blue) * alpha
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::preprocess::{Limits, decode};

    fn grey(width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> Pixels {
        let place = |at: u32| (at % width, at / width);
        Pixels {
            width,
            height,
            channels: 1,
            bytes: (0..width * height).map(place).map(|(x, y)| level(x, y)).collect(),
        }
    }

    fn distance(a: &Pixels, b: &Pixels) -> u32 {
        (dhash(a) ^ dhash(b)).count_ones()
    }

    fn digit(name: &str) -> Pixels {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        decode(&std::fs::read(path).unwrap(), &Limits::default()).unwrap()
    }

    fn wave(x: u32, y: u32) -> u8 {
        let value = (f64::from(x) / 9.0).sin() + (f64::from(y) / 7.0 + f64::from(x) / 23.0).cos();
        (value * 50.0 + 110.0) as u8
    }

    #[test]
    fn each_bit_is_one_pair_of_cells() {
        let falling = grey(9, 8, |x, _| 200 - 20 * x as u8);
        assert_eq!(dhash(&falling), u64::MAX);
        let rising = grey(9, 8, |x, _| 20 * x as u8);
        assert_eq!(dhash(&rising), 0);
        let one = grey(9, 8, |x, y| if (x, y) == (0, 0) { 255 } else { 0 });
        assert_eq!(dhash(&one), 1 << 63);
        let last = grey(9, 8, |x, y| if (x, y) == (7, 7) { 255 } else { 0 });
        assert_eq!(dhash(&last), 1);
    }

    #[test]
    fn size_encoding_and_brightness_hardly_matter() {
        let original = grey(90, 80, wave);
        let twice = grey(180, 160, |x, y| wave(x / 2, y / 2));
        assert_eq!(distance(&original, &twice), 0);
        let darker = grey(90, 80, |x, y| (f64::from(wave(x, y)) * 0.6) as u8);
        assert!(distance(&original, &darker) <= 2);
        let mut jpeg = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 60);
        image::GrayImage::from_raw(90, 80, original.bytes.clone())
            .unwrap()
            .write_with_encoder(encoder)
            .unwrap();
        let again = decode(&jpeg, &Limits::default()).unwrap();
        assert!(distance(&original, &again) <= 2);
    }

    #[test]
    fn different_digits_differ() {
        let names = std::fs::read_dir(format!("{}/tests/fixtures/variants", env!("CARGO_MANIFEST_DIR")));
        assert!(names.is_ok());
        let one = digit("examples/digit.png");
        let mirrored = Pixels {
            bytes: one
                .bytes
                .chunks(one.width as usize * one.channels as usize)
                .flat_map(|row| row.chunks(one.channels as usize).rev().flatten().copied())
                .collect(),
            ..one.clone()
        };
        assert_eq!(distance(&one, &one), 0);
        assert!(distance(&one, &mirrored) > 4);
    }

    proptest! {
        #[test]
        fn colours_of_a_grey_image_change_nothing(width in 1u32..40, height in 1u32..40, seed in 0u32..1000) {
            let level = |x: u32, y: u32| (x.wrapping_mul(31) ^ y.wrapping_mul(57) ^ seed.wrapping_mul(97)) as u8;
            let one = grey(width, height, level);
            let three = Pixels { channels: 3, bytes: one.bytes.iter().flat_map(|&b| [b; 3]).collect(), ..one.clone() };
            let four = Pixels { channels: 4, bytes: one.bytes.iter().flat_map(|&b| [b, b, b, 255]).collect(), ..one.clone() };
            prop_assert_eq!(dhash(&one), dhash(&three));
            prop_assert_eq!(dhash(&one), dhash(&four));
        }
    }
}
