//! Times calls on parallel threads.

use std::thread;
use std::time::{Duration, Instant};

use super::{EngineError, prepare_thread};
use crate::kernels::{Isa, fma_burst, read_sum};

/// Calls per second of all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// By each thread's median call.
    pub median: f64,
    /// By each thread's quickest call.
    pub best: f64,
}

/// Rounds of a burst: a third of a millisecond or so.
const BURST: usize = 10_000;

/// Bytes that all threads together read from memory, and the fewest that one of many reads: more than its share of the
/// last cache.
const READ_BYTES: usize = 256 << 20;
const LEAST_BYTES: usize = 16 << 20;

/// Calls `call` with the thread's number on each of `threads` threads for `duration`, after one call that is not timed.
/// At least one call is.
pub fn time<F>(threads: usize, duration: Duration, call: &F) -> Result<Rate, EngineError>
where
    F: Fn(usize, &mut Vec<f32>) -> Result<(), EngineError> + Sync,
{
    let times = thread::scope(|scope| {
        let start = |index| {
            let named = thread::Builder::new().name(format!("time-{index}"));
            let work = move || calls(duration, &|logits: &mut Vec<f32>| call(index, logits));
            named.spawn_scoped(scope, work).map_err(EngineError::Thread)
        };
        let started = (0..threads).map(start).collect::<Result<Vec<_>, _>>()?;
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| EngineError::Panicked)?;
        started
            .into_iter()
            .map(join)
            .collect::<Result<Vec<Vec<Duration>>, _>>()
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

/// Multiply-adds in registers: 10⁹ floating-point operations per second of all threads together.
pub fn peak_gflops(isa: Isa, threads: usize, duration: Duration) -> Result<f64, EngineError> {
    let flops = fma_burst(isa, BURST) as f64;
    let burst = |_, _: &mut Vec<f32>| {
        fma_burst(isa, BURST);
        Ok(())
    };
    Ok(time(threads, duration, &burst)?.median * flops / 1e9)
}

/// Memory read in order, each thread its own part of more than the caches hold: 10⁹ bytes per second of all threads
/// together.
pub fn read_gbytes(isa: Isa, threads: usize, duration: Duration) -> Result<f64, EngineError> {
    let bytes = (READ_BYTES / threads.max(1)).clamp(LEAST_BYTES, READ_BYTES / 2);
    let part = bytes / size_of::<f32>();
    // Not zeros: the system would lend one page for all of them.
    let values = vec![1.0f32; part * threads];
    let read = |index, _: &mut Vec<f32>| {
        std::hint::black_box(read_sum(isa, &values[index * part..][..part]));
        Ok(())
    };
    Ok(time(threads, duration, &read)?.median * bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_thread_calls_once_untimed_and_at_least_once_timed() {
        for threads in [1, 3] {
            let calls = Mutex::new(Vec::new());
            let call = |index, _: &mut Vec<f32>| {
                calls.lock().unwrap().push(index);
                Ok(())
            };
            let rate = time(threads, Duration::ZERO, &call).unwrap();
            let mut calls = calls.into_inner().unwrap();
            calls.sort_unstable();
            let expected: Vec<usize> = (0..threads).flat_map(|index| [index, index]).collect();
            assert_eq!(calls, expected);
            assert!(rate.best >= rate.median && rate.median > 0.0);
        }
    }

    #[test]
    fn a_failing_call_is_told() {
        let error = time(2, Duration::ZERO, &|_, _: &mut Vec<f32>| {
            Err(EngineError::NonFinite)
        });
        assert!(matches!(error, Err(EngineError::NonFinite)));
    }

    #[test]
    fn what_the_processor_can_do_is_a_number() {
        for figure in [peak_gflops, read_gbytes] {
            for threads in [1, 2] {
                let figure = figure(Isa::detect(), threads, Duration::ZERO).unwrap();
                assert!(figure.is_finite() && figure > 0.0);
            }
        }
    }
}
