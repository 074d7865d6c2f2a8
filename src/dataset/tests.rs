//! Tests of reading, de-duplicating and splitting.

use proptest::prelude::*;

use super::fixture::{LIMITS, png, spec, write, write_idx};
use super::*;

fn read(path: &Path) -> Result<Dataset, DatasetError> {
    Dataset::read(&Source::detect(path, Part::Train)?, &spec(), &LIMITS)
}

/// A dataset of which only hashes and labels matter.
fn hashed(pairs: &[([u8; 32], u32)]) -> Dataset {
    let input = Input {
        channels: 1,
        height: 1,
        width: 1,
    };
    Dataset {
        input,
        tensors: vec![0.0; pairs.len()],
        labels: pairs.iter().map(|pair| pair.1).collect(),
        hashes: pairs.iter().map(|pair| pair.0).collect(),
        classes: 10,
        dropped: Dropped::default(),
    }
}

#[test]
fn idx_images_become_tensors_with_the_hash_of_their_pixels() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), &[(255, 1), (51, 0)]);
    let data = read(folder.path()).unwrap();
    assert_eq!((data.len(), data.classes, &data.labels[..]), (2, 2, &[1, 0][..]));
    assert_eq!(data.tensor(0), [1.0; 4]);
    assert_eq!(data.tensor(1), [0.2; 4]);
    let expected: [u8; 32] = Sha256::digest([51; 4]).into();
    assert_eq!(data.hashes[1], expected);
}

#[test]
fn folders_and_csv_files_give_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(&root.join("images/dog/a.png"), &png(2, 2, 255));
    write(&root.join("images/cat/b.png"), &png(2, 2, 51));
    write(
        &root.join("list.csv"),
        b"path,label\nimages/dog/a.png,dog\nimages/cat/b.png,cat\n",
    );
    let (of_folder, of_csv) = (
        read(&root.join("images")).unwrap(),
        read(&root.join("list.csv")).unwrap(),
    );
    assert_eq!(of_folder.labels, [0, 1], "by label");
    assert_eq!(of_csv.labels, [1, 0], "in the order of the file");
    assert_eq!(of_folder.tensor(1), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(of_folder.tensor(1), of_csv.tensor(0));
    assert_eq!(of_folder.sha256(), of_csv.sha256());
    let expected: [u8; 32] = Sha256::digest(png(2, 2, 255)).into();
    assert_eq!(of_csv.hashes[0], expected);
}

#[test]
fn an_image_of_another_size_is_resized_as_in_serving() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = png(6, 4, 200);
    write(&folder.path().join("cat/a.png"), &bytes);
    let pixels = crate::preprocess::decode(&bytes, &LIMITS).unwrap();
    let expected = Preprocessor::new(Arc::new(spec())).tensor(pixels).unwrap();
    assert_eq!(read(folder.path()).unwrap().tensors, expected);
}

#[test]
fn copies_are_left_out_and_counted_in_any_order() {
    // Image 1 three times as a cat; image 2 as a cat, a dog and a cat; images 3 and 4 once.
    let images = [(1, 0), (2, 0), (1, 0), (3, 1), (2, 1), (1, 0), (4, 0), (2, 0)];
    let kept = [(1, 0), (3, 1), (4, 0)];
    for turn in 0..images.len() {
        let folder = tempfile::tempdir().unwrap();
        let mut images = images;
        images.rotate_left(turn);
        write_idx(folder.path(), &images);
        let data = read(folder.path()).unwrap();
        let dropped = Dropped {
            duplicates: 2,
            conflicting: 3,
        };
        assert_eq!(data.dropped, dropped, "turned by {turn}");
        let mut found: Vec<(u8, u32)> = (0..data.len())
            .map(|i| ((data.tensor(i)[3] * 255.0).round() as u8, data.labels[i]))
            .collect();
        found.sort_unstable();
        assert_eq!(found, kept, "turned by {turn}");
        assert_eq!(data.hashes.len(), data.len());
    }
}

