//! Tests of what a path is taken for.

use crate::dataset::fixture::write;

use super::*;

/// What `part` of a folder with these empty files is, with paths relative to it.
fn detect(files: &[&str], at: &str, part: Part) -> Result<String, String> {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let text = if file.ends_with("csv") { "path,label\n" } else { "" };
        write(&root.path().join(file), text.as_bytes());
    }
    let root = root.path().display().to_string();
    let clean = |text: String| text.replace(&format!("{root}/"), "").replace(&root, "DIR");
    match Source::detect(&Path::new(&root).join(at), part) {
        Ok(Source::Idx { images, labels }) => {
            Ok(clean(format!("idx {} {}", images.display(), labels.display())))
        }
        Ok(Source::ImageFolder(path)) => Ok(clean(format!("folder {}", path.join("").display()))),
        Ok(Source::Csv(path)) => Ok(clean(format!("csv {}", path.display()))),
        Err(error) => Err(clean(error.to_string())),
    }
}

#[track_caller]
fn check(files: &[&str], train: Result<&str, &str>, test: Result<&str, &str>) {
    for (part, expected) in [(Part::Train, train), (Part::Test, test)] {
        let found = detect(files, "", part);
        match (&found, expected) {
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{part:?}: {error}"),
            _ => assert_eq!(
                found,
                expected.map(str::to_owned).map_err(str::to_owned),
                "{part:?}"
            ),
        }
    }
}

#[test]
fn idx_files_are_found_by_their_names() {
    check(
        &[
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte",
            "t10k-images.idx3-ubyte",
            "t10k-labels.idx1-ubyte",
            "t10k-labels-idx1-ubyte.gz",
        ],
        Ok("idx train-images-idx3-ubyte.gz train-labels-idx1-ubyte"),
        Ok("idx t10k-images.idx3-ubyte t10k-labels.idx1-ubyte"),
    );
    check(
        &["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"],
        Ok("idx train-images-idx3-ubyte train-labels-idx1-ubyte.gz"),
        Err("there is no test part: expected t10k-images-idx3-ubyte[.gz]"),
    );
    check(
        &["t10k-labels-idx1-ubyte"],
        Err("there is no train part: expected train-images"),
        Err("expected t10k-images-idx3-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz]; found only t10k-labels"),
    );
}

#[test]
fn folders_have_parts_or_are_one_whole() {
    check(
        &["train/cat/a.png", "test/cat/a.png", "val/cat/a.png"],
        Ok("folder train/"),
        Ok("folder test/"),
    );
    check(
        &["train/cat/a.png", "val/cat/a.png"],
        Ok("folder train/"),
        Ok("folder val/"),
    );
    check(
        &["train/cat/a.png"],
        Ok("folder train/"),
        Err("there is no test part"),
    );
    check(
        &["val/cat/a.png"],
        Err("there is no train part: expected a folder train/"),
        Ok("folder val/"),
    );
    check(
        &["cat/a.png", "dog/b.png"],
        Ok("folder "),
        Err("there is no test part"),
    );
    // Labels that are called as parts are.
    check(
        &["train/a.png", "car/b.png"],
        Ok("folder "),
        Err("there is no test part"),
    );
}

#[test]
fn other_folders_are_refused_with_what_was_found() {
    check(&[".hidden"], Err("no images found"), Err("no images found"));
    let loose = "expected idx files or one folder per label; found 2 other files and no folder";
    check(&["a.png", "b.png"], Err(loose), Err(loose));
}

#[test]
fn files_must_be_csv() {
    assert_eq!(
        detect(&["list.CSV", "list.csv"], "list.csv", Part::Train),
        Ok("csv list.csv".to_owned())
    );
    let error = detect(&["list.csv"], "list.csv", Part::Test).unwrap_err();
    assert!(error.starts_with("list.csv: there is no test part"), "{error}");
    let error = detect(&["a.png"], "a.png", Part::Train).unwrap_err();
    assert!(
        error.starts_with("a.png: is a file: expected a folder"),
        "{error}"
    );
    let error = detect(&["empty.csv.txt"], "gone", Part::Train).unwrap_err();
    assert!(error.starts_with("gone: "), "{error}");
}
