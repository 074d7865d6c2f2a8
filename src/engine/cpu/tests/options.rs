//! What the options change, and what they do not.

use super::super::*;
use crate::engine::compile::compile;
use crate::engine::device::Device;
use crate::engine::tests::{ITEMS, TOLERANCE, images, weights};
use crate::model::{Graph, arch};

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
fn each_instance_has_its_workplace_before_the_first_request() {
    let (cpu, _) = lowered("resnet18", &Options::default());
    cpu.reserve(3, 2);
    let spares = cpu.spares();
    assert_eq!(spares.len(), 3);
    let few = cpu.memory.few(2, CACHED);
    let enough = |spare: &Workplace| spare.arena.values.len() >= cpu.memory.len(2, few);
    assert!(spares.iter().all(enough));
}

#[test]
fn a_batch_of_a_network_of_few_weights_is_computed_in_even_parts() {
    let input = Input {
        channels: 1,
        height: 28,
        width: 28,
    };
    let graph = arch::build("seed-cnn", input, 10).unwrap();
    let program = compile(&graph, &weights(&graph), &Device::Cpu).unwrap();
    let cpu = Cpu::lower(&program, input, &Options::default()).unwrap();
    let parts = [1, 16, 17, 32, 37, 128].map(|items| cpu.at_once(items));
    assert_eq!(parts, [1, 16, 9, 16, 13, 16]);
    let few = images(&graph);
    let many: Vec<f32> = few.iter().cycle().take(37 * input.len()).copied().collect();
    let (alone, batch) = (logits(&cpu, &few, ITEMS), logits(&cpu, &many, 37));
    let repeated: Vec<f32> = alone.iter().cycle().take(370).copied().collect();
    assert_eq!(batch, repeated);
    let (large, _) = lowered("resnet18", &Options::default());
    assert_eq!(large.at_once(500), 500);
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
