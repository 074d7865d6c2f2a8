//! Inverted residual blocks, of which the mobile networks are made.

use crate::model::builder::{BatchNormOptions, ConvOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, GraphError, NodeId};

/// Names of a convolution and its batch-norm.
pub(super) type ConvNorm = [String; 2];

/// Expand 1×1, depthwise, squeeze and excite, project 1×1 (Sandler et al., arXiv 1801.04381; Hu et al., arXiv 1709.01507);
/// the input is added where the shapes are equal.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Side of the depthwise kernel.
    pub(super) kernel: usize,
    /// Step of the depthwise convolution.
    pub(super) stride: usize,
    /// Channels of the depthwise convolution; nothing is expanded where these are the input's.
    pub(super) expanded: usize,
    /// Channels between squeeze and excite, where there is one.
    pub(super) squeezed: Option<usize>,
    /// Channels given.
    pub(super) out: usize,
    /// After expansion and depthwise convolution.
    pub(super) function: Activation,
}

/// A convolution with its batch-norm.
#[derive(Clone, Copy)]
pub(super) struct Convolution {
    pub(super) out: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
    pub(super) function: Option<Activation>,
}

/// What all blocks of a network have in common.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) norm: BatchNormOptions,
    /// After the squeeze.
    pub(super) squeezed: Activation,
    /// Of the factors that excite.
    pub(super) gate: Activation,
    /// TensorFlow's padding rather than the same number of zeros on each side.
    pub(super) same: bool,
}

/// What the layers of a block are called.
pub(super) struct Names {
    /// The block itself.
    block: String,
    expand: ConvNorm,
    depthwise: ConvNorm,
    squeeze: [String; 2],
    project: ConvNorm,
}

/// A network under construction.
pub(super) struct Mobile {
    pub(super) g: GraphBuilder,
    /// The latest layer.
    pub(super) x: NodeId,
    /// Its channels.
    pub(super) channels: usize,
    pub(super) style: Style,
}

impl Names {
    /// MobileNetV3 and EfficientNet of torchvision: `<block>.block.0.0`, `.0.1`, … in order of the layers there are.
    pub(super) fn torchvision(name: &str, expands: bool, squeezes: bool) -> Self {
        let depthwise = usize::from(expands);
        let project = depthwise + 1 + usize::from(squeezes);
        let layer = |number: usize| [0, 1].map(|part| format!("{name}.block.{number}.{part}"));
        Self {
            block: name.to_owned(),
            expand: layer(0),
            depthwise: layer(depthwise),
            squeeze: ["fc1", "fc2"].map(|fc| format!("{name}.block.{}.{fc}", depthwise + 1)),
            project: layer(project),
        }
    }

    /// MobileNetV2 of torchvision: as above under `conv`, but the projection is not nested.
    pub(super) fn mobilenet_v2(name: &str, expands: bool) -> Self {
        let depthwise = usize::from(expands);
        let layer = |number: usize| [0, 1].map(|part| format!("{name}.conv.{number}.{part}"));
        Self {
            expand: layer(0),
            depthwise: layer(depthwise),
            project: [1, 2].map(|after| format!("{name}.conv.{}", depthwise + after)),
            ..Self::torchvision(name, expands, false)
        }
    }

    /// timm's: by role, batch-norms counted.
    pub(super) fn timm(name: &str, expands: bool) -> Self {
        let first = usize::from(expands) + 1;
        let pair = |conv: &str, norm: usize| [format!("{name}.{conv}"), format!("{name}.bn{norm}")];
        Self {
            block: name.to_owned(),
            expand: pair("conv_pw", 1),
            depthwise: pair("conv_dw", first),
            squeeze: ["conv_reduce", "conv_expand"].map(|conv| format!("{name}.se.{conv}")),
            project: pair(if expands { "conv_pwl" } else { "conv_pw" }, first + 1),
        }
    }

    /// The package `efficientnet_lite_pytorch`'s: by role, batch-norms by role too.
    pub(super) fn efficientnet_pytorch(name: &str) -> Self {
        let pair = |conv: &str, norm: usize| [format!("{name}._{conv}_conv"), format!("{name}._bn{norm}")];
        Self {
            block: name.to_owned(),
            expand: pair("expand", 0),
            depthwise: pair("depthwise", 1),
            squeeze: ["reduce", "expand"].map(|conv| format!("{name}._se_{conv}")),
            project: pair("project", 2),
        }
    }

