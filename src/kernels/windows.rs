//! Windows that slide over a map.

use std::ops::Range;

/// The windows of a convolution or a pooling; every pair is of rows, then columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Taps.
    pub kernel: [usize; 2],
    /// From a window to the next.
    pub stride: [usize; 2],
    /// Rows above and below the map, columns left and right of it.
    pub padding: [usize; 2],
    /// From a tap to the next.
    pub dilation: [usize; 2],
}

/// Far beyond any network, and small enough that no position wraps around.
const MOST: usize = 1 << 15;

impl Windows {
    /// One tap on each pixel.
    pub const POINT: Self = Self {
        kernel: [1; 2],
        stride: [1; 2],
        padding: [0; 2],
        dilation: [1; 2],
    };

    /// Taps of a window.
    pub(super) fn tap_count(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Square windows of `kernel`² taps side by side.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
        }
    }

    /// Rows and columns of windows that fit a map of `input` rows and columns with its padding; 0 where none does.
    pub fn output(&self, input: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let room = (input[axis] + 2 * self.padding[axis]).checked_sub(extent);
            room.map_or(0, |room| room / self.stride[axis] + 1)
        })
    }

    /// # Panics
    /// Where a kernel, stride or dilation is 0, or anything above 32768.
    pub(super) fn check(&self) {
        let positive = [self.kernel, self.stride, self.dilation];
        let all_positive = positive.iter().flatten().all(|n| (1..=MOST).contains(n));
        assert!(
            all_positive && self.padding.iter().all(|&n| n <= MOST),
            "windows beyond what is sensible: {self:?}"
        );
    }

    /// The taps of window `at` that lie on a map of `size` rows (`axis` 0) or columns (1).
    #[inline(always)]
    pub(super) fn taps(&self, axis: usize, at: usize, size: usize) -> Range<usize> {
        let (start, dilation) = (at * self.stride[axis], self.dilation[axis]);
        let first = self.padding[axis].saturating_sub(start).div_ceil(dilation);
        let end = (size + self.padding[axis])
            .saturating_sub(start)
            .div_ceil(dilation);
        first..end.min(self.kernel[axis]).max(first)
    }

    /// Where tap `tap` of window `at` lies, when it lies on the map; otherwise beyond any map.
    #[inline(always)]
    pub(super) fn position(&self, axis: usize, at: usize, tap: usize) -> usize {
        (at * self.stride[axis] + tap * self.dilation[axis]).wrapping_sub(self.padding[axis])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_are_those_on_the_map() {
        for (kernel, stride, padding, dilation) in [
            (3, 1, 1, 1),
            (3, 2, 1, 1),
            (5, 2, 2, 1),
            (3, 1, 2, 2),
            (2, 2, 0, 1),
            (1, 3, 0, 1),
            (4, 3, 5, 3),
        ] {
            let windows = Windows {
                dilation: [dilation; 2],
                ..Windows::square(kernel, stride, padding)
            };
            for size in 1..12 {
                let outputs = windows.output([size; 2])[0];
                for at in 0..outputs + 2 {
                    let on_map =
                        |&tap: &usize| (padding..padding + size).contains(&(at * stride + tap * dilation));
                    let expected: Vec<usize> = (0..kernel).filter(on_map).collect();
                    let taps = windows.taps(1, at, size);
                    assert_eq!(
                        taps.clone().collect::<Vec<_>>(),
                        expected,
                        "{windows:?} {at} of {size}"
                    );
                    for tap in 0..kernel {
                        assert_eq!(windows.position(1, at, tap) < size, taps.contains(&tap));
                    }
                }
                let last = (outputs.max(1) - 1) * stride + (kernel - 1) * dilation;
                assert_eq!(outputs > 0, last < size + 2 * padding);
                assert!(last + stride >= size + 2 * padding);
            }
        }
    }
}
