//! Times a version's splits and batches, within a given time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Asked, Split, Timing, Timings};
use crate::engine::timing::time;
use crate::engine::{EngineError, Plan};

/// How it is timed.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// For all splits and batches together. A batch that would not end within it is left out, with all larger ones.
    pub limit: Duration,
    /// For each visit of a split at a batch; at least one call is timed.
    pub visit: Duration,
    /// Whether the smallest batch is timed however long it takes.
    pub at_least_one: bool,
}

/// Times that each split is visited at each batch, in turn with the others, so that all see the same machine.
const ROUNDS: usize = 3;
/// Of each visit, the second of which is timed.
const CALLS: usize = 2;

impl Course {
    /// Visits that fill `limit` if all of the `splits` are timed at all batches.
    pub fn within(limit: Duration, asked: &Asked, splits: usize) -> Self {
        let visits = (splits * asked.batches().len() * ROUNDS * CALLS).max(1);
        Self {
            limit,
            visit: limit / u32::try_from(visits).unwrap_or(u32::MAX),
            at_least_one: false,
        }
    }
}

/// Times every plan, compiled for its split's threads, at the batches of `asked`, ascending, while the time lasts.
pub fn measure(plans: &[(Split, Arc<Plan>)], asked: &Asked, course: &Course) -> Result<Timings, EngineError> {
    let began = Instant::now();
    let mut timings = Timings {
        max_batch: asked.max_batch,
        points: Vec::new(),
    };
    let mut expected = if course.at_least_one {
        Duration::ZERO
    } else {
        first(plans)?
    };
    for (index, batch) in asked.batches().into_iter().enumerate() {
        let is_free = index == 0 && course.at_least_one;
        if !is_free && began.elapsed() + expected > course.limit {
            break;
        }
        let level = Instant::now();
        timings.points.extend(points(plans, batch, course.visit)?);
        // The next batch is at most twice as large.
        expected = 2 * level.elapsed();
    }
    Ok(timings)
}

/// What the smallest batch will take with all plans, by one call of the first.
fn first(plans: &[(Split, Arc<Plan>)]) -> Result<Duration, EngineError> {
    let Some((_, plan)) = plans.first() else {
        return Ok(Duration::ZERO);
    };
    let began = Instant::now();
    plan.run(&plan.pattern(1), 1, &mut Vec::new())?;
    Ok(began.elapsed() * u32::try_from(plans.len() * ROUNDS * CALLS).unwrap_or(u32::MAX))
}

/// Every split at one batch: the medians of the rounds.
fn points(plans: &[(Split, Arc<Plan>)], batch: usize, visit: Duration) -> Result<Vec<Timing>, EngineError> {
    let mut seconds = vec![[0.0; ROUNDS]; plans.len()];
    for round in 0..ROUNDS {
        for ((split, plan), seconds) in plans.iter().zip(&mut seconds) {
            let images = plan.pattern(batch);
            let call = |_, logits: &mut Vec<f32>| plan.run(&images, batch, logits);
            seconds[round] = split.instances as f64 / time(split.instances, visit, &call)?.median;
        }
    }
    let timed = plans.iter().zip(seconds).map(|(&(split, _), mut seconds)| {
        seconds.sort_by(f64::total_cmp);
        Timing {
            split,
            batch,
            seconds: seconds[ROUNDS / 2],
            spread: (seconds[ROUNDS - 1] - seconds[0]) / seconds[ROUNDS / 2],
        }
    });
    Ok(timed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::DeviceChoice;
    use crate::engine::{Options, Target, tune::choose};
    use crate::model::{Input, Version, Weights, arch};

    const ASKED: Asked = Asked {
        instances: 0,
        threads: 0,
        max_batch: 5,
        open_batch: true,
    };

    fn plans(cores: usize) -> Vec<(Split, Arc<Plan>)> {
        let input = Input {
            channels: 1,
            height: 8,
            width: 8,
        };
        let graph = arch::build("small-cnn", input, 3).unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        let device = DeviceChoice::Cpu.open().unwrap();
        let plan = |split: Split| {
            let options = Options {
                threads: split.threads,
                ..Options::default()
            };
            let target = Target {
                options,
                ..Target::from(&device)
            };
            let plan = Plan::compile(Version::FIRST, &graph, &weights, &target);
            (split, plan.unwrap())
        };
        ASKED.splits(cores).into_iter().map(plan).collect()
    }

    fn timed(limit: Duration, at_least_one: bool) -> Timings {
        let course = Course {
            limit,
            visit: Duration::ZERO,
            at_least_one,
        };
        measure(&plans(2), &ASKED, &course).unwrap()
    }

    #[test]
    fn with_time_enough_every_split_is_timed_at_every_batch() {
        let timings = timed(Duration::from_secs(3600), false);
        let places: Vec<_> = timings
            .points
            .iter()
            .map(|point| (point.batch, point.split.threads))
            .collect();
        let expected: Vec<_> = [1, 2, 4, 5]
            .iter()
            .flat_map(|&batch| [(batch, 1), (batch, 2)])
            .collect();
        assert_eq!(places, expected);
        assert!(
            timings
                .points
                .iter()
                .all(|point| point.seconds > 0.0 && point.spread >= 0.0)
        );
        assert!(choose(&ASKED, 2, &timings).is_some());
    }

    #[test]
    fn without_time_nothing_is_timed_or_one_batch_alone() {
        assert!(timed(Duration::ZERO, false).points.is_empty());
        assert_eq!(choose(&ASKED, 2, &timed(Duration::ZERO, false)), None);
        let timings = timed(Duration::ZERO, true);
        assert_eq!(timings.points.len(), 2);
        assert_eq!(choose(&ASKED, 2, &timings).unwrap().max_batch_size, 5);
    }
}
