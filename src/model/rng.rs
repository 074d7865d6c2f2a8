//! The seeded random numbers that everything reproducible draws from.
//!
//! candle's CPU generator cannot be seeded, so initialisation, dropout, shuffling and augmentation use this one.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A ChaCha8 generator: the same seed and stream give the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

/// Independent streams of one seed, so that adding draws to one purpose does not move another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Initial weights.
    Init,
    /// Dropout masks.
    Dropout,
    /// Order of the samples.
    Shuffle,
    /// Augmentation.
    Augment,
    /// Folds of a cross-validation.
    Folds,
    /// Inputs on which a plan is held against its definition.
    Golden,
    /// Images that are replayed.
    Replay,
}

impl Rng {
    /// The generator of `seed` for one purpose; `index` tells apart epochs, layers or folds.
    pub fn new(seed: u64, stream: Stream, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((index << 8) | stream as u64);
        Self(rng)
    }

    /// Uniform over all 64-bit numbers.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`, with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..below`, without bias (Lemire, "Fast Random Integer Generation in an Interval", 2019).
    ///
    /// # Panics
    /// When `below` is 0.
    pub fn below(&mut self, below: u64) -> u64 {
        assert!(below > 0, "an empty range has no number in it");
        let threshold = below.wrapping_neg() % below;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(below);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * f64::from(1.0 - self.unit()).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(self.unit());
        (radius * angle.cos()) as f32
    }

    /// Puts `items` in a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut rng = Rng::new(7, Stream::Shuffle, 3);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        let mut again = Rng::new(7, Stream::Shuffle, 3);
        assert_eq!(first, (0..3).map(|_| again.next_u64()).collect::<Vec<_>>());
        for other in [
            Rng::new(8, Stream::Shuffle, 3),
            Rng::new(7, Stream::Init, 3),
            Rng::new(7, Stream::Shuffle, 4),
        ] {
            assert_ne!(first[0], other.clone().next_u64());
        }
    }

    #[test]
    fn draws_have_their_moments() {
        let mut rng = Rng::new(1, Stream::Init, 0);
        let n = 100_000;
        let (mut unit, mut normal, mut square, mut below) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            unit += f64::from(rng.unit());
            let z = f64::from(rng.normal());
            normal += z;
            square += z * z;
            below += rng.below(7) as f64;
        }
        let n = f64::from(n);
        assert!((unit / n - 0.5).abs() < 0.005);
        assert!((normal / n).abs() < 0.02);
        assert!((square / n - 1.0).abs() < 0.02);
        assert!((below / n - 3.0).abs() < 0.03);
    }
}
