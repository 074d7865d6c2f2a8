//! Each layer against candle's step of the same name.

use candle_core::{Device, Tensor};

use super::*;
use crate::engine::compile::compile;
use crate::engine::tests::{ITEMS, TOLERANCE, everything, images, weights};
use crate::model::Graph;

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
        let cpu = Cpu::lower(&program, graph.input, isa).unwrap();
        let Arena {
            values: mut arena,
            mut scratch,
        } = cpu.arena(ITEMS, ITEMS);
        let mut compared = 0;
        for (index, layer) in cpu.layers.iter().enumerate() {
            layer.run(&mut Run {
                isa,
                memory: &cpu.memory,
                arena: &mut arena,
                scratch: &mut scratch,
                images: &images,
                span: Span::whole(ITEMS, ITEMS),
            });
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
            let values = &arena[cpu.memory.place(place.storage, Span::whole(ITEMS, ITEMS))][place.offset..];
            kernels::to_planes(
                isa,
                Source {
                    values,
                    map: place.layout.map,
                },
                (&mut found[..]).into(),
                Batch::whole(ITEMS),
            );
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
