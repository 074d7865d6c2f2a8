//! JPEG: what its markers tell, and its pixels.
//!
//! The decoder fills what a cut file lacks with grey and calls it success; a label for such a picture is a guess.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::measure::{FIXED_BYTES, Measure};
use super::{ImageError, Limits, Pixels};

const CUT_SHORT: ImageError = ImageError::Broken("it is cut short");
const NOT_VALID: ImageError = ImageError::Broken("its data is not valid");

/// What stands before the first scan.
struct Head {
    width: u32,
    height: u32,
    components: Vec<Component>,
    /// Coefficients of the whole image are held until all are there: it comes in several scans.
    in_scans: bool,
    /// Bytes of segments that the decoder keeps a copy of.
    kept_bytes: u64,
}

/// Of a frame header: whether it is progressive, its size, its components.
type Frame = (bool, (u32, u32), Vec<Component>);

/// How often a component is sampled where another is sampled up to four times.
struct Component {
    across: u64,
    down: u64,
}

/// From the first frame header, the segments around it and the first scan's header.
pub(super) fn measure(bytes: &[u8], limits: &Limits) -> Result<Measure, ImageError> {
    let head = head(bytes, limits)?;
    Ok(Measure {
        width: head.width,
        height: head.height,
        channels: if head.components.len() == 1 { 1 } else { 3 },
        working_bytes: FIXED_BYTES + head.working_bytes(),
    })
}

fn head(bytes: &[u8], limits: &Limits) -> Result<Head, ImageError> {
    let mut at = 2;
    let mut frame: Option<Frame> = None;
    let mut kept_bytes = 0;
    loop {
        let marker = marker_at_once(bytes, &mut at)?;
        let segment = segment(bytes, at)?;
        at += segment.len() + 2;
        match marker {
            0xda => {
                let (progressive, (width, height), components) =
                    frame.ok_or(ImageError::Broken("it has no frame header"))?;
                let in_first = segment.first().copied().map_or(0, usize::from);
                return Ok(Head {
                    in_scans: progressive || in_first != components.len(),
                    width,
                    height,
                    components,
                    kept_bytes,
                });
            }
            0xe0..=0xef => kept_bytes += 2 * segment.len() as u64,
            marker if is_frame_header(marker) && frame.is_some() => return Err(NOT_VALID),
            marker if is_frame_header(marker) => {
                let size = segment
                    .get(1..5)
                    .map(|s| (u32::from(be16(&s[2..])), u32::from(be16(s))));
                let size = size.ok_or(NOT_VALID)?;
                limits.check(size.0, size.1)?;
                let components = segment.get(6..).unwrap_or_default().as_chunks::<3>().0;
                let sampled = |&[_, factors, _]: &[u8; 3]| Component {
                    across: u64::from(factors >> 4),
                    down: u64::from(factors & 15),
                };
                // More, or sampled more often, is nothing that any decoder reads.
                let components: Vec<_> = components.iter().take(5).map(sampled).collect();
                let possible = |c: &Component| (1..=4).contains(&c.across) && (1..=4).contains(&c.down);
                if !(1..=4).contains(&components.len()) || !components.iter().all(possible) {
                    return Err(NOT_VALID);
                }
                frame = Some((marker == 0xc2, size, components));
            }
            _ => {}
        }
    }
}

impl Head {
    /// What the decoder holds beside the pixels: rows of blocks, as samples and as pixels, with their neighbours; of an image
    /// in scans the coefficients too, two bytes each.
    fn working_bytes(&self) -> u64 {
        let most = |of: fn(&Component) -> u64| self.components.iter().map(of).max().unwrap_or(1);
        let (across, down) = (most(|c| c.across), most(|c| c.down));
        let units_wide = u64::from(self.width).div_ceil(8 * across);
        let units_high = u64::from(self.height).div_ceil(8 * down);
        let mut bytes = self.kept_bytes + 16 * 8 * across * units_wide;
        for component in &self.components {
            let wide = 8 * component.across * units_wide;
            let high = 8 * component.down * units_high;
            let stretch = (across / component.across).max(1) * (down / component.down).max(1);
            bytes += wide * (20 * component.down + stretch * (2 * component.down + 32));
            if self.in_scans {
                bytes += 2 * wide * high;
            }
        }
        bytes
    }
}

