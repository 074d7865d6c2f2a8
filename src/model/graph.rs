//! A network as data: nodes in order of computation, and the parameters they name.

use std::fmt;

use super::Input;
use super::dialect::Dialect;
pub use crate::kernels::Activation;

/// A node's place in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub(super) usize);

/// A parameter's place in [`Graph::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub(super) usize);

/// Shape of one image's value at a node, without the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Channels × rows × columns.
    Map {
        /// Channels.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A row of features.
    Flat(usize),
}

/// Window of a pooling node; rows first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Window.
    pub kernel: [usize; 2],
    /// Step.
    pub stride: [usize; 2],
    /// Border on each side (−∞ for max, zeros that count for avg, as in torch's defaults).
    pub padding: [usize; 2],
}

/// A convolution; rows first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Output × input/groups × kh × kw.
    pub weight: ParamId,
    /// One per output channel.
    pub bias: Option<ParamId>,
    /// Step.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
}

/// What a node computes from its inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The image; always node 0, without inputs.
    Input,
    /// Two-dimensional cross-correlation.
    Conv2d(Conv2d),
    /// Per-channel normalisation (Ioffe, Szegedy, arXiv 1502.03167).
    BatchNorm {
        /// γ.
        weight: ParamId,
        /// β.
        bias: ParamId,
        /// Mean used when serving.
        running_mean: ParamId,
        /// Variance used when serving.
        running_var: ParamId,
        /// Added to the variance.
        eps: f64,
        /// Share of the new batch in the running statistics (torch's meaning).
        momentum: f64,
    },
    /// Normalisation over the channels of each place, scaled and shifted per channel (Ba et al., arXiv 1607.06450).
    LayerNorm {
        /// γ.
        weight: ParamId,
        /// β.
        bias: ParamId,
        /// Added to the variance.
        eps: f64,
    },
    /// Each channel times a trained number (layer scale of Touvron et al., arXiv 2103.17239).
    Scale {
        /// C×1×1.
        weight: ParamId,
    },
    /// x·Wᵀ + b, W out × in.
    Linear {
        /// Out × in.
        weight: ParamId,
        /// One per output.
        bias: Option<ParamId>,
    },
    /// An elementwise function.
    Activation(Activation),
    /// Largest of each window.
    MaxPool(Pool),
    /// Mean of each window.
    AvgPool(Pool),
    /// Mean over rows and columns: C×H×W → C×1×1.
    GlobalAvgPool,
    /// C×H×W → C·H·W, channels first.
    Flatten,
    /// Zeroes with probability `p` while training and scales the rest by 1/(1−p); nothing when serving.
    Dropout {
        /// Probability, 0 ≤ p < 1.
        p: f32,
    },
    /// Sum of two values of one shape.
    Add,
    /// Product of two values; the second may be C×1×1.
    Mul,
    /// Join along channels.
    Concat,
    /// Zeros around rows and columns: top, bottom, left, right.
    Pad([usize; 4]),
}

/// One step of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The layer's name, as the parameters' prefix: `layer1.0.conv1`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Earlier nodes it reads.
    pub inputs: Vec<NodeId>,
    /// What it gives, for one image.
    pub shape: Shape,
}

/// How a parameter starts and whether it is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ParamKind {
    /// Weight of a convolution or dense layer, with its fans for Glorot or He initialisation.
    Weight {
        /// Inputs to one output.
        fan_in: usize,
        /// Outputs reached by one input.
        fan_out: usize,
        /// Whether a ReLU-like activation follows: He rather than Glorot.
        rectified: bool,
    },
    /// Starts at 0.
    Bias,
    /// γ of a batch-norm or layer-norm; starts at 1.
    Scale,
    /// β of a batch-norm or layer-norm; starts at 0.
    Offset,
    /// A layer scale; starts at 1e-6, as in ConvNeXt (Liu et al., arXiv 2201.03545).
    LayerScale,
    /// Not trained; starts at 0.
    RunningMean,
    /// Not trained; starts at 1.
    RunningVar,
}

/// A named tensor of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// torchvision's name: `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its role.
    pub kind: ParamKind,
    /// Whether training leaves it as it is, whatever its role: see [`Graph::freeze`].
    pub frozen: bool,
}

