//! A job's folder on the disk: what it is asked, what it keeps, and the lock of whoever works in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{JobsError, failed, jobs_folder};
use crate::store::JobId;

/// `<store>/jobs/<id>/`: `request.json`, `config.toml`, `lock`, and `work/`, which is the child's own.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// What a child reads when it starts.
pub(super) struct Papers<'a> {
    /// JSON.
    pub(super) request: &'a str,
    /// TOML.
    pub(super) configuration: &'a str,
}

impl Folder {
    /// Of this job; nothing is made yet.
    pub(super) fn of(store: &Path, job: JobId) -> Self {
        Self(jobs_folder(store).join(job.to_string()))
    }

    /// Makes what is missing, for the owner alone. The child's own folder stays as it is.
    pub(super) fn prepare(&self, papers: &Papers<'_>) -> Result<(), JobsError> {
        let told = |path: &Path| failed(&path.display());
        let work = self.work();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&work);
        made.map_err(told(&work))?;
        for (path, text) in [
            (self.request(), papers.request),
            (self.config(), papers.configuration),
        ] {
            write(&path, text).map_err(told(&path))?;
        }
        Ok(())
    }

    pub(super) fn request(&self) -> PathBuf {
        self.0.join("request.json")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// The lock; `None` while somebody else holds it. It is held by every process that inherits the file, so a child keeps it
    /// when whoever started it dies.
    pub(super) fn lock(&self) -> Result<Option<File>, JobsError> {
        let path = self.0.join("lock");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(failed(&path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&path.display())(error)),
        }
    }

    /// Removes all of it; a folder that is not there is removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// The folders that there are, with their jobs. What has another name is left alone.
pub(super) fn all(store: &Path) -> io::Result<Vec<(JobId, Folder)>> {
    let entries = match fs::read_dir(jobs_folder(store)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(job) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            folders.push((job, Folder(entry.path())));
        }
    }
    Ok(folders)
}

/// A torn file is of no harm: it is written again before each start.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    opened?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_works_in_it_at_a_time_and_it_goes_whole() {
        let store = tempfile::tempdir().unwrap();
        let job: JobId = "7".parse().unwrap();
        let folder = Folder::of(store.path(), job);
        let papers = Papers {
            request: "{}",
            configuration: "a = 1",
        };
        folder.prepare(&papers).unwrap();
        folder.prepare(&papers).unwrap();
        assert_eq!(fs::read_to_string(folder.request()).unwrap(), "{}");
        let lock = folder.lock().unwrap();
        assert!(lock.is_some() && folder.lock().unwrap().is_none());
        drop(lock);
        assert!(folder.lock().unwrap().is_some());
        fs::create_dir(jobs_folder(store.path()).join("not-a-job")).unwrap();
        let found: Vec<JobId> = all(store.path()).unwrap().iter().map(|(job, _)| *job).collect();
        assert_eq!(found, [job]);
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(all(store.path()).unwrap().is_empty());
    }
}
