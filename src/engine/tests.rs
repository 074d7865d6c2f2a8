//! The plan against the training executor, which computes the same graph another way.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::compile::{Program, compile};
use super::operators::Operators;
use super::plan::Backend;
use super::{EngineError, Plan, Precision, Target, available_cores};
use crate::model::autograd::{Mode, Network};
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, GraphError, Param, ParamKind, Pool};
use crate::model::rng::{Rng, Stream};
use crate::model::{Graph, Input, Version, Weights, arch};

/// Largest difference between two ways to the same logits, as a share of the largest logit: folding and another order
/// of summing move single-precision results by less.
pub(super) const TOLERANCE: f32 = 1e-5;
pub(super) const ITEMS: usize = 5;

const DIGIT: Input = Input {
    channels: 1,
    height: 28,
    width: 28,
};
pub(super) const PHOTO: Input = Input {
    channels: 3,
    height: 17,
    width: 20,
};

/// Every kind of node: residual and grouped blocks, squeeze and excite, branches, all activations.
pub(super) fn everything() -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(PHOTO);
    let conv = |stride, padding, groups, bias| ConvOptions {
        stride: [stride; 2],
        padding: [padding; 2],
        groups,
        bias,
        ..ConvOptions::default()
    };
    let x = g.pad("pad", g.input(), [0, 1, 1, 0])?;
    let x = g.conv2d("stem", x, (8, [3, 3]), conv(1, 1, 1, false))?;
    let x = g.batch_norm("stem_bn", x)?;
    let stem = g.activation("stem_silu", x, Activation::Silu)?;
    // Residual, its batch-norm folded into a convolution with a bias.
    let x = g.conv2d("residual", stem, (8, [3, 3]), conv(1, 1, 2, true))?;
    let x = g.dropout("residual_drop", x, 0.3)?;
    let x = g.batch_norm("residual_bn", x)?;
    let x = g.add("sum", x, stem)?;
    let x = g.activation("sum_relu", x, Activation::Relu)?;
    // Batch-norm that cannot be folded: after a sum, after a convolution that is read twice, after an activation.
    let x = g.batch_norm("pre_bn", x)?;
    let x = g.activation("pre_gelu", x, Activation::Gelu)?;
    let twice = g.conv2d("twice", x, (8, [1, 1]), conv(1, 0, 1, true))?;
    let normed = g.batch_norm("twice_bn", twice)?;
    let x = g.concat("join", &[twice, normed])?;
    let x = g.activation("join_swish", x, Activation::HardSwish)?;
    let x = g.conv2d("depthwise", x, (16, [5, 5]), conv(2, 2, 16, false))?;
    let depthwise = g.activation("depthwise_relu6", x, Activation::Relu6)?;
    let depthwise = g.batch_norm("depthwise_bn", depthwise)?;
    // Squeeze and excite.
    let x = g.global_avg_pool("squeeze", depthwise)?;
    let x = g.conv2d("excite", x, (16, [1, 1]), conv(1, 0, 1, true))?;
    let x = g.activation("gate", x, Activation::HardSigmoid)?;
    let x = g.mul("scale", depthwise, x)?;
    let x = g.layer_norm("layer_norm", x, 1e-6)?;
    let x = g.layer_scale("layer_scale", x)?;
    let pool = Pool {
        kernel: [3; 2],
        stride: [2; 2],
        padding: [1; 2],
    };
    let pooled = [g.max_pool("max", x, pool)?, g.avg_pool("avg", x, pool)?];
    let x = g.concat("pools", &pooled)?;
    // An activation of a view must not be written over what the view's source still gives to another.
    let flat = g.flatten("flatten", x)?;
    let open = g.activation("open", flat, Activation::Sigmoid)?;
    let flat = g.flatten("flatten_again", x)?;
    let x = g.mul("gated", flat, open)?;
    let x = g.linear("fc1", x, 12, true)?;
    let x = g.activation("fc1_relu", x, Activation::Relu)?;
    let x = g.dropout("drop", x, 0.5)?;
    let x = g.linear("fc2", x, 4, false)?;
    // The answer is not the last value computed, and is read before it is given.
    g.activation("unread", x, Activation::Relu)?;
    g.dropout("last_drop", x, 0.1)?;
    g.finish()
}

