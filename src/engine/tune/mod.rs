//! How the cores are shared out: as many instances, as many threads each, as large batches as answer most.

use std::fmt;

use serde::{Deserialize, Serialize};

mod cache;
mod choose;
mod measure;
mod plans;

pub use cache::{Cache, Key};
pub use choose::{Choice, choose};
pub use measure::{Course, measure};
pub use plans::Plans;

/// Instances that work at once, and the threads that share each one's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// At least 1.
    pub instances: usize,
    /// Of each, at least 1.
    pub threads: usize,
}

/// What a configuration sets, and what it leaves to a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Instances, or 0.
    pub instances: usize,
    /// Threads of each, or 0.
    pub threads: usize,
    /// The largest batch, at least 1.
    pub max_batch: usize,
    /// Whether a measurement may make it smaller.
    pub open_batch: bool,
}

/// One split at one batch, timed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// While all its instances work.
    #[serde(flatten)]
    pub split: Split,
    /// Images in each instance's batch, at least 1.
    pub batch: usize,
    /// For a batch, above 0: the median of the rounds.
    pub seconds: f64,
    /// (slowest − quickest round) / median.
    pub spread: f64,
}

/// What was timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The largest batch that was asked for; time may have run out before it.
    pub max_batch: usize,
    /// Every split at every batch that was reached, the batches ascending.
    pub points: Vec<Timing>,
}

/// A difference of this share decides nothing.
pub const NOISE: f64 = 0.03;

/// For waking a thread and handing its answers out: a batch costs about so much more than the engine takes.
const HANDING_SECONDS: f64 = 20e-6;

impl Asked {
    /// The ways to share `cores` out, the fewest threads first. More than the cores only where it is set so.
    pub fn splits(&self, cores: usize) -> Vec<Split> {
        let cores = cores.max(1);
        let of = |threads: usize| Split {
            instances: match self.instances {
                0 => (cores / threads).max(1),
                instances => instances,
            },
            threads,
        };
        if self.threads > 0 {
            return vec![of(self.threads)];
        }
        let most = (cores / self.instances.max(1)).max(1);
        let mut splits: Vec<Split> = doubling(most).map(of).collect();
        if self.instances == 0 {
            // Of those with as many instances, the one with most threads: it leaves the fewest cores idle.
            splits.reverse();
            splits.dedup_by_key(|split| split.instances);
            splits.reverse();
        }
        splits
    }

    /// The batches that are timed, ascending.
    pub fn batches(&self) -> Vec<usize> {
        doubling(self.max_batch.max(1)).collect()
    }

    /// Whether a measurement can decide anything on so many cores.
    pub fn is_open(&self, cores: usize) -> bool {
        self.splits(cores).len() > 1 || (self.open_batch && self.max_batch > 1)
    }

    /// The choice where nothing is measured: a thread for each instance.
    pub fn unmeasured(&self, cores: usize) -> Choice {
        Choice {
            split: self.splits(cores)[0],
            max_batch_size: self.max_batch,
            why: Vec::new(),
        }
    }
}

/// 1, 2, 4, … and `most`.
fn doubling(most: usize) -> impl Iterator<Item = usize> {
    let powers = std::iter::successors(Some(1usize), |&number| number.checked_mul(2));
    powers.take_while(move |&number| number < most).chain([most])
}

impl Timing {
    /// Of all instances, by the engine alone.
    pub fn images_per_second(&self) -> f64 {
        (self.split.instances * self.batch) as f64 / self.seconds
    }

    /// By the engine alone.
    pub fn seconds_per_image(&self) -> f64 {
        self.seconds / self.batch as f64
    }

    /// Of all instances, with what a batch costs beside the engine.
    fn served_per_second(&self) -> f64 {
        (self.split.instances * self.batch) as f64 / (self.seconds + HANDING_SECONDS)
    }
}

impl fmt::Display for Split {
    /// `4×2`: four instances of two threads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.instances, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(instances: usize, threads: usize, cores: usize) -> Vec<(usize, usize)> {
        let asked = Asked {
            instances,
            threads,
            max_batch: 8,
            open_batch: false,
        };
        let splits = asked.splits(cores);
        splits
            .iter()
            .map(|split| (split.instances, split.threads))
            .collect()
    }

    #[test]
    fn cores_are_shared_out_in_every_sensible_way() {
        assert_eq!(splits(0, 0, 1), [(1, 1)]);
        assert_eq!(splits(0, 0, 2), [(2, 1), (1, 2)]);
        assert_eq!(splits(0, 0, 3), [(3, 1), (1, 3)]);
        assert_eq!(splits(0, 0, 4), [(4, 1), (2, 2), (1, 4)]);
        assert_eq!(splits(0, 0, 7), [(7, 1), (3, 2), (1, 7)]);
        assert_eq!(splits(0, 0, 0), [(1, 1)]);
    }

    #[test]
    fn what_is_set_holds() {
        assert_eq!(splits(2, 0, 8), [(2, 1), (2, 2), (2, 4)]);
        assert_eq!(splits(2, 0, 7), [(2, 1), (2, 2), (2, 3)]);
        assert_eq!(splits(9, 0, 4), [(9, 1)]);
        assert_eq!(splits(0, 3, 8), [(2, 3)]);
        assert_eq!(splits(0, 9, 4), [(1, 9)]);
        assert_eq!(splits(5, 5, 4), [(5, 5)]);
    }

    #[test]
    fn batches_double_up_to_the_largest() {
        let check = |max_batch, expected: &[usize]| {
            let asked = Asked {
                instances: 0,
                threads: 1,
                max_batch,
                open_batch: true,
            };
            assert_eq!(asked.batches(), expected);
            assert_eq!(asked.is_open(2), max_batch > 1);
        };
        check(1, &[1]);
        check(8, &[1, 2, 4, 8]);
        check(12, &[1, 2, 4, 8, 12]);
    }
}
