//! PNG, with the chunks left alone that could cost memory.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{ColorType, Decoder, DecodingError, Transformations};

use super::{ImageError, Limits, Pixels};

/// Decodes a PNG to 8 bits per channel; text and colour-profile chunks are not inflated.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Pixels, Orientation), ImageError> {
    let budget = usize::try_from(limits.max_alloc_bytes).unwrap_or(usize::MAX);
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: budget });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| image_error(&e))?;
    let size = reader.output_buffer_size().ok_or_else(too_much_memory)?;
    if size > budget {
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
        DecodingError::IoError(_) => ImageError::Broken("it is cut short"),
        DecodingError::LimitsExceeded => too_much_memory(),
        DecodingError::Format(_) | DecodingError::Parameter(_) => ImageError::Broken("its data is not valid"),
    }
}

fn too_much_memory() -> ImageError {
    ImageError::TooLarge("decoding it takes too much memory".to_owned())
}
