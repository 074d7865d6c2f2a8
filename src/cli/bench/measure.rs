//! Times calls on parallel threads, in rounds that visit every point.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::timing::{peak_gflops, time};
use crate::engine::{EngineError, Plan, Reference};
use crate::kernels::Isa;
use crate::model::Input;
use crate::model::rng::{Rng, Stream};

use super::report::{Executor, Peak, Point};

/// What is timed.
pub(super) struct Subject {
    pub(super) input: Input,
    pub(super) plan: Arc<Plan>,
    /// Stock candle beside it, where asked for.
    pub(super) reference: Option<Reference>,
}

/// How it is timed.
pub(super) struct Course<'a> {
    pub(super) batches: &'a [usize],
    pub(super) threads: &'a [usize],
    pub(super) rounds: usize,
    /// For each point and round.
    pub(super) duration: Duration,
}

impl Subject {
    /// Times every batch at every count of threads by every executor, and with an instruction set its peak.
    pub(super) fn points(
        &self,
        course: &Course<'_>,
        isa: Option<Isa>,
    ) -> Result<(Vec<Point>, Vec<Peak>), EngineError> {
        let largest = course.batches.iter().copied().max().unwrap_or(1);
        let mut rng = Rng::new(0, Stream::Init, 0);
        let images: Vec<f32> = (0..largest * self.input.len()).map(|_| rng.unit()).collect();
        let mut points = self.blank(course);
        let mut peaks: Vec<(Isa, Peak)> = isa.map_or_else(Vec::new, |isa| {
            let peaks = course.threads.iter().map(Peak::new);
            peaks.map(|peak| (isa, peak)).collect()
        });
        for _ in 0..course.rounds {
            for (isa, peak) in &mut peaks {
                peak.gflops
                    .push(peak_gflops(*isa, peak.threads, course.duration)?);
            }
            for point in &mut points {
                let inputs = &images[..point.batch * self.input.len()];
                let call = |_, logits: &mut Vec<f32>| self.run(point.executor, inputs, point.batch, logits);
                let rate = time(point.threads, course.duration, &call)?;
                point.add_round([rate.median, rate.best].map(|calls| 1e6 / (calls * point.batch as f64)));
            }
        }
        Ok((points, peaks.into_iter().map(|(_, peak)| peak).collect()))
    }

    fn blank(&self, course: &Course<'_>) -> Vec<Point> {
        let executors =
            std::iter::once(Executor::Plan).chain(self.reference.as_ref().map(|_| Executor::Candle));
        let at = |&threads: &usize| course.batches.iter().map(move |&batch| (threads, batch));
        let places: Vec<_> = course.threads.iter().flat_map(at).collect();
        executors
            .flat_map(|executor| {
                places
                    .iter()
                    .map(move |&(threads, batch)| Point::new(executor, batch, threads))
            })
            .collect()
    }

    fn run(
        &self,
        executor: Executor,
        inputs: &[f32],
        batch: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        match (executor, &self.reference) {
            (Executor::Candle, Some(reference)) => reference.run(inputs, batch, logits),
            _ => self.plan.run(inputs, batch, logits),
        }
    }
}
