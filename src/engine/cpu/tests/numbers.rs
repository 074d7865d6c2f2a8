//! Random images, and weights that let them through to the answer.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::model::graph::{Param, ParamKind};
use crate::model::rng::{Rng, Stream};
use crate::model::{Graph, Input, Weights};

/// Images whose numbers lie in −1..1.
pub(super) fn images(input: Input, count: usize, seed: u64) -> Vec<f32> {
    let Input {
        channels,
        height,
        width,
    } = input;
    let mut rng = Rng::new(seed, Stream::Shuffle, 0);
    (0..count * channels * height * width)
        .map(|_| rng.uniform(-1.0, 1.0))
        .collect()
}

/// Weights under which values keep their size from layer to layer, and no channel is like another.
pub(super) fn weights(graph: &Graph, seed: u64) -> Weights {
    let random = |(index, param): (u64, &Param)| {
        let mut rng = Rng::new(seed, Stream::Init, index);
        let count = param.shape.iter().product::<usize>();
        let numbers: Vec<f32> = (0..count).map(|_| number(param.kind, &mut rng)).collect();
        let tensor = Tensor::from_vec(numbers, &*param.shape, &Device::Cpu).unwrap();
        (param.name.clone(), tensor)
    };
    let tensors: BTreeMap<_, _> = (0..).zip(&graph.params).map(random).collect();
    Weights::from_tensors(tensors, graph).unwrap()
}

fn number(kind: ParamKind, rng: &mut Rng) -> f32 {
    match kind {
        ParamKind::Weight { fan_in, .. } => {
            let most = (6.0 / fan_in as f32).sqrt();
            rng.uniform(-most, most)
        }
        ParamKind::Bias | ParamKind::Offset | ParamKind::RunningMean => rng.uniform(-0.5, 0.5),
        ParamKind::Scale | ParamKind::LayerScale => {
            let sign = if rng.unit() < 0.5 { -1.0 } else { 1.0 };
            sign * rng.uniform(0.5, 1.5)
        }
        ParamKind::RunningVar => rng.uniform(0.3, 2.0),
    }
}
