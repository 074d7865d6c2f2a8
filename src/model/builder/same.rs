//! TensorFlow's `SAME` padding.

use super::super::graph::{GraphError, NodeId};
use super::{ConvOptions, GraphBuilder};

impl GraphBuilder {
    /// A convolution whose output has ⌈side/stride⌉ rows and columns, whatever `options.padding` says: zeros on both
    /// sides, the odd one below and right, in a node `<name>.pad` where the sides differ.
    pub fn conv2d_same(
        &mut self,
        name: &str,
        x: NodeId,
        (out, kernel): (usize, [usize; 2]),
        options: ConvOptions,
    ) -> Result<NodeId, GraphError> {
        let [_, height, width] = self.map(name, x)?;
        let zeros = |size: usize, axis: usize| {
            let reach = options.dilation[axis] * kernel[axis].saturating_sub(1) + 1;
            let stride = options.stride[axis].max(1);
            let needed = (size.div_ceil(stride).saturating_sub(1) * stride + reach).saturating_sub(size);
            [needed / 2, needed.div_ceil(2)]
        };
        let ([top, bottom], [left, right]) = (zeros(height, 0), zeros(width, 1));
        let (x, padding) = if top == bottom && left == right {
            (x, [top, left])
        } else {
            (
                self.pad(&format!("{name}.pad"), x, [top, bottom, left, right])?,
                [0; 2],
            )
        };
        self.conv2d(name, x, (out, kernel), ConvOptions { padding, ..options })
    }
}
