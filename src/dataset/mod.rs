//! Labelled images: read, checked, de-duplicated, split by hash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::model::text::on_one_line;
use crate::model::{Input, Spec};
use crate::preprocess::{ImageError, Limits, Preprocessor};

pub mod augment;
pub mod batches;
pub mod check;
mod gather;
mod idx;
mod labels;
mod listing;
mod samples;
mod select;
mod source;

use gather::Gathered;
use labels::Labels;
use samples::Samples;

pub use batches::{Batch, Batches};

/// Most images one source may hold.
pub const MAX_IMAGES: usize = 10_000_000;
/// Most bytes all tensors of a dataset may take in memory.
pub const MAX_TENSOR_BYTES: u64 = 16 << 30;
/// Largest image file that is read.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Largest CSV file that is read.
pub const MAX_CSV_BYTES: u64 = 1 << 30;

/// Labelled images as tensors, in memory. No image stands in it twice.
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
    /// What was left out when it was read.
    pub dropped: Dropped,
}

/// Images that [`Dataset::read`] left out, whatever order they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Further copies of an image that is kept: same sha256, same label.
    pub duplicates: usize,
    /// Every copy of an image that stands under different labels: nobody knows which is right.
    pub conflicting: usize,
}

/// The two sides of [`Dataset::split`]: indices, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// For training.
    pub train: Vec<usize>,
    /// Never trained on: sha256 mod 10 = 0.
    pub hold_out: Vec<usize>,
}

/// Where labelled images come from. Found by [`Source::detect`].
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
    /// A CSV file with a header and the columns `path,label`; paths relative to the file, below its folder.
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
    #[error("{}: {source}", on_one_line(&.path.to_string_lossy()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{}: {problem}", on_one_line(&.path.to_string_lossy()))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An image of it cannot be read.
    #[error("{}: {source}", on_one_line(&.path.to_string_lossy()))]
    Image {
        /// The image.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// The data have no such part.
    #[error("{path}: there is no {} part: expected {expected}", .part.name())]
    NoPart {
        /// The folder or file.
        path: PathBuf,
        /// What was asked for.
        part: Part,
        /// What it would be called there.
        expected: &'static str,
    },
    /// Nothing to read there.
    #[error("{0}: no images found: expected idx files, one folder per label, or a CSV file with path,label")]
    Nothing(PathBuf),
}

impl Dataset {
    /// Reads every image of `source` through the preprocessing of `spec`; labels must be among the spec's.
    ///
    /// Order is the source's: of the idx or CSV file, or by label and file name. Exact copies are left out and counted
    /// in [`Dataset::dropped`].
    pub fn read(source: &Source, spec: &Spec, limits: &Limits) -> Result<Self, DatasetError> {
        let preprocessor = Preprocessor::new(Arc::new(spec.clone()));
        let labels = Labels::new(&spec.labels);
        let samples = Samples::open(source, limits)?;
        samples.check_labels(&labels)?;
        check_memory(source, samples.len(), spec.input)?;
        let mut gathered = Gathered::with_capacity(samples.len(), spec.input.len());
        for sample in samples {
            let sample = sample?;
            let image = sample.image.map_err(|e| e.at(&sample.place))?;
            let class = labels
                .class(&sample.label)
                .map_err(|e| DatasetError::format(&sample.place, e))?;
            if gathered.is_new(image.hash, class) {
                let tensor = preprocessor.tensor(image.pixels);
                let tensor = tensor.map_err(|source| DatasetError::Image {
                    path: sample.place,
                    source,
                })?;
                gathered.add(image.hash, class, &tensor);
            }
        }
        Ok(gathered.into_dataset(spec))
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
    ///
    /// An image is held out when its sha256, read as one 256-bit big-endian number, is 0 mod 10: `int(hex, 16) % 10`
    /// in Python. The side depends on nothing but the image, so none crosses over when data are added or reordered.
    pub fn split(&self) -> Split {
        let (hold_out, train) = (0..self.len()).partition(|&index| is_held_out(&self.hashes[index]));
        Split { train, hold_out }
    }

    /// sha256 over all (hash, label) pairs in ascending order: the same data in any order give the same, lower-case
    /// hex. A pair is hashed as 36 bytes: the image's sha256, then the class as a big-endian `u32`.
    pub fn sha256(&self) -> String {
        let mut pairs: Vec<_> = self.hashes.iter().zip(&self.labels).collect();
        pairs.sort_unstable();
        let mut digest = Sha256::new();
        for (hash, label) in pairs {
            digest.update(hash);
            digest.update(label.to_be_bytes());
        }
        hex(&digest.finalize())
    }
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

impl DatasetError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Before anything is decoded, whether that many tensors fit [`MAX_TENSOR_BYTES`].
fn check_memory(source: &Source, images: usize, input: Input) -> Result<(), DatasetError> {
    let bytes = (images as u64).saturating_mul(4 * input.len() as u64);
    if bytes <= MAX_TENSOR_BYTES {
        return Ok(());
    }
    let problem =
        format!("{images} tensors take {bytes} bytes; {MAX_TENSOR_BYTES} at most are held in memory");
    Err(DatasetError::format(source.path(), problem))
}

/// Whether an image of this sha256 is never trained on: see [`Dataset::split`].
pub fn is_held_out(hash: &[u8; 32]) -> bool {
    hash.iter()
        .fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % 10)
        == 0
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
