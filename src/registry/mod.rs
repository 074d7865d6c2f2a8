//! The folder of models: versions, manifests, aliases; published whole or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Graph, ModelName, Spec, Version, Weights};

pub mod atomic;
pub mod manifest;

pub use manifest::Manifest;

/// Which versions serve, in `aliases.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aliases {
    /// Answers requests that name no version.
    pub champion: Option<Version>,
    /// Being compared with the champion.
    pub challenger: Option<Version>,
    /// The champion before.
    pub previous: Option<Version>,
}

/// A model's folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The folder's name.
    pub name: ModelName,
    /// Its `model.toml`.
    pub spec: Spec,
    /// Ascending.
    pub versions: Vec<Version>,
    /// Its `aliases.json`; a model of one version without the file has that version as champion.
    pub aliases: Aliases,
}

/// A version, read and checked: hash, names, shapes, values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// Its spec.
    pub spec: Spec,
    /// Its network.
    pub graph: Graph,
    /// Its weights.
    pub weights: Weights,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Why the registry could not do what was asked. `Display` may hold paths: for the operator, not for callers.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such model.
    #[error("no model '{0}'")]
    NoModel(ModelName),
    /// No such version.
    #[error("model '{0}' has no version {1}")]
    NoVersion(ModelName, Version),
    /// No champion is set and there is not exactly one version.
    #[error("model '{0}' has no champion in aliases.json")]
    NoChampion(ModelName),
    /// A file is wrong.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Opens a folder that exists.
    pub fn open(_root: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        todo!()
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every model, by name. Folders whose names are no model names are errors; hidden ones are skipped.
    pub fn list(&self) -> Result<Vec<Entry>, RegistryError> {
        todo!()
    }

    /// One model.
    pub fn entry(&self, _name: &ModelName) -> Result<Entry, RegistryError> {
        todo!()
    }

    /// Reads and checks one version: sha256 equal to the manifest's, names, shapes, finite values.
    pub fn load(&self, _name: &ModelName, _version: Version) -> Result<Loaded, RegistryError> {
        todo!()
    }

    /// The manifest of one version.
    pub fn manifest(&self, _name: &ModelName, _version: Version) -> Result<Manifest, RegistryError> {
        todo!()
    }

    /// Writes a new version, the highest number plus one, atomically: beside, synced, renamed, folder synced. Fills in
    /// the manifest's `weights`. Aliases are not touched.
    pub fn publish(
        &self,
        _name: &ModelName,
        _weights: &Weights,
        _manifest: Manifest,
    ) -> Result<Version, RegistryError> {
        todo!()
    }

    /// Replaces `aliases.json` atomically; every named version must exist.
    pub fn set_aliases(&self, _name: &ModelName, _aliases: Aliases) -> Result<(), RegistryError> {
        todo!()
    }
}
