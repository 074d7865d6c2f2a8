//! How many of those who wait have waited for some time, counted in steps.

use super::asker::LEVELS;

/// Counts of waiting items by the step of time in which they came: the latest [`LEVELS`] steps apart, older ones together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ages {
    all: usize,
    /// Of step `s` at `s` modulo the length.
    recent: [usize; LEVELS],
    /// The latest step in which one came.
    latest: u64,
}

impl Ages {
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// One came in this step, which is none before the latest.
    pub(super) fn add(&mut self, step: u64) {
        let passed = step.saturating_sub(self.latest).min(LEVELS as u64);
        for back in 0..passed {
            self.recent[place(step - back)] = 0;
        }
        self.latest = self.latest.max(step);
        if let Some(count) = self.count_of(step) {
            *count += 1;
        }
        self.all += 1;
    }

    /// One that came in this step is gone.
    pub(super) fn remove(&mut self, step: u64) {
        if let Some(count) = self.count_of(step) {
            *count -= 1;
        }
        self.all -= 1;
    }

    /// How many came so many steps before `now` or earlier, at most [`LEVELS`] − 1: none that did is missing.
    pub(super) fn older(&self, now: u64, steps: u64) -> usize {
        let younger = (0..steps).filter_map(|back| now.checked_sub(back));
        let younger = younger
            .filter(|&step| self.is_recent(step))
            .map(|step| self.recent[place(step)]);
        self.all - younger.sum::<usize>()
    }

    fn is_recent(&self, step: u64) -> bool {
        step <= self.latest && step + LEVELS as u64 > self.latest
    }

    fn count_of(&mut self, step: u64) -> Option<&mut usize> {
        self.is_recent(step).then(|| &mut self.recent[place(step)])
    }
}

fn place(step: u64) -> usize {
    (step % LEVELS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As counting them all would say.
        #[test]
        fn ages_are_counted(
            events in prop::collection::vec((0u64..4, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            let (mut ages, mut there, mut now) = (Ages::default(), Vec::new(), 0);
            for (passed, which, comes) in events {
                now += passed;
                if comes || there.is_empty() {
                    ages.add(now);
                    there.push(now);
                } else {
                    ages.remove(there.swap_remove(which.index(there.len())));
                }
                prop_assert_eq!(ages.all(), there.len());
                for steps in 0..LEVELS as u64 {
                    let expected = there.iter().filter(|&&step| step + steps <= now).count();
                    prop_assert_eq!(ages.older(now, steps), expected, "{} steps at {}", steps, now);
                }
            }
        }
    }
}
