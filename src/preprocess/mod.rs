//! Image bytes to the input tensor of a network: the same code in serving and in training.

use serde::{Deserialize, Serialize};

mod center;
mod decode;
mod dhash;
mod format;
mod jpeg;
mod measure;
mod orient;
mod png;
pub mod pool;
mod resize;
mod tensor;
mod vp8l;
mod webp;

pub use decode::decode;
pub use dhash::dhash;
pub use measure::{Header, header};
pub use tensor::Preprocessor;

/// What an image may cost before a byte of it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest side in pixels.
    pub max_side: u32,
    /// Most pixels.
    pub max_pixels: u64,
    /// Most bytes of memory that one image may take until its tensor is there, the file itself left aside.
    pub max_alloc_bytes: u64,
}

/// Why an image cannot be read. The text is for the caller: it holds nothing internal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes.
    #[error("the image is empty")]
    Empty,
    /// None of PNG, JPEG, WebP, BMP, GIF.
    #[error("the bytes are none of PNG, JPEG, WebP, BMP and GIF")]
    UnknownFormat,
    /// Over [`Limits`].
    #[error("the image is too large: {0}")]
    TooLarge(String),
    /// Broken or cut short.
    #[error("the image is broken: {0}")]
    Broken(&'static str),
    /// The decoder panicked.
    #[error("the image is broken: its decoder gave up")]
    Panicked,
    /// Given in a way that cannot be an image: text that is no base64, pixel levels that are none.
    #[error("{0}")]
    Invalid(String),
}

/// A decoded image: upright, opaque or with alpha, 8 bits per channel, rows from the top, no padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (straight).
    pub channels: u8,
    /// `width · height · channels` bytes.
    pub bytes: Vec<u8>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_side: 8192,
            max_pixels: 25_000_000,
            max_alloc_bytes: 78_000_000,
        }
    }
}

impl Limits {
    /// Whether an image of this size may be decoded.
    pub fn check(&self, width: u32, height: u32) -> Result<(), ImageError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(ImageError::Broken("it has no pixels"));
        }
        if width.max(height) > self.max_side || pixels > self.max_pixels {
            let text = format!(
                "{width}×{height}; sides up to {} and {} pixels in all are taken",
                self.max_side, self.max_pixels
            );
            return Err(ImageError::TooLarge(text));
        }
        Ok(())
    }

    /// Whether so many bytes of memory may be taken for one image.
    fn check_memory(&self, needed_bytes: u64) -> Result<(), ImageError> {
        let allowed = self.max_alloc_bytes;
        if needed_bytes <= allowed {
            return Ok(());
        }
        let text = format!("decoding it takes {needed_bytes} bytes of memory; {allowed} are allowed");
        Err(ImageError::TooLarge(text))
    }
}
