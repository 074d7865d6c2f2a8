//! The rules of the store, through its interface.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::model::{ModelName, Version};

mod disk;
mod erasure;
mod expiry;
mod jobs;
mod labels;
mod learners;
mod learning;
mod tallies;

const NOW: i64 = 1_800_000_000_000;

fn config(folder: &Path) -> Config {
    Config {
        folder: folder.join("data"),
        ..Config::default()
    }
}

/// A store in a folder that lives as long as the test.
async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&config(folder.path())).await.unwrap();
    (folder, store)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn model() -> ModelName {
    "digits".parse().unwrap()
}

fn classes() -> Classes {
    Classes::from([(model(), 10)])
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// The prediction `id` of an image whose bytes are `image`.
fn kept(id: &str, image: &str) -> Kept {
    let image = Bytes::from(image.to_owned());
    Kept {
        id: key(id),
        model: model(),
        version: Version::FIRST,
        sha256: Digest::of(&image),
        class: 3,
        probability: 0.75,
        at_ms: NOW,
        image: Some(image),
    }
}

fn sample(image: &str, label: u32, source: &str) -> Sample {
    Sample {
        model: model(),
        image: Bytes::from(image.to_owned()),
        label,
        source: key(source),
        key: None,
    }
}

fn by_id(id: &str, label: u32, source: &str) -> Feedback {
    Feedback {
        subject: Subject::Prediction(key(id)),
        label,
        source: key(source),
        key: None,
        confidence: None,
    }
}

fn by_image(image: &str, label: u32, source: &str) -> Feedback {
    let subject = Subject::Image {
        model: model(),
        sha256: Digest::of(image.as_bytes()),
    };
    Feedback {
        subject,
        ..by_id("-", label, source)
    }
}

/// Labels in each state, as (accepted, quarantined, overruled).
async fn states(store: &Store) -> (u64, u64, u64) {
    let counts = store.counts(&model()).await.unwrap();
    let of = |state: State| counts.iter().filter(|c| c.state == state).map(|c| c.labels).sum();
    (of(State::Accepted), of(State::Quarantined), of(State::Overruled))
}

#[tokio::test]
async fn a_prediction_comes_back_as_it_was_kept() {
    let (_folder, store) = store().await;
    let kept = kept("a", "image");
    assert_eq!(store.keep(&kept).await.unwrap(), Keeping::Kept);
    let again = Kept {
        class: 9,
        ..kept.clone()
    };
    assert_eq!(store.keep(&again).await.unwrap(), Keeping::IdTaken);
    assert_eq!(store.blob(&kept.sha256).await.unwrap(), kept.image);
    let expected = Kept { image: None, ..kept };
    assert_eq!(store.prediction(&key("a")).await.unwrap(), Some(expected));
    assert_eq!(store.prediction(&key("b")).await.unwrap(), None);
}

#[tokio::test]
async fn a_batch_is_kept_in_order_or_not_at_all() {
    let (_folder, store) = store().await;
    store.erase(&Digest::of(b"gone"), NOW).await.unwrap();
    let batch = vec![kept("a", "A"), kept("g", "gone"), kept("a", "B"), kept("c", "C")];
    let keepings = store.keep_all(batch).await.unwrap();
    assert_eq!(
        keepings,
        [Keeping::Kept, Keeping::Erased, Keeping::IdTaken, Keeping::Kept]
    );
    for (image, there) in [("A", true), ("gone", false), ("B", false), ("C", true)] {
        let bytes = store.blob(&Digest::of(image.as_bytes())).await.unwrap();
        assert_eq!(bytes.is_some(), there, "{image}");
    }
    let improbable = Kept {
        probability: 2.0,
        ..kept("e", "E")
    };
    let refused = store.keep_all(vec![kept("d", "D"), improbable]).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert_eq!(store.prediction(&key("d")).await.unwrap(), None);
    assert_eq!(store.keep_all(Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn the_image_of_a_prediction_is_kept_only_where_it_is_given() {
    let (_folder, store) = store().await;
    let without = Kept {
        image: None,
        ..kept("a", "image")
    };
    store.keep(&without).await.unwrap();
    assert_eq!(store.blob(&Digest::of(b"image")).await.unwrap(), None);
    store
        .sample(&sample("image", 1, "s"), &classes(), NOW)
        .await
        .unwrap();
    assert_eq!(
        store.blob(&Digest::of(b"image")).await.unwrap(),
        Some(Bytes::from("image"))
    );
}

#[tokio::test]
async fn what_has_no_meaning_is_refused() {
    let (_folder, store) = store().await;
    let improbable = Kept {
        probability: f64::NAN,
        ..kept("a", "image")
    };
    let other = Kept {
        sha256: Digest::of(b"other"),
        ..kept("a", "image")
    };
    for wrong in [improbable, other] {
        let refused = store.keep(&wrong).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    store.keep(&kept("a", "image")).await.unwrap();
    let sure = Feedback {
        confidence: Some(1.5),
        ..by_id("a", 2, "s")
    };
    let refused = store.feedback(&[by_id("a", 1, "s"), sure], &classes(), NOW).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert_eq!(states(&store).await, (0, 0, 0));
}

#[test]
fn a_configuration_is_checked() {
    let check = |changed: &str, problem: Option<&str>| {
        let config: Config = toml::from_str(changed).unwrap();
        let found = config.check().err();
        let key = found.as_deref().and_then(|text| text.split(':').next());
        assert_eq!(key, problem, "{changed}");
    };
    check("", None);
    check("sampling_rate = 1.0", None);
    check("sampling_rate = -0.1", Some("sampling_rate"));
    check("sampling_rate = nan", Some("sampling_rate"));
    check("retention_days = 0", Some("retention_days"));
    check("retention_days = 3651", Some("retention_days"));
    check(
        "max_labels_per_source_per_day = 0",
        Some("max_labels_per_source_per_day"),
    );
    check("max_queue = 0", Some("max_queue"));
    check("max_queue_bytes = 0", Some("max_queue_bytes"));
    assert!(toml::from_str::<Config>("retention = 1").is_err());
}
