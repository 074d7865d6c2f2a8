//! Who learns from what, from before the first step to the version.

use super::*;

fn learner(run: &str) -> Learner {
    Learner {
        model: model(),
        run: key(run),
    }
}

fn digests<const N: usize>(images: [&str; N]) -> [Digest; N] {
    images.map(|image| Digest::of(image.as_bytes()))
}

async fn erased(store: &Store, image: &str) -> (Vec<u32>, Vec<Learner>) {
    let erased = store.erase(&Digest::of(image.as_bytes()), NOW).await.unwrap();
    assert!(erased.learnt.iter().all(|(name, _)| *name == model()));
    let versions = erased.learnt.iter().map(|(_, version)| version.number());
    (versions.collect(), erased.learning)
}

#[tokio::test]
async fn a_run_is_known_before_it_begins_and_its_version_from_then_on() {
    let (_folder, store) = store().await;
    let (one, other, images) = (learner("one"), learner("other"), digests(["A", "B"]));
    assert_eq!(store.learns(&one, &images, NOW).await.unwrap(), []);
    assert_eq!(store.learns(&other, &images[1..], NOW).await.unwrap(), []);
    assert_eq!(erased(&store, "C").await, (vec![], vec![]));
    assert!(!store.is_spoilt(&one).await.unwrap());

    let publish = || Ok::<_, StoreError>(Version::FIRST);
    let staged = store.stage(&one, (&images, NOW), publish).await.unwrap();
    assert_eq!(staged, Staged::Published(Version::FIRST));
    assert_eq!(erased(&store, "B").await, (vec![1], vec![other.clone()]));
    assert_eq!(erased(&store, "A").await, (vec![1], vec![]));
    assert_eq!(store.learners(&model()).await.unwrap(), [(other.clone(), NOW)]);
    assert!(store.is_spoilt(&other).await.unwrap());

    // What a run recorded is replaced, and what is forgotten is nobody's.
    let again = store.learns(&other, &digests(["C", "D"]), NOW + 5).await.unwrap();
    assert_eq!(again, digests(["C"]));
    assert_eq!(
        store.learners(&model()).await.unwrap(),
        [(other.clone(), NOW + 5)]
    );
    assert_eq!(erased(&store, "B").await, (vec![1], vec![]));
    store.forget(&other).await.unwrap();
    assert_eq!(erased(&store, "D").await, (vec![], vec![]));
    assert_eq!(store.learners(&model()).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_erased_is_not_published() {
    let (_folder, store) = store().await;
    let (run, images) = (learner("run"), digests(["A", "B"]));
    store.learns(&run, &images, NOW).await.unwrap();
    assert_eq!(erased(&store, "B").await, (vec![], vec![run.clone()]));
    let never = || -> Result<Version, StoreError> { panic!("it is published") };
    let staged = store.stage(&run, (&images, NOW), never).await.unwrap();
    assert_eq!(staged, Staged::Erased(1));
    // Also of a run that was forgotten meanwhile.
    store.forget(&run).await.unwrap();
    assert_eq!(
        store.stage(&run, (&images, NOW), never).await.unwrap(),
        Staged::Erased(1)
    );
}

#[tokio::test]
async fn a_version_that_could_not_be_tied_is_tied_later() {
    let (_folder, store) = store().await;
    let (run, images) = (learner("run"), digests(["A", "B"]));
    store.learns(&run, &images, NOW).await.unwrap();
    let fails = || Err(StoreError::Full);
    let failed: Result<Staged, StoreError> = store.stage(&run, (&images, NOW), fails).await;
    assert!(matches!(failed, Err(StoreError::Full)), "{failed:?}");
    assert_eq!(erased(&store, "A").await, (vec![], vec![run.clone()]));
    // By what the run recorded alone.
    let found = store.learnt(&run, Version::FIRST, (&[], NOW)).await.unwrap();
    assert_eq!(found, digests(["A"]));
    assert_eq!(erased(&store, "B").await, (vec![1], vec![]));
    assert_eq!(store.learners(&model()).await.unwrap(), []);
}

#[test]
fn an_erasure_is_told_of_the_version_or_the_version_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = &config(folder.path());
    let open = || runtime().block_on(Store::open(config)).unwrap();
    drop(open());
    let runs = 40;
    let staged = std::thread::scope(|scope| {
        let stager = scope.spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                let store = Store::open(config).await.unwrap();
                let mut staged = Vec::new();
                for number in 1..=runs {
                    let (run, image) = (learner(&number.to_string()), Digest::of(&[number as u8]));
                    if !store.learns(&run, &[image], NOW).await.unwrap().is_empty() {
                        staged.push(None);
                        continue;
                    }
                    let publish = || Ok::<_, StoreError>(Version::try_from(number).unwrap());
                    staged.push(Some(store.stage(&run, (&[image], NOW), publish).await.unwrap()));
                }
                staged
            })
        });
        let eraser = scope.spawn(move || {
            runtime().block_on(async {
                let store = Store::open(config).await.unwrap();
                let mut told = Vec::new();
                for number in 1..=runs {
                    told.push(store.erase(&Digest::of(&[number as u8]), NOW).await.unwrap());
                }
                told
            })
        });
        let told = eraser.join().unwrap();
        let staged = stager.join().unwrap();
        staged.into_iter().zip(told).collect::<Vec<_>>()
    });
    for (number, (staged, told)) in (1..).zip(staged) {
        let versions: Vec<u32> = told.learnt.iter().map(|(_, v)| v.number()).collect();
        match staged {
            Some(Staged::Published(_)) => assert_eq!((versions, told.learning), (vec![number], vec![])),
            Some(Staged::Erased(_)) => {
                assert_eq!(
                    (versions, told.learning),
                    (vec![], vec![learner(&number.to_string())])
                );
            }
            None => assert_eq!((versions, told.learning), (vec![], vec![])),
        }
    }
}

#[tokio::test]
async fn a_store_of_an_older_form_is_brought_to_this_one() {
    let (folder, store) = store().await;
    store.sample(&sample("A", 2, "s"), &classes(), NOW).await.unwrap();
    for statement in [
        "DROP TABLE learning",
        "DROP VIEW judged",
        "CREATE VIEW judged AS SELECT 0 AS form",
        "DROP INDEX labels_by_key",
        "ALTER TABLE labels DROP COLUMN api_key",
        "ALTER TABLE decisions DROP COLUMN api_key",
        "DELETE FROM forms WHERE form > 2",
        "INSERT INTO learnt (sha256, model, version) SELECT sha256, 'digits', 1 FROM images",
    ] {
        sqlx::query(statement).execute(&store.pool).await.unwrap();
    }
    store.close().await;
    let store = Store::open(&config(folder.path())).await.unwrap();
    let run = learner("run");
    store.learns(&run, &digests(["A"]), NOW).await.unwrap();
    let learnable = store.labelled(&model(), None, 9).await.unwrap();
    assert_eq!(learnable[0].source, key("s"));
    assert_eq!(erased(&store, "A").await, (vec![1], vec![run]));
}
