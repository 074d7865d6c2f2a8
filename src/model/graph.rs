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

    /// Where this network's body, all before its last convolution or dense layer, first differs from another's; none where the
    /// two are one but for the number of classes. Then the weights of the one, with a fresh last layer, fit the other.
    pub fn body_difference(&self, other: &Self) -> Option<String> {
        if self.input != other.input {
            let told = |input: Input| format!("{}×{}×{}", input.channels, input.height, input.width);
            let [a, b] = [self, other].map(|graph| told(graph.input));
            return Some(format!("an input of {a}, and one of {b}"));
        }
        self.step_difference(other)
            .or_else(|| self.shape_difference(other))
    }

    fn step_difference(&self, other: &Self) -> Option<String> {
        let head = self.head_node().unwrap_or_default();
        for (place, (a, b)) in self.nodes.iter().zip(&other.nodes).enumerate() {
            let same_step = (&a.name, &a.op, &a.inputs) == (&b.name, &b.op, &b.inputs);
            // From the last layer on there is a number for each class.
            if !same_step || (place < head && a.shape != b.shape) {
                return Some(match (&a.name, a.shape) == (&b.name, b.shape) {
                    true => format!("what layer '{}' computes", a.name),
                    false => format!(
                        "layer '{}' that gives {}, and '{}' that gives {}",
                        a.name, a.shape, b.name, b.shape
                    ),
                });
            }
        }
        let [a, b] = [self, other].map(|graph| graph.nodes.len());
        (a != b).then(|| format!("{a} steps, and {b}"))
    }

    /// Of the parameters of two networks of the same steps.
    fn shape_difference(&self, other: &Self) -> Option<String> {
        let head = self.head();
        let pairs = self.params.iter().zip(&other.params).enumerate();
        let mut body = pairs.filter(|(place, _)| !head.contains(&ParamId(*place)));
        let differs = body.find(|(_, (a, b))| (&a.name, &a.shape) != (&b.name, &b.shape));
        differs.map(|(_, (a, b))| format!("'{}' of {:?}, and '{}' of {:?}", a.name, a.shape, b.name, b.shape))
    }

    /// The place of the last convolution or dense layer, which gives the logits.
    fn head_node(&self) -> Option<usize> {
        self.nodes.iter().rposition(|node| node.op.is_layer())
    }

    /// The parameters of the last convolution or dense layer, which gives the logits.
    pub(super) fn head(&self) -> Vec<ParamId> {
        let head = self.head_node();
        head.map_or_else(Vec::new, |head| self.nodes[head].op.params())
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

#[cfg(test)]
mod tests {
    use crate::model::{Graph, Input, arch, spec};

    fn input(side: usize) -> Input {
        Input {
            channels: 3,
            height: side,
            width: side,
        }
    }

    #[test]
    fn bodies_are_the_same_whatever_the_classes() {
        for name in arch::NAMES {
            let build = |classes| arch::build(name, input(224), classes).unwrap();
            let (few, many) = (build(3), build(10));
            assert_eq!(few.body_difference(&many), None, "{name}");
            assert_eq!(few.body_difference(&few), None, "{name}");
        }
    }

    #[test]
    fn other_bodies_are_told_by_their_first_difference() {
        let build = |name: &str, side| arch::build(name, input(side), 3).unwrap();
        let check = |a: &Graph, b: &Graph, expected: &str| {
            let told = a.body_difference(b).unwrap();
            assert_eq!(told, expected);
            assert!(b.body_difference(a).is_some());
        };
        let small = build("small-cnn", 64);
        check(
            &small,
            &build("small-cnn", 32),
            "an input of 3×64×64, and one of 3×32×32",
        );
        let small = build("small-cnn", 224);
        for name in arch::NAMES {
            let is_same = small.body_difference(&build(name, 224)).is_none();
            assert_eq!(is_same, *name == "small-cnn", "{name}");
        }
        let own = |kernel: usize, padding: usize, bias: bool, more: &str| {
            let text = format!(
                "labels = ['a', 'b']\ninput = {{ channels = 3, height = 8, width = 8 }}\n\
                 [[layers]]\ntype = 'conv2d'\nname = 'c'\nout = 4\nkernel = {kernel}\npadding = {padding}\nbias = {bias}\n\
                 {more}[[layers]]\ntype = 'global_avg_pool'\n[[layers]]\ntype = 'flatten'\n\
                 [[layers]]\ntype = 'linear'\nname = 'fc'\nout = 'classes'\n"
            );
            spec::Spec::parse(&text).unwrap().graph().unwrap()
        };
        let plain = own(3, 1, true, "");
        assert_eq!(plain.body_difference(&own(3, 1, true, "")), None);
        // The same values go through both.
        check(&plain, &own(5, 2, true, ""), "what layer 'c' computes");
        check(
            &plain,
            &own(3, 0, true, ""),
            "layer 'c' that gives 4×8×8, and 'c' that gives 4×6×6",
        );
        let relu = "[[layers]]\ntype = 'relu'\n";
        assert!(plain.body_difference(&own(3, 1, true, relu)).is_some());
        assert!(plain.body_difference(&own(3, 1, false, "")).is_some());
    }
}
