//! How much memory the Huffman codes of a lossless WebP stream take (RFC 9649, section 3).
//!
//! A stream may ask for 65,536 groups of five codes, which the decoder allocates as they come: gigabytes for a file of a few
//! megabytes. So the stream is read here up to its last code, by a reader that keeps a single group, before it is decoded.

use super::ImageError;

const NOT_VALID: ImageError = ImageError::Broken("its data is not valid");

/// Symbols of each of a group's codes: green with lengths, red, blue, alpha, distances.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];
const LENGTH_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const MAX_LENGTH: usize = 15;
/// What the decoder keeps of a code: a table over its first bits, of 4 bytes per entry, two nodes of 16 bytes for each longer
/// symbol, and itself.
const TABLE_BITS: usize = 10;
const CODE_BYTES: u64 = 128;
/// Most groups; libwebp writes up to 2,600.
const MAX_GROUPS: u32 = 10_000;

/// Holds the codes of a stream (without its header of five bytes) of a `width` × `height` image against a limit.
pub(super) fn check_codes(data: &[u8], width: u32, height: u32, max_bytes: u64) -> Result<(), ImageError> {
    let mut reader = Reader {
        bits: Bits { data, at: 0 },
        codes_bytes: 0,
        max_bytes,
    };
    let mut columns = width;
    while reader.bits.read(1)? == 1 {
        match reader.bits.read(2)? {
            0 | 1 => {
                let block_bits = reader.bits.read(3)? + 2;
                reader.image(blocks(columns, block_bits), blocks(height, block_bits))?;
            }
            2 => {}
            _ => {
                let colors = reader.bits.read(8)? + 1;
                reader.image(colors, 1)?;
                let bits = match colors {
                    0..=2 => 3,
                    3..=4 => 2,
                    5..=16 => 1,
                    _ => 0,
                };
                columns = blocks(columns, bits);
            }
        }
    }
    let cache_bits = reader.cache_bits()?;
    let mut groups = 1;
    if reader.bits.read(1)? == 1 {
        let block_bits = reader.bits.read(3)? + 2;
        let image = reader.image(blocks(columns, block_bits), blocks(height, block_bits))?;
        let group = |pixel: &u32| (pixel >> 8) & 0xffff;
        groups = image.iter().map(group).max().unwrap_or(0) + 1;
    }
    if groups > MAX_GROUPS {
        return Err(too_much_memory());
    }
    for _ in 0..groups {
        reader.group(cache_bits)?;
    }
    Ok(())
}

fn too_much_memory() -> ImageError {
    ImageError::TooLarge("decoding it takes too much memory".to_owned())
}

fn blocks(side: u32, bits: u32) -> u32 {
    side.div_ceil(1 << bits)
}

struct Reader<'a> {
    bits: Bits<'a>,
    /// Of all codes so far; the decoder keeps those of the image alone, which are nearly all.
    codes_bytes: u64,
    max_bytes: u64,
}

