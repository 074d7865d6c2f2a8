//! What the gate found of a version: `gate.json` beside its manifest.

use serde_json::Value;

use crate::model::{ModelName, Version};

use super::{MAX_TEXT_BYTES, Registry, RegistryError, atomic, invalid, io, json, read};

const GATE: &str = "gate.json";

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
}
