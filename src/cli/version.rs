//! The version of a model that a command names: found, loaded, compiled.

use std::io::ErrorKind;
use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::engine::{EngineError, Plan};
use crate::model::{ModelName, Version};
use crate::registry::{Loaded, Registry, RegistryError};

use super::CliError;

/// Whose answer it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Which {
    /// The model.
    pub(crate) name: ModelName,
    /// Its version.
    pub(crate) version: Version,
}

/// The configured folder of models.
pub(crate) fn registry(config: &Config) -> Result<Registry, CliError> {
    Registry::open(&config.models).map_err(data)
}

/// The version asked for, else the champion; of the model asked for, else the default one.
pub(crate) fn load(
    config: &Config,
    model: Option<&ModelName>,
    version: Option<Version>,
) -> Result<Loaded, CliError> {
    let registry = registry(config)?;
    let name = match model {
        Some(name) => name.clone(),
        None => registry
            .default_model(config.default_model.as_ref())
            .map_err(data)?,
    };
    let version = match version {
        Some(version) => version,
        None => registry
            .entry(&name)
            .and_then(|entry| entry.champion())
            .map_err(data)?,
    };
    registry.load(&name, version).map_err(data)
}

/// The plan that would serve this version, on the configured device.
pub(crate) fn compile(config: &Config, loaded: &Loaded) -> Result<Arc<Plan>, CliError> {
    let target = config.engine.open().map_err(engine)?;
    Plan::compile(loaded.version, &loaded.graph, &loaded.weights, &target).map_err(engine)
}

/// What was given is not right.
#[expect(clippy::needless_pass_by_value, reason = "map_err gives its error away")]
pub(crate) fn data(error: impl ToString) -> CliError {
    CliError::Data(error.to_string())
}

/// What a change of the folder of models met: the disk, or something that is not right as it was given.
pub(crate) fn change(error: RegistryError) -> CliError {
    let text = error.to_string();
    match error {
        RegistryError::Io { source, .. } if !is_of_the_path(source.kind()) => CliError::Disk(text),
        _ => CliError::Data(text),
    }
}

/// Whether it is whoever named the path that can do something about it.
fn is_of_the_path(kind: ErrorKind) -> bool {
    use ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(
        kind,
        InvalidFilename | IsADirectory | NotADirectory | NotFound | PermissionDenied
    )
}

/// A device that is not there is a wrong configuration; all else is a failure.
pub(crate) fn engine(error: EngineError) -> CliError {
    match error {
        EngineError::Device { .. } | EngineError::Precision(_) => CliError::Usage(error.to_string()),
        other => CliError::Failed(other.to_string()),
    }
}

impl From<&Loaded> for Which {
    fn from(loaded: &Loaded) -> Self {
        Self {
            name: loaded.name.clone(),
            version: loaded.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_disk_that_refuses_has_an_exit_code_of_its_own() {
        let check = |source: io::Error, code: u8| {
            let told = source.to_string();
            let path = PathBuf::from("models/a/aliases.json");
            let error = change(RegistryError::Io { path, source });
            assert_eq!(error.code(), code, "{told}");
            assert!(error.to_string().contains(&told), "{error}");
        };
        check(ErrorKind::StorageFull.into(), 74);
        check(ErrorKind::ReadOnlyFilesystem.into(), 74);
        // EIO, which has no kind of its own.
        check(io::Error::from_raw_os_error(5), 74);
        check(ErrorKind::NotFound.into(), 65);
        check(ErrorKind::PermissionDenied.into(), 65);
        let name = "a".parse().unwrap();
        assert_eq!(change(RegistryError::NoModel(name)).code(), 65);
    }
}
