//! Turns a graph with its weights into the steps of a plan.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::fold::{Affine, Statistics};
use super::step::{Kernel, Source, Step};
use crate::model::graph::{Activation, Conv2d, Node, NodeId, Op, ParamId};
use crate::model::ops::ConvGeometry;
use crate::model::{Graph, Weights};

/// Steps in order. Value 0 is the image, value n + 1 the result of step n.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    /// The value that is the answer.
    pub(super) output: usize,
}

impl Program {
    /// The same steps with their weights on `device` in `dtype`. What was folded was folded before, in f32.
    pub(super) fn on(&self, device: &Device, dtype: DType) -> Result<Self> {
        let place = |step: &Step| {
            Ok(Step {
                kernel: step.kernel.clone().on(device, dtype)?,
                ..step.clone()
            })
        };
        Ok(Self {
            steps: self.steps.iter().map(place).collect::<Result<_>>()?,
            output: self.output,
        })
    }

    /// Most numbers for one image in a value or in the windows of a convolution.
    pub(super) fn most_numbers(&self) -> usize {
        let steps = self.steps.iter();
        steps.map(Step::most_numbers).max().unwrap_or(0)
    }

    /// The answers to N×C×H×W images, by candle's operators.
    pub(super) fn run(&self, images: Tensor) -> Result<Tensor> {
        let mut values = vec![None; self.steps.len() + 1];
        values[0] = Some(images);
        for (step, value) in self.steps.iter().zip(1..) {
            values[value] = Some(step.run(&mut values)?);
        }
        match values[self.output].take() {
            Some(logits) => Ok(logits),
            None => bail!("the plan has no output"),
        }
    }
}

/// Compiles `graph`, weights on `device` in f32: dropout gone, batch-norm inside the convolution before it and activations inside
/// the step before them where no other node reads that step's value.
pub(super) fn compile(graph: &Graph, weights: &Weights, device: &Device) -> Result<Program> {
    let mut compiler = Compiler {
        graph,
        weights,
        readers: readers(graph),
        steps: Vec::new(),
        values: Vec::new(),
        readers_of_value: Vec::new(),
    };
    graph.nodes.iter().try_for_each(|node| compiler.add(node))?;
    let Compiler { steps, values, .. } = compiler;
    let Some(&output) = values.last() else {
        bail!("the graph is empty");
    };
    let mut program = Program { steps, output }.on(device, DType::F32)?;
    mark_last_readers(&mut program.steps, output);
    Ok(program)
}

/// How many nodes read each node; a dropout is seen through, the output is read by the caller.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.nodes.len()];
    if let Some(output) = readers.last_mut() {
        *output = 1;
    }
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        let count = if matches!(node.op, Op::Dropout { .. }) {
            readers[index]
        } else {
            1
        };
        node.inputs
            .iter()
            .for_each(|input| readers[input.index()] += count);
    }
    readers
}

fn mark_last_readers(steps: &mut [Step], output: usize) {
    let mut read_later = vec![false; steps.len() + 1];
    read_later[output] = true;
    let sources = steps
        .iter_mut()
        .rev()
        .flat_map(|step| step.inputs.iter_mut().rev());
    for source in sources {
        source.last = !std::mem::replace(&mut read_later[source.value], true);
    }
}

struct Compiler<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    /// By node.
    readers: Vec<usize>,
    steps: Vec<Step>,
    /// By node: the value that stands for it.
    values: Vec<usize>,
    /// By value: the readers of the latest node it stands for.
    readers_of_value: Vec<usize>,
}

