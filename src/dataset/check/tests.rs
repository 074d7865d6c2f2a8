//! Tests of the report.

use std::path::Path;

use crate::dataset::fixture::{LIMITS, png, spec, write, write_idx};
use crate::dataset::{Dataset, Part};

use super::*;

fn report(folder: &Path, spec: Option<&Spec>) -> Report {
    check(&Source::detect(folder, Part::Train).unwrap(), spec, &LIMITS).unwrap()
}

/// A folder with one of everything.
fn mixed(root: &Path) {
    write(&root.join("cat/a.png"), &png(2, 2, 10));
    write(&root.join("cat/a-again.png"), &png(2, 2, 10));
    write(&root.join("cat/b.png"), &png(2, 2, 20));
    write(&root.join("cat/both.png"), &png(2, 2, 30));
    write(&root.join("dgo/both.png"), &png(2, 2, 30));
    write(&root.join("dgo/wide.png"), &png(9, 2, 40));
    write(&root.join("dgo/black.png"), &png(2, 2, 0));
    write(&root.join("dgo/text.png"), b"text");
}

#[test]
fn everything_is_reported_and_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    mixed(root);
    for spec in [None, Some(&spec())] {
        let report = report(root, spec);
        assert_eq!((report.images, report.distinct), (8, 4));
        let undecodable = Undecodable {
            image: root.join("dgo/text.png"),
            problem: "the bytes are none of PNG, JPEG, WebP, BMP and GIF".to_owned(),
        };
        assert_eq!(report.undecodable, [undecodable]);
        assert_eq!(report.expected_size, Some((2, 2)));
        let wide = WrongSize {
            image: root.join("dgo/wide.png"),
            width: 9,
            height: 2,
        };
        assert_eq!(report.wrong_size, [wide]);
        assert_eq!(report.blank, [root.join("dgo/black.png")]);
        let members = |groups: &[Group]| {
            let each = groups.iter().flat_map(|group| &group.images);
            each.map(|i| {
                (
                    i.image.strip_prefix(root).unwrap().display().to_string(),
                    i.label.clone(),
                )
            })
            .collect::<Vec<_>>()
        };
        let named = |pairs: [(&str, &str); 2]| pairs.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(
            members(&report.duplicates),
            named([("cat/a-again.png", "cat"), ("cat/a.png", "cat")])
        );
        assert_eq!(
            members(&report.conflicting),
            named([("cat/both.png", "cat"), ("dgo/both.png", "dgo")])
        );
        let count = |label: &str, images| ClassCount {
            label: label.to_owned(),
            images,
        };
        if spec.is_some() {
            assert_eq!(
                report.classes,
                [count("cat", 4), count("dog", 0), count("dgo", 4)]
            );
            assert_eq!(
                report.unknown_labels,
                ["'dgo' is not a label of the model; did you mean 'dog'?"]
            );
        } else {
            assert_eq!(report.classes, [count("cat", 4), count("dgo", 4)]);
            assert!(report.unknown_labels.is_empty());
        }
    }
}

#[test]
fn the_report_agrees_with_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<(u8, u8)> = (0..=255).map(|i| (i / 2 * 2, u8::from(i % 3 == 0))).collect();
    write_idx(folder.path(), &images);
    let report = report(folder.path(), Some(&spec()));
    let source = Source::detect(folder.path(), Part::Train).unwrap();
    let data = Dataset::read(&source, &spec(), &LIMITS).unwrap();
    assert!(data.dropped.duplicates > 0 && data.dropped.conflicting > 0);
    let copies = |groups: &[Group]| groups.iter().map(|group| group.images.len()).sum::<usize>();
    assert_eq!(report.distinct, data.len());
    assert_eq!(report.hold_out, data.split().hold_out.len());
    assert_eq!(copies(&report.conflicting), data.dropped.conflicting);
    assert_eq!(
        copies(&report.duplicates) - report.duplicates.len(),
        data.dropped.duplicates
    );
    assert_eq!(report.blank.len(), report.images);
    assert_eq!(report.classes[0].label, "cat");
}

#[test]
fn only_what_harms_training_is_an_objection() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    mixed(root);
    let text = "undecodable images: 1, images under conflicting labels: 1";
    assert_eq!(report(root, None).objection().as_deref(), Some(text));
    let text = format!("{text}, labels that the model does not have: 1");
    assert_eq!(report(root, Some(&spec())).objection(), Some(text));
    std::fs::remove_file(root.join("dgo/text.png")).unwrap();
    std::fs::remove_file(root.join("dgo/both.png")).unwrap();
    assert_eq!(report(root, None).objection(), None);
}

#[test]
fn the_text_is_cut_and_the_json_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..15 {
        write(&folder.path().join(format!("cat/{number:02}.png")), b"text");
    }
    for number in 0..6 {
        write(&folder.path().join(format!("dog/{number}.png")), &png(2, 2, 10));
    }
    let report = report(folder.path(), None);
    let text = report.text();
    assert!(text.starts_with("21 images, 1 distinct, "), "{text}");
    assert!(
        text.contains("undecodable: 15\n") && text.contains("\n  and 5 more\n"),
        "{text}"
    );
    assert!(
        text.contains("09.png: the bytes") && !text.contains("10.png"),
        "{text}"
    );
    assert!(text.contains("3.png (dog) and 2 more\n"), "{text}");
    assert!(text.contains("\n        15  cat\n         6  dog\n"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["undecodable"].as_array().unwrap().len(), 15);
    assert_eq!(json["duplicates"][0]["images"].as_array().unwrap().len(), 6);
}

#[test]
fn a_blank_image_has_one_colour() {
    let check = |channels: u8, bytes: &[u8], expected: bool| {
        let pixels = Pixels {
            width: bytes.len() as u32 / u32::from(channels),
            height: 1,
            channels,
            bytes: bytes.to_vec(),
        };
        assert_eq!(is_blank(&pixels), expected, "{bytes:?}");
    };
    check(1, &[5, 5, 5], true);
    check(1, &[5, 5, 6], false);
    check(3, &[1, 2, 3, 1, 2, 3], true);
    check(3, &[1, 2, 3, 1, 2, 4], false);
}
