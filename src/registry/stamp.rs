//! Whether files may have changed, told without reading them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::model::{ModelName, Version};

use super::{MANIFEST, Registry, RegistryError, SPEC, WEIGHTS, children};

/// Of the files that a version is made of; a file that is not there has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([Option<FileStamp>; 3]);

/// What changes with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    /// When anything of it last changed, in nanoseconds since 1970: nobody can set it.
    changed: i128,
}

impl Stamp {
    /// Whether all files are there, and were last changed longer than this before `now`.
    pub(super) fn is_older_than(&self, age: Duration, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let latest = now.as_nanos() as i128 - age.as_nanos() as i128;
        self.0
            .iter()
            .all(|file| file.is_some_and(|file| file.changed < latest))
    }
}

impl Registry {
    /// The names of the models' folders, in order. Unlike [`Registry::list`] it reads none of them, and passes over what
    /// has no model's name.
    pub fn names(&self) -> Result<Vec<ModelName>, RegistryError> {
        let is_model = |(text, path): (String, std::path::PathBuf)| {
            let name = text.parse().ok();
            name.filter(|_| path.is_dir())
        };
        let mut names: Vec<ModelName> = children(&self.root)?.into_iter().filter_map(is_model).collect();
        names.sort();
        Ok(names)
    }

    /// The stamp of a version with its model's `model.toml`: while it stays the same, so will what loading says.
    pub fn stamp(&self, name: &ModelName, version: Version) -> Result<Stamp, RegistryError> {
        let folder = self.version_folder(name, version)?;
        let model = self.folder(name)?;
        Ok(Stamp([
            of(&folder.join(WEIGHTS)),
            of(&folder.join(MANIFEST)),
            of(&model.join(SPEC)),
        ]))
    }
}

fn of(path: &Path) -> Option<FileStamp> {
    let facts = std::fs::metadata(path).ok()?;
    Some(FileStamp {
        inode: facts.ino(),
        length: facts.len(),
        modified: facts.modified().ok(),
        changed: i128::from(facts.ctime()) * 1_000_000_000 + i128::from(facts.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{manifest, registry, weights};

    #[test]
    fn a_stamp_changes_with_its_files() {
        let (folder, registry, name) = registry();
        let version = registry.publish(&name, &weights(1), manifest()).unwrap();
        let stamp = || registry.stamp(&name, version).unwrap();
        let whole = stamp();
        assert_eq!(stamp(), whole);
        let file = folder.path().join("tiny/1/model.safetensors");
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_len(9).unwrap();
        let cut = stamp();
        assert_ne!(cut, whole);
        fs::remove_file(folder.path().join("tiny/1/manifest.json")).unwrap();
        assert_ne!(stamp(), cut);
    }

    #[test]
    fn names_are_read_from_the_listing_alone() {
        let (folder, registry, name) = registry();
        for stranger in ["Not A Name", ".hidden", "empty"] {
            fs::create_dir(folder.path().join(stranger)).unwrap();
        }
        fs::File::create(folder.path().join("file")).unwrap();
        assert_eq!(registry.names().unwrap(), ["empty".parse().unwrap(), name]);
    }
}
