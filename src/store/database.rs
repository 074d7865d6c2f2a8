//! The connection to the database, and its form.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Pool, Sqlite, Transaction};

use super::StoreError;

/// The database that the store is built for; the SQL itself names none.
pub(super) type Db = Sqlite;

/// A transaction that nobody else writes beside.
pub(super) type Writing = Transaction<'static, Db>;

/// The forms of the database in order; the form's number is its place, from 1. One that was released is never changed.
const FORMS: [&str; 4] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
];

/// Readers never wait for a writer; writers wait for each other for so long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Each is a thread of sqlx's, started when it is first needed.
const MAX_CONNECTIONS: u32 = 4;

/// Opens the database `file`, which is made with mode 0600 where it is missing, and brings it to the newest form. The
/// caller holds the store's lock file.
pub(super) async fn open(file: &Path) -> Result<Pool<Db>, StoreError> {
    create_private(file)?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode only FULL syncs each commit: what is acknowledged survives the loss of power.
        .synchronous(SqliteSynchronous::Full)
        // Erased rows are overwritten.
        .pragma("secure_delete", "ON");
    let pool = SqlitePoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(BUSY_TIMEOUT)
        // On a full disk SQLite itself rolls back, sqlx's own rollback then fails, and the connection could begin no other
        // transaction: it is opened anew.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await?;
    migrate(&pool).await?;
    Ok(pool)
}

/// Begins a transaction that holds the write lock from the start, over all processes: what it reads stays true until it
/// is committed.
pub(super) async fn begin(pool: &Pool<Db>) -> Result<Writing, StoreError> {
    #[cfg(feature = "failpoints")]
    if crate::failpoints::fails(crate::failpoints::Place::Store) {
        return Err(StoreError::Disk("as planned".into()));
    }
    Ok(pool.begin_with("BEGIN IMMEDIATE").await?)
}

/// Moves the write-ahead log into the database and empties it, so that no older page is left in it. Waits for readers and
/// writers as a writer does.
pub(super) async fn empty_log(pool: &Pool<Db>) -> Result<(), StoreError> {
    // Whether somebody was in the way; pages in the log; pages moved.
    let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(pool)
        .await?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Busy) }
}

async fn migrate(pool: &Pool<Db>) -> Result<(), StoreError> {
    let mut writing = begin(pool).await?;
    let table = "CREATE TABLE IF NOT EXISTS forms (form BIGINT NOT NULL PRIMARY KEY)";
    sqlx::query(table).execute(&mut *writing).await?;
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(form), 0) FROM forms")
        .fetch_one(&mut *writing)
        .await?;
    let known = FORMS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (form, statements) in (1..).zip(FORMS).filter(|&(form, _)| form > found) {
        sqlx::raw_sql(statements).execute(&mut *writing).await?;
        sqlx::query("INSERT INTO forms (form) VALUES ($1)")
            .bind(form)
            .execute(&mut *writing)
            .await?;
    }
    Ok(writing.commit().await?)
}

/// An empty file is an empty database; SQLite gives its companions (`-wal`, `-shm`) the same mode.
///
/// An existing file is not opened: closing it would drop the locks that SQLite holds on it in this process
/// (<https://sqlite.org/howtocorrupt.html>, 2.2).
fn create_private(file: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::files(file, error)),
        Ok(_) => Ok(()),
    }
}
