//! The only reader of the process's environment.

use std::ffi::OsString;

/// How many threads candle's own kernels use, and the pool beneath them; each is read once, by candle itself.
const THREAD_LIMITS: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Every variable, also those that are not UTF-8.
pub(super) fn variables() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The thread limits of candle that nobody has set. Unset, its pool spins on every core and takes milliseconds from
/// the threads that answer (one engine instance is one thread).
pub(crate) fn unset_thread_limits() -> Vec<&'static str> {
    unset_among(|name| std::env::var_os(name).is_some())
}

fn unset_among(is_set: impl Fn(&str) -> bool) -> Vec<&'static str> {
    THREAD_LIMITS.into_iter().filter(|name| !is_set(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_left_alone() {
        assert_eq!(unset_among(|_| false), THREAD_LIMITS);
        assert_eq!(
            unset_among(|name| name == "RAYON_NUM_THREADS"),
            ["CANDLE_NUM_THREADS"]
        );
        assert!(unset_among(|_| true).is_empty());
    }
}