#[test]
fn a_path_of_several_lines_is_told_on_one() {
    let error = DatasetError::format(Path::new("a\nb.png"), "it is none");
    assert_eq!(error.to_string(), "a\u{fffd}b.png: it is none");
}

#[test]
fn what_cannot_be_read_is_named() {
    let check = |files: &[(&str, &[u8])], expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            write(&folder.path().join(name), bytes);
        }
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let image = png(2, 2, 1);
    check(
        &[("cat/a.png", &image), ("dogg/b.png", &image)],
        "b.png: 'dogg' is not a label of the model; did you mean 'dog'?",
    );
    check(&[("cat/a.png", b"text")], "a.png: the bytes are none of PNG");
    check(
        &[("cat/a.png", &image[..image.len() - 20])],
        "a.png: the image is broken",
    );
    check(&[("cat/a.png", &png(65, 2, 1))], "a.png: the image is too large");
    check(&[("cat/.hidden", &image)], "no images found");
}

#[test]
fn a_class_the_model_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), &[(1, 0), (2, 2)]);
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("train-labels-idx1-ubyte: label of image 1: class 2"),
        "{error}"
    );
}

#[test]
fn too_many_tensors_for_the_memory_are_refused() {
    let large = Input {
        channels: 3,
        height: 4096,
        width: 4096,
    };
    let source = Source::ImageFolder("photos".into());
    assert!(check_memory(&source, 85, large).is_ok());
    let error = check_memory(&source, 86, large).unwrap_err().to_string();
    assert!(
        error.starts_with("photos: 86 tensors take 17314086912 bytes"),
        "{error}"
    );
}

#[test]
fn the_hold_out_is_the_whole_hash_modulo_ten() {
    // Python: [i for i in range(1000) if int(hashlib.sha256(b"%d" % i).hexdigest(), 16) % 10 == 0]
    let hash = |text: &str| Sha256::digest(text).into();
    let held = (0..1000).filter(|i: &u32| is_held_out(&hash(&i.to_string())));
    assert_eq!(held.clone().take(4).collect::<Vec<_>>(), [18, 72, 74, 87]);
    assert_eq!(held.count(), 94);
}

#[test]
fn the_sha256_of_data_is_that_of_their_sorted_pairs() {
    let data = hashed(&[([7; 32], 1), ([3; 32], 258)]);
    let expected = [&[3; 32][..], &[0, 0, 1, 2], &[7; 32], &[0, 0, 0, 1]].concat();
    assert_eq!(data.sha256(), hex(&Sha256::digest(expected)));
    assert_eq!(data.sha256().len(), 64);
}

proptest! {
    #[test]
    fn an_image_never_crosses_over(
        mut pairs in prop::collection::vec((any::<[u8; 32]>(), 0u32..10), 0..60), other in any::<prop::sample::Index>()
    ) {
        let held = |pairs: &[([u8; 32], u32)]| {
            let data = hashed(pairs);
            let split = data.split();
            let mut all = [split.train.clone(), split.hold_out.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..pairs.len()).collect::<Vec<_>>());
            assert!(split.train.is_sorted() && split.hold_out.is_sorted());
            let mut hashes: Vec<_> = split.hold_out.iter().map(|&i| data.hashes[i]).collect();
            hashes.sort_unstable();
            (hashes, data.sha256())
        };
        let (all, sha256) = held(&pairs);
        pairs.reverse();
        prop_assert_eq!(&held(&pairs), &(all.clone(), sha256.clone()));
        // Taking images away moves none of the others.
        let cut = other.index(pairs.len() + 1);
        let (part, part_sha256) = held(&pairs[..cut]);
        let kept = |hash: &&[u8; 32]| pairs[..cut].iter().any(|pair| pair.0 == **hash);
        prop_assert_eq!(part, all.iter().filter(kept).copied().collect::<Vec<_>>());
        prop_assert_eq!(part_sha256 == sha256, cut == pairs.len());
    }
}
