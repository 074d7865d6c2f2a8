//! Random networks of every kind of layer.

use proptest::prelude::*;

use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, GraphError, NodeId, Pool, Shape};
use crate::model::{Graph, Input};

/// Products of a layer at most, for one image: the reference takes about as many nanoseconds.
const MAX_PRODUCTS: usize = 2_000_000;
/// Numbers of a value at most, for one image; the widest outgrow what the first layers keep for several.
const MAX_NUMBERS: usize = 60_000;

/// A network, and how many images it is given. Layers that do not fit what they would read are left out.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    input: Input,
    pub(super) items: usize,
    pub(super) seed: u64,
    layers: Vec<(usize, Block)>,
}

/// A layer or a block; it reads the node that its recipe names by how many came after it.
#[derive(Clone, Debug)]
enum Block {
    Conv(usize, Groups, ConvWindow),
    /// A convolution that keeps the map's size, by square windows of 1, 3 or 5; a function; the largest of 2×2.
    Same {
        out: usize,
        kernel: usize,
        function: Option<Activation>,
        pooled: bool,
    },
    /// One that keeps channels too, with a batch-norm, and the sum with its input; of features, a dense layer.
    Residual {
        kernel: usize,
        groups: Groups,
        normed: bool,
        function: Option<Activation>,
    },
    /// Squeeze and excite.
    Excite(Activation),
    /// Convolutions of one input, side by side.
    Branches(Vec<(usize, usize)>),
    BatchNorm,
    LayerNorm,
    LayerScale,
    Activation(Activation),
    Dropout,
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool,
    Pad([usize; 4]),
    /// With an earlier node that fits, or itself.
    Add(usize),
    Mul(usize),
    Concat(usize),
    Flatten,
    Linear(usize),
}

#[derive(Clone, Copy, Debug)]
enum Groups {
    One,
    /// Each channel by itself, to as many outputs.
    Channels(usize),
    /// Some divisor of the channels.
    Between(usize),
}

#[derive(Clone, Copy, Debug)]
struct ConvWindow {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    bias: bool,
}

/// Any network.
pub(super) fn recipes() -> impl Strategy<Value = Recipe> {
    let small = (1usize..=5, 1usize..=18, 1usize..=18);
    let large = (1usize..=3, 30usize..=44, 30usize..=44);
    let sizes = prop_oneof![6 => small, 1 => large];
    let back = prop_oneof![5 => Just(0usize), 1 => 1usize..4];
    let layers = prop::collection::vec((back, block()), 1..8);
    (sizes, 1usize..=5, any::<u64>(), layers).prop_map(|((channels, height, width), items, seed, layers)| {
        let input = Input {
            channels,
            height,
            width,
        };
        Recipe {
            input,
            items,
            seed,
            layers,
        }
    })
}

fn block() -> impl Strategy<Value = Block> {
    let kernel = || prop_oneof![1 => Just(1usize), 3 => Just(3usize), 1 => Just(5usize)];
    let same = (channels(), kernel(), prop::option::of(function()), any::<bool>());
    let residual = (kernel(), groups(), any::<bool>(), prop::option::of(function()));
    prop_oneof![
        6 => (channels(), groups(), window()).prop_map(|(out, groups, window)| Block::Conv(out, groups, window)),
        4 => same.prop_map(|(out, kernel, function, pooled)| Block::Same { out, kernel, function, pooled }),
        3 => residual.prop_map(|(kernel, groups, normed, function)| Block::Residual { kernel, groups, normed, function }),
        1 => function().prop_map(Block::Excite),
        2 => prop::collection::vec((channels(), kernel()), 1..4).prop_map(Block::Branches),
        3 => Just(Block::BatchNorm),
        1 => Just(Block::LayerNorm),
        1 => Just(Block::LayerScale),
        4 => function().prop_map(Block::Activation),
        1 => Just(Block::Dropout),
        2 => pool().prop_map(Block::MaxPool),
        2 => pool().prop_map(Block::AvgPool),
        1 => Just(Block::GlobalAvgPool),
        1 => prop::array::uniform4(0usize..3).prop_map(Block::Pad),
        1 => (0usize..4).prop_map(Block::Add),
        1 => (0usize..4).prop_map(Block::Mul),
        2 => (0usize..4).prop_map(Block::Concat),
        2 => Just(Block::Flatten),
        2 => (1usize..=40).prop_map(Block::Linear),
    ]
}

