//! Turns an image upright, as its EXIF orientation says.

use image::metadata::Orientation;

use super::Pixels;

/// The image as it is meant to be seen.
pub(super) fn upright(pixels: Pixels, orientation: Orientation) -> Pixels {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270,
        Rotate270FlipH,
    };
    let (w, h) = (pixels.width as usize, pixels.height as usize);
    // For each place (x, y) of the result: the place it comes from.
    let source: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        NoTransforms => return pixels,
        FlipHorizontal => |x, y, w, _| (w - 1 - x, y),
        Rotate180 => |x, y, w, h| (w - 1 - x, h - 1 - y),
        FlipVertical => |x, y, _, h| (x, h - 1 - y),
        Rotate90FlipH => |x, y, _, _| (y, x),
        Rotate90 => |x, y, _, h| (y, h - 1 - x),
        Rotate270FlipH => |x, y, w, h| (w - 1 - y, h - 1 - x),
        Rotate270 => |x, y, w, _| (w - 1 - y, x),
    };
    let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    let (width, height) = if turned { (h, w) } else { (w, h) };
    let channels = usize::from(pixels.channels);
    let mut bytes = Vec::with_capacity(pixels.bytes.len());
    for y in 0..height {
        for x in 0..width {
            let (from_x, from_y) = source(x, y, w, h);
            bytes.extend_from_slice(&pixels.bytes[(from_y * w + from_x) * channels..][..channels]);
        }
    }
    Pixels {
        width: width as u32,
        height: height as u32,
        channels: pixels.channels,
        bytes,
    }
}

#[cfg(test)]
mod tests {
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
}
