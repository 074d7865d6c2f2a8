//! Why a change was not made, for the log and for the caller.

use std::io;

use crate::engine::EngineError;
use crate::model::{ModelName, Version};
use crate::registry::{Alias, RegistryError};

/// Why the versions in service are not changed. `Display` may hold paths: for the operator. Callers are told
/// [`ServiceError::told`].
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The folder of models or a version in it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The engine cannot serve a version.
    #[error("model '{name}' version {version}: {source}")]
    Engine {
        /// The model.
        name: ModelName,
        /// The version.
        version: Version,
        /// What the engine says of it.
        source: EngineError,
    },
    /// There is no device.
    #[error(transparent)]
    Device(EngineError),
    /// There is nothing to serve.
    #[error("{0}")]
    Nothing(String),
    /// The gate's kept verdict does not allow the promotion.
    #[error("{0}")]
    NotBlessed(String),
    /// An alias names the version, or it answers as the champion.
    #[error("version {1} of '{0}' is the {name}: give the alias to another first", name = .2.name())]
    Aliased(ModelName, Version, Alias),
    /// The version is not in service.
    #[error("model '{0}' has no version {1} in service")]
    NotInService(ModelName, Version),
    /// Too many changes wait.
    #[error("too many changes are waiting")]
    Busy,
    /// The server shuts down.
    #[error("the server is shutting down")]
    Stopping,
    /// The system gives no thread.
    #[error("a thread: {0}")]
    Thread(#[from] io::Error),
}

/// What a caller does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such model.
    NoModel,
    /// There is no such version.
    NoVersion,
    /// What is asked for does not go with what is.
    Conflict,
    /// The gate does not allow it.
    NotBlessed,
    /// The version cannot serve.
    Unfit,
    /// A value is not possible.
    Impossible,
    /// The disk of the models is full.
    Full,
    /// Later.
    Busy,
    /// Never here.
    Stopping,
    /// The operator's.
    Failed,
}

impl ServiceError {
    /// The cause, and a text without paths.
    pub fn told(&self) -> (Cause, String) {
        let cause = match self {
            Self::Registry(error) => return of_registry(error),
            Self::Engine { .. } => Cause::Unfit,
            Self::NotBlessed(_) => Cause::NotBlessed,
            Self::Aliased(..) => Cause::Conflict,
            Self::NotInService(..) => Cause::NoVersion,
            Self::Busy => Cause::Busy,
            Self::Stopping => Cause::Stopping,
            Self::Nothing(_) | Self::Device(_) | Self::Thread(_) => return failed(),
        };
        (cause, self.to_string())
    }
}

fn of_registry(error: &RegistryError) -> (Cause, String) {
    let cause = match error {
        RegistryError::NoModel(_) => Cause::NoModel,
        RegistryError::NoVersion(..) => Cause::NoVersion,
        RegistryError::Exists(_)
        | RegistryError::NoChampion(_)
        | RegistryError::AlreadyChampion(..)
        | RegistryError::NoPrevious(_)
        | RegistryError::ChampionStands(_)
        | RegistryError::Barred { .. }
        | RegistryError::Overtaken { .. } => Cause::Conflict,
        RegistryError::Wording { .. } => Cause::Impossible,
        RegistryError::Invalid { path, problem } => return (Cause::Unfit, in_file(path, problem)),
        RegistryError::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
            return (Cause::Unfit, in_file(path, "is not there"));
        }
        RegistryError::Io { source, .. } if is_full(source.kind()) => {
            return (Cause::Full, "the disk of the models is full".to_owned());
        }
        RegistryError::Io { .. } | RegistryError::Empty(_) | RegistryError::TwoDefaults(..) => {
            return failed();
        }
    };
    (cause, error.to_string())
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file by its name alone: where the folder lies is the operator's matter.
fn in_file(path: &std::path::Path, problem: &str) -> String {
    let file = path.file_name().unwrap_or_default();
    format!("{}: {problem}", file.to_string_lossy())
}

fn failed() -> (Cause, String) {
    (
        Cause::Failed,
        "the log says more under this request's id".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_told_by_what_can_be_done_about_it() {
        let check = |source: io::Error, expected: Cause| {
            let path = "/secret/tiny/aliases.json".into();
            let (cause, text) = ServiceError::from(RegistryError::Io { path, source }).told();
            assert_eq!(cause, expected, "{text}");
            assert!(!text.contains("secret"), "{text}");
        };
        check(io::ErrorKind::StorageFull.into(), Cause::Full);
        check(io::ErrorKind::QuotaExceeded.into(), Cause::Full);
        check(io::ErrorKind::NotFound.into(), Cause::Unfit);
        // EIO.
        check(io::Error::from_raw_os_error(5), Cause::Failed);
    }
}
