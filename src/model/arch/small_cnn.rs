//! `small-cnn`: three convolution blocks, global average pooling, one dense layer.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, Graph, GraphError, Pool};

/// Channels of the three blocks.
const CHANNELS: [usize; 3] = [16, 32, 64];

/// Three times conv 3×3, batch-norm, ReLU, with max-pool 2 after the first two; then the mean of each channel, dense.
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let options = ConvOptions {
        padding: [1; 2],
        bias: false,
        ..ConvOptions::default()
    };
    let mut x = g.input();
    for (block, channels) in (1..).zip(CHANNELS) {
        x = g.conv2d(&format!("conv{block}"), x, (channels, [3, 3]), options)?;
        x = g.batch_norm(&format!("bn{block}"), x)?;
        x = g.activation(&format!("relu{block}"), x, Activation::Relu)?;
        if block < CHANNELS.len() {
            x = g.max_pool(&format!("pool{block}"), x, Pool::square(2))?;
        }
    }
    let x = g.global_avg_pool("pool", x)?;
    let x = g.flatten("flatten", x)?;
    g.linear("fc", x, classes, false)?;
    g.finish()
}
