//! Labelled images: read, checked, de-duplicated, split by hash.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::{Input, Spec};
use crate::preprocess::{ImageError, Limits};

pub mod augment;
pub mod batches;
pub mod check;

pub use batches::{Batch, Batches};

/// Labelled images as tensors, in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Shape of each tensor.
    pub input: Input,
    /// Tensors end to end, as `preprocess` makes them.
    pub tensors: Vec<f32>,
    /// Class of each.
    pub labels: Vec<u32>,
    /// sha256 of each image: of the file's bytes, or of an idx image's pixels.
    pub hashes: Vec<[u8; 32]>,
    /// Classes, from the spec.
    pub classes: usize,
}

/// The two sides of [`Dataset::split`]: indices, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// For training.
    pub train: Vec<usize>,
    /// Never trained on: sha256 mod 10 = 0.
    pub hold_out: Vec<usize>,
}

/// Where labelled images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An images idx file and its labels, each plain or .gz.
    Idx {
        /// `train-images-idx3-ubyte[.gz]`
        images: PathBuf,
        /// `train-labels-idx1-ubyte[.gz]`
        labels: PathBuf,
    },
    /// `DIR/<label>/<image>`.
    ImageFolder(PathBuf),
    /// A CSV file with a header and the columns `path,label`; paths relative to the file.
    Csv(PathBuf),
}

/// Which part of a data folder is wanted, where it has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// `train-…` of idx, `train/` of a folder, the whole where there are no parts.
    Train,
    /// `t10k-…` of idx, `test/` or `val/` of a folder.
    Test,
}

/// Why data could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An image of it cannot be read.
    #[error("{path}: {source}")]
    Image {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// Nothing to read there.
    #[error("{0}: no images found: expected idx files, one folder per label, or a CSV file with path,label")]
    Nothing(PathBuf),
}

impl Source {
    /// Finds out what `path` holds (a folder with idx files, an ImageFolder, a CSV file).
    pub fn detect(_path: &Path, _part: Part) -> Result<Self, DatasetError> {
        todo!()
    }
}

impl Dataset {
    /// Reads every image of `source` through the preprocessing of `spec`; labels must be among the spec's.
    pub fn read(_source: &Source, _spec: &Spec, _limits: &Limits) -> Result<Self, DatasetError> {
        todo!()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The tensor of image `index`.
    pub fn tensor(&self, index: usize) -> &[f32] {
        &self.tensors[index * self.input.len()..][..self.input.len()]
    }

    /// Training and hold-out indices by hash of the image.
    pub fn split(&self) -> Split {
        todo!()
    }

    /// sha256 over all (hash, label) pairs in ascending order: the same data in any order give the same, lower-case hex.
    pub fn sha256(&self) -> String {
        todo!()
    }
}
