//! What kind of image some bytes are, told from their beginning.

use image::ImageFormat;

use super::ImageError;

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Bmp,
    Gif,
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
}
