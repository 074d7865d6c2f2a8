//! Weights that torch wrote give the numbers that torch computed.

use sconce::engine::Plan;
use sconce::engine::device::Device;
use sconce::model::{Input, Version, Weights, arch};
use serde::Deserialize;

/// Largest difference between two f32 computations of these logits, which are below 1.
const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    images: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
}

#[test]
fn the_seed_cnn_computes_what_torch_does() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/seed_cnn.json")).unwrap();
    let (channels, height, width) = (1, 8, 8);
    let input = Input {
        channels,
        height,
        width,
    };
    let graph = arch::build("seed-cnn", input, 3).unwrap();
    let weights =
        Weights::from_safetensors(include_bytes!("../golden/seed_cnn.safetensors"), &graph).unwrap();
    let plan = Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap();
    let mut logits = Vec::new();
    plan.run(&golden.images.concat(), golden.images.len(), &mut logits)
        .unwrap();
    for (found, expected) in logits.iter().zip(golden.logits.concat()) {
        assert!(
            (found - expected).abs() < TOLERANCE,
            "{found}, torch says {expected}"
        );
    }
    assert_eq!(logits.len(), golden.logits.len() * 3);
}
