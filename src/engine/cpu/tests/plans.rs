//! Whole plans of random networks, on every set of instructions and on candle, against the definition of their layers.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::super::{CACHED, Cpu, Options, Program};
use super::exact::exact;
use super::numbers::{images, weights};
use super::only;
use super::recipe::{Recipe, recipes};
use crate::engine::compile::compile;
use crate::kernels::Isa;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::{Graph, Input};

/// Largest difference from the exact answer, as a share of the answer's largest number. A Winograd layer alone may be off
/// by 8·10⁻⁶ of its largest output and a long sum by 1·10⁻⁶; up to ten such layers follow each other, and a later one may
/// bring the numbers closer together than their errors.
const TOLERANCE: f64 = 5e-5;
/// How far the answers to two images lie apart at least, as a share of the largest number: were they the same, any fault
/// before the last bias would pass.
const VARIATION: f64 = 100.0 * TOLERANCE;

/// What `cpu` answers; the arena it finds holds nothing but NaN, which no layer may read before it is written.
fn answers(cpu: &Cpu, classes: usize, images: &[f32], items: usize) -> Vec<f32> {
    cpu.run(images, items, &mut vec![0.0; items * classes]);
    for spare in cpu.spares().iter_mut() {
        spare.arena.values.fill(f32::NAN);
        spare.arena.scratch.fill(f32::NAN);
    }
    let mut logits = vec![0.0; items * classes];
    cpu.run(images, items, &mut logits);
    logits
}

fn candle(program: &Program, graph: &Graph, images: &[f32], items: usize) -> Vec<f32> {
    let input = graph.input;
    let shape = (items, input.channels, input.height, input.width);
    let images = Tensor::from_slice(images, shape, &Device::Cpu).unwrap();
    let logits = program.run(images).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| number.abs().max(most))
}

/// How far the first two answers lie apart, as a share of their largest number.
fn variation(answers: &[Vec<f64>]) -> f64 {
    let apart = largest(answers[0].iter().zip(&answers[1]).map(|(a, b)| a - b));
    apart / largest(answers[..2].iter().flatten().copied()).max(f64::MIN_POSITIVE)
}

/// What a plan should answer, and the size of the numbers that it is held to.
struct Expected<'a> {
    answers: &'a [Vec<f64>],
    scale: f64,
}

impl Expected<'_> {
    fn check(&self, way: &str, found: &[f32]) -> Result<(), TestCaseError> {
        for (at, (&found, &exact)) in found.iter().zip(self.answers.iter().flatten()).enumerate() {
            let off = (f64::from(found) - exact).abs() / self.scale;
            // Not `off > …`: a NaN is off too.
            prop_assert!(
                off <= TOLERANCE,
                "{way}, number {at}: {found}, not {exact}; off by {off:e}"
            );
        }
        Ok(())
    }
}

/// The plan on `isa`: near the exact answers, and each image's the same bits alone, and beside one whose numbers
/// are not finite.
fn lowered(
    isa: Isa,
    (program, graph): (&Program, &Graph),
    images: &[f32],
    expected: &Expected<'_>,
) -> Result<(), TestCaseError> {
    let cpu = Cpu::lower(program, graph.input, &only(isa)).unwrap();
    let (items, classes) = (expected.answers.len(), graph.classes());
    let together = answers(&cpu, classes, images, items);
    expected.check(&isa.to_string(), &together)?;
    let image = images.len() / items;
    let rows = || together.chunks_exact(classes);
    for (image, row) in images.chunks_exact(image).zip(rows()) {
        prop_assert_eq!(&answers(&cpu, classes, image, 1), row, "{} alone", isa);
    }
    let mut broken = images.to_vec();
    broken[..image].fill(f32::INFINITY);
    let beside = answers(&cpu, classes, &broken, items);
    for (row, beside) in rows().zip(beside.chunks_exact(classes)).skip(1) {
        prop_assert_eq!(row, beside, "{} beside infinity", isa);
    }
    Ok(())
}

/// The network's plan for `items` images, with numbers by `seed`. Rejected where the answers vary too little to tell.
fn check(graph: &Graph, items: usize, seed: u64) -> Result<(), TestCaseError> {
    let weights = weights(graph, seed);
    let images = images(graph.input, items.max(2), seed);
    let exact = exact(graph, &weights, &images);
    prop_assume!(variation(&exact) >= VARIATION);
    let expected = Expected {
        answers: &exact[..items],
        scale: largest(exact.iter().flatten().copied()),
    };
    let images = &images[..items * graph.nodes[0].shape.len()];
    let program = compile(graph, &weights, &Device::Cpu).unwrap();
    expected.check("candle", &candle(&program, graph, images, items))?;
    let mut all = Isa::available().into_iter();
    all.try_for_each(|isa| lowered(isa, (&program, graph), images, &expected))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_global_rejects: 100_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_plan_computes_what_its_layers_say(recipe in recipes()) {
        check(&recipe.graph(), recipe.items, recipe.seed)?;
    }
}

