//! Files and folders that appear whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use beside::Beside;
use faults::step;

mod beside;
pub(crate) mod faults;

/// Writes `bytes` beside `path`, syncs, renames over it, syncs the folder.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path)?;
    step()?;
    let mut beside = Beside::file(folder)?;
    let written = fill(&mut beside.handle, bytes)
        .and_then(|()| step())
        .and_then(|()| fs::rename(&beside.path, path));
    if written.is_err() {
        // What cannot be removed is hidden, ignored by every reader, and removed by the next writer.
        let _ = step().and_then(|()| fs::remove_file(&beside.path));
    }
    written.and_then(|()| sync_folder(folder))
}

/// Adds `line` and its end to a file, which is made where there is none, and syncs. A last line that a crash cut short is
/// ended first. Returns the length before, to which [`truncate`] goes back; a failure leaves the file that long if it can.
pub fn append_line(path: &Path, line: &str) -> io::Result<u64> {
    let folder = parent(path)?;
    step()?;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let length = file.metadata()?.len();
    let end = if ends_in_a_line(&mut file, length)? {
        ""
    } else {
        "\n"
    };
    let written = step()
        .and_then(|()| file.write_all(format!("{end}{line}\n").as_bytes()))
        .and_then(|()| step())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(folder));
    if written.is_err() {
        let _ = step().and_then(|()| file.set_len(length));
    }
    written.map(|()| length)
}

/// Cuts a file back to `length` bytes, synced.
pub fn truncate(path: &Path, length: u64) -> io::Result<()> {
    step()?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

fn ends_in_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// Makes the folder `path` with these files, all or nothing; an error of kind `AlreadyExists` where it exists. A file's
/// name may begin with one folder inside: `1/manifest.json`.
pub fn create_folder(path: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let folder = parent(path)?;
    let beside = Beside::folder(folder)?;
    let made = fill_folder(&beside.path, files).and_then(|()| rename_folder(&beside.path, path));
    if made.is_err() {
        let _ = fs::remove_dir_all(&beside.path);
    }
    made.and_then(|()| sync_folder(folder))
}

fn fill_folder(folder: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let inside: BTreeSet<&Path> = files
        .iter()
        .filter_map(|(name, _)| Path::new(name).parent())
        .collect();
    let inside: Vec<PathBuf> = inside.into_iter().map(|inside| folder.join(inside)).collect();
    inside.iter().try_for_each(fs::create_dir_all)?;
    files
        .iter()
        .try_for_each(|(name, bytes)| write_new(&folder.join(name), bytes))?;
    inside.iter().try_for_each(|folder| sync_folder(folder))?;
    sync_folder(folder)
}

/// Whether a name is of something that is still being written, or was when its writer died.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.')
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder"))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    step()?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    fill(&mut file, bytes)
}

fn fill(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    step()?;
    file.write_all(bytes)?;
    step()?;
    file.sync_all()
}

/// A rename that never replaces: an existing folder, even an empty one, is an error.
fn rename_folder(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
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
    step()?;
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

    #[test]
    fn a_line_is_added_after_one_that_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let check = |line: &str, before: u64, expected: &str| {
            assert_eq!(append_line(&path, line).unwrap(), before);
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        };
        check("one", 0, "one\n");
        check("two", 4, "one\ntwo\n");
        truncate(&path, 6).unwrap();
        check("three", 6, "one\ntw\nthree\n");
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was_or_as_it_should_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        append_line(&path, "one").unwrap();
        let mut failed = 0;
        while let (result, true) = faults::at(failed, || append_line(&path, "two")) {
            assert!(result.is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), "one\n", "step {failed}");
            failed += 1;
        }
        // Open, write, sync, the folder's sync.
        assert_eq!((failed, &*fs::read_to_string(&path).unwrap()), (4, "one\ntwo\n"));
    }
}
