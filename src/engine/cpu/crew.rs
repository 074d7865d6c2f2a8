//! The threads that share one instance's work.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::engine::prepare_thread;
use crate::kernels::{Alone, Team};

/// Threads of a pool. They end with it.
#[derive(Debug)]
pub(super) struct Crew {
    /// None where the calling thread works alone.
    pool: Option<ThreadPool>,
}

impl Crew {
    /// Of `threads` threads. Where the system gives none, the calling thread works alone, which is logged.
    pub(super) fn new(threads: usize) -> Self {
        if threads < 2 {
            return Self { pool: None };
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .start_handler(|_| prepare_thread())
            .build();
        if let Err(error) = &pool {
            tracing::warn!(%error, threads, "no threads to share batches: one thread computes each");
        }
        Self { pool: pool.ok() }
    }

    /// Calls `work`, giving it the team that it may share kernels with.
    pub(super) fn work(&self, work: impl FnOnce(&dyn Team) + Send) {
        match &self.pool {
            // On one of the team's own threads, which finds the others awake between two kernels.
            Some(pool) => pool.install(|| work(self)),
            None => work(&Alone),
        }
    }
}

impl Team for Crew {
    fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    fn run(&self, work: &(dyn Fn() + Sync)) {
        fork(work, self.threads());
    }
}

/// Offers `work` to as many threads.
fn fork(work: &(dyn Fn() + Sync), threads: usize) {
    if threads == 1 {
        return work();
    }
    rayon::join(|| fork(work, threads - threads / 2), || fork(work, threads / 2));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Barrier, Mutex};

    use super::*;

    #[test]
    fn work_is_offered_to_every_thread() {
        for threads in [1, 2, 3, 5] {
            let crew = Crew::new(threads);
            let (together, seen) = (Barrier::new(threads), Mutex::new(HashSet::new()));
            crew.work(|team| {
                assert_eq!(team.threads(), threads);
                team.run(&|| {
                    // Ends only where all are here at once.
                    together.wait();
                    seen.lock().unwrap().insert(std::thread::current().id());
                });
            });
            assert_eq!(seen.into_inner().unwrap().len(), threads);
        }
    }

    #[test]
    fn a_panic_of_one_thread_is_the_callers() {
        let crew = Crew::new(2);
        let run = || crew.work(|team| team.run(&|| panic!("of a kernel")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let mut done = false;
        crew.work(|_| done = true);
        assert!(done, "the crew works on");
    }
}
