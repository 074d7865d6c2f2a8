//! Files and folders that appear whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` beside `path`, syncs, renames over it, syncs the folder.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    let beside = folder.join(temporary_name());
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What cannot be removed is hidden and ignored by every reader.
        let _ = fs::remove_file(&beside);
    }
    written.and_then(|()| sync_folder(folder))
}

/// Makes the folder `path` with these files, all or nothing; an error of kind `AlreadyExists` where it exists. A file's
/// name may begin with one folder inside: `1/manifest.json`.
pub fn create_folder(path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let folder = parent(path)?;
    let beside = folder.join(temporary_name());
    let made = fs::create_dir(&beside).and_then(|()| {
        let inside: BTreeSet<&Path> = files
            .iter()
            .filter_map(|(name, _)| Path::new(name).parent())
            .collect();
        let inside: Vec<PathBuf> = inside.into_iter().map(|folder| beside.join(folder)).collect();
        inside.iter().try_for_each(fs::create_dir_all)?;
        files
            .iter()
            .try_for_each(|(name, bytes)| write_new(&beside.join(name), bytes))?;
        inside.iter().try_for_each(|folder| sync_folder(folder))?;
        sync_folder(&beside)?;
        rename_folder(&beside, path)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    made.and_then(|()| sync_folder(folder))
}

/// Whether a name is of something that is still being written, or was when its writer died.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.')
}

fn temporary_name() -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{}-{count}.tmp", std::process::id())
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder"))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A rename that never replaces: an existing folder, even an empty one, is an error.
fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    // rename(2) replaces an empty folder only; a published one is never empty.
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        Err(_) => fs::rename(from, to).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => io::Error::from(io::ErrorKind::AlreadyExists),
            _ => error,
        }),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder.to_owned()
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        // A file cannot replace a folder: the rename, the last step, fails.
        assert!(write(&taken, b"x").is_err());
        // The second file of one name fails after the first was written.
        let made = create_folder(&folder.path().join("new"), &[("f", b"1"), ("f", b"2")]);
        assert!(made.is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_folder_may_hold_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        create_folder(&path, &[("a", b"1"), ("1/b", b"2"), ("1/c", b"3")]).unwrap();
        assert_eq!(
            (names(&path), names(&path.join("1"))),
            (vec!["1".into(), "a".into()], vec!["b".into(), "c".into()])
        );
        assert_eq!(fs::read(path.join("1/c")).unwrap(), b"3");
        let made = create_folder(&folder.path().join("other"), &[("1/b", b"2"), ("1/b", b"3")]);
        assert!(made.is_err());
        assert_eq!(names(folder.path()), ["new"]);
    }

    #[test]
    fn a_folder_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1");
        create_folder(&path, &[("f", b"first")]).unwrap();
        let error = create_folder(&path, &[("f", b"second")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(path.join("f")).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["1"]);
    }
}
