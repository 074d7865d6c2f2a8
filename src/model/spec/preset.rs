//! `[preprocess]` as it is written: a preset by name, with single keys on top of it.

use std::str::FromStr;

use serde::Deserialize;

use super::{Alpha, Center, Filter, Invert, Preprocess, Resize};

/// What published networks were trained with. Each resizes the shorter side so that the input's takes 0.875 of it (256
/// for 224), cuts out the middle, and ignores alpha; they differ in moments and interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// torchvision's `ImageClassification` defaults: ImageNet's moments, bilinear.
    Imagenet,
    /// timm's defaults: ImageNet's moments, bicubic.
    Timm,
    /// Mean and deviation 0.5 (−1 to 1), bicubic: timm's Inception moments.
    Inception,
    /// (level − 127)/128, bicubic: TensorFlow's EfficientNet-Lite.
    EfficientnetLite,
}

/// torchvision.transforms._presets, timm.data.constants.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// `MEAN_RGB` and `STDDEV_RGB` of tensorflow/tpu's efficientnet/lite, on the 0…1 scale.
const LITE_MEAN: f32 = 127.0 / 255.0;
const LITE_STD: f32 = 128.0 / 255.0;
/// torchvision's 224 of 256, timm's default.
const CROP_PCT: f64 = 0.875;

impl Preset {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 4] = [
        Self::Imagenet,
        Self::Timm,
        Self::Inception,
        Self::EfficientnetLite,
    ];

    /// As `model.toml` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imagenet => "imagenet",
            Self::Timm => "timm",
            Self::Inception => "inception",
            Self::EfficientnetLite => "efficientnet-lite",
        }
    }

    /// The keys it stands for.
    pub fn preprocess(self) -> Preprocess {
        let (mean, std) = match self {
            Self::Imagenet | Self::Timm => (IMAGENET_MEAN.to_vec(), IMAGENET_STD.to_vec()),
            Self::Inception => (vec![0.5], vec![0.5]),
            Self::EfficientnetLite => (vec![LITE_MEAN], vec![LITE_STD]),
        };
        let filter = match self {
            Self::Imagenet => Filter::Bilinear,
            Self::Timm | Self::Inception | Self::EfficientnetLite => Filter::Bicubic,
        };
        Preprocess {
            mean,
            std,
            resize: Resize::Crop,
            crop_pct: Some(CROP_PCT),
            filter,
            alpha: Alpha::Ignore,
            ..Preprocess::default()
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| format!("no preset '{text}'; known are {names}"))
    }
}

/// The keys of `[preprocess]`; what is absent is the preset's, else the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    preset: Option<Preset>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    resize: Option<Resize>,
    resize_size: Option<usize>,
    crop_pct: Option<f64>,
    filter: Option<Filter>,
    invert: Option<Invert>,
    center: Option<Center>,
    alpha: Option<Alpha>,
    background: Option<u8>,
}

impl TryFrom<Keys> for Preprocess {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, Self::Error> {
        let base = keys.preset.map_or_else(Self::default, Preset::preprocess);
        let sized = keys.resize_size.is_some() || keys.crop_pct.is_some();
        if keys.resize_size.is_some() && keys.crop_pct.is_some() {
            return Err("preprocess: resize_size and crop_pct say the same thing; give one of them");
        }
        let resize = match keys.resize {
            Some(Resize::Stretch | Resize::Fit) if sized => {
                return Err("preprocess: resize_size and crop_pct go with resize = \"crop\"");
            }
            Some(resize) => resize,
            None if sized => Resize::Crop,
            None => base.resize,
        };
        let inherited = base.crop_pct.filter(|_| !sized && resize == Resize::Crop);
        Ok(Self {
            mean: keys.mean.unwrap_or(base.mean),
            std: keys.std.unwrap_or(base.std),
            resize,
            resize_size: keys.resize_size,
            crop_pct: keys.crop_pct.or(inherited),
            filter: keys.filter.unwrap_or(base.filter),
            invert: keys.invert.unwrap_or(base.invert),
            center: keys.center.unwrap_or(base.center),
            alpha: keys.alpha.unwrap_or(base.alpha),
            background: keys.background.unwrap_or(base.background),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Input, Spec};
    use super::*;

    fn parse(keys: &str) -> Result<Spec, String> {
        let text = format!(
            "architecture = 'small-cnn'\nlabels = ['a', 'b']\n\
             input = {{ channels = 3, height = 224, width = 240 }}\npreprocess = {{ {keys} }}"
        );
        Spec::parse(&text).map_err(|e| e.to_string())
    }

    #[test]
    fn presets_are_known_by_their_names() {
        for preset in Preset::ALL {
            assert_eq!(preset.name().parse(), Ok(preset));
            let spec = parse(&format!("preset = '{}'", preset.name())).unwrap();
            assert_eq!(spec.preprocess, preset.preprocess());
            assert_eq!(spec.preprocess.shorter_side(spec.input), Some(256));
        }
        assert!("torch".parse::<Preset>().unwrap_err().contains("imagenet, timm"));
    }

    #[test]
    fn single_keys_stand_above_the_preset() {
        let check = |keys: &str, change: fn(&mut Preprocess)| {
            let mut expected = Preset::Imagenet.preprocess();
            change(&mut expected);
            let found = parse(&format!("preset = 'imagenet', {keys}")).unwrap();
            assert_eq!(found.preprocess, expected, "{keys}");
        };
        check("filter = 'bicubic'", |p| p.filter = Filter::Bicubic);
        check("std = [1.0]", |p| p.std = vec![1.0]);
        check("alpha = 'blend'", |p| p.alpha = Alpha::Blend);
        check("crop_pct = 0.95", |p| p.crop_pct = Some(0.95));
        check("resize_size = 232", |p| {
            (p.resize_size, p.crop_pct) = (Some(232), None);
        });
        check("resize = 'fit'", |p| (p.resize, p.crop_pct) = (Resize::Fit, None));
    }

    #[test]
    fn a_size_before_the_crop_means_cropping() {
        let spec = parse("resize_size = 300").unwrap();
        assert_eq!(spec.preprocess.resize, Resize::Crop);
        assert_eq!(spec.preprocess.shorter_side(spec.input), Some(300));
        let side = |crop_pct: f64, side: usize| {
            let input = Input {
                channels: 3,
                height: side,
                width: side,
            };
            parse(&format!("crop_pct = {crop_pct:?}"))
                .unwrap()
                .preprocess
                .shorter_side(input)
        };
        // math.floor(side / crop_pct), as timm.data.transforms_factory has it.
        assert_eq!(
            [
                side(0.95, 224),
                side(0.9, 288),
                side(0.6, 240),
                side(1.0, 32),
                side(0.875, 224)
            ],
            [235, 320, 400, 32, 256].map(Some)
        );
        assert_eq!(parse("").unwrap().preprocess.shorter_side(spec.input), None);
    }

    #[test]
    fn keys_that_quarrel_are_told() {
        let check = |keys: &str, expected: &str| {
            let error = parse(keys).unwrap_err();
            assert!(error.contains(expected), "{keys}: {error}");
        };
        check("resize_size = 256, crop_pct = 0.9", "say the same thing");
        check("resize = 'fit', resize_size = 256", "go with resize");
        check("preset = 'torch'", "torch");
        check("presett = 'imagenet'", "presett");
    }
}
