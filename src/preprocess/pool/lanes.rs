//! Which job of the decode pool begins next: two kinds of jobs, a row for each, and the room that they share.

use std::time::{Duration, Instant};

use crate::queueing::{Asker, Fit, Turns};

/// Of the room, the part that stays free for small jobs while large ones wait; no small job takes more of it.
const RESERVED: u64 = 40;
/// A job that takes more than this part of the room is heavy: it keeps a thread for so long that not all may have one.
const HEAVY: u64 = 8;

/// What of the configuration the pool holds to.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    threads: usize,
    max_bytes: u64,
    /// Most heavy jobs at once: with several threads one is left to the others.
    max_heavy: usize,
}

pub(super) struct State {
    small: Kind,
    large: Kind,
    /// A job's seconds, over its bytes.
    fit: Fit,
    /// Threads that wait for a job.
    pub(super) sleeping: usize,
    pub(super) closed: bool,
}

/// The jobs of one kind.
struct Kind {
    waiting: Turns<Job>,
    running: usize,
    /// Heavy ones among those that run.
    heavy: usize,
    /// Of those that run.
    bytes: u64,
    /// What those that run were expected to keep from others, and those that wait.
    running_seconds: f64,
    waiting_seconds: f64,
    /// Time of threads that this kind has had; the one with less goes first. A kind that had nothing to do gets none of it
    /// back.
    spent: Duration,
}

pub(super) struct Job {
    pub(super) work: Box<dyn FnOnce() + Send>,
    pub(super) load: Load,
}

/// What a job takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    is_small: bool,
    pub(super) bytes: u64,
    /// The time that it was expected to keep from jobs of its kind: its own time, over how many like it run at once.
    seconds: f64,
}

impl Rules {
    pub(super) fn new(threads: usize, max_bytes: u64) -> Self {
        Self {
            threads,
            max_bytes,
            max_heavy: (threads - 1).max(1),
        }
    }

    /// The room that large jobs leave to small ones.
    fn reserved(self) -> u64 {
        self.max_bytes / RESERVED
    }

    pub(super) fn max_large_bytes(self) -> u64 {
        self.max_bytes - self.reserved()
    }

    fn is_small(self, bytes: u64) -> bool {
        bytes <= self.reserved()
    }

    fn is_heavy(self, bytes: u64) -> bool {
        bytes > self.max_bytes / HEAVY
    }

    /// What a job takes that is expected to run for so many seconds.
    fn load(self, bytes: u64, seconds: f64) -> Load {
        let is_small = self.is_small(bytes);
        let bytes = if is_small {
            bytes
        } else {
            bytes.min(self.max_large_bytes())
        };
        let threads = if self.is_heavy(bytes) {
            self.max_heavy
        } else {
            self.threads
        };
        let at_once = (threads as f64).min((self.max_large_bytes() / bytes.max(1)).max(1) as f64);
        Load {
            is_small,
            bytes,
            seconds: seconds / at_once,
        }
    }
}

impl State {
    pub(super) fn new(step: Duration) -> Self {
        Self {
            small: Kind::new(step),
            large: Kind::new(step),
            fit: Fit::default(),
            sleeping: 0,
            closed: false,
        }
    }

    /// Seconds of a job with so many bytes, from its begin to its end.
    pub(super) fn expected(&self, bytes: u64) -> f64 {
        self.fit.at(size_of_job(bytes))
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.small.waiting.len() + self.large.waiting.len()
    }

    /// Jobs of the asker's client that wait.
    pub(super) fn seats_of(&self, asker: Asker) -> usize {
        [&self.small, &self.large]
            .map(|kind| kind.waiting.seats_of(asker.client))
            .iter()
            .sum()
    }

    pub(super) fn put(&mut self, rules: Rules, asker: Asker, bytes: u64, work: Box<dyn FnOnce() + Send>) {
        let load = rules.load(bytes, self.expected(bytes));
        let (kind, other) = if load.is_small {
            (&mut self.small, &self.large)
        } else {
            (&mut self.large, &self.small)
        };
        if kind.waiting.is_empty() && kind.running == 0 {
            kind.spent = kind.spent.max(other.spent);
        }
        kind.waiting_seconds += load.seconds;
        let seat = kind.waiting.take(asker, Instant::now());
        kind.waiting.push(seat, Job { work, load });
    }

    /// The next job that may begin.
    pub(super) fn take(&mut self, rules: Rules) -> Option<Job> {
        let small = self.small.next_bytes();
        let small = small.is_some_and(|bytes| self.small_may_begin(rules, bytes));
        let large = self.large.next_bytes();
        let large = large.is_some_and(|bytes| self.large_may_begin(rules, bytes));
        let is_small = match (small, large) {
            (false, false) => return None,
            (true, true) => self.small.spent <= self.large.spent,
            (small, _) => small,
        };
        self.kind(is_small).begin(rules)
    }

