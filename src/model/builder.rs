//! Builds a [`Graph`] layer by layer, inferring shapes as torch does.

use super::Input;
use super::dialect::Dialect;
use super::graph::{
    Activation, Conv2d, Graph, GraphError, Node, NodeId, Op, Param, ParamId, ParamKind, Pool, Shape,
};

mod norm;
mod same;
#[cfg(test)]
mod tests;

pub use norm::BatchNormOptions;

/// Options of a convolution; the defaults are torch's.
#[derive(Clone, Copy, Debug)]
pub struct ConvOptions {
    /// Step, rows first.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Channel groups.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether a ReLU-like activation follows, for the initialisation.
    pub rectified: bool,
}

/// Collects nodes and parameters. Each method adds one layer and returns its node, or says which shapes do not meet.
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    input: Input,
    nodes: Vec<Node>,
    params: Vec<Param>,
    dialects: Vec<Dialect>,
}

impl Default for ConvOptions {
    fn default() -> Self {
        Self {
            stride: [1; 2],
            padding: [0; 2],
            dilation: [1; 2],
            groups: 1,
            bias: true,
            rectified: true,
        }
    }
}

impl Pool {
    /// A window that steps by its own size, without padding.
    pub fn square(kernel: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [kernel; 2],
            padding: [0; 2],
        }
    }
}

impl GraphBuilder {
    /// An empty network over images of this shape.
    pub fn new(input: Input) -> Self {
        let shape = Shape::Map {
            channels: input.channels,
            height: input.height,
            width: input.width,
        };
        let node = Node {
            name: "input".to_owned(),
            op: Op::Input,
            inputs: Vec::new(),
            shape,
        };
        Self {
            input,
            nodes: vec![node],
            params: Vec::new(),
            dialects: Vec::new(),
        }
    }

    /// The image.
    pub fn input(&self) -> NodeId {
        NodeId::INPUT
    }

    /// What a node of this network gives for one image.
    pub fn shape(&self, x: NodeId) -> Shape {
        self.nodes[x.0].shape
    }

