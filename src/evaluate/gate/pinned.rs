//! Images that every version must answer right.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::EvaluateError;
use super::super::numbers::{counted, percent};
use super::super::scores::top_1;
use crate::dataset::MAX_FILE_BYTES;
use crate::engine::Plan;
use crate::model::Spec;
use crate::postprocess::softmax;
use crate::preprocess::{Limits, Preprocessor, decode};

/// Most pinned images.
const MAX_PINNED: usize = 10_000;
/// Wrong answers that a reason names; the verdict has all.
const NAMED: usize = 5;

/// What became of the pinned images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Images.
    pub n: usize,
    /// Those that the challenger answers wrong, by file.
    pub wrong: Vec<Missed>,
}

/// A pinned image with a wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missed {
    /// `LABEL/FILE`.
    pub file: String,
    /// Its class.
    pub label: String,
    /// The class that the challenger gives.
    pub answer: String,
    /// The challenger's probability of that.
    pub probability: f64,
}

/// Asks a plan for each image of `folder/<label>/`, whatever its format; none where there is no such folder. The folder is
/// a person's: a label that is no class, a file that is no image, and more than 10,000 of them are errors.
pub fn pinned(
    plan: &Plan,
    spec: &Spec,
    folder: &Path,
    limits: &Limits,
) -> Result<Option<Pinned>, EvaluateError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let preprocessor = Preprocessor::new(Arc::new(spec.clone()));
    let mut pinned = Pinned {
        n: 0,
        wrong: Vec::new(),
    };
    for (class, path) in files(folder, spec)? {
        let row = answer(plan, &preprocessor, &path, limits)?;
        let answer = top_1(&row);
        pinned.n += 1;
        if answer != class {
            pinned.wrong.push(Missed {
                file: path.strip_prefix(folder).unwrap_or(&path).display().to_string(),
                label: spec.labels[class].clone(),
                answer: spec.labels[answer].clone(),
                probability: row[answer],
            });
        }
    }
    Ok(Some(pinned))
}

/// The images with their classes, by path.
fn files(folder: &Path, spec: &Spec) -> Result<Vec<(usize, PathBuf)>, EvaluateError> {
    let mut files = Vec::new();
    for (name, path) in children(folder)? {
        let class = spec.labels.iter().position(|label| *label == name);
        let class = class.ok_or_else(|| unreadable(&path, "is no class of the model"))?;
        files.extend(children(&path)?.into_iter().map(|(_, path)| (class, path)));
        if files.len() > MAX_PINNED {
            return Err(unreadable(folder, format!("holds more than {MAX_PINNED} images")));
        }
    }
    files.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(files)
}

/// Names and paths, but for hidden ones.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, EvaluateError> {
    let mut children = Vec::new();
    for child in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let child = child.map_err(|e| unreadable(folder, e))?;
        let name = child.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            children.push((name, child.path()));
        }
    }
    Ok(children)
}

fn answer(
    plan: &Plan,
    preprocessor: &Preprocessor,
    path: &Path,
    limits: &Limits,
) -> Result<Vec<f64>, EvaluateError> {
    let file = fs::File::open(path).map_err(|e| unreadable(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(path, e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(path, format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let pixels = decode(&bytes, limits).map_err(|e| unreadable(path, e))?;
    let input = preprocessor.tensor(pixels).map_err(|e| unreadable(path, e))?;
    let mut logits = Vec::new();
    plan.run(&input, 1, &mut logits)?;
    softmax(&logits).map_err(|_| unreadable(path, "has an answer that is not finite"))
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn unreadable(path: &Path, problem: impl ToString) -> EvaluateError {
    EvaluateError::Pinned {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

impl Pinned {
    pub(super) fn failure(&self) -> Option<String> {
        let named = self.wrong.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|missed| {
                format!(
                    "{} ({}, {})",
                    missed.file,
                    missed.answer,
                    percent(missed.probability)
                )
            })
            .collect();
        let rest = match self.wrong.len().saturating_sub(NAMED) {
            0 => String::new(),
            rest => format!(" and {rest} more"),
        };
        (!self.wrong.is_empty()).then(|| {
            format!(
                "it answers {} of {} wrong: {}{rest}",
                self.wrong.len(),
                counted(self.n, "pinned image", "pinned images"),
                named.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::Device;
    use crate::model::{Version, Weights};

    fn spec() -> Spec {
        let text = "architecture = 'small-cnn'\nlabels = ['a', 'b', 'c']\n\
                    input = { channels = 1, height = 8, width = 8 }";
        Spec::parse(text).unwrap()
    }

    fn save(folder: &Path, label: &str, level: u8) {
        let folder = folder.join(label);
        fs::create_dir_all(&folder).unwrap();
        let image = image::GrayImage::from_pixel(8, 8, image::Luma([level]));
        image.save(folder.join(format!("{level}.png"))).unwrap();
    }

    #[test]
    fn each_wrong_answer_is_named() {
        let (spec, folder) = (spec(), tempfile::tempdir().unwrap());
        let graph = spec.graph().unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        let plan = Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap();
        let ask = || pinned(&plan, &spec, folder.path(), &Limits::default());
        for label in ["a", "b", "c"] {
            save(folder.path(), label, 200);
        }
        // The same image under three labels: two of them are wrong.
        let found = ask().unwrap().unwrap();
        assert_eq!((found.n, found.wrong.len()), (3, 2));
        let told = found.failure().unwrap();
        assert!(
            told.starts_with("it answers 2 of 3 pinned images wrong: "),
            "{told}"
        );
        assert!(
            found
                .wrong
                .iter()
                .all(|missed| told.contains(&missed.file) && missed.label != missed.answer)
        );
        save(folder.path(), "d", 0);
        let error = ask().unwrap_err().to_string();
        assert!(error.ends_with("d: is no class of the model"), "{error}");
        let nothing = pinned(&plan, &spec, &folder.path().join("none"), &Limits::default());
        assert_eq!(nothing.unwrap(), None);
    }
}
