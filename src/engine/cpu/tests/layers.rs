//! Each layer against candle's step of the same name.

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::super::*;
use super::only;
use crate::engine::compile::compile;
use crate::engine::tests::{ITEMS, PHOTO, TOLERANCE, everything, images, weights};
use crate::model::Graph;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, GraphError};

/// What candle's step `name` gives, if any.
fn candle_values(program: &Program, graph: &Graph, images: &[f32]) -> Vec<(String, Vec<f32>)> {
    let Input {
        channels,
        height,
        width,
    } = graph.input;
    let x = Tensor::from_slice(images, (ITEMS, channels, height, width), &Device::Cpu).unwrap();
    let mut values = vec![None; program.steps.len() + 1];
    values[0] = Some(x);
    let mut all = Vec::new();
    for (index, step) in program.steps.iter().enumerate() {
        let mut inputs = values.clone();
        let y = step.run(&mut inputs).unwrap();
        // A step may write over a value that shares its storage.
        let numbers = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        all.push((step.name.clone(), numbers));
        values[index + 1] = Some(y.copy().unwrap());
    }
    all
}

/// Runs every layer of `graph` and compares what it writes with candle's step of its name. Returns how many were compared,
/// and how many of all were written over an input.
fn check(graph: &Graph, isa: Isa) -> [usize; 2] {
    let images = images(graph);
    let program = compile(graph, &weights(graph), &Device::Cpu).unwrap();
    let expected = candle_values(&program, graph, &images);
    let cpu = Cpu::lower(&program, graph.input, &only(isa)).unwrap();
    let span = Span::whole(ITEMS, ITEMS);
    let mut arena = cpu.workplace(ITEMS, ITEMS).arena;
    let mut compared = 0;
    for (index, layer) in cpu.layers.iter().enumerate() {
        layer.run(&mut cpu.start((&mut arena, &Alone), &images, span));
        // A join is whole after its last part.
        let mut later = cpu.layers[index + 1..].iter();
        if later.any(|later| later.name == layer.name) {
            continue;
        }
        let Some((_, expected)) = expected.iter().find(|(name, _)| *name == layer.name) else {
            continue;
        };
        let place = layer.output;
        let mut found = vec![0.0; ITEMS * place.layout.map.channels * place.layout.map.pixels()];
        if found.len() != expected.len() {
            continue;
        }
        cpu.read(place, &arena.values, span, &mut found);
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let pairs = found.iter().zip(expected);
        let off = pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(
            off <= TOLERANCE * largest,
            "{isa} {}: {off} of {largest}",
            layer.name
        );
        compared += 1;
    }
    [compared, cpu.layers.iter().filter(|layer| layer.in_place).count()]
}

#[test]
fn every_layer_computes_what_candle_computes() {
    let graph = everything().unwrap();
    for isa in Isa::available() {
        let [compared, in_place] = check(&graph, isa);
        assert!(compared > 15, "{isa}: {compared} layers");
        assert!(in_place >= 1, "{isa}: no layer is written over its input");
    }
}

/// Maps of one shape, each made of earlier ones: by what it is, and of which, counted from the last.
fn chain(steps: &[(usize, usize, usize)]) -> std::result::Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(PHOTO);
    let same = ConvOptions {
        padding: [1; 2],
        ..ConvOptions::default()
    };
    let mut maps = vec![g.conv2d("stem", g.input(), (8, [3, 3]), same)?];
    for (index, &(kind, a, b)) in steps.iter().enumerate() {
        let name = |part: &str| format!("{part}{index}");
        let [a, b] = [a, b].map(|back| maps[maps.len() - 1 - back % maps.len()]);
        let map = match kind {
            // A batch-norm of what is no convolution, or read by others too.
            0 => g.batch_norm(&name("norm"), a)?,
            1 => g.add(&name("sum"), a, b)?,
            2 => {
                let squeezed = g.global_avg_pool(&name("squeeze"), b)?;
                g.mul(&name("scale"), a, squeezed)?
            }
            3 => {
                let joined = g.concat(&name("join"), &[a, b])?;
                g.conv2d(&name("mix"), joined, (8, [3, 3]), same)?
            }
            4 => {
                let padded = g.pad(&name("pad"), a, [2, 0, 0, 2])?;
                let inner = ConvOptions::default();
                g.conv2d(&name("inner"), padded, (8, [3, 3]), inner)?
            }
            _ => g.activation(&name("relu"), a, Activation::Relu)?,
        };
        maps.push(map);
    }
    let rows = [maps[maps.len() / 2], maps[maps.len() - 1]];
    let [a, b] = [g.flatten("one", rows[0])?, g.flatten("other", rows[1])?];
    let x = g.add("rows", a, b)?;
    g.linear("head", x, 4, false)?;
    g.finish()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_value_that_is_read_later_is_not_written_over(
        steps in prop::collection::vec((0usize..6, 0usize..3, 0usize..4), 1..12),
    ) {
        let graph = chain(&steps).unwrap();
        check(&graph, Isa::detect());
    }
}

#[test]
fn a_chain_is_written_over_itself() {
    // The norm of a rectified map is written over that map, and the sums over the scaled norm; the norm itself, which
    // both sums read, stays.
    let graph = chain(&[(5, 0, 0), (0, 0, 0), (2, 0, 0), (1, 0, 1)]).unwrap();
    assert_eq!(check(&graph, Isa::detect())[1], 3);
}
