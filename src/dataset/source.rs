//! What a path given by a person holds.

use std::fs;
use std::path::{Path, PathBuf};

use super::listing::{self, children};
use super::{DatasetError, Part, Source};

const IDX_TRAIN: &str = "train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]";
const IDX_TEST: &str = "t10k-images-idx3-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz]";
/// Names of the parts' folders, by preference.
const FOLDERS_TRAIN: &[&str] = &["train"];
const FOLDERS_TEST: &[&str] = &["test", "val"];

impl Source {
    /// Finds out what `path` holds (a folder with idx files, an ImageFolder, a CSV file).
    ///
    /// A folder has parts when its `train`, `test` or `val` hold folders themselves. Data without parts are all
    /// [`Part::Train`]: asking them for a test part is an error, so that nothing is tested on what it was trained on.
    pub fn detect(path: &Path, part: Part) -> Result<Self, DatasetError> {
        let metadata = fs::metadata(path).map_err(|e| DatasetError::io(path, e))?;
        if !metadata.is_dir() {
            return csv_file(path, part);
        }
        let children = children(path)?;
        match idx_files(path, &children, part)? {
            Some(source) => Ok(source),
            None => image_folder(path, children, part),
        }
    }

    /// The file or folder that stands for it in messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Idx { images: path, .. } | Self::ImageFolder(path) | Self::Csv(path) => path,
        }
    }
}

fn csv_file(path: &Path, part: Part) -> Result<Source, DatasetError> {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        let problem = "is a file: expected a folder with idx files or one folder per label, or a .csv file";
        return Err(DatasetError::format(path, problem));
    }
    listing::open_csv(path)?;
    if part == Part::Test {
        return Err(no_part(path, part, "a CSV file of its own for each part"));
    }
    Ok(Source::Csv(path.to_owned()))
}

/// The idx files of a part; `None` where the folder has no idx files at all.
fn idx_files(
    path: &Path,
    children: &[(String, PathBuf)],
    part: Part,
) -> Result<Option<Source>, DatasetError> {
    let (mine, other, expected) = match part {
        Part::Train => ("train", "t10k", IDX_TRAIN),
        Part::Test => ("t10k", "train", IDX_TEST),
    };
    match idx_pair(children, mine) {
        [Some(images), Some(labels)] => Ok(Some(Source::Idx { images, labels })),
        [None, None] if idx_pair(children, other) == [None, None] => Ok(None),
        [None, None] => Err(no_part(path, part, expected)),
        [Some(found), None] | [None, Some(found)] => {
            let problem = format!("expected {expected}; found only {}", found.display());
            Err(DatasetError::format(path, problem))
        }
    }
}

/// Images and labels files of a part, under LeCun's names or with the dot that some mirrors write; plain before .gz.
fn idx_pair(children: &[(String, PathBuf)], part: &str) -> [Option<PathBuf>; 2] {
    [("images", 3), ("labels", 1)].map(|(what, dimensions)| {
        let names = ["", ".gz"]
            .into_iter()
            .flat_map(|end| ["-", "."].map(|mark| format!("{part}-{what}{mark}idx{dimensions}-ubyte{end}")));
        let mut found = names.filter_map(|name| children.iter().find(|(child, _)| *child == name));
        found.next().map(|(_, path)| path.clone())
    })
}

fn image_folder(path: &Path, children: Vec<(String, PathBuf)>, part: Part) -> Result<Source, DatasetError> {
    let all = children.len();
    let folders: Vec<_> = children.into_iter().filter(|(_, path)| path.is_dir()).collect();
    if folders.is_empty() {
        return Err(match all {
            0 => DatasetError::Nothing(path.to_owned()),
            _ => DatasetError::format(
                path,
                format!("expected idx files or one folder per label; found {all} other files and no folder"),
            ),
        });
    }
    let (wanted, expected) = match part {
        Part::Train => (FOLDERS_TRAIN, "a folder train/"),
        Part::Test => (FOLDERS_TEST, "a folder test/ or val/"),
    };
    let find = |name: &&str| Some(&folders.iter().find(|(child, _)| child == name)?.1);
    let parts = [FOLDERS_TRAIN, FOLDERS_TEST].concat();
    let mut has_parts = false;
    for folder in parts.iter().filter_map(find) {
        has_parts |= listing::children(folder)?.iter().any(|(_, path)| path.is_dir());
    }
    match wanted.iter().find_map(find) {
        Some(folder) if has_parts => Ok(Source::ImageFolder(folder.clone())),
        None if has_parts => Err(no_part(path, part, expected)),
        _ if part == Part::Test => Err(no_part(path, part, expected)),
        _ => Ok(Source::ImageFolder(path.to_owned())),
    }
}

fn no_part(path: &Path, part: Part, expected: &'static str) -> DatasetError {
    DatasetError::NoPart {
        path: path.to_owned(),
        part,
        expected,
    }
}

#[cfg(test)]
mod tests;
