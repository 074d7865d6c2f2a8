//! Answers that are kept: a version's logits by the sha256 of the image's bytes, within a limit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

/// The sha256 of an image's bytes.
pub type Sha256Bytes = [u8; 32];

/// One version's answers. It has two halves: what is found in the older moves to the younger, and when that is full, the older is
/// dropped and the younger takes its place. So what was asked for lately stays, and nothing is sorted.
#[derive(Debug)]
pub(super) struct Cache {
    /// Of each half.
    most: usize,
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    younger: HashMap<Sha256Bytes, Box<[f32]>>,
    older: HashMap<Sha256Bytes, Box<[f32]>>,
    /// An answer that was looked for before an erasure is not kept after it: it may be of what was erased.
    erasures: u64,
}

/// An image that was looked for and not found; its answer may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    sha256: Sha256Bytes,
    erasures: u64,
}

/// What an answer takes beside its logits: its key, its place in a table that is not full, its allocation.
const ENTRY_BYTES: usize = 128;

impl Cache {
    /// For answers of so many classes, in so many bytes; `None` where they hold no two.
    pub(super) fn new(bytes: usize, classes: usize) -> Option<Self> {
        let most = bytes / (ENTRY_BYTES + classes * size_of::<f32>()) / 2;
        let halves = Mutex::default();
        (most > 0).then_some(Self { most, halves })
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to these bytes.
    pub(super) fn get(&self, image: &[u8]) -> Result<Vec<f32>, Missed> {
        let sha256: Sha256Bytes = Sha256::digest(image).into();
        let mut halves = self.lock();
        if let Some(logits) = halves.younger.get(&sha256) {
            return Ok(logits.to_vec());
        }
        let Some(logits) = halves.older.remove(&sha256) else {
            let erasures = halves.erasures;
            return Err(Missed { sha256, erasures });
        };
        let found = logits.to_vec();
        halves.put(sha256, logits, self.most);
        Ok(found)
    }

    /// Keeps an answer.
    pub(super) fn put(&self, missed: Missed, logits: &[f32]) {
        let mut halves = self.lock();
        if halves.erasures == missed.erasures && !halves.older.contains_key(&missed.sha256) {
            halves.put(missed.sha256, logits.into(), self.most);
        }
    }

    /// Drops the answer to an image, also one that is not there yet.
    pub(super) fn erase(&self, sha256: &Sha256Bytes) {
        let mut halves = self.lock();
        halves.erasures += 1;
        halves.younger.remove(sha256);
        halves.older.remove(sha256);
    }

    /// Answers that are kept.
    pub(super) fn len(&self) -> usize {
        let halves = self.lock();
        halves.younger.len() + halves.older.len()
    }
}

impl Halves {
    fn put(&mut self, sha256: Sha256Bytes, logits: Box<[f32]>, most: usize) {
        if self.younger.len() >= most && !self.younger.contains_key(&sha256) {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(sha256, logits);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Room for so many in each half, of two classes.
    fn cache(most: usize) -> Cache {
        Cache::new(most * 2 * (ENTRY_BYTES + 8), 2).unwrap()
    }

    fn sha256(image: &[u8]) -> Sha256Bytes {
        Sha256::digest(image).into()
    }

    #[test]
    fn what_holds_no_two_answers_keeps_none() {
        assert!(Cache::new(0, 10).is_none());
        assert!(Cache::new(2 * (ENTRY_BYTES + 40) - 1, 10).is_none());
        assert_eq!(Cache::new(2 * (ENTRY_BYTES + 40), 10).unwrap().most, 1);
    }

    #[test]
    fn an_answer_is_found_by_its_image_until_it_is_erased() {
        let cache = cache(4);
        let missed = cache.get(b"a").unwrap_err();
        cache.put(missed, &[1.0, 2.0]);
        assert_eq!(cache.get(b"a").unwrap(), [1.0, 2.0]);
        assert!(cache.get(b"b").is_err());
        cache.erase(&sha256(b"b"));
        assert_eq!((cache.get(b"a").unwrap(), cache.len()), (vec![1.0, 2.0], 1));
        cache.erase(&sha256(b"a"));
        assert!(cache.get(b"a").is_err());
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn what_was_on_its_way_during_an_erasure_is_not_kept() {
        let cache = cache(4);
        let missed = cache.get(b"a").unwrap_err();
        cache.erase(&sha256(b"a"));
        cache.put(missed, &[1.0, 2.0]);
        let missed = cache.get(b"a").unwrap_err();
        cache.put(missed, &[1.0, 2.0]);
        assert!(cache.get(b"a").is_ok(), "asked for anew");
    }

    proptest! {
        /// Whatever is asked for: an answer is the image's own, at most as many are kept as may be, and the last few different
        /// images are among them.
        #[test]
        fn the_latest_stay(most in 1usize..8, asked in prop::collection::vec(0u8..40, 1..300)) {
            let cache = cache(most);
            let mut latest = VecDeque::new();
            for image in asked {
                let logits = [f32::from(image), -f32::from(image)];
                match cache.get(&[image]) {
                    Ok(found) => prop_assert_eq!(found, logits),
                    Err(missed) => {
                        prop_assert!(!latest.contains(&image), "{image} of {latest:?}");
                        cache.put(missed, &logits);
                    }
                }
                prop_assert!(cache.len() <= 2 * most);
                latest.retain(|&other| other != image);
                latest.push_back(image);
                if latest.len() > most {
                    latest.pop_front();
                }
            }
        }
    }
}
