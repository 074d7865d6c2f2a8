//! Times calls on parallel threads, in rounds that visit every point.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{EngineError, Plan, Reference, prepare_thread};
use crate::kernels::{Isa, fma_burst};
use crate::model::Input;
use crate::model::rng::{Rng, Stream};

use super::super::CliError;
use super::super::version::engine;
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

/// Calls per second of all threads together.
struct Rate {
    /// By each thread's median call.
    median: f64,
    /// By each thread's quickest call.
    best: f64,
}

/// Rounds of a burst: a third of a millisecond or so.
const BURST: usize = 10_000;

impl Subject {
    /// Times every batch at every count of threads by every executor, and with an instruction set its peak.
    pub(super) fn points(
        &self,
        course: &Course<'_>,
        isa: Option<Isa>,
    ) -> Result<(Vec<Point>, Vec<Peak>), CliError> {
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
                let call = |logits: &mut Vec<f32>| self.run(point.executor, inputs, point.batch, logits);
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

/// Multiply-adds in registers: 10⁹ floating-point operations per second of all threads together.
fn peak_gflops(isa: Isa, threads: usize, duration: Duration) -> Result<f64, CliError> {
    let flops = fma_burst(isa, BURST) as f64;
    let burst = |_: &mut Vec<f32>| {
        fma_burst(isa, BURST);
        Ok(())
    };
    Ok(time(threads, duration, &burst)?.median * flops / 1e9)
}

/// Calls `call` on each of `threads` threads for `duration`, after one call that is not timed.
fn time<F>(threads: usize, duration: Duration, call: &F) -> Result<Rate, CliError>
where
    F: Fn(&mut Vec<f32>) -> Result<(), EngineError> + Sync,
{
    let times = thread::scope(|scope| {
        let start = |index| {
            let named = thread::Builder::new().name(format!("bench-{index}"));
            named
                .spawn_scoped(scope, || calls(duration, call))
                .map_err(|e| CliError::Failed(format!("a thread: {e}")))
        };
        let started = (0..threads).map(start).collect::<Result<Vec<_>, _>>()?;
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| EngineError::Panicked)?;
        started
            .into_iter()
            .map(join)
            .collect::<Result<Vec<Vec<Duration>>, _>>()
            .map_err(engine)
    })?;
    let rate =
        |of: fn(&[Duration]) -> Duration| times.iter().map(|calls| 1.0 / of(calls).as_secs_f64()).sum();
    Ok(Rate {
        median: rate(|calls| calls[calls.len() / 2]),
        best: rate(|calls| calls[0]),
    })
}

/// The times of at least one call, ascending.
fn calls(
    duration: Duration,
    call: &impl Fn(&mut Vec<f32>) -> Result<(), EngineError>,
) -> Result<Vec<Duration>, EngineError> {
    prepare_thread();
    let mut logits = Vec::new();
    call(&mut logits)?;
    let (mut times, began) = (Vec::new(), Instant::now());
    loop {
        let start = Instant::now();
        call(&mut logits)?;
        times.push(start.elapsed());
        if began.elapsed() >= duration {
            times.sort_unstable();
            return Ok(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_calls_once_untimed_and_at_least_once_timed() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        for threads in [1, 3] {
            let calls = AtomicUsize::new(0);
            let call = |_: &mut Vec<f32>| {
                calls.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let rate = time(threads, Duration::ZERO, &call).unwrap();
            assert_eq!(calls.into_inner(), 2 * threads);
            assert!(rate.best >= rate.median && rate.median > 0.0);
        }
    }

    #[test]
    fn a_failing_call_is_told() {
        let error = time(2, Duration::ZERO, &|_: &mut Vec<f32>| Err(EngineError::NonFinite));
        assert!(matches!(error, Err(CliError::Failed(_))));
    }
}
