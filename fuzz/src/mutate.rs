//! Changes to bytes.

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0; `count` is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Numbers at the ends of their kinds.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Changes `input` one to eight times; `other` is a seed to take parts of.
pub fn change(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], rng: &mut Rng) {
    for _ in 0..1 << rng.below(4) {
        once(input, other, words, rng);
    }
}

fn once(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], rng: &mut Rng) {
    let length = input.len();
    // Headers are where most is decided.
    let at = match rng.below(2) {
        0 => rng.below(length.min(64) + 1),
        _ => rng.below(length + 1),
    };
    match rng.below(11) {
        0 if at < length => input[at] ^= 1 << rng.below(8),
        1 if at < length => input[at] = rng.next() as u8,
        2 if at < length => input[at] = input[at].wrapping_add((rng.below(9) as u8).wrapping_sub(4)),
        3 => {
            let number = EDGES[rng.below(EDGES.len())];
            let width = 1 << rng.below(4);
            let bytes = if rng.below(2) == 0 {
                number.to_le_bytes()[..width].to_vec()
            } else {
                number.to_be_bytes()[8 - width..].to_vec()
            };
            overwrite(input, at, &bytes);
        }
        4 => input.truncate(at),
        5 => {
            let end = (at + 1 + rng.below(32)).min(length);
            if at < end {
                input.drain(at..end);
            }
        }
        6 => {
            let end = (at + 1 + rng.below(64)).min(length);
            let part = input[at.min(end)..end].to_vec();
            let times = 1 + rng.below(4);
            let place = rng.below(length + 1);
            input.splice(place..place, part.repeat(times));
        }
        7 if !other.is_empty() => {
            let begin = rng.below(other.len());
            let end = (begin + 1 + rng.below(256)).min(other.len());
            input.splice(at..at, other[begin..end].iter().copied());
        }
        8 if !other.is_empty() => {
            let begin = rng.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[begin..]);
        }
        9 if !words.is_empty() => {
            let word = words[rng.below(words.len())];
            if rng.below(2) == 0 {
                input.splice(at..at, word.iter().copied());
            } else {
                overwrite(input, at, word);
            }
        }
        _ => {
            let bytes: Vec<u8> = (0..1 + rng.below(8)).map(|_| rng.next() as u8).collect();
            overwrite(input, at, &bytes);
        }
    }
}

fn overwrite(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = (at + bytes.len()).min(input.len());
    input.splice(at.min(end)..end, bytes.iter().copied());
}