/// A checked network: shapes meet, every parameter is named once, the last node gives one number per class.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Shape of one image.
    pub input: Input,
    /// In order of computation; node 0 is the input, the last is the output.
    pub nodes: Vec<Node>,
    /// In order of first use.
    pub params: Vec<Param>,
    /// What other libraries call the same parameters, so that their files load.
    pub dialects: Vec<Dialect>,
}

/// Why layers do not make a network.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum GraphError {
    /// Shapes that do not meet.
    #[error("layer '{layer}': {problem}")]
    Shape {
        /// The layer's name.
        layer: String,
        /// Which shapes, and what was expected.
        problem: String,
    },
    /// Two layers of one name.
    #[error("layer '{0}' is named twice")]
    Duplicate(String),
    /// The last node does not give a row of at least two numbers.
    #[error("the last layer gives {0}; one number for each of at least two classes is needed")]
    Output(String),
}

impl Op {
    /// Whether it is counted as a layer: a convolution or a dense layer.
    fn is_layer(&self) -> bool {
        matches!(self, Self::Conv2d(_) | Self::Linear { .. })
    }

    /// The parameters that it names.
    fn params(&self) -> Vec<ParamId> {
        match self {
            Self::Conv2d(Conv2d { weight, bias, .. }) | Self::Linear { weight, bias } => {
                [Some(*weight), *bias].into_iter().flatten().collect()
            }
            Self::BatchNorm {
                weight,
                bias,
                running_mean,
                running_var,
                ..
            } => vec![*weight, *bias, *running_mean, *running_var],
            Self::LayerNorm { weight, bias, .. } => vec![*weight, *bias],
            Self::Scale { weight } => vec![*weight],
            Self::Input
            | Self::Activation(_)
            | Self::MaxPool(_)
            | Self::AvgPool(_)
            | Self::GlobalAvgPool
            | Self::Flatten
            | Self::Dropout { .. }
            | Self::Add
            | Self::Mul
            | Self::Concat
            | Self::Pad(_) => Vec::new(),
        }
    }
}

impl NodeId {
    /// The image.
    pub const INPUT: Self = Self(0);

    /// Its place in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

impl ParamId {
    /// Its place in [`Graph::params`].
    pub fn index(self) -> usize {
        self.0
    }
}

impl Param {
    /// Whether the optimiser changes it.
    pub fn is_trained(&self) -> bool {
        !self.frozen && !matches!(self.kind, ParamKind::RunningMean | ParamKind::RunningVar)
    }
}

impl Shape {
    /// Numbers in one image's value.
    pub fn len(self) -> usize {
        match self {
            Self::Map {
                channels,
                height,
                width,
            } => channels * height * width,
            Self::Flat(features) => features,
        }
    }

    /// Whether it holds no number; never true in a checked graph.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map {
                channels,
                height,
                width,
            } => write!(f, "{channels}×{height}×{width}"),
            Self::Flat(features) => features.fmt(f),
        }
    }
}

impl Graph {
    /// Numbers given per image: the classes.
    pub fn classes(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.shape.len())
    }

    /// Count of trained numbers.
    pub fn parameters(&self) -> usize {
        self.params
            .iter()
            .filter(|p| p.is_trained())
            .map(|p| p.shape.iter().product::<usize>())
            .sum()
    }

    /// Convolutions and dense layers.
    pub fn layers(&self) -> usize {
        self.nodes.iter().filter(|node| node.op.is_layer()).count()
    }

    /// Freezes the first `layers` convolutions and dense layers, in order of computation, with the norms and scales up to
    /// the next one: their trained numbers stay, and their batch-norms use and keep the running statistics.
    pub fn freeze(&mut self, layers: usize) {
        let mut reached = 0;
        for node in &self.nodes {
            reached += usize::from(node.op.is_layer());
            if reached > layers {
                return;
            }
            for id in node.op.params() {
                self.params[id.0].frozen = layers > 0;
            }
        }
    }

    /// The parameters of the last convolution or dense layer, which gives the logits.
    pub(super) fn head(&self) -> Vec<ParamId> {
        let last = self.nodes.iter().rev().find(|node| node.op.is_layer());
        last.map_or_else(Vec::new, |node| node.op.params())
    }

    /// The parameter behind an id of this graph.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// The node behind an id of this graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
}