/// Weights with biases and batch-norms off their initial zeros and ones.
pub(super) fn weights(graph: &Graph) -> Weights {
    let fresh = Weights::initialise(graph, 3).unwrap();
    let moved = |(index, param): (u64, &Param)| {
        let mut rng = Rng::new(4, Stream::Init, index);
        let (low, high) = match param.kind {
            ParamKind::Scale | ParamKind::RunningVar => (-0.5, 1.0),
            _ => (-0.2, 0.2),
        };
        let count = param.shape.iter().product::<usize>();
        let change: Vec<f32> = (0..count).map(|_| rng.uniform(low, high)).collect();
        let change = Tensor::from_vec(change, &*param.shape, &Device::Cpu).unwrap();
        (
            param.name.clone(),
            (fresh.get(&param.name).unwrap() + change).unwrap(),
        )
    };
    let tensors: BTreeMap<_, _> = (0..).zip(&graph.params).map(moved).collect();
    Weights::from_tensors(tensors, graph).unwrap()
}

pub(super) fn images(graph: &Graph) -> Vec<f32> {
    let Input {
        channels,
        height,
        width,
    } = graph.input;
    let mut rng = Rng::new(5, Stream::Init, 0);
    (0..ITEMS * channels * height * width)
        .map(|_| rng.unit())
        .collect()
}

fn candle(program: Program, input: Input) -> Backend {
    Backend::Candle(Operators::new(program, input, Target::from(&Device::Cpu)).unwrap())
}

fn plan(graph: &Graph, weights: &Weights) -> Arc<Plan> {
    Plan::compile(Version::FIRST, graph, weights, &Device::Cpu).unwrap()
}

