//! `model.toml`: what a person says of a model.

use serde::{Deserialize, Serialize};

/// A classifier as its `model.toml` tells it. Made by [`Spec::parse`], which checks every value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// A name that [`super::arch::build`] knows.
    pub architecture: String,
    /// Class names in the order of the network's outputs: 2 to 100,000, each unique and not empty.
    pub labels: Vec<String>,
    /// The tensor the network takes.
    pub input: Input,
    /// How an image becomes that tensor.
    #[serde(default)]
    pub preprocess: Preprocess,
    /// Changes of an image that keep its label, for training.
    #[serde(default)]
    pub augment: Augment,
}

/// Shape of one input, C×H×W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows, 1 to 4096.
    pub height: usize,
    /// Columns, 1 to 4096.
    pub width: usize,
}

/// Image to tensor. Pixels are scaled to 0…1, then `(x - mean) / std` per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Mean per channel (one value stands for all), on the 0…1 scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel (one value stands for all), above 0.
    pub std: Vec<f32>,
    /// How an image of another size is brought to the input's.
    pub resize: Resize,
    /// Interpolation of that resize, antialiased.
    pub filter: Filter,
    /// Whether light and dark are exchanged.
    pub invert: Invert,
    /// Whether the object is moved to the middle.
    pub center: Center,
    /// Colour behind transparent pixels and around a fitted image, 0…255 for every channel, before inversion.
    pub background: u8,
}

/// How an image of another size is brought to the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Both sides to the input's, whatever the proportions.
    Stretch,
    /// The whole image inside the input, the rest `background`.
    Fit,
    /// The shorter side to the input's, the middle cut out.
    Crop,
}

/// Interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Triangle filter.
    Bilinear,
    /// Catmull–Rom cubic, a = -0.5 (Pillow's).
    Bicubic,
}

/// Whether light and dark are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invert {
    /// Pixels stay as they are.
    Never,
    /// Always `255 - x`.
    Always,
    /// `255 - x` where the image's border is light: a scan of a dark object on white, for a model of light on black.
    Auto,
}

/// Whether the object is moved to the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Center {
    /// The image stays where it is.
    Never,
    /// For images that are not of the input's size: cut to the object's box, scaled so that its longer side takes
    /// 20/28 of the input, placed with its centre of mass in the middle, as MNIST was made (LeCun, Cortes, Burges).
    Mass,
}

/// Changes of an image that keep its label. All default to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Largest shift in pixels, each way.
    pub shift: usize,
    /// Whether left and right may be exchanged.
    pub flip: bool,
    /// Largest rotation in degrees, each way, 0 to 180.
    pub rotate: f32,
    /// Probability that a random rectangle is blanked (Zhong et al., arXiv 1708.04896), 0 to 1.
    pub erase: f32,
}

/// What is wrong with a `model.toml`.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not TOML, or a key or type that does not belong; the text says where.
    #[error("model.toml: {0}")]
    Syntax(String),
    /// A value outside its range.
    #[error("model.toml: {key}: {problem}")]
    Value {
        /// The key, dotted.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Input {
    /// Numbers in one input: C·H·W.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Never true for a checked input.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Preprocess {
    fn default() -> Self {
        Self {
            mean: vec![0.0],
            std: vec![1.0],
            resize: Resize::Stretch,
            filter: Filter::Bilinear,
            invert: Invert::Never,
            center: Center::Never,
            background: 0,
        }
    }
}

impl Spec {
    /// Reads and checks a `model.toml`.
    pub fn parse(_text: &str) -> Result<Self, SpecError> {
        todo!()
    }
}
