//! Image bytes to the input tensor of a network: the same code in serving and in training.

use serde::{Deserialize, Serialize};

use crate::model::Spec;

pub mod pool;

/// What an image may cost before a byte of it is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest side in pixels.
    pub max_side: u32,
    /// Most pixels.
    pub max_pixels: u64,
    /// Most bytes one decoder may allocate.
    pub max_alloc_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_side: 4096,
            max_pixels: 4_000_000,
            max_alloc_bytes: 24 << 20,
        }
    }
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

/// Header facts read without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Columns, as stored.
    pub width: u32,
    /// Rows, as stored.
    pub height: u32,
    /// Bytes the decoded pixels take at most.
    pub decoded_bytes: u64,
}

/// Sniffs the type and reads the size, within `limits`; allocates next to nothing.
pub fn header(_bytes: &[u8], _limits: &Limits) -> Result<Header, ImageError> {
    todo!()
}

/// Decodes bytes of any supported type; orientation applied, 16 bit, palette and CMYK brought to 8-bit grey or RGB.
/// A decoder's panic is [`ImageError::Panicked`].
pub fn decode(_bytes: &[u8], _limits: &Limits) -> Result<Pixels, ImageError> {
    todo!()
}

/// Turns pixels into one model's input.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    spec: std::sync::Arc<Spec>,
}

impl Preprocessor {
    /// For the models of this spec.
    pub fn new(_spec: std::sync::Arc<Spec>) -> Self {
        todo!()
    }

    /// Numbers in one tensor.
    pub fn len(&self) -> usize {
        self.spec.input.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The C×H×W tensor of an image.
    pub fn tensor(&self, _pixels: &Pixels) -> Vec<f32> {
        todo!()
    }

    /// The tensor value that a `background` pixel gets, per channel: what augmentation fills with.
    pub fn background(&self) -> Vec<f32> {
        todo!()
    }
}