impl Compiler<'_> {
    fn add(&mut self, node: &Node) -> Result<()> {
        let value = match node.op {
            Op::Input => self.new_value(),
            Op::Dropout { .. } => self.values[node.inputs[0].index()],
            Op::BatchNorm { .. } => {
                let affine = self.normalisation(&node.op)?;
                self.affine(node, affine)?
            }
            Op::Scale { weight } => {
                let affine = Affine::scale(self.param(weight)?)?;
                self.affine(node, affine)?
            }
            Op::Activation(function) => self.activation(node, function),
            Op::Add => self.sum(node),
            _ => {
                let kernel = self.kernel(&node.op)?;
                self.push(node, kernel, None)
            }
        };
        self.readers_of_value[value] = match node.op {
            Op::Dropout { .. } => self.readers_of_value[value],
            _ => self.readers[self.values.len()],
        };
        self.values.push(value);
        Ok(())
    }

    fn kernel(&self, op: &Op) -> Result<Kernel> {
        Ok(match op {
            Op::Conv2d(conv) => self.convolution(conv)?,
            Op::Linear { weight, bias } => Kernel::Linear {
                weight: self.param(*weight)?.clone(),
                bias: self.bias(*bias)?,
            },
            Op::LayerNorm { weight, bias, eps } => Kernel::LayerNorm {
                weight: self.param(*weight)?.clone(),
                bias: self.param(*bias)?.clone(),
                eps: *eps,
            },
            Op::MaxPool(pool) => Kernel::MaxPool(*pool),
            Op::AvgPool(pool) => Kernel::AvgPool(*pool),
            Op::GlobalAvgPool => Kernel::GlobalAvgPool,
            Op::Flatten => Kernel::Flatten,
            Op::Mul => Kernel::Mul,
            Op::Concat => Kernel::Concat,
            Op::Pad(border) => Kernel::Pad(*border),
            Op::Input
            | Op::Dropout { .. }
            | Op::BatchNorm { .. }
            | Op::Scale { .. }
            | Op::Activation(_)
            | Op::Add => {
                bail!("{op:?} is no kernel of its own")
            }
        })
    }

    fn convolution(&self, conv: &Conv2d) -> Result<Kernel> {
        Ok(Kernel::Conv2d {
            weight: self.param(conv.weight)?.clone(),
            bias: self.bias(conv.bias)?,
            geometry: ConvGeometry {
                stride: conv.stride,
                padding: conv.padding,
                dilation: conv.dilation,
                groups: conv.groups,
                input_gradient: false,
            },
        })
    }

    /// A scale and a shift of channels: inside the convolution before it, where nothing else reads that.
    fn affine(&mut self, node: &Node, affine: Affine) -> Result<usize> {
        let input = self.values[node.inputs[0].index()];
        if let Some(Step {
            kernel: Kernel::Conv2d { weight, bias, .. },
            adds: false,
            then: None,
            ..
        }) = self.only_read_here(input)
        {
            let (folded, shift) = affine.into_convolution(weight, bias.as_ref())?;
            (*weight, *bias) = (folded, Some(shift));
            return Ok(input);
        }
        let (scale, shift) = affine.into_maps()?;
        Ok(self.push(node, Kernel::Affine { scale, shift }, None))
    }

    fn normalisation(&self, op: &Op) -> Result<Affine> {
        let &Op::BatchNorm {
            weight,
            bias,
            running_mean,
            running_var,
            eps,
            ..
        } = op
        else {
            bail!("not a batch-norm");
        };
        Affine::of(&Statistics {
            weight: self.param(weight)?,
            bias: self.param(bias)?,
            running_mean: self.param(running_mean)?,
            running_var: self.param(running_var)?,
            eps,
        })
    }

    fn activation(&mut self, node: &Node, function: Activation) -> usize {
        let input = self.values[node.inputs[0].index()];
        match self.only_read_here(input) {
            Some(step) if step.then.is_none() && !step.kernel.gives_view() => {
                step.then = Some(function);
                input
            }
            _ => self.push(node, Kernel::Copy, Some(function)),
        }
    }

    /// A sum becomes the end of the later of its two producers, where that is a layer which can add it.
    fn sum(&mut self, node: &Node) -> usize {
        let mut values = node.inputs.iter().map(|input| self.values[input.index()]);
        let (a, b) = (values.next().unwrap_or(0), values.next().unwrap_or(0));
        let (earlier, later) = (a.min(b), a.max(b));
        match self.only_read_here(later) {
            Some(step) if earlier != later && step.can_add() => {
                step.adds = true;
                step.inputs.push(Source {
                    value: earlier,
                    last: false,
                });
                later
            }
            _ => self.push(node, Kernel::Add, None),
        }
    }

    /// The step behind a value whose only reader is the node now added.
    fn only_read_here(&mut self, value: usize) -> Option<&mut Step> {
        let step = value.checked_sub(1)?;
        (self.readers_of_value[value] == 1).then(|| &mut self.steps[step])
    }

    fn push(&mut self, node: &Node, kernel: Kernel, then: Option<Activation>) -> usize {
        let source = |input: &NodeId| Source {
            value: self.values[input.index()],
            last: false,
        };
        let inputs = node.inputs.iter().map(source).collect();
        self.steps.push(Step {
            name: node.name.clone(),
            kernel,
            adds: false,
            then,
            inputs,
            shape: node.shape,
            flops: self.graph.flops_of(node),
        });
        self.new_value()
    }

    fn new_value(&mut self) -> usize {
        self.readers_of_value.push(0);
        self.readers_of_value.len() - 1
    }

    fn bias(&self, id: Option<ParamId>) -> Result<Option<Tensor>> {
        id.map(|id| self.param(id).cloned()).transpose()
    }

    fn param(&self, id: ParamId) -> Result<&Tensor> {
        let name = &self.graph.param(id).name;
        match self.weights.get(name) {
            Some(tensor) => Ok(tensor),
            None => bail!("the weights have no '{name}'"),
        }
    }
}