    /// A convolution to `out` channels with a kernel of kh×kw; parameters `<name>.weight` and `<name>.bias`.
    pub fn conv2d(
        &mut self,
        name: &str,
        x: NodeId,
        (out, kernel): (usize, [usize; 2]),
        options: ConvOptions,
    ) -> Result<NodeId, GraphError> {
        let ConvOptions {
            stride,
            padding,
            dilation,
            groups,
            bias,
            rectified,
        } = options;
        let [channels, height, width] = self.map(name, x)?;
        if groups == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) || out == 0 {
            return Err(misfit(
                name,
                format!("{channels} to {out} channels do not divide into {groups} groups"),
            ));
        }
        if dilation.contains(&0) {
            return Err(misfit(name, "the dilation is 0".to_owned()));
        }
        let reach =
            |axis: usize| dilation[axis] * kernel[axis].saturating_sub(1) + usize::from(kernel[axis] > 0);
        let window = Pool {
            kernel: [reach(0), reach(1)],
            stride,
            padding,
        };
        let [height, width] = window_output(name, [height, width], window)?;
        let [kh, kw] = kernel;
        let (fan_in, fan_out) = (channels / groups * kh * kw, out / groups * kh * kw);
        let kind = ParamKind::Weight {
            fan_in,
            fan_out,
            rectified,
        };
        let weight = self.param(name, "weight", &[out, channels / groups, kh, kw], kind);
        let bias = bias.then(|| self.param(name, "bias", &[out], ParamKind::Bias));
        let op = Op::Conv2d(Conv2d {
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
        });
        self.push(
            name,
            op,
            vec![x],
            Shape::Map {
                channels: out,
                height,
                width,
            },
        )
    }

    /// A dense layer; parameters `<name>.weight` (out × in) and `<name>.bias`. `rectified`: a ReLU follows.
    pub fn linear(
        &mut self,
        name: &str,
        x: NodeId,
        out: usize,
        rectified: bool,
    ) -> Result<NodeId, GraphError> {
        let Shape::Flat(features) = self.shape(x) else {
            return Err(misfit(
                name,
                format!("needs flat features, got {}", self.shape(x)),
            ));
        };
        if out == 0 {
            return Err(misfit(name, "no outputs".to_owned()));
        }
        let kind = ParamKind::Weight {
            fan_in: features,
            fan_out: out,
            rectified,
        };
        let weight = self.param(name, "weight", &[out, features], kind);
        let bias = Some(self.param(name, "bias", &[out], ParamKind::Bias));
        self.push(name, Op::Linear { weight, bias }, vec![x], Shape::Flat(out))
    }

    /// An elementwise function.
    pub fn activation(&mut self, name: &str, x: NodeId, function: Activation) -> Result<NodeId, GraphError> {
        self.push(name, Op::Activation(function), vec![x], self.shape(x))
    }

    /// The largest of each window.
    pub fn max_pool(&mut self, name: &str, x: NodeId, pool: Pool) -> Result<NodeId, GraphError> {
        let shape = self.pooled(name, x, pool)?;
        self.push(name, Op::MaxPool(pool), vec![x], shape)
    }

    /// The mean of each window.
    pub fn avg_pool(&mut self, name: &str, x: NodeId, pool: Pool) -> Result<NodeId, GraphError> {
        let shape = self.pooled(name, x, pool)?;
        self.push(name, Op::AvgPool(pool), vec![x], shape)
    }

    /// The mean over rows and columns: C×1×1.
    pub fn global_avg_pool(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        let [channels, ..] = self.map(name, x)?;
        self.push(
            name,
            Op::GlobalAvgPool,
            vec![x],
            Shape::Map {
                channels,
                height: 1,
                width: 1,
            },
        )
    }

    /// Everything in one row.
    pub fn flatten(&mut self, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        self.push(name, Op::Flatten, vec![x], Shape::Flat(self.shape(x).len()))
    }

    /// Dropout with probability `p`.
    pub fn dropout(&mut self, name: &str, x: NodeId, p: f32) -> Result<NodeId, GraphError> {
        if !(0.0..1.0).contains(&p) {
            return Err(misfit(
                name,
                format!("a probability of {p}; 0 up to, not including, 1"),
            ));
        }
        self.push(name, Op::Dropout { p }, vec![x], self.shape(x))
    }

    /// The sum of two values of one shape.
    pub fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        if self.shape(a) != self.shape(b) {
            return Err(misfit(
                name,
                format!("{} and {} cannot be added", self.shape(a), self.shape(b)),
            ));
        }
        self.push(name, Op::Add, vec![a, b], self.shape(a))
    }

    /// The product of two values of one shape, or of C×H×W and C×1×1.
    pub fn mul(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        let scales = match (self.shape(a), self.shape(b)) {
            (
                Shape::Map { channels: c, .. },
                Shape::Map {
                    channels,
                    height: 1,
                    width: 1,
                },
            ) => c == channels,
            (a, b) => a == b,
        };
        if !scales {
            return Err(misfit(
                name,
                format!("{} cannot be scaled by {}", self.shape(a), self.shape(b)),
            ));
        }
        self.push(name, Op::Mul, vec![a, b], self.shape(a))
    }

    /// The channels of all `inputs`, one after another.
    pub fn concat(&mut self, name: &str, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let first = *inputs
            .first()
            .ok_or_else(|| misfit(name, "nothing to join".to_owned()))?;
        let [mut channels, height, width] = self.map(name, first)?;
        for &x in &inputs[1..] {
            let [more, h, w] = self.map(name, x)?;
            if (h, w) != (height, width) {
                return Err(misfit(
                    name,
                    format!("{} and {} cannot be joined", self.shape(first), self.shape(x)),
                ));
            }
            channels += more;
        }
        self.push(
            name,
            Op::Concat,
            inputs.to_vec(),
            Shape::Map {
                channels,
                height,
                width,
            },
        )
    }

    /// Zeros around: top, bottom, left, right.
    pub fn pad(&mut self, name: &str, x: NodeId, border: [usize; 4]) -> Result<NodeId, GraphError> {
        let [channels, height, width] = self.map(name, x)?;
        let [top, bottom, left, right] = border;
        let shape = Shape::Map {
            channels,
            height: height + top + bottom,
            width: width + left + right,
        };
        self.push(name, Op::Pad(border), vec![x], shape)
    }

    /// Another library's names for the parameters of this network.
    pub fn also_named(&mut self, dialect: Dialect) {
        self.dialects.push(dialect);
    }

    /// The finished network, whose output is the last layer added.
    pub fn finish(self) -> Result<Graph, GraphError> {
        match self.nodes.last().map(|node| node.shape) {
            Some(Shape::Flat(classes)) if classes >= 2 => Ok(Graph {
                input: self.input,
                nodes: self.nodes,
                params: self.params,
                dialects: self.dialects,
            }),
            other => Err(GraphError::Output(
                other.map(|s| s.to_string()).unwrap_or_default(),
            )),
        }
    }

    fn map(&self, name: &str, x: NodeId) -> Result<[usize; 3], GraphError> {
        match self.shape(x) {
            Shape::Map {
                channels,
                height,
                width,
            } => Ok([channels, height, width]),
            Shape::Flat(features) => Err(misfit(
                name,
                format!("needs channels × rows × columns, got {features} flat features"),
            )),
        }
    }

    fn pooled(&self, name: &str, x: NodeId, pool: Pool) -> Result<Shape, GraphError> {
        let [channels, height, width] = self.map(name, x)?;
        // Beyond half the kernel a window could lie wholly in the padding, where max has no value.
        if (0..2).any(|axis| pool.padding[axis] > pool.kernel[axis] / 2) {
            return Err(misfit(
                name,
                format!("padding {:?} is over half of {:?}", pool.padding, pool.kernel),
            ));
        }
        let [height, width] = window_output(name, [height, width], pool)?;
        Ok(Shape::Map {
            channels,
            height,
            width,
        })
    }

    fn param(&mut self, layer: &str, field: &str, shape: &[usize], kind: ParamKind) -> ParamId {
        self.params.push(Param {
            name: format!("{layer}.{field}"),
            shape: shape.to_vec(),
            kind,
            frozen: false,
        });
        ParamId(self.params.len() - 1)
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<NodeId>, shape: Shape) -> Result<NodeId, GraphError> {
        if self.nodes.iter().any(|node| node.name == name) {
            return Err(GraphError::Duplicate(name.to_owned()));
        }
        self.nodes.push(Node {
            name: name.to_owned(),
            op,
            inputs,
            shape,
        });
        Ok(NodeId(self.nodes.len() - 1))
    }
}

/// ⌊(in + 2·padding − kernel)/stride⌋ + 1 for rows and columns.
fn window_output(layer: &str, size: [usize; 2], window: Pool) -> Result<[usize; 2], GraphError> {
    let mut output = [0; 2];
    for axis in 0..2 {
        let (kernel, stride) = (window.kernel[axis], window.stride[axis]);
        let padded = size[axis] + 2 * window.padding[axis];
        if kernel == 0 || stride == 0 {
            return Err(misfit(layer, "a kernel or stride of 0".to_owned()));
        }
        if padded < kernel {
            let [height, width] = size;
            return Err(misfit(
                layer,
                format!(
                    "{height}×{width} is smaller than its window of {:?}",
                    window.kernel
                ),
            ));
        }
        output[axis] = (padded - kernel) / stride + 1;
    }
    Ok(output)
}

fn misfit(layer: &str, problem: String) -> GraphError {
    GraphError::Shape {
        layer: layer.to_owned(),
        problem,
    }
}
