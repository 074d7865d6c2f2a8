//! The training executor: runs a graph through candle's autograd.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::graph::{Activation, Conv2d, Node, Op, Param, ParamId};
use super::ops::{self, Clamp, ConvGeometry};
use super::rng::Rng;
use super::{Graph, Weights, WeightsError};

/// How a forward pass treats dropout and batch-norm.
#[derive(Debug)]
pub enum Mode<'a> {
    /// Dropout draws from the generator with probability `dropout` in place of the graph's own where given; batch-norm
    /// uses the batch's statistics and updates the running ones, unless it is frozen.
    Train {
        /// Source of the masks.
        rng: &'a mut Rng,
        /// Overrides every dropout node's probability.
        dropout: Option<f32>,
    },
    /// Dropout is nothing; batch-norm uses the running statistics.
    Eval,
}

/// A graph with trainable weights on a device.
#[derive(Debug)]
pub struct Network {
    graph: Graph,
    /// In the graph's order of parameters.
    vars: Vec<Var>,
}

impl Network {
    /// Copies `weights` into variables on `device`.
    pub fn new(graph: Graph, weights: &Weights, device: &Device) -> Result<Self> {
        Self::with_dtype(graph, weights, device, DType::F32)
    }

    fn with_dtype(graph: Graph, weights: &Weights, device: &Device, dtype: DType) -> Result<Self> {
        let var = |name: &str| match weights.get(name) {
            Some(tensor) => Var::from_tensor(&tensor.to_device(device)?.to_dtype(dtype)?),
            None => candle_core::bail!("the weights have no '{name}'"),
        };
        let vars = graph.params.iter().map(|p| var(&p.name)).collect::<Result<_>>()?;
        Ok(Self { graph, vars })
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Logits N×classes of images N×C×H×W.
    pub fn forward(&self, images: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor> {
        let pairs = self.graph.params.iter().zip(&self.vars);
        // Nobody asks for the gradient of what is frozen.
        let value = |(param, var): (&Param, &Var)| match param.frozen {
            true => var.as_tensor().detach(),
            false => var.as_tensor().clone(),
        };
        let params: Vec<Tensor> = pairs.map(value).collect();
        let mut pass = Pass {
            params: &params,
            statistics: Vec::new(),
        };
        let logits = pass.run(&self.graph, images, mode)?;
        for (running, value) in pass.statistics {
            self.vars[running.index()].set(&value)?;
        }
        Ok(logits)
    }

    /// The trained parameters by name, in the graph's order; neither running statistics nor frozen ones are among them.
    pub fn trained(&self) -> Vec<(&str, &Var)> {
        let pairs = self.graph.params.iter().zip(&self.vars);
        pairs
            .filter(|(param, _)| param.is_trained())
            .map(|(param, var)| (&*param.name, var))
            .collect()
    }

    /// A copy of all parameters as they are now; an error where one is no longer finite.
    pub fn weights(&self) -> std::result::Result<Weights, WeightsError> {
        let pairs = self.graph.params.iter().zip(&self.vars);
        let tensors = pairs
            .map(|(param, var)| (param.name.clone(), var.as_tensor().clone()))
            .collect::<BTreeMap<_, _>>();
        Weights::from_tensors(tensors, &self.graph)
    }

    /// Overwrites all parameters.
    pub fn set_weights(&self, weights: &Weights) -> Result<()> {
        for (param, var) in self.graph.params.iter().zip(&self.vars) {
            match weights.get(&param.name) {
                Some(tensor) => var.set(&tensor.to_device(var.device())?.to_dtype(var.dtype())?.copy()?)?,
                None => candle_core::bail!("the weights have no '{}'", param.name),
            }
        }
        Ok(())
    }
}

/// One forward pass over given parameters.
struct Pass<'a> {
    /// In the graph's order.
    params: &'a [Tensor],
    /// New running statistics, to be set when the pass is over.
    statistics: Vec<(ParamId, Tensor)>,
}

impl Pass<'_> {
    fn run(&mut self, graph: &Graph, images: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor> {
        let mut values: Vec<Tensor> = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let value = match &node.op {
                Op::Input => images.clone(),
                Op::BatchNorm { weight, .. }
                    if matches!(mode, Mode::Train { .. }) && !graph.param(*weight).frozen =>
                {
                    let clamp = clamp_after(graph, index).unwrap_or(Clamp::NONE);
                    self.train_batch_norm(&values[node.inputs[0].index()], &node.op, clamp)?
                }
                // The batch-norm before it has clamped already.
                Op::Activation(_)
                    if matches!(mode, Mode::Train { .. })
                        && clamp_after(graph, node.inputs[0].index()).is_some() =>
                {
                    values[node.inputs[0].index()].clone()
                }
                _ => self.step(node, &values, mode)?,
            };
            values.push(value);
        }
        values
            .pop()
            .ok_or_else(|| candle_core::Error::Msg("the graph is empty".to_owned()))
    }

