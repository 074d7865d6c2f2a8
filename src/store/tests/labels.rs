//! What becomes of labels: each outcome, quarantine, decisions, and that order does not matter.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Gives each piece of feedback in a batch of its own and asserts its outcome.
async fn check(store: &Store, data: &[(Feedback, Outcome)]) {
    for (feedback, expected) in data {
        let outcomes = store
            .feedback(std::slice::from_ref(feedback), &classes(), NOW)
            .await;
        assert_eq!(outcomes.unwrap(), [*expected], "{feedback:?}");
    }
}

#[tokio::test]
async fn each_outcome() {
    let (_folder, store) = store().await;
    for (id, image) in [("a", "A"), ("a2", "A"), ("b", "B")] {
        store.keep(&kept(id, image)).await.unwrap();
    }
    let stranger = Feedback {
        subject: Subject::Image {
            model: "letters".parse().unwrap(),
            sha256: Digest::of(b"A"),
        },
        ..by_image("A", 1, "s")
    };
    let data = [
        (by_id("a", 1, "s"), Outcome::Accepted),
        (by_id("a", 1, "s"), Outcome::Duplicate),
        (by_id("a2", 1, "s"), Outcome::Duplicate),
        (by_image("A", 1, "s"), Outcome::Duplicate),
        (by_id("a", 1, "t"), Outcome::Accepted),
        (by_id("c", 1, "s"), Outcome::Unknown),
        (by_image("C", 1, "s"), Outcome::Unknown),
        (stranger, Outcome::Unknown),
        (by_id("b", 10, "s"), Outcome::OutOfRange),
        (by_id("b", 9, "s"), Outcome::Accepted),
        (by_id("b", 8, "s"), Outcome::Quarantined),
        (by_id("b", 8, "s"), Outcome::Duplicate),
        (by_id("a2", 2, "u"), Outcome::Quarantined),
    ];
    check(&store, &data).await;
    assert_eq!(states(&store).await, (0, 5, 0));
}

#[tokio::test]
async fn a_batch_is_judged_in_its_order() {
    let (_folder, store) = store().await;
    store.keep(&kept("a", "A")).await.unwrap();
    let batch = [
        by_id("a", 1, "s"),
        by_id("x", 1, "s"),
        by_id("a", 1, "s"),
        by_id("a", 2, "t"),
    ];
    let outcomes = store.feedback(&batch, &classes(), NOW).await.unwrap();
    use Outcome::{Accepted, Duplicate, Quarantined, Unknown};
    assert_eq!(outcomes, [Accepted, Unknown, Duplicate, Quarantined]);
}

/// What `feedback` is with a key.
fn with_key(feedback: Feedback, id: &str) -> Feedback {
    Feedback {
        key: Some(key(id)),
        ..feedback
    }
}

#[tokio::test]
async fn a_key_is_kept_beside_the_source_and_stands_for_it_in_what_is_learnt() {
    let (_folder, store) = store().await;
    for image in ["A", "B"] {
        store.keep(&kept(image, image)).await.unwrap();
    }
    let data = [
        (with_key(by_id("A", 1, "s"), "scanner"), Outcome::Accepted),
        // The first that said it stays.
        (with_key(by_id("A", 1, "s"), "another"), Outcome::Duplicate),
        (by_id("B", 1, "s"), Outcome::Accepted),
        (with_key(by_id("B", 2, "t"), "scanner"), Outcome::Quarantined),
    ];
    check(&store, &data).await;
    let conflicts = store.quarantine(&model(), None, 9).await.unwrap();
    let keys = conflicts[0].labels.iter().map(|label| label.key.clone());
    assert_eq!(keys.collect::<Vec<_>>(), [None, Some(key("scanner"))]);
    let counts = store.counts(&model()).await.unwrap();
    let told: Vec<_> = counts
        .iter()
        .map(|c| (c.label, c.source.as_str(), c.key.as_ref().map(Key::as_str)))
        .collect();
    assert_eq!(
        told,
        [
            (1, "s", None),
            (1, "s", Some("scanner")),
            (2, "t", Some("scanner"))
        ]
    );
    let decision = Decision {
        model: model(),
        sha256: Digest::of(b"B"),
        label: Some(1),
        source: key("person"),
        key: Some(key("admin")),
    };
    assert!(store.resolve(&decision, 10, NOW).await.unwrap());
    let mut learnable = store.labelled(&model(), None, 9).await.unwrap();
    learnable.sort_by_key(|example| example.sha256 != Digest::of(b"A"));
    let sources: Vec<&str> = learnable.iter().map(|example| example.source.as_str()).collect();
    // Of B two said so, one of them with a key.
    assert_eq!(sources, ["key:scanner", "key:admin"]);
}

