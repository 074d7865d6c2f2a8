//! What the gate found of a version: `gate.json` and `gate.html` beside its manifest.

use std::path::PathBuf;

use serde_json::Value;

use crate::model::{ModelName, Version};

use super::{Finding, MAX_TEXT_BYTES, Registry, RegistryError, atomic, invalid, io, json, read};

const GATE: &str = "gate.json";
const PAGE: &str = "gate.html";
const PINNED: &str = "pinned";

impl Registry {
    /// Keeps the gate's verdict on a version, with every number, in place of an earlier one. The manifest, which is
    /// written once, has no part in it.
    pub fn keep_verdict(
        &self,
        name: &ModelName,
        version: Version,
        verdict: &Value,
    ) -> Result<(), RegistryError> {
        let path = self.version_folder(name, version)?.join(GATE);
        atomic::write(&path, &json(verdict)).map_err(|e| io(&path, e))
    }

    /// The gate's latest verdict on a version; none where it was not asked.
    pub fn verdict(&self, name: &ModelName, version: Version) -> Result<Option<Value>, RegistryError> {
        let path = self.version_folder(name, version)?.join(GATE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read(&path, MAX_TEXT_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|e| invalid(&path, e))
    }

    /// Keeps the same verdict as a page for people, in place of an earlier one.
    pub fn keep_verdict_page(
        &self,
        name: &ModelName,
        version: Version,
        page: &str,
    ) -> Result<(), RegistryError> {
        let path = self.version_folder(name, version)?.join(PAGE);
        atomic::write(&path, page.as_bytes()).map_err(|e| io(&path, e))
    }

    /// What the gate found when it was last asked about a version.
    pub fn finding(&self, name: &ModelName, version: Version) -> Result<Finding, RegistryError> {
        let blessed = self
            .verdict(name, version)?
            .and_then(|verdict| verdict["blessed"].as_bool());
        Ok(match blessed {
            Some(true) => Finding::Blessed,
            Some(false) => Finding::Refused,
            None => Finding::None,
        })
    }

    /// How many verdicts on a model's versions rest on the images that `data` describes, as the key `data` of a verdict
    /// does. A verdict says by its `uses` how many there were with it, so that one that was replaced still counts.
    pub fn uses_of(&self, name: &ModelName, data: &Value) -> Result<usize, RegistryError> {
        let (mut verdicts, mut told) = (0, 0);
        for version in self.entry(name)?.versions {
            let verdict = self.verdict(name, version)?;
            let Some(verdict) = verdict.filter(|verdict| same_images(&verdict["data"], data)) else {
                continue;
            };
            verdicts += 1;
            told = told.max(verdict["uses"].as_u64().unwrap_or(0) as usize);
        }
        Ok(verdicts.max(told))
    }

    /// Where the images lie that every version of a model must answer right: `pinned/<label>/`, made by a person. The
    /// folder need not be there.
    pub fn pinned(&self, name: &ModelName) -> Result<PathBuf, RegistryError> {
        Ok(self.folder(name)?.join(PINNED))
    }
}

/// By their content, wherever they lie.
fn same_images(a: &Value, b: &Value) -> bool {
    let same = |key: &str| a[key] == b[key];
    a["sha256"].is_string() && ["sha256", "part", "hold_out"].into_iter().all(same)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{manifest, registry, weights};
    use super::*;

    fn models(versions: u64) -> (tempfile::TempDir, Registry, ModelName) {
        let (folder, registry, name) = registry();
        for seed in 0..versions {
            registry.publish(&name, &weights(seed), manifest()).unwrap();
        }
        (folder, registry, name)
    }

    #[test]
    fn verdicts_on_the_same_images_are_counted_though_replaced() {
        let (_folder, registry, name) = models(3);
        let images =
            |sha256: &str| json!({"sha256": sha256, "part": "test", "hold_out": false, "path": "elsewhere"});
        let check = |sha256: &str, expected| {
            assert_eq!(
                registry.uses_of(&name, &images(sha256)).unwrap(),
                expected,
                "{sha256}"
            );
        };
        let keep = |version: u32, sha256: &str, uses: usize| {
            let verdict = json!({"blessed": false, "data": images(sha256), "uses": uses});
            registry
                .keep_verdict(&name, version.try_into().unwrap(), &verdict)
                .unwrap();
        };
        check("aa", 0);
        keep(1, "aa", 1);
        keep(2, "aa", 2);
        check("aa", 2);
        keep(2, "aa", 3);
        check("aa", 3);
        keep(3, "bb", 1);
        check("aa", 3);
        check("bb", 1);
    }

    #[test]
    fn the_last_finding_is_told() {
        let (_folder, registry, name) = models(1);
        let version = Version::FIRST;
        assert_eq!(registry.finding(&name, version).unwrap(), Finding::None);
        for (blessed, expected) in [(false, Finding::Refused), (true, Finding::Blessed)] {
            registry
                .keep_verdict(&name, version, &json!({"blessed": blessed}))
                .unwrap();
            assert_eq!(registry.finding(&name, version).unwrap(), expected);
        }
        registry.keep_verdict_page(&name, version, "<p>").unwrap();
        assert_eq!(
            std::fs::read(registry.root().join("tiny/1/gate.html")).unwrap(),
            b"<p>"
        );
        assert!(registry.pinned(&name).unwrap().ends_with("tiny/pinned"));
    }
}
