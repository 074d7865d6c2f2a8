//! Depthwise convolution: each channel with a filter of its own.

use super::activation::{Activation, bounds};
use super::aligned::Aligned;
use super::batch::Batch;
use super::isa::Isa;
use super::vector::dispatch;
use super::view::{Source, Target};
use super::windows::Windows;

mod tiles;
use tiles::{Job, rows_of};

/// A depthwise convolution with bias and activation, packed for one set of instructions.
#[derive(Clone, Debug)]
pub struct Depthwise {
    isa: Isa,
    windows: Windows,
    channels: usize,
    /// Vector of channels, tap, lane.
    weight: Aligned,
    bias: Aligned,
    function: Option<Activation>,
}

impl Depthwise {
    /// From `weight` (channels × kernel rows × kernel columns) and a `bias` for each channel.
    ///
    /// # Panics
    /// Where the lengths do not fit each other, or `windows` has a size of 0 or above 32768.
    pub fn pack(
        isa: Isa,
        weight: &[f32],
        bias: Option<&[f32]>,
        windows: Windows,
        function: Option<Activation>,
    ) -> Self {
        windows.check();
        let taps = windows.kernel[0] * windows.kernel[1];
        let channels = weight.len() / taps;
        assert_eq!(
            weight.len(),
            channels * taps,
            "weights are no whole filters of {taps}"
        );
        assert!(
            bias.is_none_or(|bias| bias.len() == channels),
            "{channels} channels and another number of biases"
        );
        let lanes = isa.lanes();
        let mut packed = Aligned::zeros(isa.padded(channels) * taps);
        for (channel, filter) in weight.chunks_exact(taps).enumerate() {
            let first = channel / lanes * taps * lanes + channel % lanes;
            for (tap, &value) in filter.iter().enumerate() {
                packed[first + tap * lanes] = value;
            }
        }
        let mut padded_bias = Aligned::zeros(isa.padded(channels));
        padded_bias[..channels].copy_from_slice(bias.unwrap_or(&vec![0.0; channels]));
        Self {
            isa,
            windows,
            channels,
            weight: packed,
            bias: padded_bias,
            function,
        }
    }

    /// What follows the sums.
    pub fn function(&self) -> Option<Activation> {
        self.function
    }

    /// The convolution of `source` into `target`, whose size says how many windows there are: padding after the map may
    /// differ from that before it.
    ///
    /// # Panics
    /// Where the maps do not fit the filters, each other or their numbers.
    pub(super) fn run(&self, source: Source<'_>, target: Target<'_>, batch: Batch) {
        source.check(self.isa, batch.items);
        let target = target.checked(self.isa, batch.items);
        let (from, to) = (source.map, target.map);
        assert_eq!(
            [from.channels, to.channels],
            [self.channels; 2],
            "maps of other channels than the filters"
        );
        let sizes = [[from.height, to.height], [from.width, to.width]];
        let begin_on_map = (0..2).all(|axis| {
            let [input, output] = sizes[axis];
            output.saturating_sub(1) * self.windows.stride[axis] < input + self.windows.padding[axis]
        });
        assert!(
            begin_on_map || [to.height, to.width] == self.windows.output([from.height, from.width]),
            "{:?} over {from:?} do not give {to:?}",
            self.windows
        );
        for (item, rows) in batch.rows(to.height) {
            let job = Job {
                windows: self.windows,
                weight: self.weight.as_ptr(),
                bias: self.bias.as_ptr(),
                bounds: bounds(self.function),
                function: self.function,
                from,
                to,
                x: source.pixel(item, 0),
                y: target.pixel(item, 0),
                rows,
            };
            // SAFETY: maps and filters have the same channels, padded to the lanes of `isa`; all pixels of both lie
            // in their numbers, and the windows are as many as `to` has pixels.
            unsafe { convolve(self.isa, &job) }
        }
    }
}

dispatch! {
    unsafe fn convolve(job: &Job) = rows_of
}

#[cfg(test)]
mod tests;
