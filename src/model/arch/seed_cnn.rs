//! `seed-cnn`: one convolution, two dense layers.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, Graph, GraphError, Pool};

/// conv 32 3×3, ReLU, max-pool 2, flatten, dense 64, ReLU, dropout 0.5, dense.
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let x = g.conv2d("conv1", g.input(), (32, [3, 3]), ConvOptions::default())?;
    let x = g.activation("relu1", x, Activation::Relu)?;
    let x = g.max_pool("pool1", x, Pool::square(2))?;
    let x = g.flatten("flatten", x)?;
    let x = g.linear("fc1", x, 64, true)?;
    let x = g.activation("relu2", x, Activation::Relu)?;
    let x = g.dropout("dropout", x, 0.5)?;
    g.linear("fc2", x, classes, false)?;
    g.finish()
}