#[test]
fn zeros_around_a_map_may_be_convolved_and_added() {
    let input = Input {
        channels: 2,
        height: 3,
        width: 3,
    };
    let mut g = GraphBuilder::new(input);
    let padded = g.pad("pad", g.input(), [0, 1, 2, 0]).unwrap();
    let options = ConvOptions::default();
    let x = g.conv2d("conv", padded, (2, [1, 1]), options).unwrap();
    let x = g.add("sum", x, padded).unwrap();
    g.flatten("flat", x).unwrap();
    check(&g.finish().unwrap(), 3, 1).unwrap();
}

#[test]
fn windows_may_lie_beyond_the_map_in_its_zeros() {
    let input = Input {
        channels: 2,
        height: 3,
        width: 4,
    };
    for (border, kernel) in [([0, 0, 0, 3], 1), ([0, 5, 0, 0], 3), ([2, 2, 4, 4], 1)] {
        for groups in [1, 2] {
            let mut g = GraphBuilder::new(input);
            let x = g.pad("pad", g.input(), border).unwrap();
            let options = ConvOptions {
                groups,
                ..ConvOptions::default()
            };
            let x = g.conv2d("conv", x, (2, [kernel; 2]), options).unwrap();
            g.flatten("flat", x).unwrap();
            check(&g.finish().unwrap(), 3, 1).unwrap();
        }
    }
}

#[test]
fn features_of_a_map_may_be_added_to_a_dense_layer() {
    let input = Input {
        channels: 3,
        height: 2,
        width: 3,
    };
    let mut g = GraphBuilder::new(input);
    let x = g.flatten("flat", g.input()).unwrap();
    let y = g.linear("fc", x, 18, false).unwrap();
    let x = g.add("sum", y, x).unwrap();
    g.linear("classes", x, 5, false).unwrap();
    check(&g.finish().unwrap(), 3, 1).unwrap();
}

/// What the networks should lead to: kernels by their names, and what people are told of some.
const KINDS: [&str; 21] = [
    "Image",
    "Pack",
    "First",
    "Conv",
    "Winograd",
    "Depthwise",
    "MaxPool",
    "AvgPool",
    "GlobalAvgPool",
    "Affine",
    "LayerNorm",
    "Add",
    "Scale",
    "Product",
    "Copy",
    "Pad",
    "Rearrange",
    "winograd F(2×2)",
    "winograd F(4×4)",
    "+ max-pool 2",
    "+ sum",
];

/// Strikes out what the plan of `recipe` is made of. Whether its first layers run for fewer items than it is given.
fn strike(recipe: &Recipe, missing: &mut BTreeSet<&str>) -> bool {
    let graph = recipe.graph();
    let program = compile(&graph, &weights(&graph, recipe.seed), &Device::Cpu).unwrap();
    let cpu = Cpu::lower(&program, graph.input, &Options::default()).unwrap();
    for layer in &cpu.layers {
        let (debug, text) = (format!("{:?}", layer.kernel), layer.cost(0.0).kernel);
        let name = debug.split(['(', ' ']).next().unwrap_or_default();
        missing.retain(|kind| name != *kind && !text.contains(kind));
    }
    cpu.memory.cut > 0 && cpu.memory.few(recipe.items, CACHED) < recipe.items
}

/// The property is worth what its networks reach.
#[test]
fn the_networks_reach_every_kernel_and_vary() {
    let mut runner = TestRunner::deterministic();
    let (mut missing, mut few, mut varied) = (BTreeSet::from(KINDS), 0, 0);
    for _ in 0..500 {
        let recipe = recipes().new_tree(&mut runner).unwrap().current();
        few += usize::from(strike(&recipe, &mut missing));
        let graph = recipe.graph();
        let answers = exact(
            &graph,
            &weights(&graph, recipe.seed),
            &images(graph.input, 2, recipe.seed),
        );
        varied += usize::from(variation(&answers) >= VARIATION);
    }
    assert!(missing.is_empty(), "no plan has {missing:?}");
    assert!(
        few >= 10 && varied >= 450,
        "{few} plans for few items, {varied} of 500 vary"
    );
}
