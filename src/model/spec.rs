//! `model.toml`: what a person says of a model.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Graph;
use super::arch::{self, ArchError};
use super::layers::{self, Layer};

mod preset;

pub use preset::Preset;

/// A classifier as its `model.toml` tells it. Made by [`Spec::parse`], which checks every value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Whether this model answers requests that name none; at most one model of a folder says so.
    #[serde(default)]
    pub default: bool,
    /// A name that [`arch::build`] knows, or [`OWN_LAYERS`].
    #[serde(default)]
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
    /// Which of its predictions are kept.
    #[serde(default, skip_serializing_if = "Collect::is_default")]
    pub collect: Collect,
    /// The network itself, where it is none of the named ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
}

/// The architecture of a model whose network stands in `[[layers]]`.
pub const OWN_LAYERS: &str = "layers";

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
#[serde(try_from = "preset::Keys")]
pub struct Preprocess {
    /// Mean per channel (one value stands for all), on the 0…1 scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel (one value stands for all), above 0.
    pub std: Vec<f32>,
    /// How an image of another size is brought to the input's.
    pub resize: Resize,
    /// With `crop`: torchvision's `Resize` to this shorter side, then its `CenterCrop` to the input's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_size: Option<usize>,
    /// With `crop`: `resize_size` as timm says it, the share of the resized shorter side that the input's takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_pct: Option<f64>,
    /// Interpolation of that resize, antialiased.
    pub filter: Filter,
    /// Whether light and dark are exchanged.
    pub invert: Invert,
    /// Whether the object is moved to the middle.
    pub center: Center,
    /// What transparent pixels show.
    pub alpha: Alpha,
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

/// What transparent pixels show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alpha {
    /// The background through them.
    Blend,
    /// The colour that is stored under them, as Pillow's `convert("RGB")` leaves it.
    Ignore,
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

/// Which of a model's predictions are kept; what is unset is as the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collect {
    /// Share of the predictions, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Whether their images are kept too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<bool>,
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
            resize_size: None,
            crop_pct: None,
            filter: Filter::Bilinear,
            invert: Invert::Never,
            center: Center::Never,
            alpha: Alpha::Blend,
            background: 0,
        }
    }
}

impl Spec {
    /// Reads and checks a `model.toml`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut spec: Self = toml::from_str(text).map_err(|e| SpecError::Syntax(e.to_string()))?;
        spec.check_architecture()?;
        spec.check_labels()?;
        spec.check_input()?;
        spec.preprocess.check(spec.input.channels)?;
        let centres_colour = spec.preprocess.center == Center::Mass && spec.input.channels != 1;
        require(!centres_colour, "preprocess.center", || {
            "mass needs an input of one channel".to_owned()
        })?;
        spec.augment.check(spec.input)?;
        spec.collect.check()?;
        Ok(spec)
    }

    /// The network: the named architecture, or the layers that are spelled out.
    pub fn graph(&self) -> Result<Graph, ArchError> {
        self.graph_of(self.labels.len())
    }

    /// As [`Spec::graph`], for another number of classes than there are labels.
    pub(super) fn graph_of(&self, classes: usize) -> Result<Graph, ArchError> {
        if self.layers.is_empty() {
            arch::build(&self.architecture, self.input, classes)
        } else {
            Ok(layers::build(&self.layers, self.input, classes)?)
        }
    }

    fn check_architecture(&mut self) -> Result<(), SpecError> {
        let given = !self.layers.is_empty();
        if given && self.architecture.is_empty() {
            OWN_LAYERS.clone_into(&mut self.architecture);
        }
        let name = &*self.architecture;
        require(!name.is_empty(), "architecture", || {
            format!("missing; {}, or a list of [[layers]]", arch::NAMES.join(", "))
        })?;
        require(given == (name == OWN_LAYERS), "architecture", || {
            if given {
                format!("'{name}', but there are [[layers]] as well; leave one of them out")
            } else {
                format!("'{OWN_LAYERS}' needs a list of [[layers]]")
            }
        })
    }

    fn check_labels(&self) -> Result<(), SpecError> {
        let count = self.labels.len();
        require((2..=MAX_LABELS).contains(&count), "labels", || {
            format!("{count} labels; 2 to {MAX_LABELS} are possible")
        })?;
        let mut seen = HashSet::new();
        for label in &self.labels {
            require(!label.trim().is_empty(), "labels", || {
                "a label is empty".to_owned()
            })?;
            require(seen.insert(label), "labels", || format!("'{label}' stands twice"))?;
        }
        Ok(())
    }

    fn check_input(&self) -> Result<(), SpecError> {
        let Input {
            channels,
            height,
            width,
        } = self.input;
        require(matches!(channels, 1 | 3), "input.channels", || {
            format!("{channels}; 1 (grey) or 3 (RGB)")
        })?;
        for (key, side) in [("input.height", height), ("input.width", width)] {
            require((1..=MAX_SIDE).contains(&side), key, || {
                format!("{side}; 1 to {MAX_SIDE}")
            })?;
        }
        Ok(())
    }
}

