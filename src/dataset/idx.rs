//! The idx format of MNIST: `http://yann.lecun.com/exdb/mnist/`, "File formats".
//!
//! A header of big-endian `u32` (magic, then one length per dimension), then unsigned bytes, rows from the top.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use crate::preprocess::{Limits, Pixels};

use super::labels::{Label, Labels};
use super::samples::{Image, Sample};
use super::{DatasetError, MAX_IMAGES};

/// Unsigned bytes, three dimensions: images, rows, columns.
const IMAGES_MAGIC: u32 = 0x0000_0803;
/// Unsigned bytes, one dimension.
const LABELS_MAGIC: u32 = 0x0000_0801;
/// DEFLATE makes at most this many bytes of one (zlib, "Technical Details": 1032:1), so a header that declares more lies.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Images in the order of the file, one at a time.
pub(super) struct Reader {
    images: Stream,
    labels_path: PathBuf,
    labels: Vec<u8>,
    next: usize,
    width: u32,
    height: u32,
}

/// An idx file, unpacked as it is read.
struct Stream {
    path: PathBuf,
    bytes: Box<dyn Read>,
    is_gzip: bool,
    /// Bytes on the disk.
    length: u64,
}

impl Reader {
    /// Reads both headers, checks them against each other, the limits and the files' lengths, and reads the labels.
    pub(super) fn open(images: &Path, labels: &Path, limits: &Limits) -> Result<Self, DatasetError> {
        let mut images = Stream::open(images)?;
        let [count, height, width] = images.header(IMAGES_MAGIC)?;
        limits
            .check(width, height)
            .map_err(|e| images.error(format!("its header: {e}")))?;
        if !(1..=MAX_IMAGES).contains(&(count as usize)) {
            return Err(images.error(format!("declares {count} images; 1 to {MAX_IMAGES} are read")));
        }
        let pixels = u64::from(width) * u64::from(height);
        images.check_length(16, u64::from(count).checked_mul(pixels))?;
        let mut stream = Stream::open(labels)?;
        let [labelled] = stream.header(LABELS_MAGIC)?;
        if labelled != count {
            let problem = format!(
                "declares {labelled} labels; {} has {count} images",
                images.path.display()
            );
            return Err(stream.error(problem));
        }
        stream.check_length(8, Some(u64::from(count)))?;
        let mut labels = vec![0; count as usize];
        stream.fill(&mut labels)?;
        stream.end()?;
        Ok(Self {
            images,
            labels_path: stream.path,
            labels,
            next: 0,
            width,
            height,
        })
    }

    /// Images to come.
    pub(super) fn len(&self) -> usize {
        self.labels.len() - self.next
    }

    /// Whether the model has every label.
    pub(super) fn check_labels(&self, labels: &Labels) -> Result<(), DatasetError> {
        for (index, &class) in self.labels.iter().enumerate() {
            labels.class(&Label::Class(class.into())).map_err(|problem| {
                DatasetError::format(&self.labels_path, format!("label of image {index}: {problem}"))
            })?;
        }
        Ok(())
    }

    fn read(&mut self, class: u8) -> Result<Sample, DatasetError> {
        let mut bytes = vec![0; self.width as usize * self.height as usize];
        self.images.fill(&mut bytes)?;
        let place = format!("{}#{}", self.images.path.display(), self.next);
        self.next += 1;
        if self.next == self.labels.len() {
            self.images.end()?;
        }
        let image = Image {
            hash: Sha256::digest(&bytes).into(),
            pixels: Pixels {
                width: self.width,
                height: self.height,
                channels: 1,
                bytes,
            },
        };
        Ok(Sample {
            place: place.into(),
            label: Label::Class(class.into()),
            image: Ok(image),
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Sample, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let class = *self.labels.get(self.next)?;
        let sample = self.read(class);
        if sample.is_err() {
            self.next = self.labels.len();
        }
        Some(sample)
    }
}

impl Stream {
    /// Opens a file, packed or not: its first bytes tell, not its name.
    fn open(path: &Path) -> Result<Self, DatasetError> {
        let io = |e| DatasetError::io(path, e);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let is_gzip = file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        let bytes: Box<dyn Read> = if is_gzip {
            Box::new(BufReader::with_capacity(1 << 16, GzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self {
            path: path.to_owned(),
            bytes,
            is_gzip,
            length,
        })
    }

    /// The lengths of the dimensions, after `magic`.
    fn header<const DIMENSIONS: usize>(&mut self, magic: u32) -> Result<[u32; DIMENSIONS], DatasetError> {
        let found = self.number()?;
        if found != magic {
            let problem = format!("is no such idx file: begins with {found:#010x}; expected {magic:#010x}");
            return Err(self.error(problem));
        }
        let mut lengths = [0; DIMENSIONS];
        for length in &mut lengths {
            *length = self.number()?;
        }
        Ok(lengths)
    }

    /// Whether the file can hold what its header declares, before memory is taken for it.
    fn check_length(&self, header: u64, body: Option<u64>) -> Result<(), DatasetError> {
        let declared = body.and_then(|body| body.checked_add(header)).unwrap_or(u64::MAX);
        let fits = if self.is_gzip {
            declared <= self.length.saturating_mul(MAX_DEFLATE_RATIO)
        } else {
            declared == self.length
        };
        if fits {
            return Ok(());
        }
        let packed = if self.is_gzip { " packed" } else { "" };
        let problem = format!(
            "its header declares {declared} bytes, the file has {}{packed}",
            self.length
        );
        Err(self.error(problem))
    }

    fn number(&mut self) -> Result<u32, DatasetError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DatasetError> {
        self.bytes.read_exact(buffer).map_err(|e| self.read_error(e))
    }

    /// Nothing may follow. Reading past the last byte is also what makes the gzip checksum be compared.
    fn end(&mut self) -> Result<(), DatasetError> {
        match self.bytes.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.error("has more bytes than its header declares".to_owned())),
            Err(error) => Err(self.read_error(error)),
        }
    }

    fn read_error(&self, error: std::io::Error) -> DatasetError {
        match error.kind() {
            ErrorKind::UnexpectedEof => self.error("ends early".to_owned()),
            ErrorKind::InvalidInput | ErrorKind::InvalidData if self.is_gzip => {
                self.error(format!("is not valid gzip: {error}"))
            }
            _ => DatasetError::io(&self.path, error),
        }
    }

    fn error(&self, problem: String) -> DatasetError {
        DatasetError::format(&self.path, problem)
    }
}

#[cfg(test)]
mod tests;