#[tokio::test]
async fn a_key_has_one_quota_whatever_sources_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_labels_per_source_per_day: 2,
        ..config(folder.path())
    };
    let store = Store::open(&config).await.unwrap();
    for image in ["A", "B", "C"] {
        store.keep(&kept(image, image)).await.unwrap();
    }
    let data = [
        (with_key(by_id("A", 1, "s"), "scanner"), Outcome::Accepted),
        (with_key(by_id("B", 1, "t"), "scanner"), Outcome::Accepted),
        (with_key(by_id("C", 1, "u"), "scanner"), Outcome::OverQuota),
        // Nor does it use up what others have of that name.
        (by_id("C", 1, "s"), Outcome::Accepted),
        (by_id("B", 1, "s"), Outcome::Accepted),
        (by_id("A", 1, "t"), Outcome::Accepted),
        (with_key(by_id("C", 1, "t"), "another"), Outcome::Accepted),
    ];
    check(&store, &data).await;
    let batch = ["A", "B", "C"].map(|image| with_key(by_id(image, 1, "v"), "batch"));
    let outcomes = store.feedback(&batch, &classes(), NOW).await.unwrap();
    assert_eq!(
        outcomes,
        [Outcome::Accepted, Outcome::Accepted, Outcome::OverQuota]
    );
}

#[tokio::test]
async fn a_source_has_a_quota_for_each_day() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        max_labels_per_source_per_day: 2,
        ..config(folder.path())
    };
    let store = Store::open(&config).await.unwrap();
    let take = async |store: &Store, image: &str, source: &str, at: i64| {
        store
            .sample(&sample(image, 1, source), &classes(), at)
            .await
            .unwrap()
    };
    assert_eq!(take(&store, "A", "s", NOW).await, Outcome::Accepted);
    let batch = [
        by_image("A", 1, "t"),
        by_image("A", 2, "s"),
        by_image("A", 3, "s"),
    ];
    let outcomes = store.feedback(&batch, &classes(), NOW).await.unwrap();
    assert_eq!(
        outcomes,
        [Outcome::Accepted, Outcome::Quarantined, Outcome::OverQuota]
    );
    drop(store);
    let store = Store::open(&config).await.unwrap();
    assert_eq!(take(&store, "B", "s", NOW).await, Outcome::OverQuota);
    assert_eq!(store.blob(&Digest::of(b"B")).await.unwrap(), None);
    // What costs nothing is still answered.
    assert_eq!(take(&store, "A", "s", NOW).await, Outcome::Duplicate);
    assert_eq!(take(&store, "B", "t", NOW).await, Outcome::Accepted);
    assert_eq!(take(&store, "B", "s", NOW + DAY_MS).await, Outcome::Accepted);
}

#[tokio::test]
async fn a_conflict_is_listed_whole_until_a_person_decides() {
    let (_folder, store) = store().await;
    for (image, label, source) in [
        ("A", 1, "s"),
        ("A", 2, "t"),
        ("B", 1, "s"),
        ("C", 4, "s"),
        ("C", 5, "s"),
    ] {
        store
            .sample(&sample(image, label, source), &classes(), NOW)
            .await
            .unwrap();
    }
    let listed = store.quarantine(&model(), None, 10).await.unwrap();
    let images: BTreeSet<Digest> = listed.iter().map(|c| c.sha256).collect();
    assert_eq!(images, BTreeSet::from([Digest::of(b"A"), Digest::of(b"C")]));
    assert!(listed.iter().all(|c| c.labels.len() == 2), "{listed:?}");
    let second = store
        .quarantine(&model(), Some(&listed[0].sha256), 1)
        .await
        .unwrap();
    assert_eq!(second, listed[1..]);

    let decide = async |image: &str, label: Option<u32>| {
        let decision = Decision {
            model: model(),
            sha256: Digest::of(image.as_bytes()),
            label,
            source: key("person"),
            key: None,
        };
        store.resolve(&decision, 10, NOW).await
    };
    // Neither of the two that were given.
    assert!(decide("A", Some(7)).await.unwrap());
    assert!(decide("C", None).await.unwrap());
    assert!(!decide("D", None).await.unwrap());
    assert!(matches!(decide("A", Some(10)).await, Err(StoreError::Invalid(_))));
    assert_eq!(store.quarantine(&model(), None, 10).await.unwrap(), []);
    assert_eq!(states(&store).await, (2, 0, 4));
    let learnable = store.labelled(&model(), None, 10).await.unwrap();
    let labels: BTreeMap<Digest, u32> = learnable.iter().map(|e| (e.sha256, e.label)).collect();
    assert_eq!(
        labels,
        BTreeMap::from([(Digest::of(b"A"), 7), (Digest::of(b"B"), 1)])
    );
    let data = [
        (by_image("A", 7, "u"), Outcome::Accepted),
        (by_image("A", 3, "u"), Outcome::Overruled),
        (by_image("C", 4, "u"), Outcome::Overruled),
    ];
    check(&store, &data).await;
    // A mind may be changed.
    assert!(decide("C", Some(4)).await.unwrap());
    assert_eq!(store.labelled(&model(), None, 10).await.unwrap().len(), 3);
}

