//! A plan held against the plain definition of its network, before it answers anybody.

use candle_core::{Device, Tensor};

use super::{EngineError, Plan, Precision};
use crate::model::autograd::{Mode, Network};
use crate::model::rng::{Rng, Stream};
use crate::model::{Graph, Input, Weights};

/// Inputs that are compared.
const ITEMS: usize = 3;
/// Range of their numbers: levels of 0 to 1 as normalised images have them, of either sign.
const RANGE: f32 = 2.0;
/// They are the same at each start, on each machine.
const SEED: u64 = 1;

/// How far a logit may be off, as a share of the largest. Sums in another order differ by 1e-5, halves by their roundings,
/// which add up over the layers; a plan of another network, or one that was damaged, is off by the whole.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 1e-2,
        Precision::F16 => 64.0 * 2f32.powi(-11),
        Precision::Bf16 => 64.0 * 2f32.powi(-8),
    }
}

/// Computes a few fixed inputs by the plan and by the graph's own operators in f32 on the CPU (the executor that trains),
/// which share no code from the graph on. Logits that are not finite are [`EngineError::NonFinite`], others than the
/// definition's [`EngineError::Golden`].
pub fn check_golden(
    plan: &Plan,
    graph: &Graph,
    weights: &Weights,
    precision: Precision,
) -> Result<(), EngineError> {
    let inputs = inputs(graph.input);
    let expected = defined(graph, weights, &inputs)?;
    let mut found = Vec::new();
    plan.run(&inputs, ITEMS, &mut found)?;
    if !found.iter().chain(&expected).all(|logit| logit.is_finite()) {
        return Err(EngineError::NonFinite);
    }
    let off = largest(
        found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| found - expected),
    );
    let allowed = tolerance(precision) * largest(expected.iter().copied());
    // Both have a logit for each class of the graph, or the comparison says nothing.
    if found.len() == expected.len() && off <= allowed {
        Ok(())
    } else {
        Err(EngineError::Golden { off, allowed })
    }
}

fn inputs(input: Input) -> Vec<f32> {
    let mut rng = Rng::new(SEED, Stream::Golden, 0);
    let numbers = ITEMS * input.channels * input.height * input.width;
    (0..numbers).map(|_| rng.uniform(-RANGE, RANGE)).collect()
}

fn defined(graph: &Graph, weights: &Weights, inputs: &[f32]) -> Result<Vec<f32>, EngineError> {
    let Input {
        channels,
        height,
        width,
    } = graph.input;
    let images = Tensor::from_slice(inputs, (ITEMS, channels, height, width), &Device::Cpu)?;
    let network = Network::new(graph.clone(), weights, &Device::Cpu)?;
    let logits = network.forward(&images, &mut Mode::Eval)?;
    Ok(logits.flatten_all()?.to_vec1::<f32>()?)
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, value| value.abs().max(most))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{everything, graphs, weights};
    use super::*;
    use crate::model::Version;

    fn plan(graph: &Graph, weights: &Weights) -> std::sync::Arc<Plan> {
        Plan::compile(Version::FIRST, graph, weights, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_plan_agrees_with_its_definition() {
        for (name, graph) in graphs() {
            let weights = weights(&graph);
            let checked = check_golden(&plan(&graph, &weights), &graph, &weights, Precision::F32);
            assert!(checked.is_ok(), "{name}: {checked:?}");
        }
    }

    #[test]
    fn a_plan_of_other_weights_is_found_out() {
        let graph = everything().unwrap();
        let (ours, others) = (weights(&graph), Weights::initialise(&graph, 9).unwrap());
        let checked = check_golden(&plan(&graph, &others), &graph, &ours, Precision::F32);
        assert!(matches!(checked, Err(EngineError::Golden { off, allowed }) if off > allowed));
    }

    #[test]
    fn weights_that_overflow_are_not_finite() {
        let graph = everything().unwrap();
        let tensors = graph.params.iter().map(|param| {
            let huge = Tensor::full(1e38f32, &*param.shape, &Device::Cpu).unwrap();
            (param.name.clone(), huge)
        });
        let weights = Weights::from_tensors(tensors.collect(), &graph).unwrap();
        let checked = check_golden(&plan(&graph, &weights), &graph, &weights, Precision::F32);
        assert!(matches!(checked, Err(EngineError::NonFinite)), "{checked:?}");
    }
}
