//! The steps of a write on disk, each of which a test may let fail.

use std::io;

/// Stands before each step that the disk may refuse.
#[cfg(not(test))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "in the tests it fails where one of them asks for it"
)]
pub(super) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use plan::step;
#[cfg(test)]
pub(crate) use plan::{at, from};

#[cfg(test)]
mod plan {
    use std::cell::Cell;
    use std::ops::RangeInclusive;

    use super::io;

    thread_local! {
        /// Steps of this thread since its plan began.
        static TAKEN: Cell<usize> = const { Cell::new(0) };
        /// The first and the last step that fail.
        static FAILING: Cell<Option<[usize; 2]>> = const { Cell::new(None) };
    }

    /// Lets one step fail, counted from 0, as a full disk would; says whether there was such a step.
    pub(crate) fn at<T>(step: usize, work: impl FnOnce() -> T) -> (T, bool) {
        during(step..=step, work)
    }

    /// Lets a step and all after it fail, so that nothing is put in order either, as a crash would.
    pub(crate) fn from<T>(step: usize, work: impl FnOnce() -> T) -> (T, bool) {
        during(step..=usize::MAX, work)
    }

    fn during<T>(failing: RangeInclusive<usize>, work: impl FnOnce() -> T) -> (T, bool) {
        TAKEN.set(0);
        FAILING.set(Some([*failing.start(), *failing.end()]));
        let result = work();
        FAILING.set(None);
        (result, TAKEN.get() > *failing.start())
    }

    pub(crate) fn step() -> io::Result<()> {
        let Some([first, last]) = FAILING.get() else {
            return Ok(());
        };
        let taken = TAKEN.get();
        TAKEN.set(taken + 1);
        if (first..=last).contains(&taken) {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        } else {
            Ok(())
        }
    }
}
