//! PNG, with the chunks left alone that could cost memory.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{ColorType, Decoder, DecodingError, Transformations};

use super::measure::{FIXED_BYTES, Measure};
use super::{ImageError, Limits, Pixels};

const CUT_SHORT: ImageError = ImageError::Broken("it is cut short");

/// Of IHDR, which stands first, and of the chunks' names up to the last. Their contents are not looked at.
pub(super) fn measure(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let broken = ImageError::Broken("its header is cut short");
    if bytes.get(12..16) != Some(b"IHDR") {
        return Err(broken);
    }
    let (Some(width), Some(height)) = (be32(bytes, 16), be32(bytes, 20)) else {
        return Err(broken);
    };
    limits.check(width, height)?;
    let (Some(&depth), Some(&color)) = (bytes.get(24), bytes.get(25)) else {
        return Err(broken);
    };
    let side = walk(bytes)?;
    let transparent = u8::from(side.transparent);
    let (samples, channels) = match color {
        0 => (1, 1 + transparent),
        3 => (1, 3 + transparent),
        2 => (3, 3 + transparent),
        4 => (2, 2),
        _ => (4, 4),
    };
    let row = (u64::from(width) * samples * u64::from(depth)).div_ceil(8);
    Ok(Measure {
        width,
        height,
        channels,
        // Rows before and after their filter; of the side chunks one copy as they are read and one that is kept.
        working_bytes: FIXED_BYTES + 16 * row + 3 * side.bytes,
    })
}

/// What stands beside the pixels.
#[derive(Default)]
struct Side {
    /// Bytes of chunks that are read; text, colour profiles and pixels are not among them.
    bytes: u64,
    /// Whether a chunk before the image makes some of it transparent.
    transparent: bool,
}

/// The names and lengths of the chunks; an error where the last one is missing.
fn walk(bytes: &[u8]) -> Result<Side, ImageError> {
    let (mut at, mut side, mut before_image) = (8, Side::default(), true);
    loop {
        let length = be32(bytes, at).ok_or(CUT_SHORT)? as usize;
        match bytes.get(at + 4..at + 8).ok_or(CUT_SHORT)? {
            b"IEND" => return bytes.get(at + 8..at + 12).map_or(Err(CUT_SHORT), |_| Ok(side)),
            b"IDAT" | b"fdAT" => before_image = false,
            b"iCCP" | b"tEXt" | b"zTXt" | b"iTXt" => {}
            // The decoder panics at half a colour.
            b"PLTE" if !length.is_multiple_of(3) => {
                return Err(ImageError::Broken("its palette is cut short"));
            }
            name => {
                side.transparent |= name == b"tRNS" && before_image;
                side.bytes += length as u64;
            }
        }
        // Length, name and checksum stand around the content.
        at = at
            .checked_add(length)
            .and_then(|at| at.checked_add(12))
            .ok_or(CUT_SHORT)?;
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Decodes a PNG to 8 bits per channel; text and colour-profile chunks are not inflated.
pub(super) fn decode(bytes: &[u8], measured: &Measure) -> Result<(Pixels, Orientation), ImageError> {
    let budget = usize::try_from(measured.working_bytes).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: budget });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| image_error(&e))?;
    let size = reader.output_buffer_size().ok_or_else(too_much_memory)?;
    if size as u64 > measured.pixels() * u64::from(measured.channels) {
        return Err(too_much_memory());
    }
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(|e| image_error(&e))?;
    // The frame of an animation may be smaller than its canvas; a file whose image is not the canvas has no one meaning.
    let (width, height) = reader.info().size();
    if (frame.width, frame.height) != (width, height) {
        return Err(ImageError::Broken("its first frame does not fill it"));
    }
    let channels = match frame.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(ImageError::Broken("its palette is missing")),
    };
    pixels.truncate(frame.buffer_size());
    let orientation = reader
        .info()
        .exif_metadata
        .as_ref()
        .and_then(|exif| Orientation::from_exif_chunk(exif));
    // Reads on to the end, so that a file cut behind its pixels is seen too.
    reader.finish().map_err(|e| image_error(&e))?;
    Ok((
        Pixels {
            width,
            height,
            channels,
            bytes: pixels,
        },
        orientation.unwrap_or(Orientation::NoTransforms),
    ))
}

fn image_error(error: &DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(_) => CUT_SHORT,
        DecodingError::LimitsExceeded => too_much_memory(),
        DecodingError::Format(_) | DecodingError::Parameter(_) => ImageError::Broken("its data is not valid"),
    }
}

fn too_much_memory() -> ImageError {
    ImageError::TooLarge("decoding it takes too much memory".to_owned())
}
