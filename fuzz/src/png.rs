//! Checksums of a damaged PNG made right again, so that its reader comes to the damage.

/// Mends every chunk that is there whole; leaves alone what is no PNG.
pub fn mend(input: &mut [u8]) {
    if !input.starts_with(b"\x89PNG\r\n\x1a\n") {
        return;
    }
    let mut at = 8;
    while let Some(length) = input.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some(end) = at.checked_add(8).and_then(|begin| begin.checked_add(length)) else {
            return;
        };
        if end.checked_add(4).is_none_or(|end| end > input.len()) {
            return;
        }
        let crc = crc32(&input[at + 4..end]);
        input[end..end + 4].copy_from_slice(&crc.to_be_bytes());
        at = end + 4;
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}