impl Preprocess {
    fn check(&self, channels: usize) -> Result<(), SpecError> {
        for (key, values) in [("preprocess.mean", &self.mean), ("preprocess.std", &self.std)] {
            require(values.len() == 1 || values.len() == channels, key, || {
                format!("{} values; 1 or one per channel ({channels})", values.len())
            })?;
            require(values.iter().all(|v| v.is_finite()), key, || {
                "a value is not finite".to_owned()
            })?;
        }
        require(self.std.iter().all(|&s| s >= MIN_STD), "preprocess.std", || {
            format!("below {MIN_STD}")
        })?;
        let sizes = self.resize_size.is_none_or(|size| (1..=MAX_SIDE).contains(&size));
        require(sizes, "preprocess.resize_size", || {
            format!("{}; 1 to {MAX_SIDE}", self.resize_size.unwrap_or_default())
        })?;
        let shares = self
            .crop_pct
            .is_none_or(|share| (MIN_CROP_PCT..=1.0).contains(&share));
        require(shares, "preprocess.crop_pct", || {
            format!("{}; {MIN_CROP_PCT} to 1", self.crop_pct.unwrap_or_default())
        })
    }

    /// The shorter side, in pixels, that an image is resized to before the middle is cut out; `None` where `resize`
    /// alone says the size.
    pub fn shorter_side(&self, input: Input) -> Option<usize> {
        let of_share = |share: f64| (input.height.min(input.width) as f64 / share).floor() as usize;
        self.resize_size.or(self.crop_pct.map(of_share))
    }

    /// Mean and standard deviation of a channel.
    pub fn moments(&self, channel: usize) -> (f32, f32) {
        let of = |values: &[f32]| values.get(channel).or(values.first()).copied();
        (of(&self.mean).unwrap_or(0.0), of(&self.std).unwrap_or(1.0))
    }
}

impl Augment {
    fn check(&self, input: Input) -> Result<(), SpecError> {
        let side = input.height.min(input.width);
        require(self.shift < side, "augment.shift", || {
            format!("{}; less than the input's side {side}", self.shift)
        })?;
        require((0.0..=180.0).contains(&self.rotate), "augment.rotate", || {
            format!("{}; 0 to 180", self.rotate)
        })?;
        require((0.0..=1.0).contains(&self.erase), "augment.erase", || {
            format!("{}; 0 to 1", self.erase)
        })
    }
}

impl Collect {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), SpecError> {
        let rate = self.rate.unwrap_or_default();
        require((0.0..=1.0).contains(&rate), "collect.rate", || {
            format!("{rate}; 0 to 1")
        })
    }
}

const MAX_LABELS: usize = 100_000;
const MAX_SIDE: usize = 4096;
const MIN_STD: f32 = 1e-6;
const MIN_CROP_PCT: f64 = 0.1;

