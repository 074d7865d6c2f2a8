//! Who learnt from what was erased: found, and kept from being promoted.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::Value;

use crate::card;
use crate::model::{ModelName, Version};
use crate::registry::{Registry, RegistryError};
use crate::store::{Erased, Learner};

/// Where a manifest's `training` keeps the id of the run that it came of.
pub(super) const RUN: &str = "run";

/// Why a version is barred, as the end of a sentence that the version begins.
const REASON: &str = "learnt from an image that was erased";

/// Whoever learnt from an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learners {
    /// Versions, by model and number.
    pub versions: Vec<(ModelName, Version)>,
    /// Runs of which there is no version yet. What comes of them is not promoted.
    pub runs: Vec<Learner>,
}

/// Bars every version that learnt from an image that is erased, and tells them all. A run whose version is published, though
/// the store does not know of it, is told as that version.
///
/// # Errors
///
/// A folder of models that cannot be read or written: then not every version is barred. Erasing once more goes on.
pub fn bar_learners(registry: &Registry, erased: Erased) -> Result<Learners, RegistryError> {
    let mut versions = BTreeSet::from_iter(erased.learnt);
    let mut runs = Vec::new();
    for learner in erased.learning {
        match version_of(registry, &learner)? {
            Some(version) => drop(versions.insert((learner.model, version))),
            None => runs.push(learner),
        }
    }
    for (model, version) in &versions {
        bar(registry, model, *version)?;
    }
    Ok(Learners {
        versions: versions.into_iter().collect(),
        runs,
    })
}

/// Bars a version; one that is not there any more needs no bar.
pub(super) fn bar(registry: &Registry, model: &ModelName, version: Version) -> Result<(), RegistryError> {
    match registry.bar(model, version, REASON, SystemTime::now()) {
        Ok(true) => card::refresh(registry, model),
        Ok(false) | Err(RegistryError::NoModel(_) | RegistryError::NoVersion(..)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The version that came of a run; none where there is none, or no such model any more.
pub(super) fn version_of(registry: &Registry, learner: &Learner) -> Result<Option<Version>, RegistryError> {
    let versions = match registry.entry(&learner.model) {
        Err(RegistryError::NoModel(_)) => return Ok(None),
        entry => entry?.versions,
    };
    for &version in versions.iter().rev() {
        let manifest = registry.manifest(&learner.model, version)?;
        if manifest.training.get(RUN).and_then(Value::as_str) == Some(learner.run.as_str()) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}
