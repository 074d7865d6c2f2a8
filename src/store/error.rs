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
    /// The disk fails under the database or the images.
    #[error("the disk fails: {0}")]
    Disk(#[source] Box<dyn Error + Send + Sync>),
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
/// The file or its folder may not be written.
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
/// A file could not be opened or made.
const SQLITE_CANTOPEN: i32 = 14;
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
        if let sqlx::Error::Io(_) = error {
            return Self::Disk(error.into());
        }
        let code = error.as_database_error().and_then(|e| e.code()?.parse().ok());
        match code {
            Some(SQLITE_IOERR_SHMSIZE) => Self::Full,
            Some(code) if code & 0xff == SQLITE_FULL => Self::Full,
            Some(code) => match code & 0xff {
                SQLITE_BUSY => Self::Busy,
                SQLITE_READONLY | SQLITE_IOERR | SQLITE_CANTOPEN => Self::Disk(error.into()),
                _ => Self::Database(error),
            },
            None => Self::Database(error),
        }
    }
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(current) = cause {
            match current.downcast_ref::<io::Error>() {
                Some(found) if is_full(found) => return Self::Full,
                Some(_) => return Self::Disk(error.into()),
                None => cause = current.source(),
            }
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

    #[test]
    fn a_disk_that_fails_is_no_bug() {
        let source = Box::new(io::Error::from_raw_os_error(5));
        let failed = object_store::Error::Generic {
            store: "LocalFileSystem",
            source,
        };
        let error = StoreError::from(failed);
        assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
        assert!(error.to_string().contains("os error 5"), "{error}");
        let bug = object_store::Error::NotImplemented {
            operation: "put".to_owned(),
            implementer: "it".to_owned(),
        };
        assert!(matches!(StoreError::from(bug), StoreError::Blobs(_)));
        let error = StoreError::from(sqlx::Error::Io(io::Error::from_raw_os_error(5)));
        assert!(matches!(error, StoreError::Disk(_)), "{error:?}");
    }
}
