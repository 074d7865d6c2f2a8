//! What is on the disk: kept over a restart, private, whole on every failure, and shared by several stores.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

#[tokio::test]
async fn a_store_that_is_opened_again_has_everything() {
    let (folder, store) = store().await;
    store.keep(&kept("a", "A")).await.unwrap();
    store.sample(&sample("B", 2, "s"), &classes(), NOW).await.unwrap();
    store.erase(&Digest::of(b"C"), NOW).await.unwrap();
    drop(store);
    for _ in 0..2 {
        let store = Store::open(&config(folder.path())).await.unwrap();
        assert!(store.prediction(&key("a")).await.unwrap().is_some());
        assert_eq!(store.labelled(&model(), None, 9).await.unwrap().len(), 1);
        assert_eq!(
            store.blob(&Digest::of(b"A")).await.unwrap(),
            Some(Bytes::from("A"))
        );
        assert_eq!(store.keep(&kept("c", "C")).await.unwrap(), Keeping::Erased);
        store.close().await;
    }
}

/// Makes `file` one that nobody could have meant.
fn garbage(file: &Path) {
    let mut file = File::create(file).unwrap();
    file.write_all(&[0x5a; 4096]).unwrap();
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(inside).collect()
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let (folder, store) = store().await;
    store.keep(&kept("a", "A")).await.unwrap();
    let folder = config(folder.path()).folder;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("images"))), (0o700, 0o700));
    let files = files(&folder);
    // The lock, the database with its two companions, and the image.
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let check = async |in_the_way: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(in_the_way);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create_new(&path).unwrap();
        let error = Store::open(&config(folder.path())).await.unwrap_err();
        assert!(matches!(error, StoreError::Files { .. }), "{error:?}");
        assert!(error.to_string().contains(in_the_way), "{error}");
    };
    check("data").await;
    check("data/images").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_refused() {
    let (folder, store) = store().await;
    sqlx::query("INSERT INTO forms (form) VALUES (7)")
        .execute(&store.pool)
        .await
        .unwrap();
    store.close().await;
    let error = Store::open(&config(folder.path())).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found: 7, known: 4 }),
        "{error:?}"
    );

    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    fs::create_dir(&config.folder).unwrap();
    garbage(&config.folder.join("store.sqlite"));
    let error = Store::open(&config).await.unwrap_err();
    assert!(matches!(error, StoreError::Database(_)), "{error:?}");
}

#[tokio::test]
async fn a_sample_whose_image_cannot_be_written_leaves_no_row() {
    let (folder, store) = store().await;
    let sha256 = Digest::of(b"A").to_string();
    let in_the_way = config(folder.path()).folder.join("images").join(&sha256[..2]);
    File::create_new(&in_the_way).unwrap();
    let failed = store.sample(&sample("A", 1, "s"), &classes(), NOW).await;
    assert!(matches!(failed, Err(StoreError::Disk(_))), "{failed:?}");
    assert!(store.keep(&kept("a", "A")).await.is_err());
    assert_eq!(store.prediction(&key("a")).await.unwrap(), None);
    assert_eq!(states(&store).await, (0, 0, 0));
    fs::remove_file(&in_the_way).unwrap();
    let outcome = store.sample(&sample("A", 1, "s"), &classes(), NOW).await.unwrap();
    assert_eq!(outcome, Outcome::Accepted);
}

#[tokio::test]
async fn an_image_that_was_changed_is_not_given_out() {
    let (folder, store) = store().await;
    store.keep(&kept("a", "A")).await.unwrap();
    let sha256 = Digest::of(b"A");
    let name = sha256.to_string();
    garbage(
        &config(folder.path())
            .folder
            .join("images")
            .join(&name[..2])
            .join(&name),
    );
    let error = store.blob(&sha256).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Corrupt(found) if found == sha256),
        "{error:?}"
    );
}

impl Store {
    /// Lets the database grow to so many pages, as a disk of that size would; the smallest limit is what is in use.
    pub(crate) async fn limit_pages(&self, pages: u32) {
        // For connections that are opened later, and for those that are open.
        let options = self.pool.connect_options().as_ref().clone();
        self.pool
            .set_connect_options(options.pragma("max_page_count", pages.to_string()));
        let mut connections = Vec::new();
        for _ in 0..self.pool.options().get_max_connections() {
            let mut connection = self.pool.acquire().await.unwrap();
            let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::query(limit).execute(&mut *connection).await.unwrap();
            connections.push(connection);
        }
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let (_folder, store) = store().await;
    store.limit_pages(1).await;
    let mut acknowledged = 0;
    let error = loop {
        // Long names, so that few fill it.
        let id = format!("{acknowledged:0>128}");
        match store
            .keep(&Kept {
                image: None,
                ..kept(&id, &id)
            })
            .await
        {
            Ok(keeping) => assert_eq!(keeping, Keeping::Kept),
            Err(error) => break error,
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Full), "{error:?}");
    // No failure takes a connection with it: there are fewer of them.
    for n in 0..10 {
        let error = store.keep(&kept(&format!("{n:0>120}"), "A")).await.unwrap_err();
        assert!(matches!(error, StoreError::Full), "{error:?}");
    }
    let count = async || -> i64 {
        let counted = sqlx::query_scalar("SELECT COUNT(*) FROM predictions");
        counted.fetch_one(&store.pool).await.unwrap()
    };
    assert_eq!(count().await, acknowledged);
    store.limit_pages(100_000).await;
    store.keep(&kept("after", "A")).await.unwrap();
    assert_eq!(count().await, acknowledged + 1);
}

/// How many images of each kind a store gets.
const EACH: u32 = 40;

/// Opens a store, and keeps predictions with feedback and samples, these of the same images whatever the source.
async fn fill(config: &Config, source: &str) {
    let store = Store::open(config).await.unwrap();
    for n in 0..EACH {
        let id = format!("{source}-{n}");
        store.keep(&kept(&id, &id)).await.unwrap();
        let outcomes = store.feedback(&[by_id(&id, 1, source)], &classes(), NOW).await;
        assert_eq!(outcomes.unwrap(), [Outcome::Accepted]);
        let sample = sample(&n.to_string(), 2, source);
        let outcome = store.sample(&sample, &classes(), NOW).await.unwrap();
        assert_eq!(outcome, Outcome::Accepted);
    }
    store.close().await;
}

#[test]
fn two_stores_on_one_folder_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = &config(folder.path());
    std::thread::scope(|scope| {
        for source in ["s", "t"] {
            scope.spawn(move || runtime().block_on(fill(config, source)));
        }
    });
    let (found, examples) = runtime().block_on(async {
        let store = Store::open(config).await.unwrap();
        let examples = store.labelled(&model(), None, MAX_PAGE).await.unwrap();
        (states(&store).await, examples.len())
    });
    assert_eq!(found, (u64::from(4 * EACH), 0, 0));
    assert_eq!(examples, 3 * EACH as usize);
}
