//! `densenet121`: each layer reads all layers of its block before it.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, Graph, GraphError, NodeId, Pool};

/// Layers of the four blocks.
const BLOCKS: [usize; 4] = [6, 12, 24, 16];

/// Channels that a layer adds.
const GROWTH: usize = 32;

/// Huang et al., arXiv 1608.06993, in torchvision's form.
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let mut early = Dialect::default();
    let x = convolution(&mut g, "features.conv0", NodeId::INPUT, [64, 7, 2])?;
    let x = norm_relu(&mut g, ["features.norm0", "features.relu0"], x)?;
    let pool = Pool {
        kernel: [3; 2],
        stride: [2; 2],
        padding: [1; 2],
    };
    let mut x = g.max_pool("features.pool0", x, pool)?;
    let mut channels = 64;
    for (block, layers) in (1..).zip(BLOCKS) {
        for layer in 1..=layers {
            let name = format!("features.denseblock{block}.denselayer{layer}");
            let new = dense_layer(&mut g, &name, x)?;
            x = g.concat(&name, &[x, new])?;
            rename_layer(&mut early, &name);
        }
        channels += layers * GROWTH;
        if block < BLOCKS.len() {
            channels /= 2;
            x = transition(&mut g, &format!("features.transition{block}"), x, channels)?;
        }
    }
    let x = norm_relu(&mut g, ["features.norm5", "features.relu5"], x)?;
    let x = g.global_avg_pool("avgpool", x)?;
    let x = g.flatten("flatten", x)?;
    g.linear("classifier", x, classes, false)?;
    // Files from before torch 0.4, torchvision's published one among them, write `norm.1` for `norm1`.
    g.also_named(early);
    g.finish()
}

fn rename_layer(early: &mut Dialect, name: &str) {
    for (kind, number) in [("norm", 1), ("conv", 1), ("norm", 2), ("conv", 2)] {
        early.rename(
            format!("{name}.{kind}{number}"),
            format!("{name}.{kind}.{number}"),
        );
    }
}

fn dense_layer(g: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
    let of = |kind: &str| format!("{name}.{kind}");
    let x = norm_relu(g, [&of("norm1"), &of("relu1")], x)?;
    let x = convolution(g, &of("conv1"), x, [4 * GROWTH, 1, 1])?;
    let x = norm_relu(g, [&of("norm2"), &of("relu2")], x)?;
    convolution(g, &of("conv2"), x, [GROWTH, 3, 1])
}

fn transition(g: &mut GraphBuilder, name: &str, x: NodeId, out: usize) -> Result<NodeId, GraphError> {
    let of = |kind: &str| format!("{name}.{kind}");
    let x = norm_relu(g, [&of("norm"), &of("relu")], x)?;
    let x = convolution(g, &of("conv"), x, [out, 1, 1])?;
    g.avg_pool(&of("pool"), x, Pool::square(2))
}

fn norm_relu(g: &mut GraphBuilder, [norm, relu]: [&str; 2], x: NodeId) -> Result<NodeId, GraphError> {
    let x = g.batch_norm(norm, x)?;
    g.activation(relu, x, Activation::Relu)
}

fn convolution(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    [out, kernel, stride]: [usize; 3],
) -> Result<NodeId, GraphError> {
    let options = ConvOptions {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        bias: false,
        ..ConvOptions::default()
    };
    g.conv2d(name, x, (out, [kernel; 2]), options)
}
