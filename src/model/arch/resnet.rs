//! `resnet18`, `resnet34`, `resnet50`: residual networks.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, Graph, GraphError, NodeId, Pool};

/// The kind of residual block.
#[derive(Clone, Copy)]
pub(super) enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 with the stride, 1×1 to four times as many channels.
    Bottleneck,
}

impl Block {
    /// Channels that a block of this width gives.
    fn channels(self, width: usize) -> usize {
        match self {
            Self::Basic => width,
            Self::Bottleneck => 4 * width,
        }
    }
}

/// He et al., arXiv 1512.03385, in torchvision's form: `blocks` residual blocks in each of four stages.
pub(super) fn build(
    input: Input,
    classes: usize,
    (block, blocks): (Block, [usize; 4]),
) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let x = conv_norm(&mut g, ["conv1", "bn1"], NodeId::INPUT, (64, 7, 2))?;
    let x = g.activation("relu", x, Activation::Relu)?;
    let pool = Pool {
        kernel: [3; 2],
        stride: [2; 2],
        padding: [1; 2],
    };
    let mut x = g.max_pool("maxpool", x, pool)?;
    let mut channels = 64;
    for (stage, (blocks, width)) in (1..).zip(blocks.into_iter().zip([64, 128, 256, 512])) {
        for index in 0..blocks {
            let stride = if stage > 1 && index == 0 { 2 } else { 1 };
            let name = format!("layer{stage}.{index}");
            x = residual(&mut g, &name, (x, channels), (block, width, stride))?;
            channels = block.channels(width);
        }
    }
    let x = g.global_avg_pool("avgpool", x)?;
    let x = g.flatten("flatten", x)?;
    g.linear("fc", x, classes, false)?;
    g.finish()
}

fn residual(
    g: &mut GraphBuilder,
    name: &str,
    (x, channels): (NodeId, usize),
    (block, width, stride): (Block, usize, usize),
) -> Result<NodeId, GraphError> {
    let inner = match block {
        Block::Basic => basic(g, name, x, (width, stride))?,
        Block::Bottleneck => bottleneck(g, name, x, (width, stride))?,
    };
    let out = block.channels(width);
    let outer = if stride > 1 || channels != out {
        let names = [0, 1].map(|layer| format!("{name}.downsample.{layer}"));
        conv_norm(g, [&names[0], &names[1]], x, (out, 1, stride))?
    } else {
        x
    };
    let sum = g.add(&format!("{name}.add"), inner, outer)?;
    g.activation(&format!("{name}.relu"), sum, Activation::Relu)
}

fn basic(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    (width, stride): (usize, usize),
) -> Result<NodeId, GraphError> {
    let x = numbered(g, name, x, (1, [width, 3, stride]))?;
    let x = g.activation(&format!("{name}.relu1"), x, Activation::Relu)?;
    numbered(g, name, x, (2, [width, 3, 1]))
}

fn bottleneck(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    (width, stride): (usize, usize),
) -> Result<NodeId, GraphError> {
    let x = numbered(g, name, x, (1, [width, 1, 1]))?;
    let x = g.activation(&format!("{name}.relu1"), x, Activation::Relu)?;
    let x = numbered(g, name, x, (2, [width, 3, stride]))?;
    let x = g.activation(&format!("{name}.relu2"), x, Activation::Relu)?;
    numbered(g, name, x, (3, [4 * width, 1, 1]))
}

/// `<name>.conv<number>` and `<name>.bn<number>`.
fn numbered(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    (number, [out, kernel, stride]): (usize, [usize; 3]),
) -> Result<NodeId, GraphError> {
    let names = ["conv", "bn"].map(|kind| format!("{name}.{kind}{number}"));
    conv_norm(g, [&names[0], &names[1]], x, (out, kernel, stride))
}

fn conv_norm(
    g: &mut GraphBuilder,
    [conv, norm]: [&str; 2],
    x: NodeId,
    (out, kernel, stride): (usize, usize, usize),
) -> Result<NodeId, GraphError> {
    let options = ConvOptions {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        bias: false,
        ..ConvOptions::default()
    };
    let x = g.conv2d(conv, x, (out, [kernel; 2]), options)?;
    g.batch_norm(norm, x)
}
