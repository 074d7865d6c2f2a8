//! Places where a drill lets something go wrong; compiled with the feature `failpoints` alone.
//!
//! What goes wrong is said by a file, read anew at each place: lines of a place and what happens there, such as
//! `engine panic`. Nothing goes wrong without one.

use std::path::PathBuf;
use std::sync::OnceLock;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Any batch: with an error it fails, as on a device that is lost.
    Engine,
    /// A batch with an image in it whose numbers are all the same: a poisoned batch.
    EngineBlank,
    /// An engine's worker with a batch in its hands, outside of what guards the batch.
    Worker,
    /// The decoder of an image.
    Decode,
    /// A thread of the decode pool, outside of what guards a job.
    DecodeThread,
    /// The begin of a transaction that writes.
    Store,
}

/// As the file names them, each at its place.
const NAMES: [&str; 6] = [
    "engine",
    "engine-blank",
    "worker",
    "decode",
    "decode-thread",
    "store",
];

static PLAN: OnceLock<PathBuf> = OnceLock::new();

/// Takes the plan from this file from now on; the first file stays.
pub fn follow(plan: PathBuf) {
    tracing::warn!(plan = %plan.display(), "this server fails where a drill says so; it is not for service");
    PLAN.get_or_init(|| plan);
}

/// Whether an error is planned at `place`.
///
/// # Panics
///
/// Where a panic is planned.
pub fn fails(place: Place) -> bool {
    let text = PLAN.get().and_then(|plan| std::fs::read_to_string(plan).ok());
    let fault = text.as_deref().and_then(|text| planned(text, place));
    assert!(fault != Some("panic"), "as planned at {place:?}");
    fault.is_some()
}

/// The second word of the first line whose first names the place.
fn planned(text: &str, place: Place) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some(NAMES[place as usize]);
        words.next().filter(|_| is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_places_and_what_happens_there() {
        let plan = "engine-blank panic\nstore error\n\nworker\n";
        assert_eq!(planned(plan, Place::EngineBlank), Some("panic"));
        assert_eq!(planned(plan, Place::Store), Some("error"));
        for place in [Place::Engine, Place::Worker, Place::Decode, Place::DecodeThread] {
            assert_eq!(planned(plan, place), None, "{place:?}");
        }
    }
}