/// Whole vectors of every set of instructions as often as not.
fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 1usize..=40, 1 => (1usize..=10).prop_map(|n| 4 * n), 1 => Just(16usize), 1 => Just(32usize)]
}

fn groups() -> impl Strategy<Value = Groups> {
    prop_oneof![
        2 => Just(Groups::One),
        1 => (1usize..=2).prop_map(Groups::Channels),
        1 => (0usize..4).prop_map(Groups::Between),
    ]
}

fn window() -> impl Strategy<Value = ConvWindow> {
    let kernel = prop_oneof![
        prop::array::uniform2(1usize..=7),
        (1usize..=7).prop_map(|n| [n; 2])
    ];
    let steps = |most: usize| prop_oneof![2 => Just([1; 2]), 1 => prop::array::uniform2(1..=most)];
    let padding = prop_oneof![1 => Just([0; 2]), 2 => prop::array::uniform2(0usize..=4)];
    (kernel, steps(3), padding, steps(3), any::<bool>()).prop_map(
        |(kernel, stride, padding, dilation, bias)| ConvWindow {
            kernel,
            stride,
            padding,
            dilation,
            bias,
        },
    )
}

fn pool() -> impl Strategy<Value = Pool> {
    let any = (
        prop::array::uniform2(1usize..=5),
        prop::array::uniform2(1usize..=3),
        prop::array::uniform2(0usize..=2),
    );
    let any = any.prop_map(|(kernel, stride, padding)| Pool {
        kernel,
        stride,
        padding: [0, 1].map(|axis| padding[axis].min(kernel[axis] / 2)),
    });
    prop_oneof![2 => Just(Pool::square(2)), 3 => any]
}

fn function() -> impl Strategy<Value = Activation> {
    prop::sample::select(Activation::ALL.to_vec())
}

impl Recipe {
    /// The network: its layers as far as they fit, and a row of at least two numbers at the end.
    pub(super) fn graph(&self) -> Graph {
        let mut chain = Chain {
            graph: GraphBuilder::new(self.input),
            nodes: vec![NodeId::INPUT],
        };
        for (back, layer) in &self.layers {
            let at = (chain.nodes.len() - 1).saturating_sub(*back);
            let before = chain.clone();
            if !matches!(chain.layer(chain.nodes[at], layer), Ok(true)) {
                chain = before;
            }
        }
        chain.finish().unwrap()
    }
}

#[derive(Clone)]
struct Chain {
    graph: GraphBuilder,
    nodes: Vec<NodeId>,
}

