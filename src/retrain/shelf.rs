//! The store, read by a thread that waits.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::model::{ModelName, Version};
use crate::store::{self, Digest, Example, Learner, MAX_PAGE, Staged, Store};

use super::RetrainError;
use super::work::Learning;

/// An open store with a runtime of its own, which ends with it.
pub(super) struct Shelf {
    runtime: Runtime,
    store: Store,
}

/// Closed here, and not by a thread that the end of the program may overtake: the last to close empties the log.
impl Drop for Shelf {
    fn drop(&mut self) {
        self.runtime.block_on(self.store.close());
    }
}

impl Shelf {
    pub(super) fn open(config: &store::Config) -> Result<Self, RetrainError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| RetrainError::folder(&config.folder, source))?;
        let store = runtime.block_on(Store::open(config))?;
        Ok(Self { runtime, store })
    }

    /// Every image of the model that can be learnt from, by sha256.
    pub(super) fn examples(&self, model: &ModelName) -> Result<Vec<Example>, RetrainError> {
        let mut all: Vec<Example> = Vec::new();
        loop {
            let after = all.last().map(|example| example.sha256);
            let page = self.store.labelled(model, after.as_ref(), MAX_PAGE);
            let page = self.runtime.block_on(page)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Every image that was erased.
    pub(super) fn erased(&self) -> Result<HashSet<[u8; 32]>, RetrainError> {
        let (mut all, mut after) = (HashSet::new(), None);
        loop {
            let page = self.store.erased(after.as_ref(), MAX_PAGE);
            let page = self.runtime.block_on(page)?;
            all.extend(page.iter().map(|sha256| *sha256.bytes()));
            match page.last() {
                Some(last) => after = Some(*last),
                None => return Ok(all),
            }
        }
    }

    /// The bytes of an image, checked; none where they are gone or damaged.
    pub(super) fn image(&self, sha256: &Digest) -> Result<Option<Bytes>, RetrainError> {
        match self.runtime.block_on(self.store.blob(sha256)) {
            Err(store::StoreError::Corrupt(_)) => Ok(None),
            found => Ok(found?),
        }
    }

    /// Records what a run is about to learn from; gives back what of it is erased.
    pub(super) fn learns(
        &self,
        Learning { learner, images }: &Learning,
    ) -> Result<Vec<Digest>, RetrainError> {
        let recorded = self.store.learns(learner, images, now_ms());
        Ok(self.runtime.block_on(recorded)?)
    }

    /// Whether something that a run learns from is erased.
    pub(super) fn is_spoilt(&self, learner: &Learner) -> Result<bool, RetrainError> {
        Ok(self.runtime.block_on(self.store.is_spoilt(learner))?)
    }

    /// Has the version of a run published unless something that it learnt from is erased: see [`Store::stage`].
    pub(super) fn stage(
        &self,
        Learning { learner, images }: &Learning,
        publish: impl FnOnce() -> Result<Version, RetrainError>,
    ) -> Result<Staged, RetrainError> {
        let staged = self.store.stage(learner, (images, now_ms()), publish);
        self.runtime.block_on(staged)
    }

    /// Ties a run's version to what it learnt from; gives back what of it is erased.
    pub(super) fn learnt(
        &self,
        Learning { learner, images }: &Learning,
        version: Version,
    ) -> Result<Vec<Digest>, RetrainError> {
        let tied = self.store.learnt(learner, version, (images, now_ms()));
        Ok(self.runtime.block_on(tied)?)
    }

    /// The runs of a model that are tied to no version yet, with how many milliseconds ago each was last heard of.
    pub(super) fn learners(&self, model: &ModelName) -> Result<Vec<(Learner, i64)>, RetrainError> {
        let (mut learners, now) = (self.runtime.block_on(self.store.learners(model))?, now_ms());
        learners.iter_mut().for_each(|(_, at_ms)| *at_ms = now - *at_ms);
        Ok(learners)
    }

    /// Forgets a run of which no version will come.
    pub(super) fn forget(&self, learner: &Learner) -> Result<(), RetrainError> {
        Ok(self.runtime.block_on(self.store.forget(learner))?)
    }
}

/// The time, in Unix milliseconds.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
