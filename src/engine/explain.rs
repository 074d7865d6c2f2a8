//! What a plan does for one image, layer by layer, with the time each layer takes here.

use std::time::{Duration, Instant};

use serde::Serialize;

/// One layer of a plan, for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerCost {
    /// Of the graph's layer it begins with.
    pub name: String,
    /// The kernel, and what is done within it.
    pub kernel: String,
    /// Shape of what it writes: channels × rows × columns.
    pub output: String,
    /// Floating-point operations: two for each multiply-add that the definition of the layer asks for.
    pub flops: u64,
    /// Bytes of weights, inputs and output.
    pub bytes: u64,
    /// Median time for one image of the batch.
    pub seconds: f64,
}

impl LayerCost {
    /// Operations per second.
    pub fn flops_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.flops as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// Times of one layer over some rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct Laps(Vec<Duration>);

impl Laps {
    /// A new round.
    pub(super) fn begin(&mut self) {
        self.0.push(Duration::ZERO);
    }

    /// Runs and times; a round's times add up.
    pub(super) fn time(&mut self, work: impl FnOnce()) {
        let begun = Instant::now();
        work();
        if let Some(round) = self.0.last_mut() {
            *round += begun.elapsed();
        }
    }

    /// The median, in seconds; 0 without a round.
    pub(super) fn median(&self) -> f64 {
        let mut laps = self.0.clone();
        laps.sort_unstable();
        laps.get(laps.len() / 2).map_or(0.0, Duration::as_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let laps = |millis: &[u64]| Laps(millis.iter().map(|&m| Duration::from_millis(m)).collect());
        assert_eq!(laps(&[9, 1, 5]).median(), 0.005);
        assert_eq!(laps(&[]).median(), 0.0);
    }

    #[test]
    fn no_time_is_no_rate() {
        let cost = |seconds| LayerCost {
            name: String::new(),
            kernel: String::new(),
            output: String::new(),
            flops: 6,
            bytes: 0,
            seconds,
        };
        assert_eq!(cost(2.0).flops_per_second(), 3.0);
        assert_eq!(cost(0.0).flops_per_second(), 0.0);
    }
}
