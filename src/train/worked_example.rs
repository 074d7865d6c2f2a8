//! The article's worked example of backpropagation (its section 4.3), with its arithmetic corrected.
//!
//! Two inputs, two sigmoid neurons, one sigmoid output under binary cross-entropy, one step of gradient descent at 0.1.
//! The article's index order is w[from][to]: w21 leads from input 2 to neuron 1, and w31, w32 lead from neurons 1
//! and 2 to the output, "neuron 3". Its printed numbers do not follow from its inputs; those here do.
//!
//! A softmax over the logits (0, z) is the sigmoid of z, and its cross-entropy the binary one; so the output is a
//! dense layer of two, whose first row is 0. The second row is the article's neuron 3.

use candle_core::{Device, Tensor};

use crate::model::autograd::{Mode, Network};
use crate::model::builder::GraphBuilder;
use crate::model::graph::Activation;
use crate::model::rng::{Rng, Stream};
use crate::model::{Graph, Input, Weights};

use super::loss::cross_entropy;
use super::optimizer::{Optimizer, Rule};
use super::parameters::Parameters;
use super::schedule::Schedule;

const INPUTS: [f32; 2] = [0.5, 0.7];
const TOLERANCE: f32 = 1e-6;

struct Expected {
    loss: f32,
    /// Errors of neurons 3, 1 and 2.
    deltas: [f32; 3],
    /// After the step: w11, w21, b1, b2, w31, w32, b3.
    updated: [f32; 7],
}

#[test]
fn the_hidden_layer_is_right() {
    let mut g = builder();
    let x = g.flatten("flatten", g.input()).unwrap();
    let z = g.linear("hidden", x, 2, false).unwrap();
    let before = g.clone().finish().unwrap();
    g.activation("sigmoid", z, Activation::Sigmoid).unwrap();
    let after = g.finish().unwrap();
    for (graph, expected) in [(before, [0.91, 1.13]), (after, [0.713_000_2, 0.755_838_9])] {
        let values = output(&network(graph)).to_vec2::<f32>().unwrap();
        close(&values[0], &expected);
    }
}

#[test]
fn the_article_computes_with_label_one() {
    check(
        1,
        &Expected {
            loss: 0.431_765_1,
            deltas: [-0.350_638_1, -0.021_525_4, -0.025_883_6],
            updated: [
                0.501_076_3,
                0.801_506_8,
                0.102_152_5,
                0.202_588_4,
                0.325_000_5,
                0.426_502_6,
                0.135_063_8,
            ],
        },
    );
}

#[test]
fn the_article_states_label_zero() {
    check(
        0,
        &Expected {
            loss: 1.048_000_7,
            deltas: [0.649_361_9, 0.039_863_9, 0.047_935_0],
            updated: [
                0.498_006_8,
                0.797_209_5,
                0.096_013_6,
                0.195_206_5,
                0.253_700_5,
                0.350_918_7,
                0.035_063_8,
            ],
        },
    );
}

fn check(label: u32, expected: &Expected) {
    let network = network(whole());
    let mut parameters = Parameters::of(&network).unwrap();
    let logits = output(&network);
    let z3 = logits.to_vec2::<f32>().unwrap()[0][1];
    close(&[z3, 1.0 / (1.0 + (-z3).exp())], &[0.616_235_6, 0.649_361_9]);

    let loss = cross_entropy(&logits, &[label], 0.0).unwrap();
    close(&[loss.to_scalar().unwrap()], &[expected.loss]);
    let gradients = parameters.gradients(&loss.backward().unwrap()).unwrap();
    let [hidden_weight, hidden_bias, output_weight, output_bias] = &gradients[..] else {
        panic!("{} gradients", gradients.len());
    };
    let [third, first, second] = expected.deltas;
    close(
        &[output_bias[1], hidden_bias[0], hidden_bias[1]],
        &expected.deltas,
    );
    let [x1, x2] = INPUTS;
    close(hidden_weight, &[first * x1, first * x2, second * x1, second * x2]);
    close(&output_weight[2..], &[third * 0.713_000_2, third * 0.755_838_9]);

    let rule = Rule::Sgd {
        momentum: 0.0,
        nesterov: false,
    };
    let pace = Schedule::Constant.pace(0, 1, 0.1);
    Optimizer::new(rule, &parameters.sizes()).step(&mut parameters.values, &gradients, pace);
    parameters.write_back().unwrap();
    close(&updated(&network), &expected.updated);
}

/// w11, w21, b1, b2, w31, w32, b3.
fn updated(network: &Network) -> [f32; 7] {
    let weights = network.weights().unwrap();
    let at = |name: &str, index: usize| {
        let values = weights.get(name).unwrap().flatten_all().unwrap();
        values.to_vec1::<f32>().unwrap()[index]
    };
    [
        at("hidden.weight", 0),
        at("hidden.weight", 1),
        at("hidden.bias", 0),
        at("hidden.bias", 1),
        at("output.weight", 2),
        at("output.weight", 3),
        at("output.bias", 1),
    ]
}

fn builder() -> GraphBuilder {
    GraphBuilder::new(Input {
        channels: 2,
        height: 1,
        width: 1,
    })
}

fn whole() -> Graph {
    let mut g = builder();
    let x = g.flatten("flatten", g.input()).unwrap();
    let x = g.linear("hidden", x, 2, false).unwrap();
    let x = g.activation("sigmoid", x, Activation::Sigmoid).unwrap();
    g.linear("output", x, 2, false).unwrap();
    g.finish().unwrap()
}

/// The graph with those of the article's weights that it has.
fn network(graph: Graph) -> Network {
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let tensors = [
        ("hidden.weight", tensor(&[0.5, 0.8, 0.6, 0.9], &[2, 2])),
        ("hidden.bias", tensor(&[0.1, 0.2], &[2])),
        ("output.weight", tensor(&[0.0, 0.0, 0.3, 0.4], &[2, 2])),
        ("output.bias", tensor(&[0.0, 0.1], &[2])),
    ];
    let named = |name: &str| graph.params.iter().any(|param| param.name == name);
    let tensors = tensors
        .into_iter()
        .filter(|(name, _)| named(name))
        .map(|(name, tensor)| (name.to_owned(), tensor));
    let weights = Weights::from_tensors(tensors.collect(), &graph).unwrap();
    Network::new(graph, &weights, &Device::Cpu).unwrap()
}

fn output(network: &Network) -> Tensor {
    let images = Tensor::from_slice(&INPUTS, (1, 2, 1, 1), &Device::Cpu).unwrap();
    let rng = &mut Rng::new(1, Stream::Dropout, 0);
    network
        .forward(&images, &mut Mode::Train { rng, dropout: None })
        .unwrap()
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
    assert!(
        found.iter().zip(expected).all(near),
        "{found:?} is not {expected:?}"
    );
}
