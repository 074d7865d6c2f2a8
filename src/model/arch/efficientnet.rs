//! `efficientnet_b0`, `efficientnet_lite0`: inverted residuals whose sizes were searched for.

use super::inverted_residual::{Block, Convolution, Mobile, Names, Style, pair, rename_both};
use crate::model::Input;
use crate::model::builder::{BatchNormOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, Graph, GraphError};

/// Kernel, first stride, expansion, channels and blocks of the seven stages.
const STAGES: [[usize; 5]; 7] = [
    [3, 1, 1, 16, 1],
    [3, 2, 6, 24, 2],
    [5, 2, 6, 40, 2],
    [3, 2, 6, 80, 3],
    [5, 1, 6, 112, 3],
    [5, 2, 6, 192, 4],
    [3, 1, 6, 320, 1],
];

/// Tan, Le, arXiv 1905.11946, in torchvision's form.
pub(super) fn build_b0(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut timm = Dialect::default();
    let style = Style {
        norm: BatchNormOptions::default(),
        squeezed: Activation::Silu,
        gate: Activation::Sigmoid,
        same: false,
    };
    let mut net = Mobile::new(GraphBuilder::new(input), input.channels, style);
    let function = Activation::Silu;
    let stem = pair("features.0.0", "features.0.1");
    net.convolve(&stem, convolution([32, 3, 2], function))?;
    for (stage, sizes) in STAGES.into_iter().enumerate() {
        for index in 0..sizes[4] {
            let mut block = block(sizes, index, net.channels, function);
            block.squeezed = Some(net.channels / 4);
            let name = format!("features.{}.{index}", stage + 1);
            let names = Names::torchvision(&name, net.expands(&block), true);
            let foreign = Names::timm(&format!("blocks.{stage}.{index}"), net.expands(&block));
            names.rename(&mut timm, &foreign);
            net.block(&names, &block)?;
        }
    }
    let head = pair("features.8.0", "features.8.1");
    net.convolve(&head, convolution([1280, 1, 1], function))?;
    net.pool()?;
    let x = net.g.dropout("classifier.0", net.x, 0.2)?;
    net.g.linear("classifier.1", x, classes, false)?;
    rename_both(&mut timm, &stem, &pair("conv_stem", "bn1"));
    rename_both(&mut timm, &head, &pair("conv_head", "bn2"));
    timm.rename("classifier.1", "classifier");
    net.g.also_named(timm);
    net.g.finish()
}

/// EfficientNet-Lite0 of the TensorFlow repository `tpu`: B0 with ReLU6 and without squeeze and excite, TensorFlow's
/// padding and ε. The names are those of timm's `tf_efficientnet_lite0`.
pub(super) fn build_lite0(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut package = Dialect::default();
    let function = Activation::Relu6;
    let style = Style {
        norm: BatchNormOptions {
            eps: 1e-3,
            momentum: 0.01,
        },
        squeezed: function,
        gate: Activation::Sigmoid,
        same: true,
    };
    let mut net = Mobile::new(GraphBuilder::new(input), input.channels, style);
    let stem = pair("conv_stem", "bn1");
    net.convolve(&stem, convolution([32, 3, 2], function))?;
    let mut number = 0;
    for (stage, sizes) in STAGES.into_iter().enumerate() {
        for index in 0..sizes[4] {
            let block = block(sizes, index, net.channels, function);
            let names = Names::timm(&format!("blocks.{stage}.{index}"), net.expands(&block));
            let foreign = Names::efficientnet_pytorch(&format!("_blocks.{number}"));
            names.rename(&mut package, &foreign);
            net.block(&names, &block)?;
            number += 1;
        }
    }
    let head = pair("conv_head", "bn2");
    net.convolve(&head, convolution([1280, 1, 1], function))?;
    net.pool()?;
    let x = net.g.dropout("dropout", net.x, 0.2)?;
    net.g.linear("classifier", x, classes, false)?;
    rename_both(&mut package, &stem, &pair("_conv_stem", "_bn0"));
    rename_both(&mut package, &head, &pair("_conv_head", "_bn1"));
    package.rename("classifier", "_fc");
    net.g.also_named(package);
    net.g.finish()
}

fn block(
    [kernel, first, expansion, out, _]: [usize; 5],
    index: usize,
    channels: usize,
    function: Activation,
) -> Block {
    Block {
        kernel,
        stride: if index == 0 { first } else { 1 },
        expanded: expansion * channels,
        squeezed: None,
        out,
        function,
    }
}

fn convolution([out, kernel, stride]: [usize; 3], function: Activation) -> Convolution {
    Convolution {
        out,
        kernel,
        stride,
        groups: 1,
        function: Some(function),
    }
}
