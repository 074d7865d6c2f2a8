//! A graph computed node by node from its definition, in `f64`: what whole plans are tested against.

use candle_core::{DType, Device, Tensor};

use crate::model::graph::{Activation, Conv2d, Node, Op, ParamId, Pool, Shape};
use crate::model::{Graph, Weights};

/// A map of channels × rows × columns; a row of features is a map of single pixels.
#[derive(Clone, Debug)]
struct Map {
    size: [usize; 3],
    numbers: Vec<f64>,
}

/// Stride, dilation and padding along one axis.
type Steps = (usize, usize, usize);

/// The answers to images laid end to end, one after another.
pub(super) fn exact(graph: &Graph, weights: &Weights, images: &[f32]) -> Vec<Vec<f64>> {
    let reference = Reference { graph, weights };
    let image = graph.nodes[0].shape.len();
    images
        .chunks_exact(image)
        .map(|image| reference.answer(image))
        .collect()
}

struct Reference<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
}

impl Reference<'_> {
    fn answer(&self, image: &[f32]) -> Vec<f64> {
        let mut values: Vec<Map> = Vec::new();
        for node in &self.graph.nodes {
            let inputs: Vec<&Map> = node.inputs.iter().map(|input| &values[input.index()]).collect();
            let numbers = match node.op {
                Op::Input => image.iter().copied().map(f64::from).collect(),
                _ => self.node(node, &inputs),
            };
            let size = size(node.shape);
            assert_eq!(numbers.len(), size.iter().product::<usize>(), "{}", node.name);
            values.push(Map { size, numbers });
        }
        values.pop().unwrap().numbers
    }

    fn node(&self, node: &Node, inputs: &[&Map]) -> Vec<f64> {
        let x = inputs[0];
        match node.op {
            Op::Input => unreachable!("the image is no layer"),
            Op::Conv2d(ref conv) => self.convolution(conv, x, size(node.shape)),
            Op::BatchNorm {
                weight,
                bias,
                running_mean,
                running_var,
                eps,
                ..
            } => {
                let [weight, bias, mean, variance] =
                    [weight, bias, running_mean, running_var].map(|id| self.param(id));
                x.by_channel(|c, v| (v - mean[c]) / (variance[c] + eps).sqrt() * weight[c] + bias[c])
            }
            Op::LayerNorm { weight, bias, eps } => {
                let (weight, bias) = (self.param(weight), self.param(bias));
                x.normalised(eps).by_channel(|c, v| v * weight[c] + bias[c])
            }
            Op::Scale { weight } => {
                let factors = self.param(weight);
                x.by_channel(|c, v| v * factors[c])
            }
            Op::Linear { weight, bias } => {
                let rows = self.param(weight);
                let sums = rows.chunks_exact(x.numbers.len()).map(|row| dot(row, &x.numbers));
                let bias = bias.map_or_else(|| vec![0.0; size(node.shape)[0]], |id| self.param(id));
                sums.zip(bias).map(|(sum, bias)| sum + bias).collect()
            }
            Op::Activation(function) => applied(function, &x.numbers),
            Op::MaxPool(pool) => x.pooled(pool, size(node.shape), |all| {
                all.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            }),
            Op::AvgPool(pool) => {
                let area = (pool.kernel[0] * pool.kernel[1]) as f64;
                x.pooled(pool, size(node.shape), |all| all.iter().sum::<f64>() / area)
            }
            Op::GlobalAvgPool => {
                let pixels = x.pixels();
                let planes = x.numbers.chunks_exact(pixels);
                planes
                    .map(|plane| plane.iter().sum::<f64>() / pixels as f64)
                    .collect()
            }
            Op::Flatten | Op::Dropout { .. } => x.numbers.clone(),
            Op::Add => pairs(x, inputs[1], |a, b| a + b),
            Op::Mul if inputs[1].pixels() == 1 => x.by_channel(|c, v| v * inputs[1].numbers[c]),
            Op::Mul => pairs(x, inputs[1], |a, b| a * b),
            Op::Concat => inputs.iter().flat_map(|part| part.numbers.clone()).collect(),
            Op::Pad([top, _, left, _]) => x.padded([top, left], size(node.shape)),
        }
    }

    fn param(&self, id: ParamId) -> Vec<f64> {
        let tensor = self.weights.get(&self.graph.param(id).name).unwrap();
        let numbers = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
        numbers.to_vec1().unwrap()
    }

    fn convolution(&self, conv: &Conv2d, x: &Map, [out, height, width]: [usize; 3]) -> Vec<f64> {
        let [channels, rows, columns] = x.size;
        let [.., kh, kw] = self.graph.param(conv.weight).shape[..] else {
            panic!("a convolution's weights have four axes");
        };
        let own = channels / conv.groups;
        let weight = self.param(conv.weight);
        let bias = conv.bias.map_or_else(|| vec![0.0; out], |id| self.param(id));
        let steps = |axis: usize| (conv.stride[axis], conv.dilation[axis], conv.padding[axis]);
        let mut sums: Vec<f64> = bias
            .iter()
            .flat_map(|&b| std::iter::repeat_n(b, height * width))
            .collect();
        for (tap, &weight) in weight.iter().enumerate() {
            let (o, i, [ky, kx]) = (
                tap / (own * kh * kw),
                tap / (kh * kw) % own,
                [tap / kw % kh, tap % kw],
            );
            let channel = o / (out / conv.groups) * own + i;
            for y in 0..height {
                let Some(row) = seen(y, ky, steps(0), rows) else {
                    continue;
                };
                let line = &x.numbers[(channel * rows + row) * columns..][..columns];
                let sums = &mut sums[(o * height + y) * width..][..width];
                for (at, sum) in sums.iter_mut().enumerate() {
                    if let Some(column) = seen(at, kx, steps(1), columns) {
                        *sum += weight * line[column];
                    }
                }
            }
        }
        sums
    }
}

