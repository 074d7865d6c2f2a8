//! Answers and times of the plan that would serve.

use std::thread;
use std::time::{Duration, Instant};

use crate::dataset::Dataset;
use crate::engine::{EngineError, Plan, prepare_thread};
use crate::postprocess::softmax;

use super::EvaluateError;

/// Images in one batch.
const BATCH: usize = 64;

/// Probabilities (rows of one per class) of `indices` of a dataset, in their order, by the plan that would serve: one
/// short-lived thread per instance (a core of the CPU), each as an inference thread is.
pub fn probabilities(plan: &Plan, data: &Dataset, indices: &[usize]) -> Result<Vec<f64>, EvaluateError> {
    check(plan, data, indices)?;
    // Whole batches for each thread, so that an image's batch does not depend on the number of cores.
    let share = indices.len().div_ceil(plan.instances(0)).max(1);
    let parts = indices.chunks(share.next_multiple_of(BATCH));
    thread::scope(|scope| {
        let start = |part| {
            let work = move || {
                prepare_thread();
                rows(plan, data, part)
            };
            let named = thread::Builder::new().name("evaluate".to_owned());
            named.spawn_scoped(scope, work).map_err(EvaluateError::Thread)
        };
        let threads = parts.map(start).collect::<Result<Vec<_>, _>>()?;
        let mut all = Vec::with_capacity(indices.len() * plan.classes());
        for thread in threads {
            all.extend(thread.join().map_err(|_| EngineError::Panicked)??);
        }
        Ok(all)
    })
}

fn check(plan: &Plan, data: &Dataset, indices: &[usize]) -> Result<(), EvaluateError> {
    let problem = if data.input.len() != plan.input_len() {
        format!(
            "images of {} numbers for a model that takes {}",
            data.input.len(),
            plan.input_len()
        )
    } else if data.classes != plan.classes() {
        format!(
            "data of {} classes for a model of {}",
            data.classes,
            plan.classes()
        )
    } else if let Some(index) = indices.iter().find(|&&index| index >= data.len()) {
        format!("image {index} of a dataset of {}", data.len())
    } else {
        return Ok(());
    };
    Err(EvaluateError::Shape(problem))
}

/// Rounds of timing, each of which gives a percentile of its own.
const ROUNDS: usize = 3;
/// Images of a round at most, and its time at most.
const TIMED: usize = 1_000;
const ROUND_TIME: Duration = Duration::from_millis(700);

/// The 99th percentile of the time that one image takes on this thread, in seconds: both plans in turns, the median over
/// rounds.
pub fn latencies(plans: [&Plan; 2]) -> Result<[f64; 2], EngineError> {
    let inputs = plans.map(|plan| plan.pattern(1));
    let mut logits = Vec::new();
    let mut percentiles = [[0.0; ROUNDS]; 2];
    for round in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        let begun = Instant::now();
        while times[0].len() < TIMED && (begun.elapsed() < ROUND_TIME || times[0].is_empty()) {
            for ((plan, input), times) in plans.iter().zip(&inputs).zip(&mut times) {
                let start = Instant::now();
                plan.run(input, 1, &mut logits)?;
                times.push(start.elapsed().as_secs_f64());
            }
        }
        for (times, percentiles) in times.iter_mut().zip(&mut percentiles) {
            times.sort_by(f64::total_cmp);
            percentiles[round] = times[times.len() * 99 / 100];
        }
    }
    Ok(percentiles.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        rounds[ROUNDS / 2]
    }))
}

fn rows(plan: &Plan, data: &Dataset, indices: &[usize]) -> Result<Vec<f64>, EvaluateError> {
    let mut rows = Vec::with_capacity(indices.len() * plan.classes());
    let (mut inputs, mut logits) = (Vec::new(), Vec::new());
    for batch in indices.chunks(BATCH) {
        inputs.clear();
        batch
            .iter()
            .for_each(|&index| inputs.extend_from_slice(data.tensor(index)));
        plan.run(&inputs, batch.len(), &mut logits)?;
        for (&image, logits) in batch.iter().zip(logits.chunks_exact(plan.classes())) {
            rows.extend(softmax(logits).map_err(|_| EvaluateError::NonFinite { image })?);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::dataset::Source;
    use crate::engine::device::Device;
    use crate::model::{Spec, Version, Weights, arch};
    use crate::preprocess::Limits;

    fn spec(height: usize) -> Spec {
        let text = format!(
            "architecture = 'small-cnn'\nlabels = ['a', 'b', 'c']\n\
             input = {{ channels = 1, height = {height}, width = 8 }}"
        );
        Spec::parse(&text).unwrap()
    }

    fn plan(classes: usize) -> Arc<Plan> {
        let graph = arch::build("small-cnn", spec(8).input, classes).unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap()
    }

    /// Different images of one class, read for a model of inputs `height`×8.
    fn data(images: u32, height: usize) -> Dataset {
        let folder = tempfile::tempdir().unwrap();
        let class = folder.path().join("a");
        fs::create_dir(&class).unwrap();
        for image in 0..images {
            let level = |x, y| image::Luma([((image + 1) * (31 * x + 17 * y + 1) % 256) as u8]);
            let path = class.join(format!("{image}.png"));
            image::GrayImage::from_fn(8, 8, level).save(path).unwrap();
        }
        let source = Source::ImageFolder(folder.path().to_owned());
        Dataset::read(&source, &spec(height), &Limits::default()).unwrap()
    }

    #[test]
    fn both_plans_are_timed() {
        let plan = plan(3);
        let seconds = latencies([&plan, &plan]).unwrap();
        assert!(
            seconds.iter().all(|&time| time > 0.0 && time.is_finite()),
            "{seconds:?}"
        );
    }

    #[test]
    fn each_image_has_the_row_it_has_alone() {
        let (plan, data) = (plan(3), data(133, 8));
        let indices: Vec<usize> = (0..data.len()).rev().collect();
        let rows = probabilities(&plan, &data, &indices).unwrap();
        assert_eq!((data.len(), rows.len()), (133, 133 * 3));
        for (&index, row) in indices.iter().zip(rows.chunks_exact(3)) {
            let mut logits = Vec::new();
            plan.run(data.tensor(index), 1, &mut logits).unwrap();
            let alone = softmax(&logits).unwrap();
            let close = row.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close, "image {index}: {row:?}, alone {alone:?}");
        }
        assert_ne!(rows[..3], rows[3..6]);
        assert!(probabilities(&plan, &data, &[]).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let check = |plan: &Plan, data: &Dataset, indices: &[usize], expected: &str| {
            let error = probabilities(plan, data, indices).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let (plan, other) = (plan(3), plan(4));
        check(&other, &data(1, 8), &[0], "data of 3 classes for a model of 4");
        check(&plan, &data(2, 8), &[0, 2], "image 2 of a dataset of 2");
        check(
            &plan,
            &data(1, 4),
            &[0],
            "images of 32 numbers for a model that takes 64",
        );
        let mut broken = data(70, 8);
        broken.tensors[67 * 64] = f32::NAN;
        let indices: Vec<usize> = (0..broken.len()).collect();
        check(&plan, &broken, &indices, "not finite for image 67");
    }
}
