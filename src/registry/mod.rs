//! The folder of models: versions, manifests, aliases; published whole or not at all.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::model::weights::MAX_FILE_BYTES;
use crate::model::{Graph, ModelName, Spec, Version, Weights, WeightsError};

mod aliases;
pub mod atomic;
mod bars;
mod cards;
mod history;
pub mod manifest;
mod stamp;
mod timestamp;
mod verdict;
mod whole;

pub use aliases::{Alias, Aliases, Author, Grounds, Promotion};
pub use bars::Bar;
pub use history::{Action, Change, Finding, carried_out};
pub use manifest::{Manifest, WeightsFile};
pub use stamp::Stamp;
pub use timestamp::{civil, rfc3339};

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
    /// A model of this name is there already.
    #[error("there is a model '{0}' already")]
    Exists(ModelName),
    /// No such version.
    #[error("model '{0}' has no version {1}")]
    NoVersion(ModelName, Version),
    /// No champion is set and there is not exactly one version.
    #[error("model '{0}' has no champion in aliases.json")]
    NoChampion(ModelName),
    /// The version is the champion already.
    #[error("version {1} is the champion of '{0}' already")]
    AlreadyChampion(ModelName, Version),
    /// There is nothing to roll back to.
    #[error("model '{0}' has no previous champion")]
    NoPrevious(ModelName),
    /// A champion was to be taken away or replaced without a promotion.
    #[error("the champion of '{0}' is changed by a promotion or a rollback only")]
    ChampionStands(ModelName),
    /// Another champion came while the gate compared.
    #[error("the champion of '{name}' is no longer version {compared}, with which the gate compared")]
    Overtaken {
        /// The model.
        name: ModelName,
        /// The champion that the gate knew.
        compared: Version,
    },
    /// The version is not promoted any more.
    #[error("version {version} of '{name}' {reason}: it is not promoted any more")]
    Barred {
        /// The model.
        name: ModelName,
        /// The version.
        version: Version,
        /// Why.
        reason: String,
    },
    /// What is kept in the history is missing or too long.
    #[error("{what}: 1 to {limit} characters are needed")]
    Wording {
        /// Which text.
        what: &'static str,
        /// Its most characters.
        limit: usize,
    },
    /// The folder holds no model.
    #[error("{0}: no models there: a model is a folder with a model.toml")]
    Empty(PathBuf),
    /// Two models claim the requests that name none.
    #[error("models '{0}' and '{1}' both say default = true; one may")]
    TwoDefaults(ModelName, ModelName),
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
    whole: whole::Whole,
}

/// Largest `model.toml`, `manifest.json`, `aliases.json` or `gate.json` that is read.
const MAX_TEXT_BYTES: u64 = 16 << 20;
const WEIGHTS: &str = "model.safetensors";
const MANIFEST: &str = "manifest.json";
const SPEC: &str = "model.toml";

