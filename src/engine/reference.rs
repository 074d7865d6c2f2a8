//! A network as a program on stock candle computes it, to measure the plan against.

use candle_core::{Result, Tensor, bail};
use candle_nn::{
    BatchNorm, Conv2d, Conv2dConfig, LayerNorm, Linear, Module, ModuleT, ops::hard_sigmoid, ops::sigmoid,
};

use super::EngineError;
use super::device::Device;
use crate::model::graph::{self, Activation, Node, Op, ParamId, Pool};
use crate::model::{Graph, Input, Weights};

/// A graph node by node in candle's and candle-nn's own operators: batch-norm unfolded, nothing fused, a tensor for each
/// value.
#[derive(Debug)]
pub struct Reference {
    input: Input,
    device: Device,
    layers: Vec<Layer>,
}

/// A node of the graph.
#[derive(Debug)]
struct Layer {
    kernel: Kernel,
    inputs: Vec<usize>,
    /// Values that no later layer reads.
    done: Vec<usize>,
}

/// What a layer computes: a layer of candle-nn with its weights, or an operator without any.
#[derive(Debug)]
enum Kernel {
    /// A convolution, after zeros of its own where its two paddings differ (rows, columns).
    Conv2d([usize; 2], Conv2d),
    BatchNorm(BatchNorm),
    LayerNorm(LayerNorm),
    Linear(Linear),
    Scale(Tensor),
    Plain(Op),
}

impl Reference {
    /// Takes the weights to `device`. Strides and dilations that differ by axis are an error: candle has none.
    pub fn new(graph: &Graph, weights: &Weights, device: &Device) -> std::result::Result<Self, EngineError> {
        let loader = Loader {
            graph,
            weights,
            device,
        };
        let mut last = vec![0; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| last[input.index()] = index);
        }
        let layer = |(index, node): (usize, &Node)| {
            let inputs: Vec<usize> = node.inputs.iter().map(|input| input.index()).collect();
            Ok(Layer {
                kernel: loader.kernel(&node.op)?,
                done: inputs
                    .iter()
                    .copied()
                    .filter(|&input| last[input] == index)
                    .collect(),
                inputs,
            })
        };
        Ok(Self {
            input: graph.input,
            device: device.clone(),
            layers: graph.nodes.iter().enumerate().map(layer).collect::<Result<_>>()?,
        })
    }

    /// Answers `items` inputs laid end to end; writes `items · classes` logits over `logits`.
    pub fn run(
        &self,
        inputs: &[f32],
        items: usize,
        logits: &mut Vec<f32>,
    ) -> std::result::Result<(), EngineError> {
        let Input {
            channels,
            height,
            width,
        } = self.input;
        let images = Tensor::from_slice(inputs, (items, channels, height, width), &self.device)?;
        let output = self.forward(&images)?;
        logits.clear();
        logits.extend(output.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let value = match layer.kernel {
                Kernel::Plain(Op::Input) => images.clone(),
                _ => layer.run(&values)?,
            };
            layer.done.iter().for_each(|&input| values[input] = None);
            values.push(Some(value));
        }
        match values.pop().flatten() {
            Some(logits) => Ok(logits),
            None => bail!("the graph is empty"),
        }
    }
}

/// Makes kernels of nodes.
struct Loader<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    device: &'a Device,
}

impl Loader<'_> {
    fn param(&self, id: ParamId) -> Result<Tensor> {
        let name = &self.graph.param(id).name;
        match self.weights.get(name) {
            Some(tensor) => tensor.to_device(self.device),
            None => bail!("the weights have no '{name}'"),
        }
    }

    fn kernel(&self, op: &Op) -> Result<Kernel> {
        let optional = |id: Option<ParamId>| id.map(|id| self.param(id)).transpose();
        Ok(match *op {
            Op::Conv2d(conv) => self.convolution(conv)?,
            Op::BatchNorm {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
                ..
            } => {
                let (mean, variance) = (self.param(running_mean)?, self.param(running_var)?);
                let (weight, bias) = (self.param(weight)?, self.param(bias)?);
                Kernel::BatchNorm(BatchNorm::new(
                    mean.elem_count(),
                    mean,
                    variance,
                    weight,
                    bias,
                    eps,
                )?)
            }
            Op::LayerNorm { weight, bias, eps } => {
                Kernel::LayerNorm(LayerNorm::new(self.param(weight)?, self.param(bias)?, eps))
            }
            Op::Linear { weight, bias } => Kernel::Linear(Linear::new(self.param(weight)?, optional(bias)?)),
            Op::Scale { weight } => Kernel::Scale(self.param(weight)?),
            _ => Kernel::Plain(op.clone()),
        })
    }

    fn convolution(&self, conv: graph::Conv2d) -> Result<Kernel> {
        let graph::Conv2d {
            stride,
            padding,
            dilation,
            groups,
            ..
        } = conv;
        if stride[0] != stride[1] || dilation[0] != dilation[1] {
            bail!("candle's convolution has one stride and one dilation, not {stride:?} and {dilation:?}");
        }
        let (border, padding) = if padding[0] == padding[1] {
            ([0; 2], padding[0])
        } else {
            (padding, 0)
        };
        let config = Conv2dConfig {
            padding,
            stride: stride[0],
            dilation: dilation[0],
            groups,
            ..Conv2dConfig::default()
        };
        let bias = conv.bias.map(|id| self.param(id)).transpose()?;
        Ok(Kernel::Conv2d(
            border,
            Conv2d::new(self.param(conv.weight)?, bias, config),
        ))
    }
}

