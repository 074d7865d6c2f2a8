//! Labelled image files, listed from a folder or a CSV file.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use super::labels::Label;
use super::{DatasetError, MAX_CSV_BYTES, MAX_IMAGES};

/// A file that should be an image.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) label: Label,
}

/// The columns of a CSV file.
const COLUMNS: [&str; 2] = ["path", "label"];
/// Most characters of other columns that an error repeats.
const MAX_SHOWN: usize = 200;

/// `DIR/<label>/<image>`, by label and file name. Hidden entries and files beside the label folders are passed over.
pub(super) fn folder(folder: &Path) -> Result<Vec<Listed>, DatasetError> {
    let mut listed = Vec::new();
    for (label, path) in children(folder)?.into_iter().filter(|(_, path)| path.is_dir()) {
        for (_, path) in children(&path)? {
            if path.is_dir() {
                let problem =
                    format!("is a folder: images stand directly in the folder of their label '{label}'");
                return Err(DatasetError::format(&path, problem));
            }
            let label = Label::Name(label.clone());
            push(&mut listed, Listed { path, label }, folder)?;
        }
    }
    not_empty(listed, folder)
}

/// The rows of a CSV file, in their order. Paths are relative to the file and stay below its folder.
pub(super) fn csv(file: &Path) -> Result<Vec<Listed>, DatasetError> {
    let base = file.parent().unwrap_or(Path::new(""));
    let mut listed = Vec::new();
    for (row, record) in open_csv(file)?.into_records().enumerate() {
        // The header is row 1.
        let error = |problem: String| DatasetError::format(file, format!("row {}: {problem}", row + 2));
        let record = record.map_err(|e| error(e.to_string()))?;
        let [path, label] = [0, 1].map(|column| record.get(column).unwrap_or_default());
        if path.is_empty() || label.is_empty() {
            return Err(error("path and label must not be empty".to_owned()));
        }
        let stays_below = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(path).components().all(stays_below) {
            return Err(error(format!(
                "path '{path}' must be relative to the CSV file's folder and stay in it"
            )));
        }
        let (path, label) = (base.join(path), Label::Name(label.to_owned()));
        push(&mut listed, Listed { path, label }, file)?;
    }
    not_empty(listed, file)
}

/// A reader behind the header, which must be `path,label`.
pub(super) fn open_csv(path: &Path) -> Result<csv::Reader<impl Read + use<>>, DatasetError> {
    let file = fs::File::open(path).map_err(|e| DatasetError::io(path, e))?;
    let length = file.metadata().map_err(|e| DatasetError::io(path, e))?.len();
    if length > MAX_CSV_BYTES {
        let problem = format!("has {length} bytes; {MAX_CSV_BYTES} are read at most");
        return Err(DatasetError::format(path, problem));
    }
    let mut reader = csv::Reader::from_reader(BufReader::new(file.take(MAX_CSV_BYTES)));
    let header = reader
        .headers()
        .map_err(|e| DatasetError::format(path, e.to_string()))?;
    if *header == COLUMNS[..] {
        return Ok(reader);
    }
    let found = header.iter().collect::<Vec<_>>().join(",");
    // It may be anything, over many lines.
    let found: String = found
        .chars()
        .take(MAX_SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    let problem = format!("expected the header '{}', found '{found}'", COLUMNS.join(","));
    Err(DatasetError::format(path, problem))
}

/// Names and paths of what a folder shows, by name.
pub(super) fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, DatasetError> {
    let io = |e| DatasetError::io(folder, e);
    let mut children = Vec::new();
    for child in fs::read_dir(folder).map_err(io)? {
        let child = child.map_err(io)?;
        let name = child
            .file_name()
            .into_string()
            .map_err(|_| DatasetError::format(&child.path(), "its name is not UTF-8"))?;
        if name.starts_with('.') {
            continue;
        }
        if children.len() == MAX_IMAGES {
            return Err(too_many(folder));
        }
        children.push((name, child.path()));
    }
    children.sort();
    Ok(children)
}

fn push(listed: &mut Vec<Listed>, file: Listed, source: &Path) -> Result<(), DatasetError> {
    if listed.len() == MAX_IMAGES {
        return Err(too_many(source));
    }
    listed.push(file);
    Ok(())
}

fn not_empty(listed: Vec<Listed>, source: &Path) -> Result<Vec<Listed>, DatasetError> {
    if listed.is_empty() {
        return Err(DatasetError::Nothing(source.to_owned()));
    }
    Ok(listed)
}

fn too_many(source: &Path) -> DatasetError {
    DatasetError::format(source, format!("holds more than {MAX_IMAGES} images"))
}

#[cfg(test)]
mod tests;