impl Reader<'_> {
    /// The pixels (ARGB) of an image of one group, as which transforms and the choice of groups are written.
    fn image(&mut self, width: u32, height: u32) -> Result<Vec<u32>, ImageError> {
        let cache_bits = self.cache_bits()?;
        let codes = self.group(cache_bits)?;
        let count = width as usize * height as usize;
        let mut pixels: Vec<u32> = Vec::with_capacity(count);
        let mut cache = vec![0; 1 << cache_bits];
        let remember = |cache: &mut Vec<u32>, pixel: u32| {
            if cache_bits > 0 {
                cache[(pixel.wrapping_mul(0x1e35_a7bd) >> (32 - cache_bits)) as usize] = pixel;
            }
        };
        while pixels.len() < count {
            let symbol = codes[0].symbol(&mut self.bits)?;
            if symbol < 256 {
                let [red, blue, alpha] = [1, 2, 3].map(|code: usize| codes[code].symbol(&mut self.bits));
                let pixel = alpha? << 24 | red? << 16 | symbol << 8 | blue?;
                remember(&mut cache, pixel);
                pixels.push(pixel);
            } else if symbol < 280 {
                let length = self.bits.prefixed(symbol - 256)?;
                let code = codes[4].symbol(&mut self.bits)?;
                let distance = distance(self.bits.prefixed(code)?, width);
                let from = pixels.len().checked_sub(distance).ok_or(NOT_VALID)?;
                if length > count - pixels.len() {
                    return Err(NOT_VALID);
                }
                for at in from..from + length {
                    let pixel = pixels[at];
                    remember(&mut cache, pixel);
                    pixels.push(pixel);
                }
            } else {
                let at = symbol as usize - 280;
                pixels.push(*cache.get(at).filter(|_| cache_bits > 0).ok_or(NOT_VALID)?);
            }
        }
        Ok(pixels)
    }

    /// 0 where there is no cache of colours.
    fn cache_bits(&mut self) -> Result<u32, ImageError> {
        if self.bits.read(1)? == 0 {
            return Ok(0);
        }
        let bits = self.bits.read(4)?;
        if (1..=11).contains(&bits) {
            Ok(bits)
        } else {
            Err(NOT_VALID)
        }
    }

    fn group(&mut self, cache_bits: u32) -> Result<[Code; 5], ImageError> {
        let mut group = ALPHABETS.map(|_| Code::single(0));
        for (place, code) in group.iter_mut().enumerate() {
            let cached = if place == 0 && cache_bits > 0 {
                1 << cache_bits
            } else {
                0
            };
            *code = self.code(ALPHABETS[place] + cached)?;
            self.codes_bytes += code.decoder_bytes();
            if self.codes_bytes > self.max_bytes {
                return Err(too_much_memory());
            }
        }
        Ok(group)
    }

    fn code(&mut self, symbols: usize) -> Result<Code, ImageError> {
        if self.bits.read(1)? == 1 {
            let two = self.bits.read(1)? == 1;
            let wide = self.bits.read(1)?;
            let first = self.bits.read(1 + 7 * wide)?;
            if !two {
                return Ok(Code::single(first));
            }
            let second = self.bits.read(8)?;
            return Ok(Code::pair(first, second));
        }
        let mut lengths = [0; 19];
        for &symbol in LENGTH_ORDER.iter().take(4 + self.bits.read(4)? as usize) {
            lengths[symbol] = self.bits.read(3)? as u8;
        }
        let lengths = self.lengths(&Code::of(&lengths)?, symbols)?;
        Code::of(&lengths)
    }

    /// The lengths of a code's symbols, themselves written by a code.
    fn lengths(&mut self, code: &Code, symbols: usize) -> Result<Vec<u8>, ImageError> {
        let mut left = symbols;
        if self.bits.read(1)? == 1 {
            let bits = 2 + 2 * self.bits.read(3)?;
            left = 2 + self.bits.read(bits)? as usize;
            if left > symbols {
                return Err(NOT_VALID);
            }
        }
        let mut lengths = Vec::with_capacity(symbols);
        let mut previous = 8;
        while lengths.len() < symbols && left > 0 {
            left -= 1;
            let (length, count) = match code.symbol(&mut self.bits)? {
                16 => (previous, 3 + self.bits.read(2)?),
                17 => (0, 3 + self.bits.read(3)?),
                18 => (0, 11 + self.bits.read(7)?),
                length => (length as u8, 1),
            };
            lengths.extend((0..count).map(|_| length));
            if length > 0 {
                previous = length;
            }
        }
        if lengths.len() > symbols {
            return Err(NOT_VALID);
        }
        lengths.resize(symbols, 0);
        Ok(lengths)
    }
}

/// A canonical Huffman code, read bit by bit.
struct Code {
    /// How many symbols there are of each length; none of any length where a single symbol takes no bits.
    counts: [u32; MAX_LENGTH + 1],
    /// By length, then by value.
    symbols: Vec<u32>,
}

impl Code {
    fn single(symbol: u32) -> Self {
        Self {
            counts: [0; MAX_LENGTH + 1],
            symbols: vec![symbol],
        }
    }

    /// The decoder gives the first the bit 0, whichever is the larger.
    fn pair(first: u32, second: u32) -> Self {
        let mut counts = [0; MAX_LENGTH + 1];
        counts[1] = 2;
        Self {
            counts,
            symbols: vec![first, second],
        }
    }