/// (image, whether by sha256, label, source) of feedback.
type Said = (u8, bool, u32, u8);

/// Gives `said` in order to a model of its own, and returns how each label stands.
async fn stand(store: &Store, model: &ModelName, said: &[Said]) -> BTreeSet<(String, String, i64, String)> {
    let classes = Classes::from([(model.clone(), 3)]);
    for image in 0..3_u8 {
        let bytes = image.to_string();
        let kept = Kept {
            model: model.clone(),
            ..kept(&format!("{model}-{image}"), &bytes)
        };
        store.keep(&kept).await.unwrap();
    }
    for &(image, by_sha256, label, source) in said {
        let subject = match by_sha256 {
            true => Subject::Image {
                model: model.clone(),
                sha256: Digest::of(image.to_string().as_bytes()),
            },
            false => Subject::Prediction(key(&format!("{model}-{image}"))),
        };
        let source = key(&source.to_string());
        let feedback = Feedback {
            subject,
            label,
            source,
            confidence: None,
            key: None,
        };
        store.feedback(&[feedback], &classes, NOW).await.unwrap();
    }
    let rows: Vec<_> = sqlx::query_as("SELECT sha256, source, label, state FROM judged WHERE model = $1")
        .bind(model.as_str())
        .fetch_all(&store.pool)
        .await
        .unwrap();
    rows.into_iter().collect()
}

/// What the rule says of `said`: labels of an image that disagree are all in quarantine.
fn expected(said: &[Said]) -> BTreeSet<(String, String, i64, String)> {
    let taken = || said.iter().filter(|s| s.2 < 3);
    let state = |image: u8| {
        let labels: BTreeSet<u32> = taken().filter(|s| s.0 == image).map(|s| s.2).collect();
        if labels.len() > 1 {
            State::Quarantined
        } else {
            State::Accepted
        }
    };
    taken()
        .map(|&(image, _, label, source)| {
            let sha256 = Digest::of(image.to_string().as_bytes()).to_string();
            (
                sha256,
                source.to_string(),
                i64::from(label),
                state(image).to_string(),
            )
        })
        .collect()
}

/// Feedback, and the same in another order with repetitions.
fn orders() -> impl Strategy<Value = (Vec<Said>, Vec<Said>)> {
    let said = (0..3_u8, any::<bool>(), 0..4_u32, 0..2_u8);
    proptest::collection::vec(said, 1..8).prop_flat_map(|said| {
        let again = proptest::sample::subsequence(said.clone(), 0..=said.len());
        let other = again.prop_flat_map({
            let said = said.clone();
            move |again| Just([said.clone(), again].concat()).prop_shuffle()
        });
        (Just(said), other)
    })
}

#[test]
fn how_labels_stand_does_not_depend_on_their_order() {
    let runtime = runtime();
    let (_folder, store) = runtime.block_on(store());
    let run = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let stand = |said: &[Said]| {
        run.set(run.get() + 1);
        let model = format!("m{}", run.get()).parse().unwrap();
        runtime.block_on(stand(&store, &model, said))
    };
    let checked = runner.run(&orders(), |(said, other)| {
        prop_assert_eq!(stand(&said), expected(&said));
        prop_assert_eq!(stand(&other), expected(&said));
        Ok(())
    });
    checked.unwrap();
}
