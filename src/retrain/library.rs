//! A dataset of the configured folder: found by its name, read without what was erased.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, DatasetError, Part, Source, Split};
use crate::model::Spec;
use crate::preprocess::Limits;
use crate::registry::{Entry, Registry};

use super::parent::Beginning;
use super::{DatasetName, Request, RequestError, RetrainError};

/// A dataset with its parts.
pub(super) struct Library {
    pub(super) name: DatasetName,
    /// Its training part.
    pub(super) train: Dataset,
    /// That part's sides.
    pub(super) split: Split,
    /// Its test part, where it has one.
    pub(super) test: Option<Dataset>,
}

/// Whether there is a dataset of this name; what cannot be listed is found out by the run itself.
pub fn has_dataset(folder: &Path, name: &DatasetName) -> bool {
    find(folder, name).is_ok_and(|found| found.is_some())
}

/// The path of a dataset: found by listing, so that no caller's text is ever part of a path. None where it is not there.
pub(super) fn find(folder: &Path, name: &DatasetName) -> Result<Option<PathBuf>, RetrainError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(|error| RetrainError::folder(folder, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| RetrainError::folder(folder, error))?;
        if entry.file_name() == name.as_str() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Whether the dataset that a run of `request` replays is there: the one asked for, else the one that the parent learnt from.
///
/// # Errors
///
/// There is none to replay, and the request does not do without; what cannot be read.
pub fn check_replay(
    place: (&Registry, &Path),
    request: &Request,
    entry: &Entry,
    parent: Option<&Beginning>,
) -> Result<(), RetrainError> {
    replayed(place, request, entry, parent).map(drop)
}

/// The dataset that a run of `request` from `parent` replays, and its path: the one asked for, else the one that the parent learnt
/// from. A parent of another model has other classes; then it is what the model's champion learnt from. `place`: the models, and the
/// folder of datasets. None where there is none and the request does without.
pub(super) fn replayed(
    (registry, folder): (&Registry, &Path),
    request: &Request,
    entry: &Entry,
    parent: Option<&Beginning>,
) -> Result<Option<(DatasetName, PathBuf)>, RetrainError> {
    let none = |why: &str| {
        if request.without_replay {
            return Ok(None);
        }
        let problem = format!("must be named: there is none to replay ({why})");
        let key = "dataset";
        Err(RequestError { key, problem }.into())
    };
    let named = match &request.dataset {
        Some(name) => Some(name.clone()),
        None => inherited(registry, entry, parent)?,
    };
    let Some(name) = named else {
        return none("no manifest names one");
    };
    match find(folder, &name)? {
        Some(path) => Ok(Some((name, path))),
        None => {
            let text = format!("there is no dataset '{name}' in {}", folder.display());
            match request.dataset {
                Some(_) => Err(RetrainError::Data(text)),
                None => none(&text),
            }
        }
    }
}

fn inherited(
    registry: &Registry,
    entry: &Entry,
    parent: Option<&Beginning>,
) -> Result<Option<DatasetName>, RetrainError> {
    let own = parent.filter(|parent| parent.model == entry.name);
    let version = match own {
        Some(parent) => Some(parent.version),
        None => parent.and(entry.aliases.champion),
    };
    let Some(version) = version else {
        return Ok(None);
    };
    let manifest = registry.manifest(&entry.name, version)?;
    let name = manifest.data.get("name").and_then(|name| name.as_str());
    Ok(name.and_then(|name| name.parse().ok()))
}

impl Library {
    /// Reads both parts as the model takes them, without the images in `without`.
    pub(super) fn read(
        name: &DatasetName,
        path: &Path,
        model: (&Spec, &Limits),
        without: &HashSet<[u8; 32]>,
    ) -> Result<Self, RetrainError> {
        let (spec, limits) = model;
        let read = |part| -> Result<Dataset, DatasetError> {
            let mut data = Dataset::read(&Source::detect(path, part)?, spec, limits)?;
            data.retain(|hash| !without.contains(hash));
            Ok(data)
        };
        let train = read(Part::Train)?;
        let test = match read(Part::Test) {
            Err(DatasetError::NoPart { .. }) => None,
            read => Some(read?),
        };
        Ok(Self {
            name: name.clone(),
            split: train.split(),
            test: test.filter(|data| !data.is_empty()),
            train,
        })
    }

    /// Images that no run trains on: the test part, else what is held out.
    pub(super) fn trusted(&self) -> (&Dataset, Vec<usize>) {
        match &self.test {
            Some(test) => (test, (0..test.len()).collect()),
            None => (&self.train, self.split.hold_out.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_listing_alone() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("sets");
        let name = |text: &str| text.parse::<DatasetName>().unwrap();
        assert_eq!(find(&below, &name("digits")).unwrap(), None);
        fs::create_dir_all(below.join("digits")).unwrap();
        fs::create_dir_all(folder.path().join("other")).unwrap();
        assert_eq!(find(&below, &name("digits")).unwrap(), Some(below.join("digits")));
        assert_eq!(find(&below, &name("other")).unwrap(), None);
        assert_eq!(find(&below, &name("digit")).unwrap(), None);
    }
}
