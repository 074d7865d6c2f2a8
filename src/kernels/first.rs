//! The first layer of a network for images: a convolution of few channels, read from packed rows.

use super::conv::Cut;
use super::{Activation, Conv, Filters, Isa, Job, Map, Output, Part, Windows};

/// A convolution of an image of few channels. [`pack_image`](Self::pack_image) lays the image out in rows with a border and
/// without padding between pixels, so that one row of a window is one run of numbers;
/// [`Kernel::First`](super::Kernel::First) convolves it.
#[derive(Debug)]
pub struct First {
    conv: Conv,
    windows: Windows,
    /// Rows below the image and columns right of it; those before it are the windows' padding.
    after: [usize; 2],
    channels: usize,
}

/// Size of an image as clients send it: channel, row, column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Channels, each a plane.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Image {
    /// Numbers of an image.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether an image has no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl First {
    /// Packs weights. The border is `windows.padding` before the image's rows and columns and `after` behind them. With
    /// `pooled`, the largest of each 2×2 square of outputs stands in their place.
    ///
    /// # Panics
    /// Where lengths do not meet, or there are several groups or columns of taps with a distance.
    pub fn pack(isa: Isa, filters: Filters<'_>, windows: Windows, after: [usize; 2], pooled: bool) -> Self {
        let Filters {
            weight,
            channels,
            groups,
            ..
        } = filters;
        let [rows, columns] = windows.kernel;
        assert_eq!(groups, 1, "groups of a first layer");
        assert_eq!(windows.dilation[1], 1, "distance of a first layer's taps");
        filters.check(windows.tap_count());
        let run = columns * channels;
        // A row of taps becomes one tap of as many channels.
        let mut merged = vec![0.0; weight.len()];
        for (at, value) in merged.iter_mut().enumerate() {
            let (row, place, o) = (at % rows, at / rows % run, at / rows / run);
            let (column, channel) = (place / channels, place % channels);
            *value = weight[((o * channels + channel) * rows + row) * columns + column];
        }
        let filters = Filters {
            weight: &merged,
            channels: run,
            ..filters
        };
        let lines = Windows {
            kernel: [rows, 1],
            padding: [0; 2],
            dilation: [windows.dilation[0], 1],
            ..windows
        };
        let conv = Conv::pack_cut(isa, filters, lines, Cut::Whole);
        Self {
            conv: if pooled { conv.pooled() } else { conv },
            windows,
            after,
            channels,
        }
    }

    /// Numbers of `items` packed images, which [`pack_image`](Self::pack_image) writes and the kernel reads.
    pub fn packed_len(&self, items: usize, image: Image) -> usize {
        items * self.packed(image).item()
    }

    /// Lays out images with zeros around them.
    ///
    /// # Panics
    /// Where `values` are not whole images of this layer's channels, or `packed` has not their
    /// [`packed_len`](Self::packed_len).
    pub fn pack_image(&self, values: &[f32], image: Image, packed: &mut [f32]) {
        assert_eq!(image.channels, self.channels, "channels of {image:?}");
        let items = values.len() / image.len().max(1);
        assert_eq!(values.len(), items * image.len(), "numbers of {items} images");
        assert_eq!(
            packed.len(),
            self.packed_len(items, image),
            "numbers of {items} packed images"
        );
        if values.is_empty() {
            return;
        }
        let map = self.packed(image);
        let (line, [above, left]) = (map.width * map.stride, self.windows.padding);
        let (begin, end) = (left * image.channels, (left + image.width) * image.channels);
        for (planes, lines) in values
            .chunks_exact(image.len())
            .zip(packed.chunks_exact_mut(map.item()))
        {
            for (row, to) in lines.chunks_exact_mut(line).enumerate() {
                match row.checked_sub(above) {
                    Some(row) if row < image.height => {
                        to[..begin].fill(0.0);
                        interleave(planes, (image, row), &mut to[begin..end]);
                        to[end..].fill(0.0);
                    }
                    _ => to.fill(0.0),
                }
            }
        }
    }

    /// Convolves `part` of the outputs of `items` packed images.
    ///
    /// # Panics
    /// Where numbers are too few for their layouts, or windows reach beyond the image's border.
    pub(super) fn run(
        &self,
        (packed, image, items): (&[f32], Image, usize),
        function: Option<Activation>,
        (out, to): (&Output<'_>, Map),
        part: Part,
    ) {
        let map = self.packed(image);
        let reach = |axis: usize, count: usize| {
            (count * self.conv.side()).saturating_sub(1) * self.windows.stride[axis]
                + (self.windows.kernel[axis] - 1) * self.windows.dilation[axis]
        };
        assert!(
            reach(0, to.height) < map.height && reach(1, to.width) < map.width,
            "{to:?} of {image:?}"
        );
        let source = Job {
            values: packed,
            map,
            items,
            residual: None,
            function,
        };
        self.conv.run(source, out, to, part);
    }

    fn packed(&self, image: Image) -> Map {
        let ([above, left], [below, right]) = (self.windows.padding, self.after);
        Map {
            height: above + image.height + below,
            width: left + image.width + right,
            channels: image.channels,
            stride: image.channels,
        }
    }
}

/// One row of an image, channels last.
fn interleave(planes: &[f32], (image, row): (Image, usize), to: &mut [f32]) {
    let line = |channel: usize| &planes[(channel * image.height + row) * image.width..][..image.width];
    match image.channels {
        1 => to.copy_from_slice(line(0)),
        3 => {
            let (pixels, _) = to.as_chunks_mut::<3>();
            for (((pixel, r), g), b) in pixels.iter_mut().zip(line(0)).zip(line(1)).zip(line(2)) {
                *pixel = [*r, *g, *b];
            }
        }
        channels => {
            for channel in 0..channels {
                for (value, pixel) in line(channel)
                    .iter()
                    .zip(to[channel..].iter_mut().step_by(channels))
                {
                    *pixel = *value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