    fn param(&self, id: ParamId) -> &Tensor {
        &self.params[id.index()]
    }

    fn step(&mut self, node: &Node, values: &[Tensor], mode: &mut Mode<'_>) -> Result<Tensor> {
        let x = &values[node.inputs[0].index()];
        let second = || &values[node.inputs[1].index()];
        match &node.op {
            Op::Input => Ok(x.clone()),
            Op::Conv2d(conv) => self.convolve(x, *conv),
            Op::BatchNorm { .. } => self.serve_batch_norm(x, &node.op),
            Op::LayerNorm { weight, bias, eps } => {
                ops::layer_norm(x, self.param(*weight), self.param(*bias), *eps)
            }
            Op::Scale { weight } => x.broadcast_mul(self.param(*weight)),
            Op::Linear { weight, bias } => {
                let bias = bias.map(|bias| self.param(bias));
                ops::linear(x, self.param(*weight), bias, is_tracked(x))
            }
            Op::Activation(function) => ops::activate(x, *function),
            Op::MaxPool(pool) => ops::max_pool2d(x, *pool),
            Op::AvgPool(pool) => ops::avg_pool2d(x, *pool),
            Op::GlobalAvgPool => ops::global_avg_pool2d(x),
            Op::Flatten => x.flatten_from(1),
            Op::Dropout { p } => drop_out(x, *p, mode),
            Op::Add => x.add(second()),
            Op::Mul => x.broadcast_mul(second()),
            Op::Concat => Tensor::cat(
                &node.inputs.iter().map(|i| &values[i.index()]).collect::<Vec<_>>(),
                1,
            ),
            Op::Pad([top, bottom, left, right]) => x
                .pad_with_zeros(2, *top, *bottom)?
                .pad_with_zeros(3, *left, *right),
        }
    }

    fn convolve(&self, x: &Tensor, conv: Conv2d) -> Result<Tensor> {
        let Conv2d {
            weight,
            bias,
            stride,
            padding,
            dilation,
            groups,
        } = conv;
        let geometry = ConvGeometry {
            stride,
            padding,
            dilation,
            groups,
            input_gradient: is_tracked(x),
        };
        ops::conv2d(x, self.param(weight), bias.map(|b| self.param(b)), geometry)
    }

    /// By the batch's statistics, which are kept for the running ones.
    fn train_batch_norm(&mut self, x: &Tensor, op: &Op, clamp: Clamp) -> Result<Tensor> {
        let &Op::BatchNorm {
            weight,
            bias,
            running_mean,
            running_var,
            eps,
            momentum,
        } = op
        else {
            candle_core::bail!("not a batch-norm");
        };
        let parameters = [self.param(weight), self.param(bias)];
        let (y, [mean, variance]) = ops::batch_norm(x, parameters, eps, clamp)?;
        let count = x.elem_count() / x.dim(1)?;
        // torch keeps the unbiased variance, though it normalises with the biased one.
        let unbiased = (variance * (count as f64 / (count.max(2) - 1) as f64))?;
        self.track(running_mean, &mean, momentum)?;
        self.track(running_var, &unbiased, momentum)?;
        Ok(y)
    }

