//! The images of a source, one after the other.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::preprocess::{self, ImageError, Limits, Pixels};

use super::labels::{Label, Labels};
use super::listing::{self, Listed};
use super::{DatasetError, MAX_FILE_BYTES, Source, idx};

/// One labelled image. Only one is in memory at a time.
pub(super) struct Sample {
    /// The file; of an idx file `FILE#<index>`.
    pub(super) place: PathBuf,
    /// As the source writes it.
    pub(super) label: Label,
    /// The image, or why this one alone cannot be read.
    pub(super) image: Result<Image, Unreadable>,
}

/// A decoded image.
pub(super) struct Image {
    /// sha256 of the file's bytes, or of an idx image's pixels.
    pub(super) hash: [u8; 32],
    pub(super) pixels: Pixels,
}

/// Why one image cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Every image of a source. An `Err` item means that the source itself is broken and nothing follows.
pub(super) enum Samples {
    /// Of an idx file.
    Idx(idx::Reader),
    /// Of a folder or a CSV file.
    Files {
        listed: std::vec::IntoIter<Listed>,
        limits: Limits,
    },
}

impl Samples {
    /// Opens idx files and checks their headers, or lists files; decodes nothing.
    pub(super) fn open(source: &Source, limits: &Limits) -> Result<Self, DatasetError> {
        let listed = match source {
            Source::Idx { images, labels } => {
                return idx::Reader::open(images, labels, limits).map(Self::Idx);
            }
            Source::ImageFolder(path) => listing::folder(path)?,
            Source::Csv(path) => listing::csv(path)?,
        };
        Ok(Self::Files {
            listed: listed.into_iter(),
            limits: *limits,
        })
    }

    /// Images to come.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Idx(reader) => reader.len(),
            Self::Files { listed, .. } => listed.len(),
        }
    }

    /// Whether the model has every label, before an hour is spent on decoding.
    pub(super) fn check_labels(&self, labels: &Labels) -> Result<(), DatasetError> {
        match self {
            Self::Idx(reader) => reader.check_labels(labels),
            Self::Files { listed, .. } => listed.as_slice().iter().try_for_each(|file| {
                let class = labels.class(&file.label);
                class
                    .map(drop)
                    .map_err(|problem| DatasetError::format(&file.path, problem))
            }),
        }
    }
}

impl Iterator for Samples {
    type Item = Result<Sample, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Idx(reader) => reader.next(),
            Self::Files { listed, limits } => listed.next().map(|file| {
                Ok(Sample {
                    image: read_image(&file.path, limits),
                    place: file.path,
                    label: file.label,
                })
            }),
        }
    }
}

impl Unreadable {
    /// As an error of the whole read.
    pub(super) fn at(self, place: &Path) -> DatasetError {
        match self {
            Self::Io(source) => DatasetError::io(place, source),
            Self::Image(source) => DatasetError::Image {
                path: place.to_owned(),
                source,
            },
        }
    }
}

fn read_image(path: &Path, limits: &Limits) -> Result<Image, Unreadable> {
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    if !fs::metadata(path)?.is_file() {
        // A named pipe would be waited on for ever.
        return Err(std::io::Error::other("is not a file").into());
    }
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == limit {
        let text = format!("more than {MAX_FILE_BYTES} bytes");
        return Err(ImageError::TooLarge(text).into());
    }
    Ok(Image {
        hash: Sha256::digest(&bytes).into(),
        pixels: preprocess::decode(&bytes, limits)?,
    })
}
