//! A network spelled out in `model.toml`: its layers, one after another, to a [`Graph`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Input;
use super::builder::{ConvOptions, GraphBuilder};
use super::graph::{Activation, Graph, GraphError, NodeId, Pool, Shape};
use super::weights::MAX_FILE_BYTES;

mod parse;
#[cfg(test)]
mod tests;

/// Most layers of one network.
pub const MAX_LAYERS: usize = 1000;
/// Most numbers that one layer may give for one image: 1 GiB of f32.
const MAX_VALUES: usize = 1 << 28;
/// Most numbers of all parameters: what a weights file holds as f32.
const MAX_PARAMETERS: usize = (MAX_FILE_BYTES / 4) as usize;
/// The image's name.
const IMAGE: &str = "input";

/// One entry of `[[layers]]`, its keys checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub struct Layer {
    /// `None`: its type and place, such as `relu2`. Layers with weights have one.
    name: Option<String>,
    kind: Kind,
    /// Whose values it takes; empty: the layer's before it.
    inputs: Vec<String>,
    /// As it stands in the file.
    written: toml::Table,
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Conv2d(Conv),
    BatchNorm,
    Activation(Activation),
    MaxPool(Pool),
    AvgPool(Pool),
    GlobalAvgPool,
    Flatten,
    Linear { out: Out },
    Dropout { p: f32 },
    Add,
    Mul,
    Concat,
    Pad([usize; 4]),
}

/// Keys of a `conv2d`; rows first.
#[derive(Clone, Debug, PartialEq)]
struct Conv {
    out: Out,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    bias: bool,
}

/// How many outputs a layer has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Out {
    Count(usize),
    /// One per label.
    Classes,
}

/// Why `[[layers]]` are no network.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LayersError {
    /// A key, a connection or a size of one layer.
    #[error("layer '{layer}': {problem}")]
    Layer {
        /// Its name; its type where it has none.
        layer: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// More than [`MAX_LAYERS`].
    #[error("{0} layers; at most {MAX_LAYERS} are possible")]
    TooMany(usize),
    /// Shapes that do not meet, or one name twice.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// The network of these layers over images of `input`, with one output for each of `classes`.
pub fn build(layers: &[Layer], input: Input, classes: usize) -> Result<Graph, LayersError> {
    if layers.len() > MAX_LAYERS {
        return Err(LayersError::TooMany(layers.len()));
    }
    let names: Vec<String> = (1..)
        .zip(layers)
        .map(|(place, layer)| layer.called(place))
        .collect();
    let builder = GraphBuilder::new(input);
    let image = builder.input();
    let mut assembly = Assembly {
        layers,
        names: &names,
        classes,
        builder,
        nodes: BTreeMap::from([(IMAGE, image)]),
        last: IMAGE,
        read: BTreeSet::new(),
    };
    (0..layers.len()).try_for_each(|index| assembly.add(index))?;
    assembly.finish()
}

/// A network half built.
struct Assembly<'a> {
    layers: &'a [Layer],
    /// By layer.
    names: &'a [String],
    classes: usize,
    builder: GraphBuilder,
    /// By name: the image and the layers so far.
    nodes: BTreeMap<&'a str, NodeId>,
    /// The layer before the next.
    last: &'a str,
    /// Names whose values some layer takes.
    read: BTreeSet<&'a str>,
}

impl<'a> Assembly<'a> {
    fn add(&mut self, index: usize) -> Result<(), LayersError> {
        let layer = &self.layers[index];
        let name = &self.names[index];
        let inputs = self.inputs(layer, name)?;
        let node = self.node(index, &inputs)?;
        let shape = self.builder.shape(node);
        let fits = values(shape).is_some_and(|count| count <= MAX_VALUES);
        if !fits {
            let problem = format!("gives {shape} numbers for each image; at most {MAX_VALUES} are possible");
            return Err(wrong(name, problem));
        }
        self.nodes.insert(name, node);
        self.last = name;
        Ok(())
    }