    /// By the running statistics.
    fn serve_batch_norm(&self, x: &Tensor, op: &Op) -> Result<Tensor> {
        let &Op::BatchNorm {
            weight,
            bias,
            running_mean,
            running_var,
            eps,
            ..
        } = op
        else {
            candle_core::bail!("not a batch-norm");
        };
        let per_channel = |id: ParamId| self.param(id).reshape((1, (), 1, 1));
        let scale = per_channel(weight)?.broadcast_div(&(per_channel(running_var)? + eps)?.sqrt()?)?;
        x.broadcast_sub(&per_channel(running_mean)?)?
            .broadcast_mul(&scale)?
            .broadcast_add(&per_channel(bias)?)
    }

    /// running ← (1 − momentum) · running + momentum · batch.
    fn track(&mut self, running: ParamId, batch: &Tensor, momentum: f64) -> Result<()> {
        let kept = (self.param(running).detach() * (1.0 - momentum))?;
        let value = (kept + (batch.flatten_all()? * momentum)?)?;
        self.statistics.push((running, value));
        Ok(())
    }
}

/// Whether anybody asks for the gradient of `x`: not of a plain image, nor of what is made of it without weights.
fn is_tracked(x: &Tensor) -> bool {
    x.track_op()
}

/// The clamp that a batch-norm's only reader is, so that both are one pass over the values.
fn clamp_after(graph: &Graph, index: usize) -> Option<Clamp> {
    match graph.nodes[index].op {
        // A frozen one is computed as when serving, which does not clamp.
        Op::BatchNorm { weight, .. } if !graph.param(weight).frozen => {}
        _ => return None,
    }
    let reads = |node: &&Node| node.inputs.iter().any(|input| input.index() == index);
    let mut readers = graph.nodes.iter().filter(reads);
    match (readers.next()?.op.clone(), readers.next()) {
        (Op::Activation(Activation::Relu), None) => Some(Clamp::RELU),
        (Op::Activation(Activation::Relu6), None) => Some(Clamp::RELU6),
        _ => None,
    }
}