fn trained(graph: &Graph, weights: &Weights, images: &[f32]) -> Vec<f32> {
    let Input {
        channels,
        height,
        width,
    } = graph.input;
    let images = Tensor::from_slice(images, (ITEMS, channels, height, width), &Device::Cpu).unwrap();
    let network = Network::new(graph.clone(), weights, &Device::Cpu).unwrap();
    let logits = network.forward(&images, &mut Mode::Eval).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

pub(super) fn graphs() -> [(&'static str, Graph); 4] {
    [
        ("seed-cnn", arch::build("seed-cnn", DIGIT, 10).unwrap()),
        ("small-cnn", arch::build("small-cnn", DIGIT, 10).unwrap()),
        ("small-cnn of photos", arch::build("small-cnn", PHOTO, 7).unwrap()),
        ("everything", everything().unwrap()),
    ]
}

pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

fn check_near(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let differences: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let (off, allowed) = (largest(&differences), TOLERANCE * largest(expected));
    assert!(off <= allowed, "{name}: {off} over {allowed}");
}

#[test]
fn the_plan_computes_what_the_training_executor_computes() {
    for (name, graph) in graphs() {
        let (weights, images) = (weights(&graph), images(&graph));
        let mut logits = vec![f32::NAN; 3];
        plan(&graph, &weights).run(&images, ITEMS, &mut logits).unwrap();
        check_near(name, &logits, &trained(&graph, &weights, &images));
        // Were the logits the same for each image, any fault before the last bias would pass.
        let rows: Vec<&[f32]> = logits.chunks_exact(graph.classes()).collect();
        for row in &rows[1..] {
            let change: Vec<f32> = row.iter().zip(rows[0]).map(|(a, b)| a - b).collect();
            let floor = 100.0 * TOLERANCE * largest(&logits);
            assert!(largest(&change) > floor, "{name}: {change:?}");
        }
    }
}

#[test]
fn a_batched_answer_is_the_single_answer_bit_for_bit() {
    for (name, graph) in graphs() {
        let (plan, images) = (plan(&graph, &weights(&graph)), images(&graph));
        let (mut batched, mut single) = (Vec::new(), Vec::new());
        plan.run(&images, ITEMS, &mut batched).unwrap();
        let pairs = images
            .chunks_exact(plan.input_len())
            .zip(batched.chunks_exact(plan.classes()));
        for (image, batched) in pairs {
            plan.run(image, 1, &mut single).unwrap();
            assert_eq!(single, batched, "{name}");
        }
    }
}

#[test]
fn folding_leaves_no_batch_norm_and_no_activation_of_its_own() {
    let graph = arch::build("small-cnn", DIGIT, 10).unwrap();
    let plan = format!("{:?}", compile(&graph, &weights(&graph), &Device::Cpu).unwrap());
    assert!(!plan.contains("Affine") && !plan.contains("Copy"), "{plan}");
    assert_eq!(plan.matches("then: Some(Relu)").count(), 3);
}

#[test]
fn the_same_input_gives_the_same_bits() {
    let graph = everything().unwrap();
    let (plan, images) = (plan(&graph, &weights(&graph)), images(&graph));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    plan.run(&images, ITEMS, &mut first).unwrap();
    plan.run(&images, ITEMS, &mut second).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_batch_of_another_size_is_refused() {
    let graph = arch::build("seed-cnn", DIGIT, 10).unwrap();
    let plan = plan(&graph, &weights(&graph));
    assert_eq!((plan.input_len(), plan.classes()), (784, 10));
    let mut logits = Vec::new();
    for (numbers, items) in [(783, 1), (784, 2), (784, usize::MAX), (784, 0)] {
        let error = plan.run(&vec![0.5; numbers], items, &mut logits).unwrap_err();
        assert!(matches!(error, EngineError::Shape { input: 784, found, .. } if found == numbers));
    }
    plan.run(&[], 0, &mut logits).unwrap();
    assert!(logits.is_empty());
}

#[test]
fn a_panic_is_an_error_and_the_plan_still_answers() {
    let graph = arch::build("seed-cnn", DIGIT, 10).unwrap();
    let weights = weights(&graph);
    let mut plan = plan(&graph, &weights);
    let mut broken = compile(&graph, &weights, &Device::Cpu).unwrap();
    broken.output = usize::MAX;
    let backend = &mut Arc::get_mut(&mut plan).unwrap().backend;
    let right = std::mem::replace(backend, candle(broken, graph.input));
    let mut logits = Vec::new();
    let result = plan.run(&[0.5; 784], 1, &mut logits);
    assert!(matches!(result, Err(EngineError::Panicked)), "{result:?}");
    Arc::get_mut(&mut plan).unwrap().backend = right;
    plan.run(&[0.5; 784], 1, &mut logits).unwrap();
}

#[test]
fn each_instance_is_warm_before_the_first_request() {
    let graph = arch::build("seed-cnn", DIGIT, 10).unwrap();
    let weights = weights(&graph);
    let mut plan = plan(&graph, &weights);
    assert_eq!((plan.instances(0), plan.instances(5)), (available_cores(), 5));
    let program = compile(&graph, &weights, &Device::Cpu).unwrap();
    Arc::get_mut(&mut plan).unwrap().backend = candle(program, graph.input);
    assert_eq!((plan.instances(0), plan.instances(5)), (2, 5));
    plan.warm_up_instances(3, 2).unwrap();
    let Backend::Candle(operators) = &plan.backend else {
        panic!("the backend was exchanged");
    };
    assert_eq!(operators.spares().len(), 3);
}

#[test]
fn a_plan_for_the_cpu_is_in_single_precision() {
    let graph = arch::build("seed-cnn", DIGIT, 10).unwrap();
    let target = Target {
        precision: Precision::F16,
        ..Target::from(&Device::Cpu)
    };
    let error = Plan::compile(Version::FIRST, &graph, &weights(&graph), &target).unwrap_err();
    assert!(matches!(error, EngineError::Precision(Precision::F16)), "{error}");
}

#[test]
fn a_warm_up_tells_of_numbers_that_are_not_finite() {
    let graph = arch::build("seed-cnn", DIGIT, 10).unwrap();
    plan(&graph, &weights(&graph)).warm_up(4).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = weights(&graph)
        .iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
        .collect();
    for name in ["fc1.weight", "fc2.weight"] {
        let huge = Tensor::full(1e30f32, tensors[name].shape(), &Device::Cpu).unwrap();
        tensors.insert(name.to_owned(), huge);
    }
    let huge = Weights::from_tensors(tensors, &graph).unwrap();
    let error = plan(&graph, &huge).warm_up(4).unwrap_err();
    assert!(matches!(error, EngineError::NonFinite), "{error}");
}
