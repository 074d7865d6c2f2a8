//! Retention, and the guard against a clock that jumps.

use super::*;

const DAY: i64 = DAY_MS;

async fn keep_at(store: &Store, id: &str, image: &str, at_ms: i64) {
    store
        .keep(&Kept {
            at_ms,
            ..kept(id, image)
        })
        .await
        .unwrap();
}

fn done(predictions: u64, images: u64) -> Expiry {
    Expiry::Done { predictions, images }
}

#[tokio::test]
async fn what_is_old_goes_unless_it_is_labelled_or_still_named() {
    let (_folder, store) = store().await;
    for (id, image, day) in [
        ("a", "A", 0),
        ("b", "B", 0),
        ("c", "C", 0),
        ("c2", "C", 20),
        ("d", "D", 20),
    ] {
        keep_at(&store, id, image, NOW + day * DAY).await;
    }
    store
        .feedback(&[by_id("b", 1, "s")], &classes(), NOW)
        .await
        .unwrap();
    // Exactly as old as may be.
    assert_eq!(store.expire(NOW + 30 * DAY).await.unwrap(), done(0, 0));
    assert_eq!(store.expire(NOW + 30 * DAY + 1).await.unwrap(), done(3, 1));
    let there = async |image: &str| store.blob(&Digest::of(image.as_bytes())).await.unwrap().is_some();
    assert_eq!(
        (
            there("A").await,
            there("B").await,
            there("C").await,
            there("D").await
        ),
        (false, true, true, true)
    );
    // The label outlives its prediction, and more may be said of the image.
    let outcomes = store
        .feedback(&[by_id("b", 1, "t"), by_image("B", 1, "t")], &classes(), NOW)
        .await;
    assert_eq!(outcomes.unwrap(), [Outcome::Unknown, Outcome::Accepted]);
}

#[tokio::test]
async fn a_clock_that_jumps_deletes_nothing() {
    let (_folder, store) = store().await;
    keep_at(&store, "a", "A", NOW).await;
    let jumped = |last_ms: i64, now_ms: i64| Expiry::ClockJumped { last_ms, now_ms };
    let check = async |now_ms: i64, expected: Expiry| {
        assert_eq!(
            store.expire(now_ms).await.unwrap(),
            expected,
            "{}",
            (now_ms - NOW) / DAY
        );
        let there = store.prediction(&key("a")).await.unwrap().is_some();
        assert_eq!(there, !matches!(expected, Expiry::Done { predictions: 1, .. }));
    };
    // Before the first expiry, the oldest prediction is the measure.
    check(NOW + 400 * DAY, jumped(NOW, NOW + 400 * DAY)).await;
    check(NOW + DAY, done(0, 0)).await;
    let far = NOW + 61 * DAY + 1;
    check(far, jumped(NOW + DAY, far)).await;
    // Asking again does not make it true.
    check(far, jumped(NOW + DAY, far)).await;
    check(i64::MAX, jumped(NOW + DAY, i64::MAX)).await;
    // Back again.
    check(NOW, done(0, 0)).await;
    store.trust_clock(far).await.unwrap();
    check(far, done(1, 1)).await;
}

#[tokio::test]
async fn what_a_killed_writer_left_is_swept() {
    let (folder, store) = store().await;
    store.sample(&sample("A", 1, "s"), &classes(), NOW).await.unwrap();
    let whole = Digest::of(b"A").to_string();
    let images = config(folder.path()).folder.join("images").join(&whole[..2]);
    // An image whose row never came, and one that was being written.
    for name in [format!("{}{}", &whole[..2], "0".repeat(62)), format!("{whole}#1")] {
        fs::File::create_new(images.join(name)).unwrap();
    }
    assert_eq!(store.expire(NOW).await.unwrap(), done(0, 2));
    assert_eq!(fs::read_dir(&images).unwrap().count(), 1);
    assert_eq!(
        store.blob(&Digest::of(b"A")).await.unwrap(),
        Some(Bytes::from("A"))
    );
}
