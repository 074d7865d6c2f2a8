//! Bytes of an image to upright pixels, behind a panic boundary.

use std::cell::Cell;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::format::{Format, sniff};
use super::measure::{Measure, measure};
use super::{ImageError, Limits, Pixels, jpeg, orient, png, webp};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Decodes bytes of any supported type; orientation applied, 16 bit, palette and CMYK brought to 8-bit grey or RGB.
/// A decoder's panic is [`ImageError::Panicked`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, ImageError> {
    guarded(|| decode_unguarded(bytes, limits))
}

fn guarded(decode: impl FnOnce() -> Result<Pixels, ImageError>) -> Result<Pixels, ImageError> {
    DECODING.set(true);
    // The decoders hold no state of ours, so nothing half-changed is seen after a panic.
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(false);
    decoded.unwrap_or(Err(ImageError::Panicked))
}

/// Whether this thread is inside a decoder: a panic hook stays silent then, since a symbolised backtrace of a caught
/// panic costs 100 MB and half a second.
pub(super) fn is_decoding() -> bool {
    DECODING.get()
}

fn decode_unguarded(bytes: &[u8], limits: &Limits) -> Result<Pixels, ImageError> {
    #[cfg(feature = "failpoints")]
    if crate::failpoints::fails(crate::failpoints::Place::Decode) {
        return Err(ImageError::Broken("as planned"));
    }
    let measured = measure(bytes, limits)?;
    let format = sniff(bytes)?;
    let (pixels, orientation) = match format {
        Format::Png => png::decode(bytes, &measured)?,
        Format::Jpeg => jpeg::decode(bytes, &measured)?,
        Format::WebP => {
            webp::check_codes(bytes)?;
            by_library(bytes, format, &measured)?
        }
        Format::Bmp | Format::Gif => by_library(bytes, format, &measured)?,
    };
    Ok(orient::upright(pixels, orientation))
}

fn by_library(bytes: &[u8], format: Format, measured: &Measure) -> Result<(Pixels, Orientation), ImageError> {
    let mut allowed = image::Limits::no_limits();
    allowed.max_alloc = Some(measured.memory_bytes());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.library());
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(|e| image_error(&e))?;
    if decoder.dimensions() != (measured.width, measured.height) {
        return Err(ImageError::Broken("its header cannot be read"));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| image_error(&e))?;
    let (width, height) = (image.width(), image.height());
    let (channels, bytes) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => (2, image.into_raw()),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        DynamicImage::ImageRgba8(image) => (4, image.into_raw()),
        // None of these formats has more than 8 bits.
        _ => return Err(ImageError::Broken("it uses a feature that is not read")),
    };
    Ok((
        Pixels {
            width,
            height,
            channels,
            bytes,
        },
        orientation,
    ))
}

