//! The `model.toml` of an imported model, as a person would write it.

use std::fmt::Write as _;

use crate::model::Input;
use crate::model::spec::Preset;

/// What a new model is.
pub(super) struct New<'a> {
    pub(super) description: &'a str,
    pub(super) default: bool,
    pub(super) architecture: &'a str,
    pub(super) input: Input,
    pub(super) preset: Option<Preset>,
    pub(super) labels: &'a [String],
}

/// `3x224x224` or `3×224×224`.
pub(super) fn input(text: &str) -> Result<Input, String> {
    let sides: Option<Vec<usize>> = text.split(['x', '×']).map(|side| side.parse().ok()).collect();
    match sides.as_deref() {
        Some(&[channels, height, width]) => Ok(Input {
            channels,
            height,
            width,
        }),
        _ => Err("CxHxW is expected, such as 3x224x224".to_owned()),
    }
}

impl New<'_> {
    /// The file's text. Its values are checked by whoever parses it.
    pub(super) fn text(&self) -> String {
        let Input {
            channels,
            height,
            width,
        } = self.input;
        let mut text = "# What a person says of this model; docs/models.md explains every key.\n".to_owned();
        let _ = writeln!(text, "description = {}", quoted(self.description));
        if self.default {
            text += "# Answers requests that name no model.\ndefault = true\n";
        }
        let _ = writeln!(text, "architecture = {}", quoted(self.architecture));
        let _ = writeln!(
            text,
            "input = {{ channels = {channels}, height = {height}, width = {width} }}"
        );
        text += "# In the order of the network's outputs.\nlabels = [\n";
        for label in self.labels {
            let _ = writeln!(text, "  {},", quoted(label));
        }
        text += "]\n\n[preprocess]\n";
        text + &self.preprocess()
    }

    fn preprocess(&self) -> String {
        let Some(preset) = self.preset else {
            return "# Levels of 0 to 1, stretched to the input's size. Trained otherwise? Say how: mean, std, resize, filter.\n"
                .to_owned();
        };
        let meaning = match preset {
            Preset::Imagenet => "As torchvision's ImageNet models: bilinear.",
            Preset::Timm => "As timm's models: ImageNet's moments, bicubic.",
            Preset::Inception => "Inputs of -1 to 1, bicubic.",
            Preset::EfficientnetLite => "As TensorFlow's EfficientNet-Lite: (level - 127) / 128, bicubic.",
        };
        format!(
            "# {meaning} The shorter side is resized to 8/7 of the input's, the middle cut out.\n\
             preset = \"{}\"\n\
             # A model card that says otherwise goes here, such as: resize_size = 232, crop_pct = 0.95, filter = \"bicubic\".\n",
            preset.name()
        )
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Spec;

    #[test]
    fn the_text_says_what_was_asked() {
        let labels = ["T-shirt/top", "a \"b\" 'c' \\", "two\nlines", "é\t"].map(str::to_owned);
        for preset in Preset::ALL.into_iter().map(Some).chain([None]) {
            let new = New {
                description: "It's \"mine\"",
                default: preset.is_none(),
                architecture: "small-cnn",
                input: input("3x32x48").unwrap(),
                preset,
                labels: &labels,
            };
            let spec = Spec::parse(&new.text()).unwrap();
            assert_eq!(spec.labels, labels);
            assert_eq!(
                (&*spec.description, spec.default),
                ("It's \"mine\"", preset.is_none())
            );
            assert_eq!((&*spec.architecture, spec.input), ("small-cnn", new.input));
            let expected = preset.map(Preset::preprocess).unwrap_or_default();
            assert_eq!(spec.preprocess, expected);
        }
    }

    #[test]
    fn an_input_is_three_numbers() {
        assert_eq!(input("1×28×30").unwrap().len(), 840);
        for wrong in ["", "224", "3x224", "3x224x224x1", "3x-1x2", "axbxc"] {
            assert!(input(wrong).is_err(), "{wrong}");
        }
    }
}
