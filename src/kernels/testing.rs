//! Maps of random numbers for tests of kernels, and what must hold of every map that a kernel writes.

use proptest::test_runner::Config;

use super::{Batch, Isa, Map, Part, Source, Target};

/// Fewer cases where each takes long.
pub(super) fn cases() -> Config {
    Config {
        cases: if cfg!(miri) { 2 } else { 192 },
        failure_persistence: None,
        ..Config::default()
    }
}

/// A largest size, smaller where each step takes long.
pub(super) fn most(size: usize) -> usize {
    if cfg!(miri) { size.div_ceil(4) } else { size }
}

/// `len` numbers in −2..2, by splitmix64.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 40) as f32 / (1u32 << 22) as f32) - 2.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Whether `run` panics, given a map of 2×2 pixels of three channels and another of `side`×`side`.
pub(super) fn refused(side: usize, run: impl FnOnce(Source<'_>, Target<'_>)) -> bool {
    let map = Map {
        height: 2,
        width: 2,
        channels: 3,
        stride: 4,
    };
    let to = Map {
        height: side,
        width: side,
        ..map
    };
    let (x, mut y) = (vec![0.0; map.item()], vec![0.0; to.item()]);
    let job = || {
        let target = Target {
            values: y.as_mut_slice().into(),
            map: to,
        };
        run(Source { values: &x, map }, target);
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err()
}

/// Items of rows × columns × channels, without padding.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) items: usize,
    pub(super) shape: [usize; 3],
    values: Vec<f64>,
}

/// What lies between and behind the pixels that a kernel may write.
const CANARY: f32 = 12_345.0;

impl Field {
    pub(super) fn new(items: usize, shape: [usize; 3], value: impl Fn(usize, [usize; 3]) -> f64) -> Self {
        let [height, width, channels] = shape;
        let mut values = Vec::new();
        for item in 0..items {
            for at in 0..height * width * channels {
                let pixel = at / channels;
                values.push(value(item, [pixel / width, pixel % width, at % channels]));
            }
        }
        Self { items, shape, values }
    }

    pub(super) fn random(items: usize, shape: [usize; 3], seed: u64) -> Self {
        let numbers = numbers(items * shape.iter().product::<usize>(), seed);
        Self {
            items,
            shape,
            values: numbers.into_iter().map(f64::from).collect(),
        }
    }

    fn index(&self, item: usize, [row, column, channel]: [usize; 3]) -> usize {
        let [height, width, channels] = self.shape;
        ((item * height + row) * width + column) * channels + channel
    }

    pub(super) fn at(&self, item: usize, at: [usize; 3]) -> f64 {
        self.values[self.index(item, at)]
    }

    pub(super) fn set(&mut self, item: usize, at: [usize; 3], value: f64) {
        let index = self.index(item, at);
        self.values[index] = value;
    }

    /// Its map with `slack` numbers from a pixel's end to the next.
    pub(super) fn map(&self, isa: Isa, slack: usize) -> Map {
        let [height, width, channels] = self.shape;
        Map {
            height,
            width,
            channels,
            stride: isa.padded(channels) + slack,
        }
    }

    /// Its numbers as they lie in a map, behind `slack` others; the numbers that pad channels are large.
    pub(super) fn laid_out(&self, isa: Isa, slack: usize) -> (Vec<f32>, Map) {
        let map = self.map(isa, slack);
        let mut values = vec![CANARY; slack + self.items * map.item()];
        for (pixel, channels) in self.values.chunks(map.channels).enumerate() {
            for (channel, &value) in channels.iter().enumerate() {
                values[slack + pixel * map.stride + channel] = value as f32;
            }
        }
        (values, map)
    }

    /// Runs a kernel that writes this map, and checks that it wrote these numbers and nothing else, and that what pads
    /// channels is finite.
    pub(super) fn check_written(&self, place: Place, run: impl FnOnce(&mut dyn FnMut() -> Target<'static>)) {
        let map = self.map(place.isa, place.slack);
        self.check(
            place,
            vec![CANARY; 2 * place.slack + self.items * map.item() + 64],
            run,
        );
    }

    /// [`Self::check_written`] of a kernel that finds the numbers of `before` there.
    pub(super) fn check_in_place(
        &self,
        place: Place,
        before: &Self,
        run: impl FnOnce(&mut dyn FnMut() -> Target<'static>),
    ) {
        let (mut values, _) = before.laid_out(place.isa, place.slack);
        values.resize(values.len() + 64, CANARY);
        self.check(place, values, run);
    }

    fn check(
        &self,
        place: Place,
        mut values: Vec<f32>,
        run: impl FnOnce(&mut dyn FnMut() -> Target<'static>),
    ) {
        let Place { isa, slack, .. } = place;
        let map = self.map(isa, slack);
        let padded = isa.padded(map.channels);
        let (start, len) = (values[slack..].as_mut_ptr(), map.reach(self.items, padded));
        run(&mut || Target {
            // SAFETY: the numbers outlive the run, which alone writes them.
            values: unsafe { super::Output::new(start, len) },
            map,
        });
        for (i, &found) in values.iter().enumerate() {
            let at = i.wrapping_sub(slack);
            let (pixel, channel) = (at / map.stride, at % map.stride);
            if at >= len || channel >= padded {
                assert_eq!(found, CANARY, "{isa}: written outside of the map, at {i}");
            } else if channel < map.channels {
                let expected = self.values[pixel * map.channels + channel];
                assert!(
                    place.same(found, expected),
                    "{isa} {map:?}: pixel {pixel} channel {channel}: {found}, not {expected}"
                );
            } else {
                assert!(
                    found.is_finite() || self.has_nan(pixel),
                    "{isa}: {found} pads the channels"
                );
            }
        }
    }

    fn has_nan(&self, pixel: usize) -> bool {
        let channels = self.shape[2];
        self.values[pixel * channels..][..channels]
            .iter()
            .any(|x| x.is_nan())
    }
}

/// How a map lies and how far its numbers may be off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) isa: Isa,
    /// Numbers before the first pixel, and from a pixel's end to the next.
    pub(super) slack: usize,
    /// Relative above 1, absolute below.
    pub(super) tolerance: f64,
}

impl Place {
    fn same(&self, found: f32, expected: f64) -> bool {
        let found = f64::from(found);
        (found - expected).abs() <= self.tolerance * expected.abs().max(1.0)
            || found == expected
            || found.is_nan() && expected.is_nan()
    }
}

/// Every set of instructions with a slack.
pub(super) fn places(slack: usize, tolerance: f64) -> impl Iterator<Item = Place> {
    let all = Isa::available().into_iter();
    all.map(move |isa| Place {
        isa,
        slack,
        tolerance,
    })
}

/// The shares of `items` items.
pub(super) fn shares(items: usize, of: usize) -> impl Iterator<Item = Batch> {
    (0..of).map(move |index| Batch {
        items,
        part: Part { index, of },
    })
}