    fn inputs(&mut self, layer: &'a Layer, name: &str) -> Result<Vec<NodeId>, LayersError> {
        if layer.inputs.is_empty() {
            self.read.insert(self.last);
            return Ok(vec![self.nodes[self.last]]);
        }
        let mut nodes = Vec::new();
        for input in &layer.inputs {
            let Some(&node) = self.nodes.get(input.as_str()) else {
                return Err(wrong(name, self.unknown(input)));
            };
            self.read.insert(input);
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn unknown(&self, input: &str) -> String {
        if self.names.iter().any(|name| name == input) {
            return format!("takes '{input}', which does not stand before it");
        }
        let before: Vec<&str> = self.nodes.keys().copied().collect();
        format!(
            "takes '{input}', which is no layer{}",
            parse::suggestion(input, &before)
        )
    }

    fn node(&mut self, index: usize, inputs: &[NodeId]) -> Result<NodeId, LayersError> {
        let (name, x) = (&*self.names[index], inputs[0]);
        let second = inputs.get(1).copied().unwrap_or(x);
        let rectified = self.is_rectified(index);
        let out = |out: Out| match out {
            Out::Count(count) => count,
            Out::Classes => self.classes,
        };
        let g = &mut self.builder;
        let node = match &self.layers[index].kind {
            Kind::Conv2d(conv) => g.conv2d(name, x, (out(conv.out), conv.kernel), conv.options(rectified)),
            Kind::BatchNorm => g.batch_norm(name, x),
            Kind::Activation(function) => g.activation(name, x, *function),
            Kind::MaxPool(pool) => g.max_pool(name, x, *pool),
            Kind::AvgPool(pool) => g.avg_pool(name, x, *pool),
            Kind::GlobalAvgPool => g.global_avg_pool(name, x),
            Kind::Flatten => g.flatten(name, x),
            Kind::Linear { out: count } => g.linear(name, x, out(*count), rectified),
            Kind::Dropout { p } => g.dropout(name, x, *p),
            Kind::Add => g.add(name, x, second),
            Kind::Mul => g.mul(name, x, second),
            Kind::Concat => g.concat(name, inputs),
            Kind::Pad(border) => g.pad(name, x, *border),
        };
        Ok(node?)
    }

    /// Whether a ReLU-like function comes next, normalisation and pooling aside: the weights start accordingly.
    fn is_rectified(&self, index: usize) -> bool {
        let mut after = self.layers[index + 1..].iter().map(|layer| &layer.kind);
        let next = after.find(|kind| !matches!(kind, Kind::BatchNorm | Kind::MaxPool(_) | Kind::AvgPool(_)));
        let is_bounded =
            |function: &Activation| matches!(function, Activation::Sigmoid | Activation::HardSigmoid);
        matches!(next, Some(Kind::Activation(function)) if !is_bounded(function))
    }

    fn finish(self) -> Result<Graph, LayersError> {
        let unread = self.names.iter().find(|name| {
            let name = name.as_str();
            name != self.last && !self.read.contains(name)
        });
        if let Some(name) = unread {
            return Err(wrong(name, "no later layer takes what it gives".to_owned()));
        }
        let graph = self.builder.finish()?;
        check_parameters(&graph)?;
        if graph.classes() != self.classes {
            let problem = format!(
                "gives {} numbers for {} labels; the last layer says out = \"classes\"",
                graph.classes(),
                self.classes
            );
            return Err(wrong(self.last, problem));
        }
        Ok(graph)
    }
}

impl Layer {
    fn called(&self, place: usize) -> String {
        let kind = self.written.get("type").and_then(toml::Value::as_str);
        self.name
            .clone()
            .unwrap_or_else(|| format!("{}{place}", kind.unwrap_or_default()))
    }
}

impl Conv {
    fn options(&self, rectified: bool) -> ConvOptions {
        ConvOptions {
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
            bias: self.bias,
            rectified,
        }
    }
}

fn check_parameters(graph: &Graph) -> Result<(), LayersError> {
    let mut total = 0usize;
    for param in &graph.params {
        let count = param
            .shape
            .iter()
            .try_fold(1usize, |n, &side| n.checked_mul(side));
        let sum = count.and_then(|count| total.checked_add(count));
        total = sum.filter(|&sum| sum <= MAX_PARAMETERS).ok_or_else(|| {
            let layer = param
                .name
                .rsplit_once('.')
                .map_or(&*param.name, |(layer, _)| layer);
            let problem = format!(
                "with its weights {:?} the network has over {MAX_PARAMETERS} parameters",
                param.shape
            );
            wrong(layer, problem)
        })?;
    }
    Ok(())
}

fn values(shape: Shape) -> Option<usize> {
    match shape {
        Shape::Map {
            channels,
            height,
            width,
        } => channels.checked_mul(height)?.checked_mul(width),
        Shape::Flat(features) => Some(features),
    }
}

fn wrong(layer: &str, problem: String) -> LayersError {
    LayersError::Layer {
        layer: layer.to_owned(),
        problem,
    }
}
