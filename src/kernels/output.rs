//! Where a kernel writes, and which share of its work it does.

use std::marker::PhantomData;

/// The numbers a kernel writes. Several threads may write one output, each its own [`Part`] of one kernel:
/// [`Task`](super::Task) sees to it.
#[derive(Debug)]
pub(super) struct Output<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a borrowed slice; who shares it vouches for disjoint writes.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

/// One of several equal shares of a kernel's work. Shares of one kernel write disjoint numbers, and which share writes a
/// number does not change its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which, from 0.
    pub(super) index: usize,
    /// Of how many, at least 1.
    pub(super) of: usize,
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            owner: PhantomData,
        }
    }
}

impl<'a> Output<'a> {
    /// `len` numbers from `start`.
    ///
    /// # Safety
    /// They are valid for reads and writes during `'a`, and nothing else reads or writes them meanwhile but kernels given
    /// an output over them, whose [`Part`]s are disjoint.
    pub(super) unsafe fn new(start: *mut f32, len: usize) -> Self {
        Self {
            start,
            len,
            owner: PhantomData,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn start(&self) -> *mut f32 {
        self.start
    }
}

impl Part {
    /// All of the work.
    pub(super) const WHOLE: Self = Self { index: 0, of: 1 };

    /// This share of `count` things.
    pub(super) fn range(self, count: usize) -> std::ops::Range<usize> {
        count * self.index / self.of..count * (self.index + 1) / self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for count in 0..40 {
            for of in 1..7 {
                let shares = (0..of).map(|index| Part { index, of }.range(count));
                assert_eq!(
                    shares.flatten().collect::<Vec<_>>(),
                    (0..count).collect::<Vec<_>>()
                );
            }
        }
    }
}
