//! Imported weights on trial: they fit the network, and an image goes through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::engine::{Plan, check_golden};
use crate::model::classes::classes;
use crate::model::{Graph, Spec, Version, Weights, WeightsError};
use crate::preprocess::{Pixels, Preprocessor};

use super::super::super::CliError;
use super::super::super::version::{data, engine};
use super::source::Source;

/// Names of each kind that an error lists; of another architecture there are hundreds.
const NAMES_SHOWN: usize = 6;

/// The weights of `graph`; an error names the file, what was expected of it, and the number of classes where that is
/// all that differs.
pub(super) fn weights(source: &Source, spec: &Spec, graph: &Graph) -> Result<Weights, CliError> {
    let error = match Weights::from_safetensors(&source.bytes, graph) {
        Ok(weights) => return Ok(weights),
        Err(error) => error,
    };
    let file = &source.name;
    let WeightsError::Mismatch {
        missing,
        extra,
        misshaped,
    } = &error
    else {
        return Err(data(format!("{file}: {error}")));
    };
    if let Some(classes) = classes(&source.bytes, spec) {
        let labels = spec.labels.len();
        return Err(data(format!(
            "{file} has {classes} classes, and there are {labels} labels; one label for each class is needed"
        )));
    }
    let input = spec.input;
    let (architecture, labels) = (&spec.architecture, spec.labels.len());
    Err(data(format!(
        "{file} does not fit {architecture} with an input of {}×{}×{} and {labels} classes:{}{}{}",
        input.channels,
        input.height,
        input.width,
        list("missing", missing),
        list("not expected", extra),
        list("of another shape", misshaped)
    )))
}

/// Time of one image through the plan that would serve it: a picture larger than the input, prepared as any.
pub(super) fn forward(
    config: &Config,
    spec: &Spec,
    graph: &Graph,
    weights: &Weights,
) -> Result<Duration, CliError> {
    let target = config.engine.open().map_err(engine)?;
    let plan = Plan::compile(Version::FIRST, graph, weights, &target).map_err(engine)?;
    // As the server will before it serves them.
    check_golden(&plan, graph, weights, target.precision).map_err(|e| data(e.to_string()))?;
    let preprocessor = Preprocessor::new(Arc::new(spec.clone()));
    let image = preprocessor.tensor(picture()).map_err(data)?;
    let mut logits = Vec::new();
    let began = Instant::now();
    plan.run(&image, 1, &mut logits).map_err(engine)?;
    let took = began.elapsed();
    if logits.iter().all(|logit| logit.is_finite()) {
        Ok(took)
    } else {
        Err(data("the network gives numbers that are not finite"))
    }
}

fn list(what: &str, names: &[String]) -> String {
    let shown = names.len().min(NAMES_SHOWN);
    match names.len() - shown {
        _ if names.is_empty() => String::new(),
        0 => format!("\n  {what}: {}", names.join(", ")),
        more => format!("\n  {what}: {} and {more} more", names[..shown].join(", ")),
    }
}

/// A ball over a horizon, lit from the left: edges and gradients in every channel.
fn picture() -> Pixels {
    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 240;
    let pixel = |at: u32| {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let (dx, dy) = (i64::from(x) - 150, i64::from(y) - 120);
        if dx * dx + dy * dy < 4900 {
            [(220 - x / 2) as u8, (60 + y / 4) as u8, 40]
        } else if y < 150 {
            [(90 + y / 3) as u8, (140 + y / 3) as u8, 230]
        } else {
            [(y - 100) as u8, 110, (x / 8) as u8]
        }
    };
    Pixels {
        width: WIDTH,
        height: HEIGHT,
        channels: 3,
        bytes: (0..WIDTH * HEIGHT).flat_map(pixel).collect(),
    }
}