    /// Everything that waits.
    pub(super) fn clear(&mut self) -> Vec<Job> {
        let mut left = Vec::new();
        for kind in [&mut self.small, &mut self.large] {
            left.extend(std::iter::from_fn(|| kind.waiting.pop()));
            kind.waiting_seconds = 0.0;
        }
        left
    }

    pub(super) fn end(&mut self, rules: Rules, load: Load, spent: Duration) {
        self.fit.observe(size_of_job(load.bytes), spent.as_secs_f64());
        self.kind(load.is_small).end(rules, load, spent);
    }

    fn kind(&mut self, is_small: bool) -> &mut Kind {
        if is_small {
            &mut self.small
        } else {
            &mut self.large
        }
    }

    fn small_may_begin(&self, rules: Rules, bytes: u64) -> bool {
        // What a large job waits for is not taken away.
        let room = if self.large.waiting.is_empty() {
            rules.max_bytes - self.large.bytes
        } else {
            rules.reserved()
        };
        self.small.bytes + bytes <= room
    }

    fn large_may_begin(&self, rules: Rules, bytes: u64) -> bool {
        // What of the reserve is free stays so.
        let small = self.small.bytes.max(rules.reserved());
        let thread = !rules.is_heavy(bytes) || self.large.heavy < rules.max_heavy;
        thread && self.large.bytes + bytes + small <= rules.max_bytes
    }

    /// Until a job that came now would begin. Of those that run, all is counted: how far they are is not known. Of those of
    /// its kind that wait, as many as would go before it, each as long as all are on average; the other kind has as much time
    /// as they, if it needs it.
    pub(super) fn wait(&self, rules: Rules, asker: Asker, bytes: u64) -> Duration {
        let load = rules.load(bytes, 0.0);
        let (kind, other, may_begin) = if load.is_small {
            (&self.small, &self.large, self.small_may_begin(rules, load.bytes))
        } else {
            (&self.large, &self.small, self.large_may_begin(rules, load.bytes))
        };
        if kind.waiting.is_empty() && may_begin && self.small.running + self.large.running < rules.threads {
            return Duration::ZERO;
        }
        let own = kind.ahead_seconds(asker);
        let others = other.running_seconds + other.waiting_seconds.min(own);
        let all = own + others;
        // The thread that heavy jobs leave is there for the small ones, one after the other.
        if load.is_small && rules.threads > 1 && self.large.heavy > 0 {
            return duration(all.min(own * rules.threads as f64));
        }
        duration(all)
    }
}

impl Kind {
    fn new(step: Duration) -> Self {
        Self {
            waiting: Turns::new(step),
            running: 0,
            heavy: 0,
            bytes: 0,
            running_seconds: 0.0,
            waiting_seconds: 0.0,
            spent: Duration::ZERO,
        }
    }

    fn next_bytes(&self) -> Option<u64> {
        self.waiting.peek().map(|job| job.load.bytes)
    }

    /// Of what runs and of what would go before an asker who came now.
    fn ahead_seconds(&self, asker: Asker) -> f64 {
        let share = self.waiting.ahead(asker, Instant::now()) as f64 / self.waiting.len().max(1) as f64;
        self.running_seconds + share * self.waiting_seconds
    }

    /// Takes the next job, which runs from now on.
    fn begin(&mut self, rules: Rules) -> Option<Job> {
        let job = self.waiting.pop()?;
        let Load { bytes, seconds, .. } = job.load;
        self.waiting_seconds = rest(self.waiting_seconds, seconds, self.waiting.len());
        self.running += 1;
        self.heavy += usize::from(rules.is_heavy(bytes));
        self.bytes += bytes;
        self.running_seconds += seconds;
        Some(job)
    }

    fn end(&mut self, rules: Rules, Load { bytes, seconds, .. }: Load, spent: Duration) {
        self.running -= 1;
        self.heavy -= usize::from(rules.is_heavy(bytes));
        self.bytes -= bytes;
        self.running_seconds = rest(self.running_seconds, seconds, self.running);
        self.spent += spent;
    }
}

/// A sum without one of its parts; of none it is nothing, however floats drift.
fn rest(sum: f64, part: f64, left: usize) -> f64 {
    if left == 0 { 0.0 } else { (sum - part).max(0.0) }
}

/// A line's size is above 0.
fn size_of_job(bytes: u64) -> f64 {
    bytes.max(1) as f64
}

pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::preprocess::pool::tests::{ANYONE, ROOM, SMALL};

    /// Which of the waiting jobs begin, one after the other, while none ends.
    fn begun(state: &mut State, rules: Rules) -> Vec<u64> {
        std::iter::from_fn(|| state.take(rules).map(|job| job.load.bytes)).collect()
    }

    fn waiting(rules: Rules, jobs: &[u64]) -> State {
        let mut state = State::new(Duration::from_secs(1));
        for &bytes in jobs {
            state.put(rules, ANYONE, bytes, Box::new(|| {}));
        }
        state
    }

    #[test]
    fn a_job_waits_until_there_is_room_for_it() {
        let rules = Rules::new(3, ROOM);
        let check = |jobs: &[u64], expected: &[u64]| {
            let mut state = waiting(rules, jobs);
            assert_eq!(begun(&mut state, rules), expected, "{jobs:?}");
        };
        // Two photos fit, the third waits for one of them.
        check(&[1500, 1500, 1500], &[1500, 1500]);
        // A smaller one behind it does not overtake it.
        check(&[1500, 1500, 1500, 200], &[1500, 1500]);
        // One that takes more than everything runs alone, but for small jobs.
        check(&[9 * ROOM, 200], &[ROOM - SMALL]);
        check(&[9 * ROOM, SMALL, 1], &[SMALL, ROOM - SMALL]);
        // So many heavy ones and no more, so that a thread is left.
        check(&[600; 4], &[600; 2]);
        check(&[500; 9], &[500; 7]);
        // Small jobs use all the room while no large one waits, else their reserve.
        check(&[SMALL; 50], &[SMALL; 40]);
        check(&[SMALL, SMALL, 3900, 3900], &[SMALL, 3900]);
    }

    #[test]
    fn a_wait_is_what_is_there_over_what_runs_at_once() {
        let rules = Rules::new(2, ROOM);
        let mut state = State::new(Duration::from_secs(1));
        let wait = |state: &State, bytes| state.wait(rules, ANYONE, bytes).as_secs_f64();
        let put = |state: &mut State, bytes| state.put(rules, ANYONE, bytes, Box::new(|| {}));
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        put(&mut state, SMALL);
        near(wait(&state, SMALL), 0.0);
        let nothing_known = state.take(rules).unwrap();
        state.end(rules, nothing_known.load, Duration::from_millis(1));
        for (bytes, ms) in [(100u64, 1), (2000, 20)].repeat(50) {
            state.fit.observe(bytes as f64, f64::from(ms) / 1000.0);
        }
        near(wait(&state, SMALL), 0.0);
        near(wait(&state, ROOM), 0.0);
        // Both threads are busy with small ones, 1 ms each.
        for _ in 0..4 {
            put(&mut state, SMALL);
        }
        let small = [state.take(rules).unwrap(), state.take(rules).unwrap()];
        near(wait(&state, SMALL), 0.002);
        for job in small {
            state.end(rules, job.load, Duration::from_millis(1));
        }
        while let Some(job) = state.take(rules) {
            state.end(rules, job.load, Duration::from_millis(1));
        }
        // Photos run one at a time; a thread is free, but there is no room. What is small has as much time, if it needs it.
        put(&mut state, 2000);
        let photo = state.take(rules).unwrap();
        put(&mut state, SMALL);
        near(wait(&state, 2000), 0.0205);
        put(&mut state, 2000);
        near(wait(&state, 2000), 0.0405);
        // A small one waits for small ones alone.
        near(wait(&state, SMALL), 0.001);
        state.end(rules, photo.load, Duration::from_millis(20));
    }

    #[test]
    fn each_kind_gets_its_share_of_the_time() {
        let rules = Rules::new(2, ROOM);
        let jobs: Vec<u64> = [vec![ROOM; 3], vec![SMALL; 30]].concat();
        let mut state = waiting(rules, &jobs);
        let mut order = Vec::new();
        while let Some(Job { load, .. }) = state.take(rules) {
            let spent = Duration::from_millis(if load.is_small { 1 } else { 10 });
            state.end(rules, load, spent);
            order.push(load.is_small);
        }
        let large: Vec<usize> = (0..order.len()).filter(|&at| !order[at]).collect();
        assert_eq!(large, [1, 12, 23]);
        // Who comes after the other had much to do does not catch up.
        state.put(rules, ANYONE, ROOM, Box::new(|| {}));
        assert_eq!(
            state.large.spent,
            state.small.spent.max(Duration::from_millis(30))
        );
    }

    proptest! {
        #[test]
        fn no_order_of_jobs_goes_over_the_room_or_leaves_one_behind(
            jobs in prop::collection::vec((0u64..6000, any::<prop::sample::Index>()), 1..40), threads in 1usize..5,
        ) {
            let rules = Rules::new(threads, ROOM);
            let mut state = State::new(Duration::from_secs(1));
            let (mut running, mut left) = (Vec::new(), jobs.len());
            let mut next = jobs.iter();
            loop {
                let put = next.next();
                if let Some((bytes, _)) = put {
                    state.put(rules, ANYONE, *bytes, Box::new(|| {}));
                }
                while let Some(job) = state.take(rules) {
                    running.push(job.load);
                    let bytes: u64 = running.iter().map(|load: &Load| load.bytes).sum();
                    prop_assert!(bytes <= ROOM);
                }
                if running.is_empty() {
                    break;
                }
                let at = put.map_or(0, |(_, index)| index.index(running.len()));
                let ended = running.swap_remove(at);
                state.end(rules, ended, Duration::ZERO);
                left -= 1;
            }
            prop_assert_eq!(left, 0);
        }
    }
}