impl Chain {
    /// Adds a layer behind `x`. False or an error where it does not fit; what was added so far is then dropped.
    fn layer(&mut self, x: NodeId, layer: &Block) -> Result<bool, GraphError> {
        let name = format!("l{}", self.nodes.len());
        let g = &mut self.graph;
        let y = match *layer {
            Block::Conv(out, groups, window) => return self.convolution(x, out, groups, window),
            Block::Same {
                out,
                kernel,
                function,
                pooled,
            } => return self.same(x, (out, kernel), function, pooled),
            Block::Residual {
                kernel,
                groups,
                normed,
                function,
            } => return self.residual(x, (kernel, groups), normed, function),
            Block::Excite(function) => return self.excite(x, function),
            Block::Branches(ref branches) => return self.branches(x, branches),
            Block::BatchNorm => g.batch_norm(&name, x)?,
            // An ε as large as the numbers, so that no place's own rounding is blown up.
            Block::LayerNorm => g.layer_norm(&name, x, 0.1)?,
            Block::LayerScale => g.layer_scale(&name, x)?,
            Block::Activation(function) => g.activation(&name, x, function)?,
            Block::Dropout => g.dropout(&name, x, 0.5)?,
            Block::MaxPool(pool) => g.max_pool(&name, x, pool)?,
            Block::AvgPool(pool) => g.avg_pool(&name, x, pool)?,
            Block::GlobalAvgPool => g.global_avg_pool(&name, x)?,
            Block::Pad(border) => g.pad(&name, x, border)?,
            Block::Add(nth) => {
                let other = self.like(x, nth);
                self.graph.add(&name, x, other)?
            }
            Block::Mul(nth) => {
                let other = self.like(x, nth);
                self.graph.mul(&name, x, other)?
            }
            Block::Concat(nth) => {
                let Some(other) = self.beside(x, nth) else {
                    return Ok(false);
                };
                self.graph.concat(&name, &[x, other])?
            }
            Block::Flatten => g.flatten(&name, x)?,
            Block::Linear(out) => {
                let x = match g.shape(x) {
                    Shape::Map { .. } => g.flatten(&format!("{name}.flat"), x)?,
                    Shape::Flat(_) => x,
                };
                if g.shape(x).len() * out > MAX_PRODUCTS {
                    return Ok(false);
                }
                g.linear(&name, x, out, true)?
            }
        };
        Ok(self.push(y))
    }

    fn push(&mut self, y: NodeId) -> bool {
        self.nodes.push(y);
        self.graph.shape(y).len() <= MAX_NUMBERS
    }

    fn last(&self) -> NodeId {
        self.nodes[self.nodes.len() - 1]
    }

    fn convolution(
        &mut self,
        x: NodeId,
        out: usize,
        groups: Groups,
        window: ConvWindow,
    ) -> Result<bool, GraphError> {
        let Shape::Map { channels, .. } = self.graph.shape(x) else {
            return Ok(false);
        };
        let groups_count = groups.of(channels);
        let out = match groups {
            Groups::One => out,
            Groups::Channels(times) => times * channels,
            Groups::Between(_) => out.next_multiple_of(groups_count),
        };
        let options = ConvOptions {
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups: groups_count,
            bias: window.bias,
            rectified: true,
        };
        let name = format!("l{}", self.nodes.len());
        let y = self.graph.conv2d(&name, x, (out, window.kernel), options)?;
        let products =
            self.graph.shape(y).len() * channels / groups_count * window.kernel[0] * window.kernel[1];
        Ok(self.push(y) && products <= MAX_PRODUCTS)
    }

    fn same(
        &mut self,
        x: NodeId,
        (out, kernel): (usize, usize),
        function: Option<Activation>,
        pooled: bool,
    ) -> Result<bool, GraphError> {
        let mut fits = self.convolution(x, out, Groups::One, same(kernel))?;
        if let Some(function) = function {
            fits &= self.layer(self.last(), &Block::Activation(function))?;
        }
        if pooled {
            fits &= self.layer(self.last(), &Block::MaxPool(Pool::square(2)))?;
        }
        Ok(fits)
    }

    fn residual(
        &mut self,
        x: NodeId,
        (kernel, groups): (usize, Groups),
        normed: bool,
        function: Option<Activation>,
    ) -> Result<bool, GraphError> {
        let channels = match self.graph.shape(x) {
            Shape::Map { channels, .. } => channels,
            Shape::Flat(features) => return self.flat_residual(x, features, normed, function),
        };
        let groups = match groups {
            Groups::Channels(_) => Groups::Channels(1),
            other => other,
        };
        let mut fits = self.convolution(x, channels, groups, same(kernel))?;
        if normed {
            fits &= self.layer(self.last(), &Block::BatchNorm)?;
        }
        let name = format!("l{}", self.nodes.len());
        let sum = self.graph.add(&name, self.last(), x)?;
        fits &= self.push(sum);
        if let Some(function) = function {
            fits &= self.layer(sum, &Block::Activation(function))?;
        }
        Ok(fits)
    }

