//! Threads that share the work of one kernel.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::output::Part;

/// Threads that share the work of one kernel.
pub trait Team: Debug + Sync {
    /// How many there are, at least 1.
    fn threads(&self) -> usize;

    /// Calls `work` on some of them at once, each at least once; returns when all calls did. Each call works until nothing
    /// is left, so the work is done whether or not every thread comes in time.
    fn run(&self, work: &(dyn Fn() + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Team for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        work();
    }
}

/// Calls `work` for each of `of` parts once, on the threads of `team` and on this one.
pub(super) fn each_part(team: &dyn Team, of: usize, work: impl Fn(Part) + Sync) {
    if of <= 1 {
        return work(Part::WHOLE);
    }
    let next = AtomicUsize::new(0);
    let claim = || {
        // What the parts write is handed over by the end of `run`; the counter only says whose they are.
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < of) {
            work(Part { index, of });
        }
    };
    team.run(&claim);
    claim();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Calls work as often as it is told, on as many threads.
    #[derive(Debug)]
    struct Calls(usize);

    impl Team for Calls {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, work: &(dyn Fn() + Sync)) {
            std::thread::scope(|scope| {
                (0..self.0).for_each(|_| drop(scope.spawn(work)));
            });
        }
    }

    #[test]
    fn every_part_is_done_once_however_often_the_team_calls() {
        for (calls, of) in [(0, 3), (1, 3), (3, 3), (7, 3), (2, 1), (2, 16)] {
            let done = Mutex::new(Vec::new());
            each_part(&Calls(calls), of, |part| done.lock().unwrap().push(part.index));
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..of).collect::<Vec<_>>(), "{calls} calls");
        }
    }
}