impl Layer {
    fn run(&self, values: &[Option<Tensor>]) -> Result<Tensor> {
        let read = |&index: &usize| match &values[index] {
            Some(value) => Ok(value),
            None => bail!("a layer has no input"),
        };
        let inputs = self.inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let x = inputs[0];
        match &self.kernel {
            Kernel::Conv2d(border, conv) => conv.forward(&zeros_around(x, *border)?),
            Kernel::BatchNorm(norm) => norm.forward_t(x, false),
            // candle-nn's normalises the last axis.
            Kernel::LayerNorm(norm) => norm
                .forward(&x.permute((0, 2, 3, 1))?.contiguous()?)?
                .permute((0, 3, 1, 2))?
                .contiguous(),
            Kernel::Linear(linear) => linear.forward(x),
            Kernel::Scale(factors) => x.broadcast_mul(factors),
            Kernel::Plain(op) => plain(op, x, &inputs),
        }
    }
}

fn plain(op: &Op, x: &Tensor, inputs: &[&Tensor]) -> Result<Tensor> {
    match op {
        Op::Activation(function) => activate(x, *function),
        Op::MaxPool(pool) => max_pool(x, *pool),
        Op::AvgPool(pool) => avg_pool(x, *pool),
        Op::GlobalAvgPool => x.mean_keepdim((2, 3)),
        Op::Flatten => x.flatten_from(1),
        Op::Dropout { .. } => Ok(x.clone()),
        Op::Add => x + inputs[1],
        Op::Mul => x.broadcast_mul(inputs[1]),
        Op::Concat => Tensor::cat(inputs, 1),
        Op::Pad([top, bottom, left, right]) => x
            .pad_with_zeros(2, *top, *bottom)?
            .pad_with_zeros(3, *left, *right),
        Op::Input
        | Op::Conv2d(_)
        | Op::BatchNorm { .. }
        | Op::LayerNorm { .. }
        | Op::Linear { .. }
        | Op::Scale { .. } => bail!("{op:?} is not without weights"),
    }
}

fn activate(x: &Tensor, function: Activation) -> Result<Tensor> {
    match function {
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0f32, 6f32),
        Activation::Silu => x.silu(),
        Activation::HardSwish => x * hard_sigmoid(x)?,
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Gelu => x.gelu_erf(),
    }
}

/// The border's pixels are repeated, as candle's own ResNet does: a window that is wider than its padding sees the
/// repeated pixel itself too, so that its largest is the same.
#[expect(
    clippy::disallowed_methods,
    reason = "what stock candle does is the subject, and its forward pass is right"
)]
fn max_pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let ([rows, columns], kernel, stride) = (pool.padding, pool.kernel, pool.stride);
    if rows >= kernel[0] || columns >= kernel[1] {
        bail!(
            "a padding of {rows}×{columns} for windows of {}×{}",
            kernel[0],
            kernel[1]
        );
    }
    x.pad_with_same(2, rows, rows)?
        .pad_with_same(3, columns, columns)?
        .max_pool2d_with_stride((kernel[0], kernel[1]), (stride[0], stride[1]))
}

#[expect(
    clippy::disallowed_methods,
    reason = "what stock candle does is the subject, and its forward pass is right"
)]
fn avg_pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
    let (kernel, stride) = (pool.kernel, pool.stride);
    zeros_around(x, pool.padding)?.avg_pool2d_with_stride((kernel[0], kernel[1]), (stride[0], stride[1]))
}

fn zeros_around(x: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor> {
    x.pad_with_zeros(2, rows, rows)?
        .pad_with_zeros(3, columns, columns)
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::super::tests::{ITEMS, TOLERANCE, everything, images, weights};
    use super::*;
    use crate::model::builder::{ConvOptions, GraphBuilder};
    use crate::model::{Version, arch};

    fn largest(values: impl Iterator<Item = f32>) -> f32 {
        values.fold(0.0, |most, value| value.abs().max(most))
    }

    fn check(name: &str, graph: &Graph) {
        let (weights, images) = (weights(graph), images(graph));
        let (mut expected, mut found) = (Vec::new(), vec![f32::NAN; 3]);
        let plan = Plan::compile(Version::FIRST, graph, &weights, &Device::Cpu).unwrap();
        plan.run(&images, ITEMS, &mut expected).unwrap();
        let reference = Reference::new(graph, &weights, &Device::Cpu).unwrap();
        reference.run(&images, ITEMS, &mut found).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let off = largest(found.iter().zip(&expected).map(|(a, b)| a - b));
        let allowed = TOLERANCE * largest(expected.iter().copied());
        assert!(off <= allowed, "{name}: {off} over {allowed}");
    }

    #[test]
    fn stock_candle_computes_what_the_plan_computes() {
        let input = Input {
            channels: 1,
            height: 28,
            width: 28,
        };
        check("seed-cnn", &arch::build("seed-cnn", input, 10).unwrap());
        check("small-cnn", &arch::build("small-cnn", input, 10).unwrap());
        check("everything", &everything().unwrap());
    }

    fn convolution(stride: [usize; 2], padding: [usize; 2]) -> Graph {
        let mut g = GraphBuilder::new(Input {
            channels: 3,
            height: 9,
            width: 11,
        });
        let options = ConvOptions {
            stride,
            padding,
            ..ConvOptions::default()
        };
        let x = g.conv2d("conv", g.input(), (4, [3, 5]), options).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        g.linear("fc", x, 3, false).unwrap();
        g.finish().unwrap()
    }

    #[test]
    fn paddings_may_differ_by_axis_and_strides_may_not() {
        check("padding", &convolution([2, 2], [1, 2]));
        let graph = convolution([1, 2], [1, 1]);
        let error = Reference::new(&graph, &weights(&graph), &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("one stride"), "{error}");
    }
}
