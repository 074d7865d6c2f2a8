//! Candle's operators in each precision against the CPU's plan: in host memory, and on a GPU where one is asked for.

use candle_core::Device;

use super::*;
use crate::engine::compile::compile;
use crate::engine::tests::{ITEMS, TOLERANCE, graphs, images, largest, weights};
use crate::engine::{Plan, Precision};
use crate::model::{Graph, Version, Weights, arch};

/// Largest difference of half precision from f32, as a share of the largest logit, in units of the type's rounding error:
/// each layer rounds its weights and its values. Measured in host memory over the networks of the test below: at most 13.4
/// in f16 (`mobilenet_v3_small`) and 16.3 in bf16 (`everything`, whose last sums cancel). Twice that is allowed.
const ROUNDINGS: f32 = 32.0;
/// The same for f32 on a GPU, whose libraries choose the order of their sums by shape.
#[cfg(feature = "cuda")]
const GPU_TOLERANCE: f32 = 1e-4;

/// Half the distance from 1 to the next number: 11 and 8 bits of precision.
fn allowed(precision: Precision, single: f32) -> f32 {
    match precision {
        Precision::F32 => single,
        Precision::F16 => ROUNDINGS * 2f32.powi(-11),
        Precision::Bf16 => ROUNDINGS * 2f32.powi(-8),
    }
}

const ALL: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Bf16];

/// A network under its name.
struct Network(&'static str, Graph, Weights);

fn small_networks() -> impl Iterator<Item = Network> {
    graphs().into_iter().map(|(name, graph)| {
        let weights = weights(&graph);
        Network(name, graph, weights)
    })
}

/// An architecture with initial weights: others would take many layers out of the range of f16.
fn photo(name: &'static str, side: usize) -> Network {
    let input = Input {
        channels: 3,
        height: side,
        width: side,
    };
    let graph = arch::build(name, input, 10).unwrap();
    let weights = Weights::initialise(&graph, 3).unwrap();
    Network(name, graph, weights)
}

impl Network {
    fn operators(&self, device: &Device, precision: Precision) -> Operators {
        let Self(_, graph, weights) = self;
        let program = compile(graph, weights, &Device::Cpu).unwrap();
        let target = Target {
            precision,
            ..Target::from(device)
        };
        Operators::new(program, graph.input, target).unwrap()
    }

    /// `items` images of noise of five contrasts, so that logits differ by more than a precision rounds.
    fn images(&self, items: usize) -> Vec<f32> {
        let mut images = images(&self.1);
        let input = images.len() / ITEMS;
        for (image, less) in images.chunks_exact_mut(input).zip(0..) {
            let contrast = 1.0 - less as f32 / ITEMS as f32;
            image.iter_mut().for_each(|level| *level *= contrast);
        }
        images.iter().copied().cycle().take(items * input).collect()
    }

    fn by_the_plan(&self, items: usize) -> Vec<f32> {
        let Self(_, graph, weights) = self;
        let plan = Plan::compile(Version::FIRST, graph, weights, &Device::Cpu).unwrap();
        let mut logits = Vec::new();
        plan.run(&self.images(items), items, &mut logits).unwrap();
        logits
    }

    /// Compares batches with the CPU's plan, whose logits must differ from image to image.
    fn check(&self, device: &Device, (precision, single): (Precision, f32), batches: &[usize]) {
        let Self(name, graph, _) = self;
        let (operators, allowed) = (self.operators(device, precision), allowed(precision, single));
        for &items in batches {
            let (expected, mut found) = (self.by_the_plan(items), Vec::new());
            operators.run(&self.images(items), &mut found).unwrap();
            let told = format!("{name} in {precision}, {items} images");
            assert!(found.iter().all(|logit| logit.is_finite()), "{told}");
            assert_eq!(found.len(), items * graph.classes(), "{told}");
            let off = difference(&found, &expected) / largest(&expected);
            assert!(off <= allowed, "{told}: {off} over {allowed}");
            let mut rows = expected.chunks_exact(graph.classes()).take(ITEMS);
            let first = rows.next().unwrap();
            for row in rows {
                let change = difference(row, first) / largest(&expected);
                assert!(change > allowed, "{told} are told apart by {change} only");
            }
        }
    }
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    let differences: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    largest(&differences)
}

#[test]
fn every_precision_computes_what_the_cpu_computes() {
    let photos = ["resnet18", "mobilenet_v3_small", "efficientnet_b0"].map(|name| photo(name, 64));
    for network in small_networks().chain(photos) {
        for precision in ALL {
            network.check(&Device::Cpu, (precision, TOLERANCE), &[1, ITEMS]);
        }
    }
}

#[test]
fn there_are_as_many_instances_as_ever_ran_at_once() {
    let network = small_networks().next().unwrap();
    let operators = network.operators(&Device::Cpu, Precision::F32);
    let count = |operators: &Operators| operators.spares().len();
    assert_eq!(count(&operators), 1);
    let held = [operators.take().unwrap(), operators.take().unwrap()];
    assert_eq!(count(&operators), 0);
    held.into_iter().for_each(|instance| operators.give(instance));
    operators.run(&network.images(1), &mut Vec::new()).unwrap();
    assert_eq!(count(&operators), 2);
    // Not a whole image: the instance that failed is not used again.
    operators.run(&[0.0], &mut Vec::new()).unwrap_err();
    assert_eq!(count(&operators), 1);
}

#[test]
fn a_large_batch_is_computed_in_parts() {
    let check = |network: &Network, most: usize| {
        let mut operators = network.operators(&Device::Cpu, Precision::F32);
        assert_eq!(operators.most_items, most, "{}", network.0);
        operators.most_items = 2;
        let mut logits = Vec::new();
        operators.run(&network.images(ITEMS), &mut logits).unwrap();
        let off = difference(&logits, &network.by_the_plan(ITEMS));
        assert!(off <= TOLERANCE * largest(&logits), "{}: {off}", network.0);
    };
    // Most there are 32 maps of 26×26; 3 channels of 7×7 windows at 32×32 places.
    check(&small_networks().next().unwrap(), (1 << 30) / (32 * 26 * 26));
    check(&photo("resnet18", 64), (1 << 30) / (3 * 7 * 7 * 32 * 32));
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;
    use crate::engine::DeviceChoice;

    /// Fails where there is none: who asks for these tests wants them to have run.
    fn gpu() -> Device {
        DeviceChoice::Cuda(0).open().unwrap()
    }

    #[test]
    #[ignore = "needs a GPU; docs/gpu.md has the command"]
    fn a_gpu_computes_what_the_cpu_computes() {
        let photos = [
            "resnet18",
            "resnet50",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "squeezenet1_1",
            "densenet121",
            "convnext_tiny",
        ];
        for network in small_networks().chain(photos.map(|name| photo(name, 64))) {
            for precision in ALL {
                network.check(&gpu(), (precision, GPU_TOLERANCE), &[1, 3, ITEMS, 32]);
            }
        }
    }

    #[test]
    #[ignore = "needs a GPU; docs/gpu.md has the command"]
    fn instances_at_once_give_the_answers_of_one() {
        let network = photo("resnet18", 64);
        let operators = network.operators(&gpu(), Precision::F32);
        let images = network.images(ITEMS);
        let run = || {
            let mut logits = Vec::new();
            operators.run(&images, &mut logits).unwrap();
            logits
        };
        let alone = run();
        std::thread::scope(|scope| {
            let batches = || (0..50).for_each(|_| assert_eq!(run(), alone));
            for _ in 0..4 {
                scope.spawn(batches);
            }
        });
    }
}
