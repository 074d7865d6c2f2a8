//! Answers that cost no inference: the same image at once, and the same image again.

use std::thread;

use sha2::{Digest, Sha256};

use crate::serve::{image, models};
use crate::server::{Server, head};

/// The sum of a series.
fn series(server: &Server, name: &str) -> u64 {
    let (status, page) = server.get("/metrics");
    assert_eq!(status, 200);
    let of = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix('{')?
            .rsplit(' ')
            .next()?
            .parse::<u64>()
            .ok()
    };
    page.lines().filter_map(of).sum()
}

#[test]
fn the_same_image_at_once_is_one_inference() {
    let folder = models();
    // An instance waits for more as long as a test may last, or until all are there.
    let settings = [
        "answers.share=true",
        "engine.instances=1",
        "batcher.max_batch_size=8",
        "batcher.max_delay_us=1000000",
    ];
    let server = Server::ready(folder.path(), &settings);
    let before = series(&server, "sconce_batch_size_sum");
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| server.predict())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    for (status, body) in &answers {
        assert_eq!(*status, 200, "{body}");
    }
    let computed = series(&server, "sconce_batch_size_sum") - before;
    let shared = series(&server, "sconce_items_shared_total");
    // Those that came within the delay, which is all unless the machine stood still meanwhile.
    assert_eq!(computed + shared, 8);
    assert!(shared > 0, "{computed} computed");
}

#[test]
fn a_kept_answer_is_the_same_until_its_image_is_erased() {
    let folder = models();
    let data = tempfile::tempdir().unwrap();
    let store = format!("store.folder={}", data.path().display());
    let server = Server::ready(folder.path(), &[&store, "answers.cache_bytes=1000000"]);
    let counts = || {
        ["hits_total", "misses_total", "entries"]
            .map(|name| series(&server, &format!("sconce_answer_cache_{name}")))
    };
    let prediction = || {
        let (status, body) = server.predict();
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["predictions"].clone()
    };
    let first = prediction();
    assert_eq!(prediction(), first);
    assert_eq!(counts(), [1, 1, 1]);
    let sha256: String = Sha256::digest(image())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let erase = format!("DELETE /v1/data/{sha256} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (status, body) = server.ask(&erase, &[]);
    assert_eq!(status, 200, "{body}");
    assert_eq!(counts(), [1, 1, 0]);
    assert_eq!(prediction(), first);
    assert_eq!(counts(), [1, 2, 1]);
    // Another image has its own.
    let other = server.ask(&head("/v1/predict", "image/png", 4), b"none");
    assert_eq!(other.0, 415);
    assert_eq!(counts(), [1, 3, 1]);
}
