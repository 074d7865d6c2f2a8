//! A convolution's weights and windows, taken from its step.

use candle_core::{Result, Tensor, bail};

use crate::engine::step::{self, Step};
use crate::kernels::{Filters, MAX_TAPS, Windows};

/// Rows and columns of zeros around a map that its readers see, though they are not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Border {
    /// Above and left.
    pub(super) before: [usize; 2],
    /// Below and right.
    pub(super) after: [usize; 2],
}

impl Border {
    /// With another around it.
    pub(super) fn within(self, other: Self) -> Self {
        let sum = |a: [usize; 2], b: [usize; 2]| [a[0] + b[0], a[1] + b[1]];
        Self {
            before: sum(self.before, other.before),
            after: sum(self.after, other.after),
        }
    }
}

/// What a convolution kernel is packed from.
pub(super) struct Convolution {
    /// Output × input/groups × kh × kw.
    pub(super) weight: Vec<f32>,
    /// One per output, or empty.
    pub(super) bias: Vec<f32>,
    pub(super) out: usize,
    /// Input channels.
    pub(super) channels: usize,
    pub(super) groups: usize,
    /// Their padding is the whole border before the input.
    pub(super) windows: Windows,
    /// The whole border behind the input.
    pub(super) after: [usize; 2],
}

impl Convolution {
    /// Of a convolution step, whose input has a `border` beside the step's own.
    pub(super) fn of(step: &Step, border: Border) -> Result<Self> {
        let step::Kernel::Conv2d {
            weight,
            bias,
            geometry,
        } = &step.kernel
        else {
            bail!("layer '{}' is no convolution", step.name);
        };
        let (out, per_group, kh, kw) = weight.dims4()?;
        if kh * kw > MAX_TAPS {
            bail!(
                "layer '{}': a window of {kh}×{kw}; at most {MAX_TAPS} taps are possible",
                step.name
            );
        }
        let border = border.within(Border {
            before: geometry.padding,
            after: geometry.padding,
        });
        Ok(Self {
            weight: numbers(weight)?,
            bias: bias.as_ref().map(numbers).transpose()?.unwrap_or_default(),
            out,
            channels: per_group * geometry.groups,
            groups: geometry.groups,
            windows: Windows {
                kernel: [kh, kw],
                stride: geometry.stride,
                padding: border.before,
                dilation: geometry.dilation,
            },
            after: border.after,
        })
    }

    pub(super) fn filters(&self) -> Filters<'_> {
        Filters {
            weight: &self.weight,
            bias: &self.bias,
            out: self.out,
            channels: self.channels,
            groups: self.groups,
        }
    }

    /// Whether each channel has a filter of its own.
    pub(super) fn is_depthwise(&self) -> bool {
        self.groups == self.channels && self.out == self.channels && self.channels > 1
    }

    /// Whether Winograd's squares can compute it.
    pub(super) fn is_square(&self) -> bool {
        let Windows {
            kernel,
            stride,
            dilation,
            ..
        } = self.windows;
        (kernel, stride, dilation, self.groups) == ([3; 2], [1; 2], [1; 2], 1)
    }

    /// The window as people write it: `3×3/2`.
    pub(super) fn size(&self) -> String {
        let Windows {
            kernel: [kh, kw],
            stride: [sy, sx],
            ..
        } = self.windows;
        match (sy, sx) {
            (1, 1) => format!("{kh}×{kw}"),
            _ if sy == sx => format!("{kh}×{kw}/{sy}"),
            _ => format!("{kh}×{kw}/{sy}×{sx}"),
        }
    }
}

/// A tensor's numbers in order.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}