fn image_error(error: &image::ImageError) -> ImageError {
    match error {
        image::ImageError::Limits(_) => ImageError::TooLarge("decoding it takes too much memory".to_owned()),
        image::ImageError::IoError(_) => ImageError::Broken("it is cut short"),
        image::ImageError::Unsupported(_) => ImageError::Broken("it uses a feature that is not read"),
        _ => ImageError::Broken("its data is not valid"),
    }
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    /// A picture with detail in every channel.
    fn picture() -> RgbImage {
        RgbImage::from_fn(24, 17, |x, y| {
            Rgb([(x * 10) as u8, (y * 13) as u8, (x * y) as u8])
        })
    }

    fn encoded(format: Format) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(picture())
            .write_to(&mut bytes, format.library())
            .unwrap();
        bytes.into_inner()
    }

    const ALL: [Format; 5] = [Format::Png, Format::Jpeg, Format::WebP, Format::Bmp, Format::Gif];

    fn distance(a: &Pixels, b: &[u8]) -> f64 {
        let rgb: Vec<u8> = a
            .bytes
            .chunks(usize::from(a.channels))
            .flat_map(|p| p[..3].to_vec())
            .collect();
        rgb.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a.abs_diff(b)))
            .sum::<f64>()
            / b.len() as f64
    }

    #[test]
    fn every_format_gives_the_picture_back() {
        for format in ALL {
            let pixels = decode(&encoded(format), &Limits::default()).unwrap();
            assert_eq!((pixels.width, pixels.height), (24, 17), "{format:?}");
            let lossless = !matches!(format, Format::Jpeg | Format::Gif);
            let off = distance(&pixels, picture().as_raw());
            assert!(off <= if lossless { 0.0 } else { 12.0 }, "{format:?}: {off}");
        }
    }

    #[test]
    fn a_cut_image_is_an_error_and_not_a_guess() {
        for format in ALL {
            let bytes = encoded(format);
            // The last byte of a GIF or PNG is of its end mark; the pixels are all there a little before.
            let needed = match format {
                Format::Gif => bytes.len() - 3,
                _ => bytes.len() - 1,
            };
            for cut in 0..needed {
                assert!(
                    decode(&bytes[..cut], &Limits::default()).is_err(),
                    "{format:?} cut at {cut} of {}",
                    bytes.len()
                );
            }
            let mut longer = bytes.clone();
            longer.extend_from_slice(b"trailing bytes");
            assert!(
                decode(&longer, &Limits::default()).is_ok(),
                "{format:?} with trailing bytes"
            );
        }
    }

    fn png(color: ExtendedColorType, bytes: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
        let mut out = Vec::new();
        image::codecs::png::PngEncoder::new(&mut out)
            .write_image(bytes, width, height, color)
            .unwrap();
        out
    }

    #[test]
    fn every_depth_and_kind_of_png_gives_its_plain_twin() {
        let grey: Vec<u8> = (0..=255).collect();
        let plain = decode(&png(ExtendedColorType::L8, &grey, (16, 16)), &Limits::default()).unwrap();
        assert_eq!((plain.channels, &plain.bytes), (1, &grey));
        let deep: Vec<u8> = grey.iter().flat_map(|&v| [v, v]).collect();
        assert_eq!(
            decode(&png(ExtendedColorType::L16, &deep, (16, 16)), &Limits::default()).unwrap(),
            plain
        );
        for (bits, most) in [
            (::png::BitDepth::One, 1u8),
            (::png::BitDepth::Two, 3),
            (::png::BitDepth::Four, 15),
        ] {
            let mut out = Vec::new();
            let mut encoder = ::png::Encoder::new(&mut out, 8, 1);
            encoder.set_color(::png::ColorType::Grayscale);
            encoder.set_depth(bits);
            let row = vec![0b0001_1011; bits as usize];
            encoder.write_header().unwrap().write_image_data(&row).unwrap();
            let pixels = decode(&out, &Limits::default()).unwrap();
            let shown = |i: usize| {
                let bit = i * bits as usize;
                (row[bit / 8] >> (8 - bits as usize - bit % 8)) & most
            };
            let expected: Vec<u8> = (0..8).map(|i| shown(i) * (255 / most)).collect();
            assert_eq!((pixels.channels, pixels.bytes), (1, expected), "{bits:?}");
        }
    }

    #[test]
    fn a_palette_of_seven_bytes_panics_nobody() {
        let mut out = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut out, 4, 1);
        encoder.set_color(::png::ColorType::Indexed);
        encoder.set_palette(vec![0, 0, 0, 255, 255, 255, 9, 9, 9]);
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&[0, 1, 2, 2])
            .unwrap();
        assert_eq!(decode(&out, &Limits::default()).unwrap().channels, 3);
        let at = out.windows(4).position(|w| w == b"PLTE").unwrap();
        let chunk = [&b"PLTE"[..], &out[at + 4..at + 11]].concat();
        let mut bad = out[..at - 4].to_vec();
        bad.extend(7u32.to_be_bytes());
        bad.extend(&chunk);
        bad.extend(crc32(&chunk).to_be_bytes());
        bad.extend(&out[at + 4 + 9 + 4..]);
        assert_eq!(
            decode(&bad, &Limits::default()),
            Err(ImageError::Broken("its palette is cut short"))
        );
    }

    #[test]
    fn a_decoder_that_panics_is_an_error_of_its_image() {
        let mut within = false;
        let decoded = guarded(|| {
            within = is_decoding();
            panic!("a decoder's bug");
        });
        assert_eq!(decoded, Err(ImageError::Panicked));
        assert!(within && !is_decoding());
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }

    #[test]
    fn one_pixel_is_an_image() {
        let pixels = decode(&png(ExtendedColorType::L8, &[7], (1, 1)), &Limits::default()).unwrap();
        assert_eq!(
            pixels,
            Pixels {
                width: 1,
                height: 1,
                channels: 1,
                bytes: vec![7]
            }
        );
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_header() {
        let limits = Limits {
            max_side: 20,
            ..Limits::default()
        };
        for format in ALL {
            assert!(
                matches!(decode(&encoded(format), &limits), Err(ImageError::TooLarge(_))),
                "{format:?}"
            );
        }
        let little = Limits {
            max_alloc_bytes: 100,
            ..Limits::default()
        };
        assert!(matches!(
            decode(&encoded(Format::Png), &little),
            Err(ImageError::TooLarge(_))
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damaged_images_never_escape_as_a_panic(
            format in 0usize..5, cut in 0usize..2000, damage in prop::collection::vec((0usize..4000, any::<u8>()), 1..6)
        ) {
            let mut bytes = encoded(ALL[format]);
            for (at, value) in damage {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut.saturating_sub(1500).min(bytes.len()));
            if let Ok(pixels) = decode(&bytes, &Limits::default()) {
                let count = pixels.width as usize * pixels.height as usize * usize::from(pixels.channels);
                prop_assert_eq!(pixels.bytes.len(), count);
            }
        }
    }
}