    /// Of the length of each symbol; complete, or of one symbol alone.
    fn of(lengths: &[u8]) -> Result<Self, ImageError> {
        let mut counts = [0u32; MAX_LENGTH + 1];
        for &length in lengths.iter().filter(|&&length| length > 0) {
            counts[usize::from(length)] += 1;
        }
        let mut used: Vec<u32> = (0..lengths.len() as u32)
            .filter(|&symbol| lengths[symbol as usize] > 0)
            .collect();
        if let &[only] = &used[..] {
            return Ok(Self::single(only));
        }
        let taken: u32 = (1..=MAX_LENGTH)
            .map(|length| counts[length] << (MAX_LENGTH - length))
            .sum();
        if taken != 1 << MAX_LENGTH {
            return Err(NOT_VALID);
        }
        used.sort_by_key(|&symbol| lengths[symbol as usize]);
        Ok(Self {
            counts,
            symbols: used,
        })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u32, ImageError> {
        if let &[only] = &self.symbols[..] {
            return Ok(only);
        }
        // The codes of a length follow each other, and begin where twice those of the length before end.
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &self.counts[1..] {
            code |= bits.read(1)?;
            if code - first < count {
                return self
                    .symbols
                    .get((index + code - first) as usize)
                    .copied()
                    .ok_or(NOT_VALID);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(NOT_VALID)
    }

    fn decoder_bytes(&self) -> u64 {
        let Some(longest) = self.counts.iter().rposition(|&count| count > 0) else {
            return CODE_BYTES;
        };
        let beyond: u32 = self.counts.iter().skip(TABLE_BITS + 1).sum();
        CODE_BYTES + (4 << longest.min(TABLE_BITS)) + 2 * 16 * u64::from(beyond)
    }
}

/// Bits of a stream, the lowest of each byte first.
struct Bits<'a> {
    data: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    /// Up to 16 bits.
    fn read(&mut self, count: u32) -> Result<u32, ImageError> {
        let byte = self.at / 8;
        let window = match self.data.get(byte..).and_then(|rest| rest.first_chunk::<4>()) {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => {
                let rest = self.data.get(byte..).unwrap_or_default();
                rest.iter().rev().fold(0, |bits, &b| bits << 8 | u32::from(b))
            }
        };
        let value = (window >> (self.at % 8)) & ((1 << count) - 1);
        self.at += count as usize;
        if self.at > 8 * self.data.len() {
            return Err(ImageError::Broken("it is cut short"));
        }
        Ok(value)
    }

    /// A length or distance: its magnitude is told by the symbol, the rest follows in plain bits.
    fn prefixed(&mut self, symbol: u32) -> Result<usize, ImageError> {
        if symbol < 4 {
            return Ok(symbol as usize + 1);
        }
        let extra = (symbol - 2) >> 1;
        let offset = (2 + (symbol & 1)) << extra;
        // A distance may have 18 bits to follow.
        let low = self.read(extra.min(16))?;
        let high = self.read(extra.saturating_sub(16))? << 16;
        Ok((offset + low + high) as usize + 1)
    }
}

/// Pixels back from the place; the first 120 codes are those around it.
fn distance(code: usize, width: u32) -> usize {
    let Some(&(x, y)) = code.checked_sub(1).and_then(|code| AROUND.get(code)) else {
        return code.saturating_sub(AROUND.len());
    };
    let distance = i64::from(x) + i64::from(y) * i64::from(width);
    usize::try_from(distance).map_or(1, |distance| distance.max(1))
}

/// Columns and rows back, by distance code (RFC 9649, 5.2.2).
#[rustfmt::skip]
const AROUND: [(i8, i8); 120] = [
    (0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0), (1, 2), (-1, 2), (2, 1), (-2, 1), (2, 2), (-2, 2), (0, 3),
    (3, 0), (1, 3), (-1, 3), (3, 1), (-3, 1), (2, 3), (-2, 3), (3, 2), (-3, 2), (0, 4), (4, 0), (1, 4), (-1, 4),
    (4, 1), (-4, 1), (3, 3), (-3, 3), (2, 4), (-2, 4), (4, 2), (-4, 2), (0, 5), (3, 4), (-3, 4), (4, 3), (-4, 3),
    (5, 0), (1, 5), (-1, 5), (5, 1), (-5, 1), (2, 5), (-2, 5), (5, 2), (-5, 2), (4, 4), (-4, 4), (3, 5), (-3, 5),
    (5, 3), (-5, 3), (0, 6), (6, 0), (1, 6), (-1, 6), (6, 1), (-6, 1), (2, 6), (-2, 6), (6, 2), (-6, 2), (4, 5),
    (-4, 5), (5, 4), (-5, 4), (3, 6), (-3, 6), (6, 3), (-6, 3), (0, 7), (7, 0), (1, 7), (-1, 7), (5, 5), (-5, 5),
    (7, 1), (-7, 1), (4, 6), (-4, 6), (6, 4), (-6, 4), (2, 7), (-2, 7), (7, 2), (-7, 2), (3, 7), (-3, 7), (7, 3),
    (-7, 3), (5, 6), (-5, 6), (6, 5), (-6, 5), (8, 0), (4, 7), (-4, 7), (7, 4), (-7, 4), (8, 1), (8, 2), (6, 6),
    (-6, 6), (8, 3), (5, 7), (-5, 7), (7, 5), (-7, 5), (8, 4), (6, 7), (-6, 7), (7, 6), (-7, 6), (8, 5), (7, 7),
    (-7, 7), (8, 6), (8, 7),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes bits, the lowest of each byte first.
    #[derive(Default)]
    struct Writer(Vec<u8>, usize);

    impl Writer {
        fn put(&mut self, value: u32, count: usize) -> &mut Self {
            for bit in 0..count {
                if self.1.is_multiple_of(8) {
                    self.0.push(0);
                }
                self.0[self.1 / 8] |= (((value >> bit) & 1) as u8) << (self.1 % 8);
                self.1 += 1;
            }
            self
        }

        /// A code of one symbol, which takes no bits afterwards.
        fn single(&mut self, symbol: u32) -> &mut Self {
            self.put(0b101, 3).put(symbol, 8)
        }

        /// A code of 256 symbols of 8 bits each, itself in 42 bits.
        fn fat(&mut self) -> &mut Self {
            self.put(0, 1).put(8, 4).put(0, 33).put(1, 3).put(0, 1)
        }

        fn group(&mut self, fat: bool) {
            self.single(7);
            for _ in 0..3 {
                if fat {
                    self.fat();
                } else {
                    self.single(1);
                }
            }
            self.single(0);
        }
    }

    /// A stream of 4×4 pixels that asks for so many groups, and holds them.
    fn stream(groups: u32, fat: bool) -> Vec<u8> {
        let mut writer = Writer::default();
        // No transform, no cache, but groups, chosen by an image of one pixel: red and green are the last one's number.
        writer.put(0, 1).put(0, 1).put(1, 1).put(0, 3).put(0, 1);
        let last = groups - 1;
        for symbol in [last & 255, last >> 8, 0, 0, 0] {
            writer.single(symbol);
        }
        (0..groups).for_each(|_| writer.group(fat));
        writer.0
    }

    #[test]
    fn codes_are_counted_until_there_are_too_many() {
        let too_large = Err(too_much_memory());
        let check = |groups, fat, max_bytes: u64, expected: &Result<(), ImageError>| {
            let found = check_codes(&stream(groups, fat), 4, 4, max_bytes);
            assert_eq!(&found, expected, "{groups} {fat} {max_bytes}");
        };
        // A fat group: two codes of one symbol, three with tables of a kilobyte; and those of the image that chooses.
        let fat = 5 * CODE_BYTES + 3 * 1024;
        check(1, true, 5 * CODE_BYTES + fat, &Ok(()));
        check(1, true, 5 * CODE_BYTES + fat - 1, &too_large);
        check(300, true, 5 * CODE_BYTES + 300 * fat, &Ok(()));
        check(300, true, 5 * CODE_BYTES + 300 * fat - 1, &too_large);
        check(9000, true, 24 << 20, &too_large);
        check(10_000, false, 24 << 20, &Ok(()));
        // What no encoder writes is not even read.
        check(10_001, false, u64::MAX, &too_large);
    }

    #[test]
    fn a_stream_that_ends_or_breaks_is_an_error() {
        let whole = stream(3, true);
        for cut in 0..whole.len() {
            let cut = check_codes(&whole[..cut], 4, 4, 1 << 20);
            assert_eq!(cut, Err(ImageError::Broken("it is cut short")));
        }
        assert_eq!(check_codes(&whole, 4, 4, 1 << 20), Ok(()));
        // Lengths that make no code, and a cache of no size.
        assert_eq!(
            check_codes(&[0, 0, 0, 0, 0, 0, 0, 0, 0], 4, 4, 1 << 20),
            Err(NOT_VALID)
        );
        assert_eq!(check_codes(&[0b10, 0, 0], 4, 4, 1 << 20), Err(NOT_VALID));
    }

    #[test]
    fn a_canonical_code_is_read_as_it_is_defined() {
        // Lengths 2, 1, 3, 3: codes 10, 0, 110, 111.
        let code = Code::of(&[2, 1, 3, 3]).unwrap();
        let mut bits = Bits {
            data: &[0b1101_1001, 0b0000_0011],
            at: 0,
        };
        let found: Vec<u32> = (0..4).map(|_| code.symbol(&mut bits).unwrap()).collect();
        assert_eq!(found, [0, 1, 2, 3]);
        assert!(Code::of(&[2, 1, 3]).is_err() && Code::of(&[1, 1, 1]).is_err() && Code::of(&[0, 0]).is_err());
        assert_eq!(Code::of(&[0, 5]).unwrap().symbols, [1]);
    }
}