impl Map {
    fn pixels(&self) -> usize {
        self.size[1] * self.size[2]
    }

    fn by_channel(&self, value: impl Fn(usize, f64) -> f64) -> Vec<f64> {
        let pixels = self.pixels();
        let numbered = self.numbers.iter().enumerate();
        numbered.map(|(at, &v)| value(at / pixels, v)).collect()
    }

    /// Each place's channels less their mean, over their deviation.
    fn normalised(&self, eps: f64) -> Self {
        let (channels, pixels) = (self.size[0], self.pixels());
        let mut normal = self.clone();
        for pixel in 0..pixels {
            let place = || (0..channels).map(|c| self.numbers[c * pixels + pixel]);
            let mean = place().sum::<f64>() / channels as f64;
            let variance = place().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
            for (c, value) in place().enumerate() {
                normal.numbers[c * pixels + pixel] = (value - mean) / (variance + eps).sqrt();
            }
        }
        normal
    }

    /// `of` what each window sees of the map.
    fn pooled(&self, pool: Pool, to: [usize; 3], of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let [_, rows, columns] = self.size;
        let [channels, height, width] = to;
        let window = |output: usize, axis: usize, size: usize| {
            let steps = (pool.stride[axis], 1, pool.padding[axis]);
            (0..pool.kernel[axis]).filter_map(move |tap| seen(output, tap, steps, size))
        };
        let places =
            (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
        places
            .map(|(c, y, x)| {
                let lines = window(y, 0, rows).map(|row| (c * rows + row) * columns);
                let all: Vec<f64> = lines
                    .flat_map(|line| window(x, 1, columns).map(move |column| self.numbers[line + column]))
                    .collect();
                of(&all)
            })
            .collect()
    }

    fn padded(&self, [top, left]: [usize; 2], [channels, height, width]: [usize; 3]) -> Vec<f64> {
        let [_, rows, columns] = self.size;
        let mut numbers = vec![0.0; channels * height * width];
        for (line, from) in self.numbers.chunks_exact(columns).enumerate() {
            let (channel, row) = (line / rows, line % rows);
            let to = (channel * height + top + row) * width + left;
            numbers[to..to + columns].copy_from_slice(from);
        }
        numbers
    }
}

/// The place that a tap of a window sees, if it lies in the map.
fn seen(output: usize, tap: usize, (stride, dilation, padding): Steps, size: usize) -> Option<usize> {
    (output * stride + tap * dilation)
        .checked_sub(padding)
        .filter(|&at| at < size)
}

fn size(shape: Shape) -> [usize; 3] {
    match shape {
        Shape::Map {
            channels,
            height,
            width,
        } => [channels, height, width],
        Shape::Flat(features) => [features, 1, 1],
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn pairs(a: &Map, b: &Map, value: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.numbers
        .iter()
        .zip(&b.numbers)
        .map(|(&a, &b)| value(a, b))
        .collect()
}

fn applied(function: Activation, x: &[f64]) -> Vec<f64> {
    let sixth = |v: f64| (v + 3.0).clamp(0.0, 6.0) / 6.0;
    let by = |value: &dyn Fn(f64) -> f64| x.iter().map(|&v| value(v)).collect();
    match function {
        Activation::Relu => by(&|v| v.max(0.0)),
        Activation::Relu6 => by(&|v| v.clamp(0.0, 6.0)),
        Activation::Silu => by(&|v| v / (1.0 + (-v).exp())),
        Activation::HardSwish => by(&|v| v * sixth(v)),
        Activation::HardSigmoid => by(&sixth),
        Activation::Sigmoid => by(&|v| 1.0 / (1.0 + (-v).exp())),
        // candle's error function, which the standard library has not.
        Activation::Gelu => {
            let x = Tensor::from_slice(x, x.len(), &Device::Cpu).unwrap();
            x.gelu_erf().unwrap().to_vec1().unwrap()
        }
    }
}
