//! Versions that are never promoted again: `barred.json` beside the manifest.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{ModelName, Version};

use super::{MAX_TEXT_BYTES, Registry, RegistryError, aliases, atomic, invalid, io, json, read, rfc3339};

const BARRED: &str = "barred.json";

/// Why a version is not promoted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// Since when, as [`rfc3339`] writes it.
    pub at: String,
    /// Why, as the end of a sentence that the version begins.
    pub reason: String,
}

impl Registry {
    /// Bars a version from every promotion to come, of whoever it may be; what serves is not changed. A promotion that is
    /// under way is either done before this returns or refused. Whether it was not barred before; then the first reason stays.
    pub fn bar(
        &self,
        name: &ModelName,
        version: Version,
        reason: &str,
        at: SystemTime,
    ) -> Result<bool, RegistryError> {
        let _lock = aliases::lock(&self.folder(name)?)?;
        if self.barred(name, version)?.is_some() {
            return Ok(false);
        }
        let bar = Bar {
            at: rfc3339(at),
            reason: reason.to_owned(),
        };
        let path = self.version_folder(name, version)?.join(BARRED);
        atomic::write(&path, &json(&bar)).map_err(|e| io(&path, e))?;
        Ok(true)
    }

    /// Why a version is not promoted any more; none where it may be.
    pub fn barred(&self, name: &ModelName, version: Version) -> Result<Option<Bar>, RegistryError> {
        let path = self.version_folder(name, version)?.join(BARRED);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read(&path, MAX_TEXT_BYTES)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| invalid(&path, e))
    }

    /// Refuses a version that is barred.
    pub fn check_barred(&self, name: &ModelName, version: Version) -> Result<(), RegistryError> {
        match self.barred(name, version)? {
            None => Ok(()),
            Some(Bar { reason, .. }) => Err(RegistryError::Barred {
                name: name.clone(),
                version,
                reason,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, registry, weights};
    use super::super::{Alias, Author, Finding, Grounds, Promotion};
    use super::*;

    const REASON: &str = "learnt from an image that was erased";

    fn author() -> Author {
        Author {
            by: "a test".to_owned(),
            reason: Some("because".to_owned()),
        }
    }

    fn promotion(grounds: Grounds) -> Promotion {
        Promotion {
            author: author(),
            grounds,
        }
    }

    #[test]
    fn nobody_promotes_a_barred_version() {
        let (_folder, registry, name) = registry();
        let [one, two, three] = [1, 2, 3].map(|seed| {
            let version = registry.publish(&name, &weights(seed), manifest());
            version.unwrap()
        });
        let bar = |version| {
            registry
                .bar(&name, version, REASON, SystemTime::UNIX_EPOCH)
                .unwrap()
        };
        let refused = |result: Result<_, RegistryError>| {
            let error = result.unwrap_err();
            assert!(matches!(error, RegistryError::Barred { .. }), "{error}");
            assert!(error.to_string().contains(REASON), "{error}");
        };
        assert!(bar(two));
        refused(registry.set_alias(&name, Alias::Champion, Some(two), &author()));
        registry
            .set_alias(&name, Alias::Champion, Some(one), &author())
            .unwrap();
        registry
            .set_alias(&name, Alias::Challenger, Some(two), &author())
            .unwrap();
        let before = registry.entry(&name).unwrap().aliases;
        let forced = Grounds::Forced {
            finding: Finding::Blessed,
        };
        for grounds in [Grounds::Blessed { over: one }, forced] {
            refused(registry.promote(&name, two, &promotion(grounds)));
        }
        assert_eq!(registry.entry(&name).unwrap().aliases, before);
        registry.promote(&name, three, &promotion(forced)).unwrap();

        // What was promoted before serves on, and a rollback leads back to it: the bar is against what comes.
        assert!(bar(three) && bar(one) && !bar(one));
        registry.rollback(&name, &author()).unwrap();
        assert_eq!(registry.entry(&name).unwrap().champion().unwrap(), one);
        refused(registry.promote(&name, three, &promotion(forced)));
        let kept = registry.barred(&name, one).unwrap().unwrap();
        assert_eq!((&*kept.at, &*kept.reason), ("1970-01-01T00:00:00.000Z", REASON));
    }

    #[test]
    fn only_what_is_there_can_be_barred() {
        let (_folder, registry, name) = registry();
        let bar = |name: &ModelName| registry.bar(name, Version::FIRST, REASON, SystemTime::now());
        assert!(matches!(bar(&name), Err(RegistryError::NoVersion(..))));
        let other = "other".parse().unwrap();
        assert!(matches!(bar(&other), Err(RegistryError::NoModel(_))));
        // A model's only version goes on answering.
        registry.publish(&name, &weights(1), manifest()).unwrap();
        assert!(bar(&name).unwrap());
        assert_eq!(registry.entry(&name).unwrap().champion().unwrap(), Version::FIRST);
    }
}
