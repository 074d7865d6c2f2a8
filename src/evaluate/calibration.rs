//! Whether probabilities mean what they say.

use serde::{Deserialize, Serialize};

use super::scores::{Scores, top_1};

/// Bins of equal width between 0 and 1 (Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599).
pub const BINS: usize = 15;

/// The images whose top-1 probability lies above `low` and up to `high`; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge, excluded.
    pub low: f64,
    /// Upper edge, included.
    pub high: f64,
    /// Images, from 1.
    pub n: usize,
    /// Those of them whose most probable class is right.
    pub hits: usize,
    /// Mean top-1 probability.
    pub confidence: f64,
    /// Share that is right.
    pub accuracy: f64,
}

/// The bins that hold images, by rising confidence.
pub(super) fn bins(scores: &Scores) -> Vec<Bin> {
    let mut sums = [(0, 0, 0.0); BINS];
    for (row, label) in scores.rows() {
        let class = top_1(row);
        let (n, hits, confidence) = &mut sums[bin_of(row[class])];
        *n += 1;
        *hits += usize::from(class == label);
        *confidence += row[class];
    }
    let edge = |index: usize| index as f64 / BINS as f64;
    let bin = |(index, (n, hits, confidence)): (usize, (usize, usize, f64))| Bin {
        low: edge(index),
        high: edge(index + 1),
        n,
        hits,
        confidence: confidence / n as f64,
        accuracy: hits as f64 / n as f64,
    };
    let filled = sums.into_iter().enumerate().filter(|(_, (n, ..))| *n > 0);
    filled.map(bin).collect()
}

/// Mean distance of confidence and accuracy over bins, each weighted by its images.
pub(super) fn ece(bins: &[Bin]) -> f64 {
    let total: usize = bins.iter().map(|bin| bin.n).sum();
    let gap = |bin: &Bin| bin.n as f64 * (bin.accuracy - bin.confidence).abs();
    bins.iter().map(gap).sum::<f64>() / total as f64
}

/// A probability a rounding error above 1 is in the last bin.
fn bin_of(confidence: f64) -> usize {
    let upper_edge = (confidence * BINS as f64).ceil() as usize;
    upper_edge.clamp(1, BINS) - 1
}