/// Decodes to grey or RGB; CMYK becomes RGB. What is no whole file is an error, however much of it there is.
pub(super) fn decode(bytes: &[u8], measured: &Measure) -> Result<(Pixels, Orientation), ImageError> {
    check_whole(bytes)?;
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|_| NOT_VALID)?;
    let channels = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => 1,
        _ => 3,
    };
    let color = if channels == 1 {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(color));
    let found = decoder.dimensions();
    // The decoder passes over bytes between segments that the measure does not: it must have found the same frame.
    if found != Some((measured.width as usize, measured.height as usize)) || channels != measured.channels {
        return Err(NOT_VALID);
    }
    let size = measured.pixels() * u64::from(channels);
    let mut pixels = vec![0; usize::try_from(size).map_err(|_| NOT_VALID)?];
    decoder.decode_into(&mut pixels).map_err(|_| NOT_VALID)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok((
        Pixels {
            width: measured.width,
            height: measured.height,
            channels,
            bytes: pixels,
        },
        orientation.unwrap_or(Orientation::NoTransforms),
    ))
}

/// An error where the end marker is missing: the file is cut short.
fn check_whole(bytes: &[u8]) -> Result<(), ImageError> {
    let (mut at, mut scans) = (2, 0);
    loop {
        match next_marker(bytes, &mut at)? {
            0xd9 if scans == 0 => return Err(ImageError::Broken("it has no scan")),
            0xd9 => return Ok(()),
            0x01 | 0xd0..=0xd8 => {}
            marker => {
                at += segment(bytes, at)?.len() + 2;
                scans += usize::from(marker == 0xda);
            }
        }
    }
}

/// What a segment holds whose length stands at `at`.
fn segment(bytes: &[u8], at: usize) -> Result<&[u8], ImageError> {
    let length = usize::from(be16(bytes.get(at..at + 2).ok_or(CUT_SHORT)?));
    if length < 2 {
        return Err(ImageError::Broken("a segment has no length"));
    }
    bytes.get(at + 2..at + length).ok_or(CUT_SHORT)
}

/// The marker that stands at `at`, after fill bytes at most. Before the first scan nothing else stands between segments, and
/// each of them has a length.
fn marker_at_once(bytes: &[u8], at: &mut usize) -> Result<u8, ImageError> {
    let begun = *at;
    let filled = |bytes: &[u8]| bytes.iter().take_while(|&&b| b == 0xff).count();
    *at += filled(bytes.get(begun..).ok_or(CUT_SHORT)?);
    let marker = *bytes.get(*at).ok_or(CUT_SHORT)?;
    *at += 1;
    if *at - begun < 2 || matches!(marker, 0x00 | 0x01 | 0xd0..=0xd9) {
        return Err(NOT_VALID);
    }
    Ok(marker)
}

/// The next marker, over entropy-coded data (0xff 0x00 is data) and fill bytes.
fn next_marker(bytes: &[u8], at: &mut usize) -> Result<u8, ImageError> {
    loop {
        let found = bytes
            .get(*at..)
            .and_then(|rest| rest.iter().position(|&b| b == 0xff))
            .ok_or(CUT_SHORT)?;
        *at += found + 1;
        match bytes.get(*at) {
            None => return Err(CUT_SHORT),
            Some(0x00) => *at += 1,
            Some(0xff) => {}
            Some(&marker) => {
                *at += 1;
                return Ok(marker);
            }
        }
    }
}

/// SOF0…SOF15 without DHT, JPG and DAC, which share their range.
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}
