//! The store, read by a thread that waits.

use std::collections::HashSet;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::model::{ModelName, Version};
use crate::store::{self, Digest, Example, MAX_PAGE, Store};

use super::RetrainError;

/// An open store with a runtime of its own, which ends with it.
pub(super) struct Shelf {
    runtime: Runtime,
    store: Store,
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

    /// Records what a version learnt from; gives back what of it is erased.
    pub(super) fn learnt(
        &self,
        model: &ModelName,
        version: Version,
        images: &[Digest],
    ) -> Result<Vec<Digest>, RetrainError> {
        let recorded = self.store.learnt(model, version, images);
        Ok(self.runtime.block_on(recorded)?)
    }
}
