//! The training set, and erasing from it.

use super::*;

#[tokio::test]
async fn an_image_is_learnt_from_once_and_in_one_order() {
    let (_folder, store) = store().await;
    let images = ["A", "B", "C", "D", "E"];
    for (at, image) in (NOW..).zip(images) {
        store
            .sample(&sample(image, 1, "t"), &classes(), at)
            .await
            .unwrap();
        store
            .sample(&sample(image, 1, "s"), &classes(), at + 100)
            .await
            .unwrap();
    }
    // A label without its image is nothing to learn from.
    store
        .keep(&Kept {
            image: None,
            ..kept("f", "F")
        })
        .await
        .unwrap();
    store
        .feedback(&[by_id("f", 1, "s")], &classes(), NOW)
        .await
        .unwrap();
    let mut expected: Vec<Example> = (NOW..)
        .zip(images)
        .map(|(at_ms, image)| Example {
            sha256: Digest::of(image.as_bytes()),
            label: 1,
            source: key("s"),
            at_ms,
        })
        .collect();
    expected.sort_by_key(|example| example.sha256);
    assert_eq!(
        store.labelled(&model(), None, MAX_PAGE + 1).await.unwrap(),
        expected
    );
    let first = store.labelled(&model(), None, 2).await.unwrap();
    let rest = store.labelled(&model(), Some(&first[1].sha256), 9).await.unwrap();
    assert_eq!([first, rest].concat(), expected);
    // Its bytes may come later, and change no label.
    let outcome = store.sample(&sample("F", 1, "s"), &classes(), NOW).await.unwrap();
    assert_eq!(outcome, Outcome::Duplicate);
    assert_eq!(store.labelled(&model(), None, 9).await.unwrap().len(), 6);
}

#[tokio::test]
async fn what_is_erased_is_gone_and_stays_away() {
    let (_folder, store) = store().await;
    let (gone, stays) = (Digest::of(b"A"), Digest::of(b"B"));
    for (id, image) in [("a", "A"), ("a2", "A"), ("b", "B")] {
        store.keep(&kept(id, image)).await.unwrap();
        store
            .feedback(&[by_id(id, 1, "s")], &classes(), NOW)
            .await
            .unwrap();
    }
    let second = Version::FIRST.next().unwrap();
    let learner = Learner {
        model: model(),
        run: key("run"),
    };
    for version in [second, Version::FIRST] {
        let images = (&[gone, stays, gone][..], NOW);
        assert_eq!(store.learnt(&learner, version, images).await.unwrap(), []);
    }
    let erased = store.erase(&gone, NOW).await.unwrap();
    let expected = Erased {
        predictions: 2,
        labels: 1,
        image: true,
        learnt: vec![(model(), Version::FIRST), (model(), second)],
        learning: vec![],
    };
    assert_eq!(erased, expected);
    assert_eq!(store.blob(&gone).await.unwrap(), None);
    assert_eq!(store.prediction(&key("a")).await.unwrap(), None);
    let learnable = store.labelled(&model(), None, 9).await.unwrap();
    assert_eq!(learnable.iter().map(|e| e.sha256).collect::<Vec<_>>(), [stays]);

    let outcomes = store
        .feedback(&[by_image("A", 1, "s"), by_id("a", 1, "s")], &classes(), NOW)
        .await;
    assert_eq!(outcomes.unwrap(), [Outcome::Erased, Outcome::Unknown]);
    let sampled = store.sample(&sample("A", 1, "s"), &classes(), NOW).await.unwrap();
    assert_eq!(sampled, Outcome::Erased);
    assert_eq!(store.keep(&kept("a", "A")).await.unwrap(), Keeping::Erased);
    assert_eq!(store.blob(&gone).await.unwrap(), None);
    assert_eq!(store.erased(None, 9).await.unwrap(), [gone]);
    assert_eq!(store.erased(Some(&gone), 9).await.unwrap(), []);
    // Twice is as once, and a version that was learning meanwhile is told.
    let again = store.erase(&gone, NOW).await.unwrap();
    assert_eq!((again.predictions, again.labels, again.image), (0, 0, false));
    let third = second.next().unwrap();
    let images = (&[gone, stays][..], NOW);
    assert_eq!(store.learnt(&learner, third, images).await.unwrap(), [gone]);
}
