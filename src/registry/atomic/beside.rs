//! What is being written, beside what it will be; and what is left of it where its writer died.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &str = ".sconce-";
const SUFFIX: &str = ".tmp";

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file or folder of a name that nobody else has. It is locked, by which everybody knows that its writer lives; the
/// system frees a dead writer's lock.
pub(super) struct Beside {
    pub(super) path: PathBuf,
    /// Holds the lock.
    pub(super) handle: File,
}

impl Beside {
    /// An empty file in `folder`.
    pub(super) fn file(folder: &Path) -> io::Result<Self> {
        Self::made(folder, &COUNTER, &|path| {
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            Ok(Some(file))
        })
    }

    /// An empty folder in `folder`.
    pub(super) fn folder(folder: &Path) -> io::Result<Self> {
        Self::made(folder, &COUNTER, &|path| {
            fs::create_dir(path)?;
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                opened => opened.map(Some),
            }
        })
    }

    /// `make` gives nothing where somebody has swept what it made.
    fn made(
        folder: &Path,
        counter: &AtomicU64,
        make: &dyn Fn(&Path) -> io::Result<Option<File>>,
    ) -> io::Result<Self> {
        sweep(folder);
        loop {
            let count = counter.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(name(count));
            let handle = match make(&path) {
                // Of a process that has this one's number in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            let Some(handle) = handle else {
                continue;
            };
            // Where the file system knows no locks, nobody can lock it to sweep it either.
            let _ = handle.lock();
            // Else somebody swept it before it was locked.
            if fs::symlink_metadata(&path).is_ok() {
                return Ok(Self { path, handle });
            }
        }
    }
}

/// Removes what dead writers left in `folder`. What cannot be removed now is the next writer's to remove.
fn sweep(folder: &Path) {
    let Ok(children) = fs::read_dir(folder) else {
        return;
    };
    let of_writers = children
        .flatten()
        .filter(|child| is_name(&child.file_name().to_string_lossy()));
    for child in of_writers {
        let path = child.path();
        // Held until it is gone: a writer that has just made it waits, and sees that it is gone.
        let Some(_held) = locked(&path) else {
            continue;
        };
        let _ = match child.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
    }
}

/// Nothing where its writer lives.
fn locked(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

fn name(count: u64) -> String {
    format!("{PREFIX}{}-{count}{SUFFIX}", std::process::id())
}

fn is_name(name: &str) -> bool {
    let numbers = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let numbers = numbers.and_then(|numbers| numbers.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(process, count)| is_number(process) && is_number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_writers_left_goes_and_what_living_ones_write_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let living = [Beside::file(path).unwrap(), Beside::folder(path).unwrap()];
        let dead = [".sconce-1-0.tmp", ".sconce-1-1.tmp"].map(|name| path.join(name));
        File::create_new(&dead[0]).unwrap();
        fs::create_dir_all(dead[1].join("1")).unwrap();
        File::create_new(dead[1].join("1/model.safetensors")).unwrap();
        let others = [".sconce-1-.tmp", ".1-0.tmp", "sconce-1-0.tmp", ".sconce-1-0.tmp~"];
        let others = others.map(|name| path.join(name));
        others.iter().for_each(|path| {
            File::create_new(path).unwrap();
        });
        let another = Beside::file(path).unwrap();
        assert!(dead.iter().all(|path| !path.exists()));
        assert!(living.iter().chain([&another]).all(|beside| beside.path.exists()));
        assert!(others.iter().all(|path| path.exists()));
        drop(living);
        sweep(path);
        assert_eq!(fs::read_dir(path).unwrap().count(), others.len() + 1);
    }

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        // As by a process of this number in another container.
        let taken = File::create_new(folder.path().join(name(7))).unwrap();
        taken.lock().unwrap();
        let make = |path: &Path| File::create_new(path).map(Some);
        let beside = Beside::made(folder.path(), &AtomicU64::new(7), &make).unwrap();
        assert_eq!(beside.path, folder.path().join(name(8)));
    }

    #[test]
    fn writers_and_sweepers_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = folder.path();
                scope.spawn(move || {
                    for _ in 0..200 {
                        let made = match writer % 2 {
                            0 => Beside::file(path).unwrap(),
                            _ => Beside::folder(path).unwrap(),
                        };
                        fs::rename(&made.path, path.join(format!("{writer}"))).unwrap();
                        if writer % 2 == 1 {
                            fs::remove_dir(path.join(format!("{writer}"))).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
