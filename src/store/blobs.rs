//! The bytes of images, each in a file that is named by their sha256.
//!
//! Files are written and removed only while the caller holds the database's write lock, so that a row and its file agree
//! whatever other processes do.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStoreExt as _, PutPayload};

use super::{Digest, StoreError};

/// A folder of images.
#[derive(Debug)]
pub(super) struct Blobs {
    files: LocalFileSystem,
    folder: PathBuf,
}

impl Blobs {
    /// In `folder`, which exists.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        // Synced with its folder before a write is acknowledged.
        let files = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        let folder = folder.to_owned();
        Ok(Self { files, folder })
    }

    /// Writes an image whole, or not at all.
    pub(super) async fn put(&self, sha256: &Digest, image: Bytes) -> Result<(), StoreError> {
        let location = location(sha256);
        self.files.put(&location, PutPayload::from(image)).await?;
        let path = self.files.path_to_filesystem(&location)?;
        // The folder above lets nobody else in, so that the moment before this is no gap.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(|e| StoreError::files(&path, e))
    }

    /// The image's bytes, checked against its name; `None` where there is none.
    pub(super) async fn get(&self, sha256: &Digest) -> Result<Option<Bytes>, StoreError> {
        let found = match self.files.get(&location(sha256)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let bytes = found.bytes().await?;
        if Digest::of(&bytes) == *sha256 {
            Ok(Some(bytes))
        } else {
            Err(StoreError::Corrupt(*sha256))
        }
    }

    /// Removes an image for good, with what a killed writer had begun of it; whether there was one.
    pub(super) async fn remove(&self, sha256: &Digest) -> Result<bool, StoreError> {
        let (folder, name) = (self.folder.join(prefix(sha256)), sha256.to_string());
        let removed = aside(move || remove_files(&folder, |file| file.starts_with(&name))).await?;
        Ok(removed > 0)
    }

    /// The two-digit folders that hold images.
    pub(super) async fn prefixes(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.folder.clone();
        let mut names = aside(move || names(&folder)).await?;
        names.retain(|name| name.len() == 2);
        names.sort();
        Ok(names)
    }

    /// Removes from the folder `prefix` what no row knows: images whose row never came, and files that a killed writer
    /// had begun. Returns how many.
    pub(super) async fn sweep(&self, prefix: &str, known: HashSet<String>) -> Result<u64, StoreError> {
        let folder = self.folder.join(prefix);
        aside(move || remove_files(&folder, |name| !known.contains(name))).await
    }
}

/// Does `work`, which waits for the disk, on a thread that may wait.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(_) => Err(StoreError::Busy),
    }
}

/// `ab/abcd…`: no folder becomes too long to list.
fn location(sha256: &Digest) -> Location {
    Location::from(format!("{}/{sha256}", prefix(sha256)))
}

fn prefix(sha256: &Digest) -> String {
    let mut text = sha256.to_string();
    text.truncate(2);
    text
}

/// Removes the files of `folder` whose name fits, and syncs it; how many.
fn remove_files(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
    let failed = |error| StoreError::files(folder, error);
    let mut removed = 0;
    for name in names(folder)?.iter().filter(|name| fits(name)) {
        fs::remove_file(folder.join(name)).map_err(failed)?;
        removed += 1;
    }
    match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => opened.and_then(|folder| folder.sync_all()).map_err(failed)?,
    }
    Ok(removed)
}

/// The names in `folder`; none where it does not exist.
fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error| StoreError::files(folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(failed)
}
