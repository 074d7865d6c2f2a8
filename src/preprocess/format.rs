//! What kind of image some bytes are, told from their beginning.

use std::io::Cursor;

use image::{ImageDecoder, ImageFormat, ImageReader};

use super::{ImageError, Limits, jpeg};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Bmp,
    Gif,
}

/// Header facts read without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Columns, as stored.
    pub width: u32,
    /// Rows, as stored.
    pub height: u32,
    /// Bytes the decoded pixels take at most.
    pub decoded_bytes: u64,
}

/// Sniffs the type and reads the size, within `limits`; allocates next to nothing.
pub fn header(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    let (width, height) = match sniff(bytes)? {
        Format::Png => png_size(bytes)?,
        Format::Jpeg => jpeg::size(bytes)?,
        other => generic_size(other, bytes)?,
    };
    limits.check(width, height)?;
    Ok(Header {
        width,
        height,
        decoded_bytes: u64::from(width) * u64::from(height) * 4,
    })
}

/// The format by its first bytes; names and content types are not asked.
pub(super) fn sniff(bytes: &[u8]) -> Result<Format, ImageError> {
    match bytes {
        [] => Err(ImageError::Empty),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
        [b'B', b'M', ..] => Ok(Format::Bmp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Format::Gif),
        _ => Err(ImageError::UnknownFormat),
    }
}

impl Format {
    /// The name the decoders' library has for it.
    pub(super) fn library(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
            Self::Bmp => ImageFormat::Bmp,
            Self::Gif => ImageFormat::Gif,
        }
    }
}

/// Width and height of IHDR, which stands first.
fn png_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let broken = ImageError::Broken("its header is cut short");
    let number = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.first_chunk())
            .map(|b| u32::from_be_bytes(*b))
    };
    if bytes.get(12..16) != Some(b"IHDR") {
        return Err(broken);
    }
    number(16).zip(number(20)).ok_or(broken)
}

fn generic_size(format: Format, bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format.library());
    let decoder = reader
        .into_decoder()
        .map_err(|_| ImageError::Broken("its header cannot be read"))?;
    Ok(decoder.dimensions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        assert_eq!(sniff(b""), Err(ImageError::Empty));
        for unknown in [
            &b"hello"[..],
            b"\x89PN",
            b"%PDF-1.7",
            b"II*\0",
            b"\xff\xd8",
            b"RIFF\0\0\0\0WAVE",
            b"GIF86a",
        ] {
            assert_eq!(sniff(unknown), Err(ImageError::UnknownFormat), "{unknown:?}");
        }
        assert_eq!(sniff(b"GIF89a"), Ok(Format::Gif));
        assert_eq!(sniff(b"BM"), Ok(Format::Bmp));
    }

    #[test]
    fn a_header_tells_the_size_before_anything_is_decoded() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(20_000u32.to_be_bytes());
        png.extend(20_000u32.to_be_bytes());
        let error = header(&png, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("too large: 20000×20000"), "{error}");
        let limits = Limits {
            max_side: 20_000,
            max_pixels: 400_000_000,
            ..Limits::default()
        };
        let expected = Header {
            width: 20_000,
            height: 20_000,
            decoded_bytes: 1_600_000_000,
        };
        assert_eq!(header(&png, &limits), Ok(expected));
        assert!(matches!(header(&png[..20], &limits), Err(ImageError::Broken(_))));
        png[16..20].fill(0);
        assert_eq!(header(&png, &limits), Err(ImageError::Broken("it has no pixels")));
    }
}