    /// Says in `dialect` that these layers are called `foreign`; layers that are not there do no harm.
    pub(super) fn rename(&self, dialect: &mut Dialect, foreign: &Self) {
        let layers = |names: &Self| {
            [&names.expand, &names.depthwise, &names.squeeze, &names.project].map(Clone::clone)
        };
        for (own, foreign) in layers(self).iter().zip(layers(foreign)) {
            rename_both(dialect, own, &foreign);
        }
    }
}

/// Says in `dialect` that both layers of `own` are called `foreign`.
pub(super) fn rename_both(dialect: &mut Dialect, own: &[String; 2], foreign: &[String; 2]) {
    for (own, foreign) in own.iter().zip(foreign) {
        dialect.rename(own, foreign);
    }
}

/// Names of two layers as text.
pub(super) fn pair(conv: &str, norm: &str) -> ConvNorm {
    [conv.to_owned(), norm.to_owned()]
}

impl Mobile {
    /// A network that has only its input, which has `channels`.
    pub(super) fn new(g: GraphBuilder, channels: usize, style: Style) -> Self {
        let x = g.input();
        Self {
            g,
            x,
            channels,
            style,
        }
    }

    /// Whether a block has an expansion here.
    pub(super) fn expands(&self, block: &Block) -> bool {
        block.expanded != self.channels
    }

    /// Adds a convolution, its batch-norm and its activation.
    pub(super) fn convolve(
        &mut self,
        [conv, norm]: &ConvNorm,
        convolution: Convolution,
    ) -> Result<(), GraphError> {
        let Convolution {
            out,
            kernel,
            stride,
            groups,
            function,
        } = convolution;
        let options = ConvOptions {
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups,
            bias: false,
            rectified: function.is_some(),
            ..ConvOptions::default()
        };
        let x = if self.style.same {
            self.g.conv2d_same(conv, self.x, (out, [kernel; 2]), options)?
        } else {
            self.g.conv2d(conv, self.x, (out, [kernel; 2]), options)?
        };
        self.x = self.g.batch_norm_with(norm, x, self.style.norm)?;
        if let Some(function) = function {
            self.x = self
                .g
                .activation(&format!("{norm}.activation"), self.x, function)?;
        }
        self.channels = out;
        Ok(())
    }

    /// Adds a block; stochastic depth is left out, in training too.
    pub(super) fn block(&mut self, names: &Names, block: &Block) -> Result<(), GraphError> {
        let (input, channels) = (self.x, self.channels);
        let pointwise = Convolution {
            out: block.expanded,
            kernel: 1,
            stride: 1,
            groups: 1,
            function: Some(block.function),
        };
        if self.expands(block) {
            self.convolve(&names.expand, pointwise)?;
        }
        let depthwise = Convolution {
            kernel: block.kernel,
            stride: block.stride,
            groups: block.expanded,
            ..pointwise
        };
        self.convolve(&names.depthwise, depthwise)?;
        if let Some(squeezed) = block.squeezed {
            self.squeeze_excite(names, squeezed)?;
        }
        let project = Convolution {
            out: block.out,
            function: None,
            ..pointwise
        };
        self.convolve(&names.project, project)?;
        if block.stride == 1 && channels == block.out {
            self.x = self.g.add(&format!("{}.add", names.block), self.x, input)?;
        }
        Ok(())
    }

    fn squeeze_excite(&mut self, names: &Names, squeezed: usize) -> Result<(), GraphError> {
        let [reduce, expand] = &names.squeeze;
        let Style {
            squeezed: function,
            gate,
            ..
        } = self.style;
        let g = &mut self.g;
        let x = g.global_avg_pool(&format!("{reduce}.avgpool"), self.x)?;
        let x = g.conv2d(reduce, x, (squeezed, [1; 2]), ConvOptions::default())?;
        let x = g.activation(&format!("{reduce}.activation"), x, function)?;
        let linear = ConvOptions {
            rectified: false,
            ..ConvOptions::default()
        };
        let x = g.conv2d(expand, x, (self.channels, [1; 2]), linear)?;
        let x = g.activation(&format!("{expand}.activation"), x, gate)?;
        self.x = g.mul(&format!("{expand}.scale"), self.x, x)?;
        Ok(())
    }

    /// Adds the mean of each channel, as a row.
    pub(super) fn pool(&mut self) -> Result<(), GraphError> {
        self.x = self.g.global_avg_pool("avgpool", self.x)?;
        self.x = self.g.flatten("flatten", self.x)?;
        Ok(())
    }
}
