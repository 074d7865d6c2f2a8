//! A walk over a JPEG's markers: its size, and whether it is whole.
//!
//! The decoder fills what a cut file lacks with grey and calls it success; a label for such a picture is a guess.

use super::ImageError;

const CUT_SHORT: ImageError = ImageError::Broken("it is cut short");

/// Width and height, from the first frame header.
pub(super) fn size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut size = None;
    walk(bytes, |marker, segment| {
        if is_frame_header(marker) && size.is_none() {
            size = segment
                .get(1..5)
                .map(|s| (u32::from(be16(&s[2..])), u32::from(be16(s))));
        }
        size.is_none()
    })?;
    size.ok_or(ImageError::Broken("it has no frame header"))
}

/// An error where the end marker is missing: the file is cut short.
pub(super) fn check_whole(bytes: &[u8]) -> Result<(), ImageError> {
    let mut scans = 0;
    walk(bytes, |marker, _| {
        scans += usize::from(marker == 0xda);
        true
    })?;
    if scans == 0 {
        Err(ImageError::Broken("it has no scan"))
    } else {
        Ok(())
    }
}

/// Calls `each` with every marker that has a segment until it says false or the end marker comes.
fn walk(bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> bool) -> Result<(), ImageError> {
    let mut at = 2;
    loop {
        let marker = next_marker(bytes, &mut at)?;
        match marker {
            0xd9 => return Ok(()),
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let length = usize::from(be16(bytes.get(at..at + 2).ok_or(CUT_SHORT)?));
        let segment = bytes.get(at..at + length).ok_or(CUT_SHORT)?;
        if length < 2 {
            return Err(ImageError::Broken("a segment has no length"));
        }
        if !each(marker, &segment[2..]) {
            return Ok(());
        }
        at += length;
    }
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
