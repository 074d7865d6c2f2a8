//! Tests of the idx reader, whole and broken.

use crate::dataset::fixture::{LIMITS, gzip, idx, write};

use super::*;

const PIXELS: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

fn images() -> Vec<u8> {
    idx(IMAGES_MAGIC, &[2, 3, 2], &PIXELS)
}

fn labels() -> Vec<u8> {
    idx(LABELS_MAGIC, &[2], &[7, 0])
}

fn read(images: &[u8], labels: &[u8]) -> Result<Vec<Sample>, DatasetError> {
    let folder = tempfile::tempdir().unwrap();
    let [images_path, labels_path] = ["images", "labels"].map(|name| folder.path().join(name));
    write(&images_path, images);
    write(&labels_path, labels);
    Reader::open(&images_path, &labels_path, &LIMITS)?.collect()
}

#[test]
fn plain_and_packed_files_give_the_same_images() {
    for (images, labels) in [
        (images(), labels()),
        (gzip(&images()), labels()),
        (gzip(&images()), gzip(&labels())),
    ] {
        let samples = read(&images, &labels).unwrap();
        assert_eq!(samples.len(), 2);
        let image = samples[1].image.as_ref().unwrap();
        assert_eq!((image.pixels.width, image.pixels.height), (2, 3));
        assert_eq!(image.pixels.bytes, PIXELS[6..]);
        assert!(samples[1].place.to_string_lossy().ends_with("images#1"));
        assert_eq!(
            samples.iter().map(|s| s.label.clone()).collect::<Vec<_>>(),
            [Label::Class(7), Label::Class(0)]
        );
    }
}

#[test]
fn broken_files_say_what_is_wrong() {
    let check = |images: &[u8], labels: &[u8], expected: &str| {
        let error = match read(images, labels) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("read, but should say: {expected}"),
        };
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    };
    let (good, good_labels) = (images(), labels());
    check(b"", &good_labels, "images: ends early");
    check(&good[..9], &good_labels, "images: ends early");
    check(&good[..27], &good_labels, "declares 28 bytes, the file has 27");
    check(
        &[&good[..], &[0]].concat(),
        &good_labels,
        "declares 28 bytes, the file has 29",
    );
    check(&good, &good_labels[..9], "declares 10 bytes, the file has 9");
    check(
        &good_labels,
        &good_labels,
        "begins with 0x00000801; expected 0x00000803",
    );
    check(
        &good,
        &good,
        "labels: is no such idx file: begins with 0x00000803; expected 0x00000801",
    );
    check(
        &good,
        &idx(LABELS_MAGIC, &[3], &[0; 3]),
        "labels: declares 3 labels",
    );
    check(
        &idx(IMAGES_MAGIC, &[0, 3, 2], &[]),
        &good_labels,
        "declares 0 images",
    );
    check(
        &idx(IMAGES_MAGIC, &[u32::MAX, 3, 2], &[]),
        &good_labels,
        "declares 4294967295 images",
    );
    check(&idx(IMAGES_MAGIC, &[2, 0, 2], &[]), &good_labels, "no pixels");
    check(
        &idx(IMAGES_MAGIC, &[2, u32::MAX, u32::MAX], &[]),
        &good_labels,
        "too large",
    );
}

#[test]
fn broken_packing_says_what_is_wrong() {
    let check = |images: &[u8], expected: &str| {
        let error = read(images, &labels()).err().unwrap().to_string();
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    };
    let packed = gzip(&images());
    check(&packed[..packed.len() - 12], "ends early");
    check(&packed[..packed.len() - 2], "ends early");
    let mut wrong_sum = packed.clone();
    wrong_sum[packed.len() - 6] ^= 1;
    check(&wrong_sum, "is not valid gzip");
    check(&gzip(&images()[..20]), "ends early");
    check(
        &gzip(&[&images()[..], &[0]].concat()),
        "more bytes than its header declares",
    );
    // A small file that declares much: refused before memory is taken for it.
    check(
        &gzip(&idx(IMAGES_MAGIC, &[9_999_999, 64, 64], &PIXELS)),
        "its header declares 40959995920 bytes, the file has",
    );
}

#[test]
fn a_bomb_is_read_no_further_than_its_header_declares() {
    let bomb = gzip(&[images(), vec![0; 50 << 20]].concat());
    let error = read(&bomb, &labels()).err().unwrap().to_string();
    assert!(error.contains("more bytes than its header declares"), "{error}");
}

#[test]
fn nothing_follows_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let [images_path, labels_path] = ["images", "labels"].map(|name| folder.path().join(name));
    write(&images_path, &gzip(&images()[..20]));
    write(&labels_path, &labels());
    let mut reader = Reader::open(&images_path, &labels_path, &LIMITS).unwrap();
    assert!(reader.next().is_some_and(|sample| sample.is_err()));
    assert!(reader.next().is_none());
}
