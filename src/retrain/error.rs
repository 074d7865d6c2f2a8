//! Why a run ended without an outcome.

use std::io;
use std::path::{Path, PathBuf};

use crate::dataset::DatasetError;
use crate::engine::EngineError;
use crate::evaluate::EvaluateError;
use crate::model::WeightsError;
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::train::TrainError;

use super::RequestError;

/// Why a run ended without an outcome. What the gate refuses is an outcome.
#[derive(Debug, thiserror::Error)]
pub enum RetrainError {
    /// Not possible as it was asked for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is nothing to learn from, or nothing to begin with.
    #[error("{0}")]
    Data(String),
    /// Another run holds the folder.
    #[error("{}: another run works there", .0.display())]
    Held(PathBuf),
    /// The run's folder cannot be used.
    #[error("{}: {source}", .path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of models.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A dataset.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Fresh weights could not be made.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Whoever is told of the progress is not there any more.
    #[error("progress cannot be told: {0}")]
    Listener(#[source] io::Error),
    /// The evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// Whose fault it is, as callers treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request's: asked again, it fails again.
    Request,
    /// The data's or the model's.
    Data,
    /// The disk's.
    Disk,
    /// Nobody's: somebody else was there first, and later it may work.
    Busy,
    /// The program's or the machine's.
    Machine,
}

impl RetrainError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Request(_) => Fault::Request,
            Self::Data(_) | Self::Weights(_) => Fault::Data,
            Self::Held(_) | Self::Store(StoreError::Busy) => Fault::Busy,
            Self::Folder { .. } | Self::Store(_) => Fault::Disk,
            Self::Registry(RegistryError::Io { .. })
            | Self::Dataset(DatasetError::Io { .. })
            | Self::Train(TrainError::Io { .. }) => Fault::Disk,
            Self::Train(TrainError::Config { .. }) => Fault::Request,
            Self::Train(TrainError::Data(_) | TrainError::Checkpoint { .. }) => Fault::Data,
            Self::Registry(_) | Self::Dataset(_) => Fault::Data,
            Self::Train(_) | Self::Engine(_) | Self::Evaluate(_) | Self::Listener(_) => Fault::Machine,
        }
    }

    pub(super) fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_disks_fault_wherever_it_is_met() {
        let check = |error: RetrainError, fault: Fault| assert_eq!(error.fault(), fault, "{error}");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = PathBuf::from("x");
        check(RetrainError::folder(&path, full()), Fault::Disk);
        check(StoreError::Full.into(), Fault::Disk);
        let source = full();
        check(
            RegistryError::Io {
                path: path.clone(),
                source,
            }
            .into(),
            Fault::Disk,
        );
        let source = full();
        check(
            TrainError::Io {
                path: path.clone(),
                source,
            }
            .into(),
            Fault::Disk,
        );
        check(StoreError::Busy.into(), Fault::Busy);
        check(RetrainError::Held(path), Fault::Busy);
        let name = "digits".parse().unwrap();
        check(RegistryError::NoModel(name).into(), Fault::Data);
    }
}