fn require(holds: bool, key: &'static str, problem: impl FnOnce() -> String) -> Result<(), SpecError> {
    if holds {
        Ok(())
    } else {
        Err(SpecError::Value {
            key,
            problem: problem(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        architecture = "seed-cnn"
        labels = ["cat", "dog"]
        input = { channels = 1, height = 28, width = 28 }
    "#;

    #[test]
    fn a_short_file_gets_the_defaults() {
        let spec = Spec::parse(GOOD).unwrap();
        assert_eq!(spec.preprocess, Preprocess::default());
        assert_eq!(spec.augment, Augment::default());
        assert_eq!(spec.collect, Collect::default());
        assert_eq!(spec.input.len(), 784);
        assert_eq!(spec.preprocess.moments(2), (0.0, 1.0));
    }

    #[test]
    fn a_spec_written_and_read_is_the_same() {
        let mut spec = Spec::parse(GOOD).unwrap();
        spec.preprocess.invert = Invert::Auto;
        spec.preprocess.center = Center::Mass;
        spec.preprocess.crop_pct = Some(0.9);
        spec.preprocess.resize = Resize::Crop;
        spec.augment.rotate = 10.0;
        spec.collect.rate = Some(0.25);
        let text = toml::to_string(&spec).unwrap();
        assert_eq!(Spec::parse(&text).unwrap(), spec, "{text}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |replace: (&str, &str), expected: &str| {
            let text = GOOD.replace(replace.0, replace.1);
            assert_ne!(text, GOOD, "{replace:?} changes nothing");
            let error = Spec::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{replace:?} gave: {error}");
        };
        check(("\"dog\"", "\"cat\""), "'cat' stands twice");
        check(("\"dog\"", "\" \""), "a label is empty");
        check((", \"dog\"", ""), "1 labels");
        check(("channels = 1", "channels = 2"), "input.channels");
        check(("height = 28", "height = 0"), "input.height");
        check(("width = 28", "width = 4097"), "input.width");
        check(("architecture", "arhitecture"), "arhitecture");
        check(
            ("architecture = \"seed-cnn\"", ""),
            "architecture: missing; convnext_tiny, densenet121",
        );
        check(("seed-cnn", "layers"), "needs a list of [[layers]]");
        check(
            ("labels =", "layers = [{ type = \"flatten\" }]\nlabels ="),
            "'seed-cnn', but there are [[layers]]",
        );
        check(
            ("labels =", "preprocess = { std = [0.0] }\nlabels ="),
            "preprocess.std",
        );
        check(
            ("labels =", "preprocess = { mean = [0.0, 0.1] }\nlabels ="),
            "preprocess.mean: 2 values",
        );
        check(
            ("labels =", "preprocess = { mean = [nan] }\nlabels ="),
            "not finite",
        );
        check(
            ("labels =", "preprocess = { resize = \"squash\" }\nlabels ="),
            "squash",
        );
        for (keys, expected) in [
            ("resize_size = 0", "preprocess.resize_size: 0; 1 to 4096"),
            ("crop_pct = 1.5", "preprocess.crop_pct: 1.5; 0.1 to 1"),
            ("crop_pct = nan", "preprocess.crop_pct"),
            ("preset = 'imagenet'", "preprocess.mean: 3 values"),
        ] {
            check(
                ("labels =", &format!("preprocess = {{ {keys} }}\nlabels =")),
                expected,
            );
        }
        check(
            ("labels =", "augment = { shift = 28 }\nlabels ="),
            "augment.shift",
        );
        check(
            ("labels =", "augment = { rotate = nan }\nlabels ="),
            "augment.rotate",
        );
        check(
            ("labels =", "collect = { rate = 1.5 }\nlabels ="),
            "collect.rate: 1.5",
        );
        check(
            ("labels =", "augment = { erase = 1.5 }\nlabels ="),
            "augment.erase",
        );
    }
}
