//! Predictions counted beside the labels of their images.

use super::*;

#[tokio::test]
async fn predictions_are_counted_by_what_their_images_are() {
    let (_folder, store) = store().await;
    let second = Version::FIRST.next().unwrap();
    let predicted = async |id: &str, image: &str, version: Version, class: u32| {
        let kept = Kept {
            version,
            class,
            ..kept(id, image)
        };
        store.keep(&kept).await.unwrap();
    };
    predicted("a", "A", Version::FIRST, 1).await;
    predicted("a2", "A", Version::FIRST, 1).await;
    predicted("a3", "A", second, 2).await;
    predicted("b", "B", Version::FIRST, 3).await;
    predicted("c", "C", Version::FIRST, 4).await;
    predicted("d", "D", Version::FIRST, 5).await;
    let before = store.label_mark().await.unwrap();
    let said = [
        // Two sources that agree count once.
        by_id("a", 1, "s"),
        by_id("a", 1, "t"),
        // In quarantine, until it is decided.
        by_id("b", 3, "s"),
        by_id("b", 4, "t"),
        by_id("c", 7, "s"),
    ];
    store.feedback(&said, &classes(), NOW).await.unwrap();
    let tally = |version, predicted, label, predictions| Tally {
        model: model(),
        version,
        predicted,
        label,
        predictions,
    };
    let (one, four, two) = (
        tally(Version::FIRST, 1, 1, 2),
        tally(Version::FIRST, 4, 7, 1),
        tally(second, 2, 1, 1),
    );
    assert_eq!(
        store.tallies().await.unwrap(),
        [one.clone(), four.clone(), two.clone()]
    );
    let labelled = store.label_mark().await.unwrap();
    assert_ne!(labelled, before);
    assert_eq!(store.label_mark().await.unwrap(), labelled);

    let decision = Decision {
        model: model(),
        sha256: Digest::of(b"B"),
        label: Some(3),
        source: key("s"),
        key: None,
    };
    store.resolve(&decision, 10, NOW).await.unwrap();
    assert_eq!(
        store.tallies().await.unwrap(),
        [one, tally(Version::FIRST, 3, 3, 1), four, two]
    );
    assert_ne!(store.label_mark().await.unwrap(), labelled);
}