impl Registry {
    /// Opens a folder that exists.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, RegistryError> {
        let root = root.into();
        let is_folder = fs::metadata(&root).map_err(|e| io(&root, e))?.is_dir();
        if is_folder {
            Ok(Self {
                root,
                whole: whole::Whole::default(),
            })
        } else {
            Err(invalid(&root, "is not a folder"))
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every model, by name. A visible folder whose name is no model name, or that has no `model.toml`, is an error.
    pub fn list(&self) -> Result<Vec<Entry>, RegistryError> {
        let mut entries = Vec::new();
        for (text, path) in children(&self.root)? {
            if path.is_dir() {
                let name = text.parse().map_err(|e| invalid(&path, e))?;
                entries.push(read_entry(name, &path)?);
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// One model.
    pub fn entry(&self, name: &ModelName) -> Result<Entry, RegistryError> {
        read_entry(name.clone(), &self.folder(name)?)
    }

    /// The model of requests that name none: the configured one; else the one with `default = true`; else the first by
    /// name.
    pub fn default_model(&self, configured: Option<&ModelName>) -> Result<ModelName, RegistryError> {
        let entries = self.list()?;
        let first = entries
            .first()
            .ok_or_else(|| RegistryError::Empty(self.root.clone()))?;
        let mut claims = entries.iter().filter(|entry| entry.spec.default);
        let (claim, second) = (claims.next(), claims.next());
        if let (Some(one), Some(other)) = (claim, second) {
            return Err(RegistryError::TwoDefaults(one.name.clone(), other.name.clone()));
        }
        let Some(wanted) = configured else {
            return Ok(claim.unwrap_or(first).name.clone());
        };
        if entries.iter().any(|entry| entry.name == *wanted) {
            Ok(wanted.clone())
        } else {
            Err(RegistryError::NoModel(wanted.clone()))
        }
    }

    /// Reads and checks one version: sha256 equal to the manifest's, names, shapes, finite values.
    pub fn load(&self, name: &ModelName, version: Version) -> Result<Loaded, RegistryError> {
        // First the stamp: what comes after it is found out by it.
        let (stamp, now) = (self.stamp(name, version)?, SystemTime::now());
        let spec = self.entry(name)?.spec;
        let folder = self.version_folder(name, version)?;
        let manifest = read_manifest(&folder)?;
        let path = folder.join(WEIGHTS);
        let bytes = read(&path, MAX_FILE_BYTES)?;
        let sha256 = sha256(&bytes);
        if sha256 != manifest.weights.sha256 {
            let problem = format!(
                "sha256 is {sha256}, the manifest says {}",
                manifest.weights.sha256
            );
            return Err(invalid(&path, problem));
        }
        let graph = spec
            .graph()
            .map_err(|e| invalid(&folder.join("..").join(SPEC), e))?;
        let weights = Weights::from_safetensors(&bytes, &graph).map_err(|e| invalid(&path, e))?;
        self.whole.remember((name, version), stamp, now);
        Ok(Loaded {
            name: name.clone(),
            version,
            spec,
            graph,
            weights,
            manifest,
        })
    }

    /// The manifest of one version.
    pub fn manifest(&self, name: &ModelName, version: Version) -> Result<Manifest, RegistryError> {
        read_manifest(&self.version_folder(name, version)?)
    }

    /// Writes a new version, the highest number plus one, atomically: beside, synced, renamed, folder synced. Fills in
    /// the manifest's `weights`. Aliases are not touched.
    pub fn publish(
        &self,
        name: &ModelName,
        weights: &Weights,
        manifest: Manifest,
    ) -> Result<Version, RegistryError> {
        let folder = self.folder(name)?;
        let [bytes, text] = packed(name, weights, manifest).map_err(|e| invalid(&folder, e))?;
        let mut version = self
            .entry(name)?
            .versions
            .last()
            .map_or(Some(Version::FIRST), |last| last.next());
        while let Some(number) = version {
            let target = folder.join(number.to_string());
            match atomic::create_folder(&target, &[(WEIGHTS, &bytes), (MANIFEST, &text)]) {
                Ok(()) => return Ok(number),
                // Another process was quicker; the next number is ours.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => version = number.next(),
                Err(error) => return Err(io(&target, error)),
            }
        }
        Err(invalid(&folder, "has no version number left"))
    }

    /// Makes a new model of one version: `model.toml` with this text, weights and manifest, all or nothing.
    pub fn create(
        &self,
        name: &ModelName,
        spec: &str,
        weights: &Weights,
        manifest: Manifest,
    ) -> Result<Version, RegistryError> {
        // A checked name is one plain component: it cannot lead out of the folder.
        let target = self.root.join(name.as_str());
        Spec::parse(spec).map_err(|e| invalid(&target.join(SPEC), e))?;
        let [bytes, text] = packed(name, weights, manifest).map_err(|e| invalid(&target, e))?;
        let version = Version::FIRST;
        let (weights, manifest) = (format!("{version}/{WEIGHTS}"), format!("{version}/{MANIFEST}"));
        let files: [(&str, &[u8]); 3] = [(SPEC, spec.as_bytes()), (&weights, &bytes), (&manifest, &text)];
        match atomic::create_folder(&target, &files) {
            Ok(()) => Ok(version),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(RegistryError::Exists(name.clone()))
            }
            Err(error) => Err(io(&target, error)),
        }
    }

    /// The folder whose name equals `name`: found by listing, so that no caller's text is ever part of a path.
    fn folder(&self, name: &ModelName) -> Result<PathBuf, RegistryError> {
        let found = children(&self.root)?
            .into_iter()
            .find(|(text, path)| text == name.as_str() && path.is_dir());
        found
            .map(|(_, path)| path)
            .ok_or_else(|| RegistryError::NoModel(name.clone()))
    }

    fn version_folder(&self, name: &ModelName, version: Version) -> Result<PathBuf, RegistryError> {
        let of_version = |(text, path): &(String, PathBuf)| *text == version.to_string() && path.is_dir();
        let found = children(&self.folder(name)?)?.into_iter().find(of_version);
        found
            .map(|(_, path)| path)
            .ok_or_else(|| RegistryError::NoVersion(name.clone(), version))
    }
}

impl Entry {
    /// The version that answers requests which name none.
    pub fn champion(&self) -> Result<Version, RegistryError> {
        self.aliases
            .champion
            .ok_or_else(|| RegistryError::NoChampion(self.name.clone()))
    }
}

fn read_entry(name: ModelName, folder: &Path) -> Result<Entry, RegistryError> {
    let path = folder.join(SPEC);
    let text = String::from_utf8(read(&path, MAX_TEXT_BYTES)?).map_err(|_| invalid(&path, "is not UTF-8"))?;
    let spec = Spec::parse(&text).map_err(|e| invalid(&path, e))?;
    let is_version = |(text, path): (String, PathBuf)| path.is_dir().then(|| text.parse().ok()).flatten();
    let mut versions: Vec<Version> = children(folder)?.into_iter().filter_map(is_version).collect();
    versions.sort();
    let aliases = aliases::read(folder, &versions)?;
    Ok(Entry {
        name,
        spec,
        versions,
        aliases,
    })
}

fn read_manifest(folder: &Path) -> Result<Manifest, RegistryError> {
    let path = folder.join(MANIFEST);
    let manifest: Manifest =
        serde_json::from_slice(&read(&path, MAX_TEXT_BYTES)?).map_err(|e| invalid(&path, e))?;
    if manifest.format != Manifest::FORMAT {
        return Err(invalid(
            &path,
            format!("has format {}; {} is read", manifest.format, Manifest::FORMAT),
        ));
    }
    if manifest.weights.file != WEIGHTS {
        return Err(invalid(
            &path,
            format!(
                "names the weights file '{}'; it is '{WEIGHTS}'",
                manifest.weights.file
            ),
        ));
    }
    Ok(manifest)
}

/// Names and paths in a folder, but for hidden ones: those are still being written, or nobody's.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, RegistryError> {
    let mut children = Vec::new();
    for child in fs::read_dir(folder).map_err(|e| io(folder, e))? {
        let child = child.map_err(|e| io(folder, e))?;
        let name = child.file_name().to_string_lossy().into_owned();
        if !atomic::is_temporary(&name) {
            children.push((name, child.path()));
        }
    }
    Ok(children)
}

/// A whole file into memory, of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| io(path, e))?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| io(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(invalid(path, format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// The two files of a version; fills in the manifest's `weights`.
fn packed(name: &ModelName, weights: &Weights, mut manifest: Manifest) -> Result<[Vec<u8>; 2], WeightsError> {
    let metadata = [
        ("model", name.to_string()),
        ("architecture", manifest.architecture.clone()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    let bytes = weights.to_safetensors(&metadata)?;
    manifest.weights = WeightsFile {
        file: WEIGHTS.to_owned(),
        sha256: sha256(&bytes),
        bytes: bytes.len() as u64,
    };
    let text = json(&manifest);
    Ok([bytes, text])
}

/// Lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text =
        serde_json::to_vec_pretty(value).expect("these types have string keys and nothing that fails");
    text.push(b'\n');
    text
}

fn io(path: &Path, source: std::io::Error) -> RegistryError {
    RegistryError::Io {
        path: path.to_owned(),
        source,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the callers hand over an error that they have no more use for"
)]
fn invalid(path: &Path, problem: impl ToString) -> RegistryError {
    RegistryError::Invalid {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests;
