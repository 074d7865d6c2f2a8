//! What was erased is nowhere on the disk.

use std::fs;

use super::disk::files;
use super::*;

/// Names of the store's files that hold these bytes, or have them in their name.
fn holding(folder: &Path, sought: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(folder) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let held = fs::read(&file).unwrap();
        let is_in = |bytes: &[u8]| bytes.windows(sought.len()).any(|window| window == sought);
        if is_in(name.as_bytes()) || is_in(&held) {
            found.push(name);
        }
    }
    found
}

#[tokio::test]
async fn what_was_erased_is_in_no_file() {
    let (folder, store) = store().await;
    let image = "an image that nobody else has";
    let sha256 = Digest::of(image.as_bytes());
    store.keep(&kept("first-id-0", image)).await.unwrap();
    store.keep(&kept("other-id-0", "other")).await.unwrap();
    store
        .sample(&sample(image, 1, "first-source"), &classes(), NOW)
        .await
        .unwrap();
    store
        .feedback(&[by_id("first-id-0", 2, "second-source")], &classes(), NOW)
        .await
        .unwrap();
    let decision = Decision {
        model: model(),
        sha256,
        label: Some(1),
        source: key("a-person"),
        key: None,
    };
    assert!(store.resolve(&decision, 10, NOW).await.unwrap());
    let everything = [image, "first-id-0", "first-source", "second-source", "a-person"];
    for text in everything {
        assert!(!holding(folder.path(), text.as_bytes()).is_empty(), "{text}");
    }
    store.erase(&sha256, NOW).await.unwrap();
    for text in everything {
        assert_eq!(holding(folder.path(), text.as_bytes()), [""; 0], "{text}");
    }
    // Only the note that it is to be refused.
    let sha256 = sha256.to_string();
    assert_eq!(holding(folder.path(), sha256.as_bytes()), ["store.sqlite"]);
    assert_eq!(
        holding(folder.path(), b"other-id-0"),
        ["store.sqlite"],
        "the others are still there"
    );
}
