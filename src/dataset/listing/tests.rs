//! Tests of folders and CSV files.

use crate::dataset::fixture::write;

use super::*;

fn shown(listed: Result<Vec<Listed>, DatasetError>, root: &Path) -> Result<Vec<(String, Label)>, String> {
    let relative = |file: Listed| {
        let path = file.path.strip_prefix(root).unwrap().display().to_string();
        (path, file.label)
    };
    let listed = listed.map_err(|e| e.to_string())?;
    Ok(listed.into_iter().map(relative).collect())
}

fn labelled(files: &[(&str, &str)]) -> Vec<(String, Label)> {
    let each = files
        .iter()
        .map(|&(path, label)| (path.to_owned(), Label::Name(label.to_owned())));
    each.collect()
}

#[test]
fn a_folder_is_listed_by_label_and_name() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "dog/b.png",
        "dog/a",
        "cat/9.jpg",
        "cat/10.jpg",
        "cat/.DS_Store",
        "README",
        ".git/x",
    ] {
        write(&root.path().join(file), b"");
    }
    fs::create_dir(root.path().join("empty")).unwrap();
    let expected = [
        ("cat/10.jpg", "cat"),
        ("cat/9.jpg", "cat"),
        ("dog/a", "dog"),
        ("dog/b.png", "dog"),
    ];
    assert_eq!(shown(folder(root.path()), root.path()), Ok(labelled(&expected)));
    write(&root.path().join("cat/young/c.png"), b"");
    let error = shown(folder(root.path()), root.path()).unwrap_err();
    assert!(error.ends_with("young: is a folder: images stand directly in the folder of their label 'cat'"));
}

#[test]
fn csv_rows_are_files_below_its_folder_or_errors() {
    let root = tempfile::tempdir().unwrap();
    let check = |text: &str, expected: Result<&[(&str, &str)], &str>| {
        let file = root.path().join("list.csv");
        write(&file, text.as_bytes());
        match (shown(csv(&file), root.path()), expected) {
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{text:?}: {error}"),
            (found, expected) => assert_eq!(found, expected.map(labelled).map_err(str::to_owned), "{text:?}"),
        }
    };
    check(
        "path,label\nb.png,cat\na/a.png,dog\n",
        Ok(&[("b.png", "cat"), ("a/a.png", "dog")]),
    );
    check("\u{feff}path,label\r\n./a.png,cat\r\n", Ok(&[("a.png", "cat")]));
    check(
        "path,label\n\"a, \"\"b\"\".png\",\"T-shirt, top\"\n",
        Ok(&[("a, \"b\".png", "T-shirt, top")]),
    );
    check("", Err("expected the header 'path,label', found ''"));
    check(
        "a.png,cat\n",
        Err("expected the header 'path,label', found 'a.png,cat'"),
    );
    check("path,label,split\n", Err("found 'path,label,split'"));
    check("path,\"la\nbel\"\na.png,cat\n", Err("found 'path,la\\nbel'"));
    check("path,label\n", Err("no images found"));
    check("path,label\na.png\n", Err("row 2:"));
    check(
        "path,label\na.png,cat\n,cat\n",
        Err("row 3: path and label must not be empty"),
    );
    for outside in ["/etc/passwd", "../a.png", "a/../../b.png", "a/.."] {
        let expected = format!("row 2: path '{outside}' must be relative");
        check(&format!("path,label\n{outside},cat\n"), Err(&expected));
    }
}
