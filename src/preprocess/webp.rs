//! WebP: what its chunks tell before the decoder sees it.
//!
//! The decoder believes the sizes inside of its streams before it compares them with those of the file, and allocates as
//! many Huffman codes as a lossless stream asks for. Both are looked at here.

use super::measure::{FIXED_BYTES, Measure, le16, le32};
use super::{ImageError, Limits, vp8l};

const CUT_SHORT: ImageError = ImageError::Broken("its header is cut short");
const NOT_VALID: ImageError = ImageError::Broken("its data is not valid");

/// Bytes that Huffman codes of one lossless stream may take; encoders stay far below.
const CODES_BYTES: u64 = 24 << 20;

/// A stream of pixels within the file.
struct Stream<'a> {
    kind: Kind,
    data: &'a [u8],
    width: u32,
    height: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lossy,
    Lossless,
    /// A lossless stream without a header of its own.
    Alpha,
}

/// A chunk: its name, what it holds (as far as the file goes), and where the next one begins.
type Chunk<'a> = ([u8; 4], &'a [u8], usize);

/// Size of the canvas, and what the decoder of the streams in it holds.
pub(super) fn measure(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let (width, height) = canvas(bytes)?;
    limits.check(width, height)?;
    let streams = streams(bytes, (width, height))?;
    let pixels = u64::from(width) * u64::from(height);
    let has = |kind| streams.iter().any(|stream| stream.kind == kind);
    // Planes of luma and chroma are a half more than the pixels, in whole blocks of 16.
    let whole = |side: u32| u64::from(side).next_multiple_of(16);
    let mut working = FIXED_BYTES + bytes.len() as u64;
    if has(Kind::Lossy) {
        working += whole(width) * whole(height) * 3 / 2;
    }
    if has(Kind::Alpha) {
        // As four channels, and the one that counts.
        working += 5 * pixels;
    }
    if has(Kind::Lossless) {
        working += 4 * pixels;
    }
    if has(Kind::Alpha) || has(Kind::Lossless) {
        // Sub-images of the transforms, of a sixteenth of the pixels each.
        working += pixels + CODES_BYTES;
    }
    if is_animated(bytes) {
        // The frame and the canvas that it is laid on.
        working += 8 * pixels;
    }
    Ok(Measure {
        width,
        height,
        channels: 4,
        working_bytes: working,
    })
}

/// Holds the Huffman codes of every lossless stream against what [`measure`] allowed for.
pub(super) fn check_codes(bytes: &[u8]) -> Result<(), ImageError> {
    for stream in streams(bytes, canvas(bytes)?)? {
        let data = match stream.kind {
            Kind::Lossy => continue,
            Kind::Lossless => stream.data.get(5..),
            // Its first byte says that it is compressed.
            Kind::Alpha if stream.data.first().is_none_or(|byte| byte & 3 != 1) => continue,
            Kind::Alpha => stream.data.get(1..),
        };
        vp8l::check_codes(data.ok_or(CUT_SHORT)?, stream.width, stream.height, CODES_BYTES)?;
    }
    Ok(())
}

/// Of the first chunk.
fn canvas(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let (name, data, _) = chunk(bytes, 12).ok_or(CUT_SHORT)?;
    let size = match &name {
        b"VP8 " => lossy_size(data),
        b"VP8L" => lossless_size(data),
        b"VP8X" => le24(data, 4).zip(le24(data, 7)).map(|(w, h)| (w + 1, h + 1)),
        _ => return Err(NOT_VALID),
    };
    size.ok_or(CUT_SHORT)
}

fn is_animated(bytes: &[u8]) -> bool {
    chunk(bytes, 12)
        .is_some_and(|(name, data, _)| name == *b"VP8X" && data.first().is_some_and(|f| f & 2 != 0))
}

/// Every stream, those of frames too. None is larger than the canvas.
fn streams(bytes: &[u8], canvas: (u32, u32)) -> Result<Vec<Stream<'_>>, ImageError> {
    let mut streams = Vec::new();
    let mut at = 12;
    while let Some((name, data, next)) = chunk(bytes, at) {
        if name == *b"ANMF" {
            let size = le24(data, 6).zip(le24(data, 9)).ok_or(CUT_SHORT)?;
            let (mut at, frame) = (16, (size.0 + 1, size.1 + 1));
            while let Some((name, part, next)) = chunk(data, at) {
                streams.extend(stream(name, part, frame, canvas)?);
                at = next;
            }
            // The decoder looks at the first frame alone; the others are not decoded.
            if !streams.is_empty() {
                return Ok(streams);
            }
        }
        streams.extend(stream(name, data, canvas, canvas)?);
        at = next;
    }
    Ok(streams)
}

