//! The only reader of the process's environment.

use std::ffi::OsString;

/// How many threads candle's own kernels use, and the pool beneath them; each is read once, by candle itself.
const THREAD_LIMITS: [Setting; 2] = [("CANDLE_NUM_THREADS", "1"), ("RAYON_NUM_THREADS", "1")];

/// Makes glibc keep the memory that a training step frees for the next one, up to 8 GiB and in blocks of up to 32 MiB,
/// the most it can. It gives free memory back by itself, and a network whose step frees more than 62 MiB then spends a
/// fifth to a third of its time on fresh pages. Read once, before `main`; elsewhere it means nothing.
const KEPT_MEMORY: [Setting; 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
];

/// Makes glibc give freed blocks of 2 MiB and more back at once, and what is free beyond 8 MiB. By itself it raises these
/// thresholds with the blocks that it sees, up to 64 MiB, which each thread that decodes would then keep for good.
const GIVEN_BACK_MEMORY: [Setting; 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "2097152"),
    ("MALLOC_TRIM_THRESHOLD_", "8388608"),
];

/// What a process does with the memory that it frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// As the allocator likes.
    AsItIs,
    /// Keeps it for the next step of training.
    Kept,
    /// Gives what is large back to the system.
    GivenBack,
}

/// A variable and its value.
pub(crate) type Setting = (&'static str, &'static str);

/// Every variable, also those that are not UTF-8.
pub(super) fn variables() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The file that says what goes wrong in a drill.
#[cfg(feature = "failpoints")]
pub(crate) fn failpoints() -> Option<std::path::PathBuf> {
    std::env::var_os("SCONCE_FAILPOINTS").map(Into::into)
}

/// The names of the variables that set keys here: a child that is given the configuration must not find them.
pub(crate) fn own_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names
        .filter(|name| name.to_string_lossy().starts_with(super::sources::PREFIX))
        .collect()
}

/// What a process that computes should have in its environment and nobody has set. Without the thread limits candle's
/// pool spins on every core and takes milliseconds from the threads that answer (one engine instance is one thread).
pub(crate) fn unset_settings(freed: Freed) -> Vec<Setting> {
    unset_among(freed, |name| std::env::var_os(name).is_some())
}

fn unset_among(freed: Freed, is_set: impl Fn(&str) -> bool) -> Vec<Setting> {
    let memory: &[Setting] = match freed {
        Freed::AsItIs => &[],
        Freed::Kept => &KEPT_MEMORY,
        Freed::GivenBack => &GIVEN_BACK_MEMORY,
    };
    let settings = THREAD_LIMITS.into_iter().chain(memory.iter().copied());
    settings.filter(|(name, _)| !is_set(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_left_alone() {
        assert_eq!(unset_among(Freed::AsItIs, |_| false), THREAD_LIMITS);
        assert_eq!(
            unset_among(Freed::AsItIs, |name| name == "RAYON_NUM_THREADS"),
            [("CANDLE_NUM_THREADS", "1")]
        );
        let threads_set = |name: &str| name.ends_with("THREADS");
        assert_eq!(unset_among(Freed::Kept, threads_set), KEPT_MEMORY);
        assert_eq!(unset_among(Freed::GivenBack, threads_set), GIVEN_BACK_MEMORY);
        assert!(unset_among(Freed::Kept, |_| true).is_empty());
    }
}
