//! Why the store could not do what was asked.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::Digest;

/// Why the store could not do what was asked. Nothing of a call that fails is kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk, or a quota of the file system is used up.
    #[error("the disk is full: nothing of this was kept")]
    Full,
    /// Another writer held the database for longer than the busy timeout.
    #[error("the store is busy: another writer holds it")]
    Busy,
    /// A configuration, or an argument, that has no meaning; the text says which.
    #[error("{0}")]
    Invalid(String),
    /// A file or folder of the store cannot be used.
    #[error("{}: {source}", .path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database was made by a newer program.
    #[error(
        "the store has form {found}, and this program knows forms up to {known}: it needs a newer program"
    )]
    Newer {
        /// Of the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The bytes of an image are not those that were kept.
    #[error("the kept image {0} has other bytes than its name says")]
    Corrupt(Digest),
    /// The database failed.
    #[error("the store's database: {0}")]
    Database(#[source] sqlx::Error),
    /// The blob store failed.
    #[error("the store's images: {0}")]
    Blobs(#[source] object_store::Error),
}

/// SQLite's primary result codes (<https://sqlite.org/rescode.html>).
const SQLITE_BUSY: i32 = 5;
const SQLITE_FULL: i32 = 13;
/// The shared-memory file of the write-ahead log could not be made longer.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

impl StoreError {
    pub(super) fn files(path: &Path, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::Full;
        }
        let path = path.to_owned();
        Self::Files { path, source }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()?.parse().ok());
        match code {
            Some(SQLITE_IOERR_SHMSIZE) => Self::Full,
            Some(code) if code & 0xff == SQLITE_FULL => Self::Full,
            Some(code) if code & 0xff == SQLITE_BUSY => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            if current.downcast_ref::<io::Error>().is_some_and(is_full) {
                return Self::Full;
            }
            cause = current.source();
        }
        Self::Blobs(error)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_however_deep_it_lies() {
        let check = |kind: io::ErrorKind, full: bool| {
            let wrapped = || object_store::Error::Generic {
                store: "LocalFileSystem",
                source: Box::new(io::Error::from(kind)),
            };
            let nested = object_store::Error::Generic {
                store: "outer",
                source: Box::new(wrapped()),
            };
            for error in [wrapped(), nested] {
                assert_eq!(
                    matches!(StoreError::from(error), StoreError::Full),
                    full,
                    "{kind}"
                );
            }
            let files = StoreError::files(Path::new("x"), io::Error::from(kind));
            assert_eq!(matches!(files, StoreError::Full), full, "{kind}");
        };
        check(io::ErrorKind::StorageFull, true);
        check(io::ErrorKind::QuotaExceeded, true);
        check(io::ErrorKind::PermissionDenied, false);
    }
}