    /// A dense layer and the sum of its features with its input; a function between them, or after.
    fn flat_residual(
        &mut self,
        x: NodeId,
        features: usize,
        between: bool,
        function: Option<Activation>,
    ) -> Result<bool, GraphError> {
        let mut fits = self.layer(x, &Block::Linear(features))?;
        let functions = function.map(Block::Activation);
        if let (true, Some(function)) = (between, &functions) {
            fits &= self.layer(self.last(), function)?;
        }
        let name = format!("l{}", self.nodes.len());
        let sum = self.graph.add(&name, self.last(), x)?;
        fits &= self.push(sum);
        if let (false, Some(function)) = (between, &functions) {
            fits &= self.layer(sum, function)?;
        }
        Ok(fits)
    }

    fn excite(&mut self, x: NodeId, function: Activation) -> Result<bool, GraphError> {
        let Shape::Map { channels, .. } = self.graph.shape(x) else {
            return Ok(false);
        };
        let mut fits = self.layer(x, &Block::GlobalAvgPool)?;
        fits &= self.convolution(self.last(), channels, Groups::One, same(1))?;
        fits &= self.layer(self.last(), &Block::Activation(function))?;
        let name = format!("l{}", self.nodes.len());
        let y = self.graph.mul(&name, x, self.last())?;
        Ok(self.push(y) && fits)
    }

    fn branches(&mut self, x: NodeId, branches: &[(usize, usize)]) -> Result<bool, GraphError> {
        let mut parts = Vec::new();
        let mut fits = true;
        for &(out, kernel) in branches {
            fits &= self.convolution(x, out, Groups::One, same(kernel))?;
            parts.push(self.last());
        }
        let name = format!("l{}", self.nodes.len());
        let y = self.graph.concat(&name, &parts)?;
        Ok(self.push(y) && fits)
    }

    /// The `nth` latest node of the shape of `x`, counted around.
    fn like(&self, x: NodeId, nth: usize) -> NodeId {
        let shape = self.graph.shape(x);
        let latest = self.nodes.iter().rev().copied();
        let alike: Vec<NodeId> = latest.filter(|&y| self.graph.shape(y) == shape).collect();
        alike[(nth + 1) % alike.len()]
    }

    /// The `nth` latest map with the rows and columns of `x`, counted around.
    fn beside(&self, x: NodeId, nth: usize) -> Option<NodeId> {
        let size = |y: NodeId| match self.graph.shape(y) {
            Shape::Map { height, width, .. } => Some([height, width]),
            Shape::Flat(_) => None,
        };
        let wanted = size(x)?;
        let fitting = self.nodes.iter().rev().copied();
        let fitting: Vec<NodeId> = fitting.filter(|&y| size(y) == Some(wanted)).collect();
        Some(fitting[(nth + 1) % fitting.len()])
    }

    fn finish(mut self) -> Result<Graph, GraphError> {
        let mut last = self.last();
        if matches!(self.graph.shape(last), Shape::Map { .. }) {
            last = self.graph.flatten("flat", last)?;
        }
        if self.graph.shape(last).len() < 2 {
            self.graph.linear("classes", last, 3, false)?;
        }
        self.graph.finish()
    }
}

impl Groups {
    fn of(self, channels: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Channels(_) => channels,
            Self::Between(nth) => {
                let divisors: Vec<usize> = (1..=channels).filter(|n| channels.is_multiple_of(*n)).collect();
                divisors[nth % divisors.len()]
            }
        }
    }
}

fn same(kernel: usize) -> ConvWindow {
    ConvWindow {
        kernel: [kernel; 2],
        stride: [1; 2],
        padding: [kernel / 2; 2],
        dilation: [1; 2],
        bias: true,
    }
}
