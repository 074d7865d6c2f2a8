//! Each layer against candle's step of the same name.

mod exact;
mod numbers;
mod plans;
mod recipe;

use candle_core::{Device, Tensor};

use super::*;
use crate::engine::compile::compile;
use crate::engine::options::Instructions;
use crate::engine::tests::{ITEMS, TOLERANCE, everything, images, weights};
use crate::model::{Graph, arch};

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

#[test]
fn every_layer_computes_what_candle_computes() {
    let graph = everything().unwrap();
    let images = images(&graph);
    let program = compile(&graph, &weights(&graph), &Device::Cpu).unwrap();
    let expected = candle_values(&program, &graph, &images);
    for isa in Isa::available() {
        let options = Options {
            instructions: Instructions::Only(isa),
            ..Options::default()
        };
        let cpu = Cpu::lower(&program, graph.input, &options).unwrap();
        let span = Span::whole(ITEMS, ITEMS);
        let mut arena = cpu.workplace(ITEMS, ITEMS).arena;
        let mut compared = 0;
        for (index, layer) in cpu.layers.iter().enumerate() {
            layer.run(&mut cpu.start((&mut arena, &Alone), &images, span));
            // A join is whole after its last part.
            if cpu.layers[index + 1..]
                .iter()
                .any(|later| later.name == layer.name)
            {
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
            let off = found
                .iter()
                .zip(expected)
                .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(
                off <= TOLERANCE * largest,
                "{isa} {}: {off} of {largest}",
                layer.name
            );
            compared += 1;
        }
        assert!(compared > 15, "{isa}: {compared} layers");
    }
}

fn lowered(name: &str, options: &Options) -> (Cpu, Graph) {
    let input = Input {
        channels: 3,
        height: 64,
        width: 48,
    };
    let graph = arch::build(name, input, 10).unwrap();
    let program = compile(&graph, &weights(&graph), &Device::Cpu).unwrap();
    (Cpu::lower(&program, input, options).unwrap(), graph)
}

fn logits(cpu: &Cpu, images: &[f32], items: usize) -> Vec<f32> {
    let mut logits = vec![0.0; items * 10];
    cpu.run(images, items, &mut logits);
    logits
}

#[test]
fn threads_change_no_bit_of_an_answer() {
    for name in ["resnet18", "efficientnet_b0"] {
        let (alone, graph) = lowered(name, &Options::default());
        let images = images(&graph);
        for threads in [2, 3] {
            let options = Options {
                threads,
                ..Options::default()
            };
            let (shared, _) = lowered(name, &options);
            for items in [1, ITEMS] {
                let images = &images[..items * images.len() / ITEMS];
                let [expected, found] = [&alone, &shared].map(|cpu| logits(cpu, images, items));
                assert_eq!(found, expected, "{name}, {threads} threads, {items} images");
            }
        }
    }
}

#[test]
fn winograd_can_be_switched_off() {
    let titles = |winograd| {
        let options = Options {
            winograd,
            ..Options::default()
        };
        let (cpu, graph) = lowered("resnet18", &options);
        let costs = cpu.explain(&images(&graph), 1, 1);
        let by_winograd = costs.iter().filter(|cost| cost.kernel.starts_with("winograd"));
        (by_winograd.count(), logits(&cpu, &images(&graph), 1))
    };
    let ((some, with), (none, without)) = (titles(true), titles(false));
    assert!(some > 0 && none == 0, "{some} and {none} layers");
    let largest = without.iter().fold(0f32, |most, logit| most.max(logit.abs()));
    let off = with.iter().zip(&without).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0f32, f32::max) <= TOLERANCE * largest);
}
