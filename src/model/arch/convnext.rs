//! `convnext_tiny`: depthwise 7×7 convolutions with layer-norm.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, Graph, GraphError, NodeId};

/// Channels and blocks of the four stages.
const STAGES: [(usize, usize); 4] = [(96, 3), (192, 3), (384, 9), (768, 3)];

const EPS: f64 = 1e-6;

/// Liu et al., arXiv 2201.03545, in torchvision's form, its dense layers over channels as 1×1 convolutions. Stochastic
/// depth is left out, in training too.
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let mut timm = Dialect::default();
    let mut x = NodeId::INPUT;
    for (stage, (channels, blocks)) in STAGES.into_iter().enumerate() {
        let before = format!("features.{}", 2 * stage);
        x = match stage {
            0 => patches(&mut g, &before, x, channels)?,
            _ => downsample(&mut g, &before, x, channels)?,
        };
        let foreign = match stage {
            0 => "stem".to_owned(),
            _ => format!("stages.{stage}.downsample"),
        };
        for layer in 0..2 {
            timm.rename(format!("{before}.{layer}"), format!("{foreign}.{layer}"));
        }
        for block in 0..blocks {
            let name = format!("features.{}.{block}", 2 * stage + 1);
            x = residual(&mut g, &name, x, channels)?;
            rename_block(&mut timm, &name, &format!("stages.{stage}.blocks.{block}"));
        }
    }
    let x = g.global_avg_pool("avgpool", x)?;
    let x = g.layer_norm("classifier.0", x, EPS)?;
    let x = g.flatten("classifier.1", x)?;
    g.linear("classifier.2", x, classes, false)?;
    timm.rename("classifier.0", "head.norm");
    timm.rename("classifier.2", "head.fc");
    g.also_named(timm);
    g.finish()
}

fn patches(g: &mut GraphBuilder, name: &str, x: NodeId, out: usize) -> Result<NodeId, GraphError> {
    let x = g.conv2d(&format!("{name}.0"), x, (out, [4; 2]), strided(4))?;
    g.layer_norm(&format!("{name}.1"), x, EPS)
}

fn downsample(g: &mut GraphBuilder, name: &str, x: NodeId, out: usize) -> Result<NodeId, GraphError> {
    let x = g.layer_norm(&format!("{name}.0"), x, EPS)?;
    g.conv2d(&format!("{name}.1"), x, (out, [2; 2]), strided(2))
}

fn strided(stride: usize) -> ConvOptions {
    ConvOptions {
        stride: [stride; 2],
        rectified: false,
        ..ConvOptions::default()
    }
}

fn residual(g: &mut GraphBuilder, name: &str, input: NodeId, channels: usize) -> Result<NodeId, GraphError> {
    let layer = |number: usize| format!("{name}.block.{number}");
    let depthwise = ConvOptions {
        padding: [3; 2],
        groups: channels,
        ..strided(1)
    };
    let x = g.conv2d(&layer(0), input, (channels, [7; 2]), depthwise)?;
    let x = g.layer_norm(&layer(2), x, EPS)?;
    let x = g.conv2d(&layer(3), x, (4 * channels, [1; 2]), ConvOptions::default())?;
    let x = g.activation(&layer(4), x, Activation::Gelu)?;
    let x = g.conv2d(&layer(5), x, (channels, [1; 2]), strided(1))?;
    let x = g.layer_scale(name, x)?;
    g.add(&format!("{name}.add"), x, input)
}

fn rename_block(timm: &mut Dialect, own: &str, foreign: &str) {
    for (layer, name) in [(0, "conv_dw"), (2, "norm"), (3, "mlp.fc1"), (5, "mlp.fc2")] {
        timm.rename(format!("{own}.block.{layer}"), format!("{foreign}.{name}"));
    }
    timm.rename(format!("{own}.layer_scale"), format!("{foreign}.gamma"));
}
