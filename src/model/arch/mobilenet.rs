//! `mobilenet_v2`, `mobilenet_v3_small`, `mobilenet_v3_large`: networks for telephones.

use super::inverted_residual::{Block, Convolution, Mobile, Names, Style, pair, rename_both};
use crate::model::Input;
use crate::model::builder::{BatchNormOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, Graph, GraphError};

/// Expansion, channels, blocks and first stride of the seven stages of MobileNetV2.
const V2: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

const RELU: Activation = Activation::Relu;
const SWISH: Activation = Activation::HardSwish;

/// A size of MobileNetV3.
pub(super) struct V3 {
    /// Kernel, expanded channels, channels, whether it squeezes and excites, activation, stride.
    blocks: &'static [(usize, usize, usize, bool, Activation, usize)],
    /// Channels of the last convolution.
    last: usize,
    /// Width of the first dense layer.
    dense: usize,
}

pub(super) const SMALL: V3 = V3 {
    blocks: &[
        (3, 16, 16, true, RELU, 2),
        (3, 72, 24, false, RELU, 2),
        (3, 88, 24, false, RELU, 1),
        (5, 96, 40, true, SWISH, 2),
        (5, 240, 40, true, SWISH, 1),
        (5, 240, 40, true, SWISH, 1),
        (5, 120, 48, true, SWISH, 1),
        (5, 144, 48, true, SWISH, 1),
        (5, 288, 96, true, SWISH, 2),
        (5, 576, 96, true, SWISH, 1),
        (5, 576, 96, true, SWISH, 1),
    ],
    last: 576,
    dense: 1024,
};

pub(super) const LARGE: V3 = V3 {
    blocks: &[
        (3, 16, 16, false, RELU, 1),
        (3, 64, 24, false, RELU, 2),
        (3, 72, 24, false, RELU, 1),
        (5, 72, 40, true, RELU, 2),
        (5, 120, 40, true, RELU, 1),
        (5, 120, 40, true, RELU, 1),
        (3, 240, 80, false, SWISH, 2),
        (3, 200, 80, false, SWISH, 1),
        (3, 184, 80, false, SWISH, 1),
        (3, 184, 80, false, SWISH, 1),
        (3, 480, 112, true, SWISH, 1),
        (3, 672, 112, true, SWISH, 1),
        (5, 672, 160, true, SWISH, 2),
        (5, 960, 160, true, SWISH, 1),
        (5, 960, 160, true, SWISH, 1),
    ],
    last: 960,
    dense: 1280,
};

/// Sandler et al., arXiv 1801.04381, in torchvision's form.
pub(super) fn build_v2(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut timm = Dialect::default();
    let style = Style {
        norm: BatchNormOptions::default(),
        squeezed: RELU,
        gate: Activation::Sigmoid,
        same: false,
    };
    let mut net = Mobile::new(GraphBuilder::new(input), input.channels, style);
    let function = Activation::Relu6;
    stem(&mut net, &mut timm, (32, function))?;
    let mut number = 1;
    for (stage, [expansion, out, blocks, first]) in V2.into_iter().enumerate() {
        for index in 0..blocks {
            let block = Block {
                kernel: 3,
                stride: if index == 0 { first } else { 1 },
                expanded: expansion * net.channels,
                squeezed: None,
                out,
                function,
            };
            let names = Names::mobilenet_v2(&format!("features.{number}"), net.expands(&block));
            let foreign = Names::timm(&format!("blocks.{stage}.{index}"), net.expands(&block));
            names.rename(&mut timm, &foreign);
            net.block(&names, &block)?;
            number += 1;
        }
    }
    let names = pair("features.18.0", "features.18.1");
    net.convolve(&names, pointwise(1280, function))?;
    rename_both(&mut timm, &names, &pair("conv_head", "bn2"));
    net.pool()?;
    let x = net.g.dropout("classifier.0", net.x, 0.2)?;
    net.g.linear("classifier.1", x, classes, false)?;
    timm.rename("classifier.1", "classifier");
    net.g.also_named(timm);
    net.g.finish()
}

/// Howard et al., arXiv 1905.02244, in torchvision's form.
pub(super) fn build_v3(input: Input, classes: usize, size: &V3) -> Result<Graph, GraphError> {
    // timm's batch-norms keep torch's ε.
    let mut timm = Dialect::with_eps(BatchNormOptions::default().eps);
    let style = Style {
        norm: BatchNormOptions {
            eps: 1e-3,
            momentum: 0.01,
        },
        squeezed: RELU,
        gate: Activation::HardSigmoid,
        same: false,
    };
    let mut net = Mobile::new(GraphBuilder::new(input), input.channels, style);
    stem(&mut net, &mut timm, (16, SWISH))?;
    let stages = v3_blocks(&mut net, &mut timm, size)?;
    let last = size.blocks.len() + 1;
    let names = [0, 1].map(|part| format!("features.{last}.{part}"));
    net.convolve(&names, pointwise(size.last, SWISH))?;
    let foreign = ["conv", "bn1"].map(|layer| format!("blocks.{stages}.0.{layer}"));
    rename_both(&mut timm, &names, &foreign);
    net.pool()?;
    let g = &mut net.g;
    let x = g.linear("classifier.0", net.x, size.dense, true)?;
    let x = g.activation("classifier.1", x, SWISH)?;
    let x = g.dropout("classifier.2", x, 0.2)?;
    g.linear("classifier.3", x, classes, false)?;
    timm.rename("classifier.0", "conv_head");
    timm.rename("classifier.3", "classifier");
    net.g.also_named(timm);
    net.g.finish()
}

/// The blocks of MobileNetV3; gives the number of timm's stages, each of one number of channels.
fn v3_blocks(net: &mut Mobile, timm: &mut Dialect, size: &V3) -> Result<usize, GraphError> {
    let (mut stage, mut index) = (0, 0);
    for (number, &(kernel, expanded, out, squeezes, function, stride)) in (1..).zip(size.blocks) {
        let block = Block {
            kernel,
            stride,
            expanded,
            squeezed: squeezes.then(|| divisible_by_eight(expanded / 4)),
            out,
            function,
        };
        if number > 1 && out != net.channels {
            (stage, index) = (stage + 1, 0);
        }
        let names = Names::torchvision(&format!("features.{number}"), net.expands(&block), squeezes);
        let foreign = Names::timm(&format!("blocks.{stage}.{index}"), net.expands(&block));
        names.rename(timm, &foreign);
        net.block(&names, &block)?;
        index += 1;
    }
    Ok(stage + 1)
}

fn stem(
    net: &mut Mobile,
    timm: &mut Dialect,
    (out, function): (usize, Activation),
) -> Result<(), GraphError> {
    let names = pair("features.0.0", "features.0.1");
    rename_both(timm, &names, &pair("conv_stem", "bn1"));
    let convolution = Convolution {
        kernel: 3,
        stride: 2,
        ..pointwise(out, function)
    };
    net.convolve(&names, convolution)
}

fn pointwise(out: usize, function: Activation) -> Convolution {
    Convolution {
        out,
        kernel: 1,
        stride: 1,
        groups: 1,
        function: Some(function),
    }
}

/// The nearest multiple of 8, the next one where that would take away more than a tenth.
fn divisible_by_eight(channels: usize) -> usize {
    let nearest = ((channels + 4) / 8 * 8).max(8);
    if 10 * nearest < 9 * channels {
        nearest + 8
    } else {
        nearest
    }
}