/// The stream of a chunk that holds one, in a frame of this size.
fn stream<'a>(
    name: [u8; 4],
    data: &'a [u8],
    frame: (u32, u32),
    canvas: (u32, u32),
) -> Result<Option<Stream<'a>>, ImageError> {
    let (kind, size) = match &name {
        b"VP8 " => (Kind::Lossy, lossy_size(data).ok_or(CUT_SHORT)?),
        b"VP8L" => (Kind::Lossless, lossless_size(data).ok_or(CUT_SHORT)?),
        b"ALPH" => (Kind::Alpha, frame),
        _ => return Ok(None),
    };
    if size != frame || frame.0 > canvas.0 || frame.1 > canvas.1 {
        return Err(NOT_VALID);
    }
    Ok(Some(Stream {
        kind,
        data,
        width: size.0,
        height: size.1,
    }))
}

fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let name = *bytes.get(at..)?.first_chunk()?;
    let length = le32(bytes, at + 4)? as usize;
    let begin = at + 8;
    let data = &bytes[begin..bytes.len().min(begin.saturating_add(length))];
    // Chunks begin at even places.
    Some((name, data, begin.saturating_add(length.next_multiple_of(2))))
}

/// RFC 6386, 9.1: a frame tag, a start code, two sizes of 14 bits.
fn lossy_size(data: &[u8]) -> Option<(u32, u32)> {
    let side = |at| le16(data, at).map(|side| u32::from(side & 0x3fff));
    side(6).zip(side(8))
}

/// RFC 9649, 3.4: a signature, two sizes of 14 bits less one.
fn lossless_size(data: &[u8]) -> Option<(u32, u32)> {
    let bits = le32(data, 1)?;
    Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    let &[a, b, c] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_of(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u32).to_le_bytes();
        let pad = vec![0; data.len() % 2];
        [name, &length[..], data, &pad].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        let chunks = chunks.concat();
        let length = (chunks.len() as u32 + 4).to_le_bytes();
        [b"RIFF", &length[..], b"WEBP", &chunks].concat()
    }

    fn lossy(width: u16, height: u16) -> Vec<u8> {
        let [w, h] = [width, height].map(u16::to_le_bytes);
        chunk_of(
            b"VP8 ",
            &[0x10, 0, 0, 0x9d, 0x01, 0x2a, w[0], w[1], h[0], h[1], 0, 0],
        )
    }

    fn extended(flags: u8, side: u8) -> Vec<u8> {
        chunk_of(b"VP8X", &[flags, 0, 0, 0, side - 1, 0, 0, side - 1, 0, 0])
    }

    fn frame(side: u8, stream: &[u8]) -> Vec<u8> {
        let head = [0, 0, 0, 0, 0, 0, side - 1, 0, 0, side - 1, 0, 0, 0, 0, 0, 0];
        chunk_of(b"ANMF", &[&head[..], stream].concat())
    }

    #[test]
    fn a_stream_that_is_not_of_the_files_size_is_refused() {
        let check = |chunks: &[Vec<u8>], expected: Result<(u32, u32), ImageError>| {
            let found = measure(&file(chunks), &Limits::default()).map(|m| (m.width, m.height));
            assert_eq!(found, expected);
        };
        let anim = || chunk_of(b"ANIM", &[0; 6]);
        check(&[lossy(10, 20)], Ok((10, 20)));
        check(&[extended(0, 10), lossy(10, 10)], Ok((10, 10)));
        check(
            &[extended(2, 10), anim(), frame(10, &lossy(10, 10))],
            Ok((10, 10)),
        );
        check(&[extended(2, 10), anim(), frame(4, &lossy(4, 4))], Ok((10, 10)));
        // Each would be decoded before it is found to be of another size: 400 MB.
        check(&[extended(0, 10), lossy(16_383, 16_383)], Err(NOT_VALID));
        check(
            &[extended(2, 10), anim(), frame(10, &lossy(16_383, 16_383))],
            Err(NOT_VALID),
        );
        check(
            &[extended(2, 10), anim(), frame(200, &lossy(200, 200))],
            Err(NOT_VALID),
        );
        check(&[chunk_of(b"JUNK", &[0; 10])], Err(NOT_VALID));
        check(&[], Err(CUT_SHORT));
        assert!(matches!(
            measure(&file(&[lossy(16_383, 16_383)]), &Limits::default()),
            Err(ImageError::TooLarge(_))
        ));
    }
}
