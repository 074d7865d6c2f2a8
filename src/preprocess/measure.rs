//! What an image will cost, read off its header before anything is allocated.

use super::format::{Format, sniff};
use super::{ImageError, Limits, jpeg, png, webp};

/// Header facts read without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Columns, as stored.
    pub width: u32,
    /// Rows, as stored.
    pub height: u32,
    /// Bytes of memory that decoding, turning upright and bringing to a network's channels take at most at any moment,
    /// the file itself left aside.
    pub memory_bytes: u64,
}

/// What a format's header tells of its decoder's needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bytes per decoded pixel, at most.
    pub(super) channels: u8,
    /// Bytes that the decoder holds beside the pixels, at most.
    pub(super) working_bytes: u64,
}

/// Turned images are moved in strips of about this many bytes, which an allocator gives back one by one
/// (`config::environment`).
pub(super) const STRIP_BYTES: usize = 2 << 20;
/// Buffers of every decoder whose size does not depend on the image.
pub(super) const FIXED_BYTES: u64 = 256 << 10;

/// Sniffs the type and reads the size, within `limits`; allocates next to nothing.
pub fn header(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    let measure = measure(bytes, limits)?;
    Ok(Header {
        width: measure.width,
        height: measure.height,
        memory_bytes: measure.memory_bytes(),
    })
}

/// The measure of an image of any supported type, within `limits`.
pub(super) fn measure(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let measure = match sniff(bytes)? {
        Format::Png => png::measure(bytes, limits),
        Format::Jpeg => jpeg::measure(bytes, limits),
        Format::WebP => webp::measure(bytes, limits),
        Format::Bmp => bmp(bytes, limits),
        Format::Gif => gif(bytes, limits),
    }?;
    limits.check_memory(measure.memory_bytes())?;
    Ok(measure)
}

impl Measure {
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// As [`Header::memory_bytes`].
    pub(super) fn memory_bytes(&self) -> u64 {
        let decoded = self.pixels() * u64::from(self.channels);
        let decoding = decoded + self.working_bytes;
        let turning = decoded + decoded.min(STRIP_BYTES as u64);
        // An object is cut out of a grey image, which may be all of it.
        let shaping = self.pixels() * u64::from(self.channels.max(2));
        decoding.max(turning).max(shaping)
    }
}

/// An uncompressed image, or one in runs: rows go straight to their place.
fn bmp(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let read = || {
        // BITMAPCOREHEADER has sizes of 16 bits, all others of 32, where a negative height means rows from the top.
        if le32(bytes, 14)? == 12 {
            return Some((u32::from(le16(bytes, 18)?), u32::from(le16(bytes, 20)?)));
        }
        let signed = |at| Some(le32(bytes, at)?.cast_signed());
        Some((u32::try_from(signed(18)?).ok()?, signed(22)?.unsigned_abs()))
    };
    let (width, height) = read().ok_or(ImageError::Broken("its header cannot be read"))?;
    limits.check(width, height)?;
    Ok(Measure {
        width,
        height,
        channels: 4,
        // A row before it is unpacked.
        working_bytes: FIXED_BYTES + 8 * u64::from(width),
    })
}

/// The screen of a GIF; its first frame is decoded in a buffer of its own, and what else the file holds may be copied.
fn gif(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let size = le16(bytes, 6).zip(le16(bytes, 8));
    let (width, height) = size.ok_or(ImageError::Broken("its header cannot be read"))?;
    let (width, height) = (u32::from(width), u32::from(height));
    limits.check(width, height)?;
    Ok(Measure {
        width,
        height,
        channels: 4,
        working_bytes: FIXED_BYTES + 4 * u64::from(width) * u64::from(height) + bytes.len() as u64,
    })
}

pub(super) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signature and IHDR alone.
    fn png_header(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([depth, color, 0, 0, 0, 0, 0, 0, 0]);
        png
    }

    #[test]
    fn a_header_tells_the_size_before_anything_is_decoded() {
        let bomb = png_header(20_000, 20_000, 8, 0);
        let error = header(&bomb, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("too large: 20000×20000"), "{error}");
        assert!(matches!(
            header(&bomb[..20], &Limits::default()),
            Err(ImageError::Broken(_))
        ));
        let none = png_header(0, 20, 8, 0);
        assert_eq!(
            header(&none, &Limits::default()),
            Err(ImageError::Broken("it has no pixels"))
        );
    }

    #[test]
    fn what_would_take_too_much_memory_is_refused_by_its_header() {
        let png = |color, rest: &[u8]| [&png_header(6000, 4000, 8, color), rest].concat();
        let end = b"\0\0\0\0IDAT\0\0\0\0\0\0\0\0IEND\0\0\0\0";
        let transparent = [&b"\0\0\0\x06tRNS\0\0\0\0\0\0\0\0\0\0"[..], end].concat();
        let check = |bytes: &[u8], expected: Result<u64, &str>| {
            let found = header(bytes, &Limits::default());
            match (found, expected) {
                (Ok(found), Ok(bytes)) => {
                    assert_eq!(found.memory_bytes / 1_000_000, bytes);
                }
                (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} and not {expected:?}"),
            }
        };
        // A photo of 24 megapixels by its colour type, and with a transparent colour.
        check(&png(0, end), Ok(48));
        check(&png(2, end), Ok(74));
        check(
            &png(2, &transparent),
            Err("takes 98097152 bytes of memory; 78000000 are allowed"),
        );
        check(&png(6, end), Err("takes 98097152 bytes of memory"));
        check(&png(2, &end[..20]), Err("cut short"));
        let bitmap = |width: i32, height: i32| {
            let mut bytes = [&b"BM"[..], &[0; 12], &40u32.to_le_bytes()].concat();
            bytes.extend(width.to_le_bytes());
            bytes.extend(height.to_le_bytes());
            bytes
        };
        check(&bitmap(1000, 1000), Ok(6));
        check(&bitmap(1000, -1000), Ok(6));
        check(&bitmap(-1000, 1000), Err("header"));
        check(&bitmap(1000, i32::MIN), Err("too large: 1000×2147483648"));
        check(&bitmap(6000, 4000), Err("bytes of memory"));
        check(b"BM", Err("header"));
        check(b"GIF89a\xff\xff\xff\xff", Err("too large: 65535×65535"));
        check(b"GIF89a\x00\x10\x00\x08", Ok(67));
        check(b"GIF89a\x00\x10", Err("header"));
    }
}