fn drop_out(x: &Tensor, p: f32, mode: &mut Mode<'_>) -> Result<Tensor> {
    let Mode::Train { rng, dropout } = mode else {
        return Ok(x.clone());
    };
    let p = dropout.unwrap_or(p);
    if p == 0.0 {
        return Ok(x.clone());
    }
    let kept = 1.0 / (1.0 - p);
    let mask: Vec<f32> = (0..x.elem_count())
        .map(|_| if rng.unit() < p { 0.0 } else { kept })
        .collect();
    x * Tensor::from_vec(mask, x.dims(), x.device())?.to_dtype(x.dtype())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::builder::{ConvOptions, GraphBuilder};
    use crate::model::graph::{GraphError, NodeId, Pool};
    use crate::model::ops::gradient;
    use crate::model::rng::Stream;
    use crate::model::{Input, arch};

    const TINY: Input = Input {
        channels: 2,
        height: 6,
        width: 5,
    };

    type Build = fn(&mut GraphBuilder, NodeId) -> std::result::Result<NodeId, GraphError>;

    fn rng() -> Rng {
        Rng::new(5, Stream::Dropout, 0)
    }

    /// Every kind of node, fed by the image, in training mode.
    const LAYERS: &[(&str, Build)] = &[
        ("linear", |_, x| Ok(x)),
        ("conv2d", |g, x| {
            g.conv2d(
                "c",
                x,
                (3, [3, 3]),
                ConvOptions {
                    padding: [1; 2],
                    ..ConvOptions::default()
                },
            )
        }),
        ("batch-norm", |g, x| g.batch_norm("bn", x)),
        ("layer-norm", |g, x| g.layer_norm("ln", x, 1e-6)),
        ("layer-scale", |g, x| g.layer_scale("s", x)),
        ("batch-norm-relu", |g, x| {
            let normed = g.batch_norm("bn", x)?;
            g.activation("f", normed, Activation::Relu)
        }),
        ("batch-norm-read-twice", |g, x| {
            let normed = g.batch_norm("bn", x)?;
            let positive = g.activation("f", normed, Activation::Relu)?;
            g.add("sum", normed, positive)
        }),
        ("relu", |g, x| g.activation("f", x, Activation::Relu)),
        ("relu6", |g, x| g.activation("f", x, Activation::Relu6)),
        ("silu", |g, x| g.activation("f", x, Activation::Silu)),
        ("hard-swish", |g, x| g.activation("f", x, Activation::HardSwish)),
        ("hard-sigmoid", |g, x| {
            g.activation("f", x, Activation::HardSigmoid)
        }),
        ("sigmoid", |g, x| g.activation("f", x, Activation::Sigmoid)),
        ("gelu", |g, x| g.activation("f", x, Activation::Gelu)),
        ("max-pool", |g, x| g.max_pool("p", x, Pool::square(2))),
        ("avg-pool", |g, x| {
            g.avg_pool(
                "p",
                x,
                Pool {
                    kernel: [3; 2],
                    stride: [2; 2],
                    padding: [1; 2],
                },
            )
        }),
        ("global-avg-pool", |g, x| g.global_avg_pool("p", x)),
        ("dropout", |g, x| g.dropout("d", x, 0.5)),
        ("add", |g, x| g.add("a", x, x)),
        ("mul", |g, x| {
            let scale = g.global_avg_pool("s", x)?;
            g.mul("m", x, scale)
        }),
        ("concat", |g, x| g.concat("j", &[x, x])),
        ("pad", |g, x| g.pad("z", x, [1, 0, 2, 1])),
    ];

    #[test]
    fn gradients_of_every_layer_are_right() {
        for (name, build) in LAYERS {
            let mut builder = GraphBuilder::new(TINY);
            let last = build(&mut builder, NodeId::INPUT).unwrap();
            let flat = builder.flatten("flat", last).unwrap();
            builder.linear("fc", flat, 2, false).unwrap();
            check_gradients(name, &builder.finish().unwrap(), &[3, 2, 6, 5]);
        }
    }

    #[test]
    fn gradients_of_a_whole_network_are_right() {
        let graph = arch::build(
            "small-cnn",
            Input {
                channels: 1,
                height: 4,
                width: 4,
            },
            2,
        )
        .unwrap();
        // The first and last parameters see every layer between; all of them would take minutes.
        let mut small = graph.clone();
        small
            .params
            .iter_mut()
            .for_each(|p| assert!(p.shape.iter().all(|&d| d > 0)));
        check_some(
            &small,
            &["conv1.weight", "bn1.weight", "bn2.bias", "fc.weight"],
            &[2, 1, 4, 4],
        );
    }

    fn check_gradients(name: &str, graph: &Graph, images: &[usize]) {
        let params = off_initial(graph);
        let trained: Vec<usize> = (0..params.len())
            .filter(|&i| graph.params[i].is_trained())
            .collect();
        let mut inputs = vec![gradient::random(images, 7)];
        inputs.extend(trained.iter().map(|&i| params[i].clone()));
        gradient::check(name, &inputs, |t| {
            let mut params = params.clone();
            trained
                .iter()
                .zip(&t[1..])
                .for_each(|(&i, t)| params[i] = t.clone());
            let mut pass = Pass {
                params: &params,
                statistics: Vec::new(),
            };
            pass.run(
                graph,
                &t[0],
                &mut Mode::Train {
                    rng: &mut rng(),
                    dropout: None,
                },
            )
        });
    }

    fn check_some(graph: &Graph, names: &[&str], images: &[usize]) {
        let params = off_initial(graph);
        let place = |name: &&str| graph.params.iter().position(|p| p.name == **name).unwrap();
        let places: Vec<usize> = names.iter().map(place).collect();
        let images = gradient::random(images, 7);
        let inputs: Vec<Tensor> = places.iter().map(|&i| params[i].clone()).collect();
        gradient::check("small-cnn", &inputs, |t| {
            let mut params = params.clone();
            places.iter().zip(t).for_each(|(&i, t)| params[i] = t.clone());
            let mut pass = Pass {
                params: &params,
                statistics: Vec::new(),
            };
            pass.run(
                graph,
                &images,
                &mut Mode::Train {
                    rng: &mut rng(),
                    dropout: None,
                },
            )
        });
    }

    /// f64 parameters off the initial zeros and ones, so that no gradient is right by accident.
    fn off_initial(graph: &Graph) -> Vec<Tensor> {
        let weights = Weights::initialise(graph, 2).unwrap();
        let param = |(seed, param): (u64, &Param)| {
            let base = weights.get(&param.name).unwrap().to_dtype(DType::F64).unwrap();
            (base + (gradient::random(&param.shape, seed) * 0.1).unwrap()).unwrap()
        };
        (100..).zip(&graph.params).map(param).collect()
    }

    #[test]
    fn batch_norm_keeps_torchs_running_statistics() {
        let mut builder = GraphBuilder::new(Input {
            channels: 1,
            height: 1,
            width: 2,
        });
        let normed = builder.batch_norm("bn", NodeId::INPUT).unwrap();
        let flat = builder.flatten("flat", normed).unwrap();
        builder.linear("fc", flat, 2, false).unwrap();
        let graph = builder.finish().unwrap();
        let network = Network::new(
            graph.clone(),
            &Weights::initialise(&graph, 1).unwrap(),
            &Device::Cpu,
        )
        .unwrap();
        // Values 1, 2, 3, 6: mean 3, unbiased variance 14/3.
        let x = Tensor::new(&[1.0f32, 2.0, 3.0, 6.0], &Device::Cpu)
            .unwrap()
            .reshape((2, 1, 1, 2))
            .unwrap();
        network
            .forward(
                &x,
                &mut Mode::Train {
                    rng: &mut rng(),
                    dropout: None,
                },
            )
            .unwrap();
        let weights = network.weights().unwrap();
        let value = |name: &str| weights.get(name).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((value("bn.running_mean") - 0.3).abs() < 1e-6);
        assert!((value("bn.running_var") - (0.9 + 0.1 * 14.0 / 3.0)).abs() < 1e-6);
        network.forward(&x, &mut Mode::Eval).unwrap();
        assert_eq!(
            network
                .weights()
                .unwrap()
                .get("bn.running_mean")
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()[0],
            value("bn.running_mean")
        );
    }

    #[test]
    fn dropout_scales_what_it_keeps_and_rests_when_serving() {
        let x = Tensor::ones((50, 100), DType::F32, &Device::Cpu).unwrap();
        let dropped = drop_out(
            &x,
            0.5,
            &mut Mode::Train {
                rng: &mut rng(),
                dropout: Some(0.2),
            },
        )
        .unwrap();
        let values = dropped.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|&v| v == 0.0 || v == 1.25));
        let kept = values.iter().filter(|&&v| v > 0.0).count() as f32 / 5000.0;
        assert!((kept - 0.8).abs() < 0.03, "{kept}");
        let same = drop_out(&x, 0.5, &mut Mode::Eval).unwrap();
        assert_eq!(
            same.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            vec![1.0; 5000]
        );
    }

    #[test]
    fn weights_go_in_and_come_out() {
        let graph = arch::build(
            "small-cnn",
            Input {
                channels: 1,
                height: 8,
                width: 8,
            },
            3,
        )
        .unwrap();
        let (first, second) = (
            Weights::initialise(&graph, 1).unwrap(),
            Weights::initialise(&graph, 2).unwrap(),
        );
        let network = Network::new(graph, &first, &Device::Cpu).unwrap();
        let bytes = |weights: &Weights| weights.to_safetensors(&BTreeMap::new()).unwrap();
        assert_eq!(bytes(&network.weights().unwrap()), bytes(&first));
        network.set_weights(&second).unwrap();
        assert_eq!(bytes(&network.weights().unwrap()), bytes(&second));
        assert!(
            network
                .trained()
                .iter()
                .all(|(name, _)| !name.contains("running"))
        );
    }
}
