//! Pixels to the numbers a network takes.

use std::sync::Arc;

use crate::model::Spec;
use crate::model::spec::{Alpha, Center, Invert};

use super::center;
use super::resize::{Opaque, Target};
use super::{ImageError, Pixels};

/// A border lighter than this is light ground.
const LIGHT: u8 = 127;

/// A smaller buffer is not worth the call that gives back what of it is free.
const WORTH_GIVING_BACK: usize = 1 << 20;

/// Turns pixels into one model's input.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    spec: Arc<Spec>,
    /// Per channel, the number each of the 256 levels becomes.
    levels: Vec<[f32; 256]>,
}

impl Preprocessor {
    /// For the models of this spec.
    pub fn new(spec: Arc<Spec>) -> Self {
        let levels = |channel| {
            let (mean, std) = spec.preprocess.moments(channel);
            std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std)
        };
        let levels = (0..spec.input.channels).map(levels).collect();
        Self { spec, levels }
    }

    /// Numbers in one tensor.
    pub fn len(&self) -> usize {
        self.spec.input.len()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The model's spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes that it takes at most to bring an image of this size to the model's, beside the pixels: the image with the
    /// model's number of columns, and the tensor.
    pub fn working_bytes(&self, width: u32, height: u32) -> u64 {
        let input = self.spec.input;
        let longest = u64::from(width.max(height));
        longest * (input.width * input.channels) as u64 + 4 * input.len() as u64
    }

    /// The C×H×W tensor of an image, whose pixels are changed in place on the way.
    pub fn tensor(&self, pixels: Pixels) -> Result<Vec<f32>, ImageError> {
        let channels = self.spec.input.channels;
        if pixels.channels == 1 && channels == 1 && self.takes_as_it_is(&pixels) {
            return Ok(self.numbers(&pixels.bytes, 1));
        }
        let expected = pixels.width as usize * pixels.height as usize * usize::from(pixels.channels);
        if expected == 0 || pixels.bytes.len() != expected {
            return Err(ImageError::Broken("its pixels do not fill its size"));
        }
        let image = opaque(pixels, channels, self.behind_alpha());
        let shaped = self.shaped(image);
        Ok(self.numbers(&shaped.bytes, shaped.channels))
    }

    /// What a `background` pixel becomes, per channel, after inversion where that is certain: what augmentation fills with.
    pub fn background(&self) -> Vec<f32> {
        let level = self.ground();
        self.levels
            .iter()
            .map(|levels| levels[usize::from(level)])
            .collect()
    }

    /// The colour seen through transparent pixels; `None` where transparency is ignored.
    fn behind_alpha(&self) -> Option<u8> {
        let preprocess = &self.spec.preprocess;
        (preprocess.alpha == Alpha::Blend).then_some(preprocess.background)
    }

    fn ground(&self) -> u8 {
        let background = self.spec.preprocess.background;
        match self.spec.preprocess.invert {
            Invert::Never => background,
            Invert::Always => 255 - background,
            Invert::Auto => background.min(255 - background),
        }
    }

    /// The hot path: a grey image of the input's size that needs neither inversion nor a larger size to be cut from.
    fn takes_as_it_is(&self, pixels: &Pixels) -> bool {
        let (input, preprocess) = (self.spec.input, &self.spec.preprocess);
        preprocess.shorter_side(input).is_none()
            && (pixels.width as usize, pixels.height as usize) == (input.width, input.height)
            && pixels.bytes.len() == input.len()
            && preprocess.invert == Invert::Never
    }

    fn shaped(&self, mut image: Opaque) -> Opaque {
        let (input, preprocess) = (self.spec.input, &self.spec.preprocess);
        let inverted = match preprocess.invert {
            Invert::Never => false,
            Invert::Always => true,
            Invert::Auto => center::border_median(&image) > LIGHT,
        };
        if inverted {
            image.bytes.iter_mut().for_each(|v| *v = 255 - *v);
        }
        let right_size = (image.width, image.height) == (input.width, input.height);
        if preprocess.center == Center::Mass
            && !right_size
            && let Some(centred) = center::by_mass(&image, input.width, input.height, preprocess.filter)
        {
            return centred;
        }
        let background = if inverted {
            255 - preprocess.background
        } else {
            preprocess.background
        };
        let (width, height) = (input.width, input.height);
        image.resized(Target {
            width,
            height,
            resize: preprocess.resize,
            shorter_side: preprocess.shorter_side(input),
            filter: preprocess.filter,
            background,
        })
    }

    /// H×W×C bytes to C×H×W numbers; one channel is every channel.
    fn numbers(&self, bytes: &[u8], channels: usize) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(self.len());
        for (channel, levels) in self.levels.iter().enumerate() {
            let own = bytes.iter().skip(channel % channels).step_by(channels);
            numbers.extend(own.map(|&v| levels[usize::from(v)]));
        }
        numbers
    }
}

/// The image over `background` where it is transparent (without one alpha is left out), in one channel or in the model's
/// three. A grey image stays of one channel: what is done to each of three equal ones is done once. No step takes more
/// room than the pixels have.
fn opaque(pixels: Pixels, channels: usize, background: Option<u8>) -> Opaque {
    let over = |value: u8, alpha: u8| {
        let Some(background) = background else {
            return value;
        };
        let (value, alpha, ground) = (u32::from(value), u32::from(alpha), u32::from(background));
        ((value * alpha + ground * (255 - alpha) + 127) / 255) as u8
    };
    let mut bytes = pixels.bytes;
    let channels = match (pixels.channels, channels) {
        (1, _) => 1,
        (2, _) => {
            compact(&mut bytes, |&[grey, alpha]| [over(grey, alpha)]);
            1
        }
        (3, 1) => {
            compact(&mut bytes, |&rgb| [luma(rgb)]);
            1
        }
        (3, _) => 3,
        (_, 1) => {
            compact(&mut bytes, |&[r, g, b, a]| {
                [luma([over(r, a), over(g, a), over(b, a)])]
            });
            1
        }
        _ => {
            compact(&mut bytes, |&[r, g, b, a]| [over(r, a), over(g, a), over(b, a)]);
            3
        }
    };
    Opaque {
        width: pixels.width as usize,
        height: pixels.height as usize,
        channels,
        bytes,
    }
}

/// Every `FROM` bytes become the `TO` that `each` makes of them, in place.
fn compact<const FROM: usize, const TO: usize>(bytes: &mut Vec<u8>, each: impl Fn(&[u8; FROM]) -> [u8; TO]) {
    const { assert!(TO <= FROM) };
    let count = bytes.len() / FROM;
    for index in 0..count {
        let Some(pixel) = bytes[index * FROM..].first_chunk::<FROM>() else {
            break;
        };
        let made = each(pixel);
        bytes[index * TO..][..TO].copy_from_slice(&made);
    }
    bytes.truncate(count * TO);
    if bytes.capacity() > WORTH_GIVING_BACK {
        bytes.shrink_to_fit();
    }
}

/// Grey by ITU-R 601, in Pillow's integer arithmetic.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let weighted = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000;
    (weighted >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocessor(channels: usize, preprocess: &str) -> Preprocessor {
        let text = format!(
            "architecture = 'seed-cnn'\nlabels = ['a', 'b']\ninput = {{ channels = {channels}, height = 2, width = 2 }}\n\
             preprocess = {{ {preprocess} }}"
        );
        Preprocessor::new(Arc::new(Spec::parse(&text).unwrap()))
    }

    fn pixels(channels: u8, bytes: &[u8]) -> Pixels {
        Pixels {
            width: 2,
            height: 2,
            channels,
            bytes: bytes.to_vec(),
        }
    }

    fn levels(tensor: &[f32]) -> Vec<u8> {
        tensor.iter().map(|v| (v * 255.0).round() as u8).collect()
    }

    #[test]
    fn grey_of_the_right_size_is_scaled_to_one() {
        let tensor = preprocessor(1, "").tensor(pixels(1, &[0, 51, 102, 255])).unwrap();
        assert_eq!(tensor, [0.0, 51.0 / 255.0, 102.0 / 255.0, 1.0]);
    }

    #[test]
    fn channels_are_planes_with_their_own_moments() {
        let three = preprocessor(3, "mean = [0.0, 0.5, 1.0], std = [1.0, 0.5, 2.0]");
        let tensor = three.tensor(pixels(1, &[0, 255, 0, 255])).unwrap();
        assert_eq!(
            tensor,
            [0.0, 1.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, -0.5, 0.0, -0.5, 0.0]
        );
        assert_eq!(three.background(), [0.0, -1.0, -0.5]);
    }

    #[test]
    fn colour_becomes_pillows_grey() {
        // PIL.Image.new("RGB", (1, 1), c).convert("L"): (255, 0, 0) 76, (0, 255, 0) 150, (0, 0, 255) 29.
        let bytes = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];
        let tensor = preprocessor(1, "").tensor(pixels(3, &bytes)).unwrap();
        assert_eq!(levels(&tensor), [76, 150, 29, 255]);
    }

    #[test]
    fn what_is_transparent_shows_the_background() {
        let bytes = [200, 0, 200, 255, 100, 128, 0, 0];
        let tensor = preprocessor(1, "").tensor(pixels(2, &bytes)).unwrap();
        assert_eq!(levels(&tensor), [0, 200, 50, 0]);
        let white = preprocessor(1, "background = 255")
            .tensor(pixels(2, &bytes))
            .unwrap();
        assert_eq!(levels(&white), [255, 200, 177, 255]);
        let ignored = preprocessor(1, "background = 255, alpha = 'ignore'")
            .tensor(pixels(2, &bytes))
            .unwrap();
        assert_eq!(levels(&ignored), [200, 200, 100, 0]);
    }

    #[test]
    fn light_ground_is_inverted_where_asked() {
        let check = |invert: &str, bytes: &[u8], expected: &[u8]| {
            let tensor = preprocessor(1, &format!("invert = '{invert}'"))
                .tensor(pixels(1, bytes))
                .unwrap();
            assert_eq!(levels(&tensor), expected, "{invert}");
        };
        check("auto", &[255, 255, 255, 5], &[0, 0, 0, 250]);
        check("auto", &[0, 0, 0, 250], &[0, 0, 0, 250]);
        check("always", &[0, 0, 0, 250], &[255, 255, 255, 5]);
        check("never", &[255, 255, 255, 5], &[255, 255, 255, 5]);
    }

    #[test]
    fn pixels_that_do_not_fill_their_size_are_refused() {
        for (channels, count) in [(1, 3), (3, 4), (0, 0)] {
            let broken = pixels(channels, &vec![0; count]);
            assert!(preprocessor(1, "").tensor(broken).is_err(), "{channels} {count}");
        }
    }

    #[test]
    fn a_grey_image_is_a_colour_image_of_three_equal_channels() {
        let grey: Vec<u8> = (0..35u32).map(|i| (i * 37 % 256) as u8).collect();
        let image = |channels: u8, bytes: Vec<u8>| Pixels {
            width: 7,
            height: 5,
            channels,
            bytes,
        };
        let three: Vec<u8> = grey.iter().flat_map(|&v| [v; 3]).collect();
        for preprocess in [
            "",
            "resize = 'crop'",
            "resize = 'stretch', filter = 'bicubic'",
            "invert = 'auto', mean = [0.1, 0.2, 0.3], std = [1.0, 2.0, 3.0]",
        ] {
            let model = preprocessor(3, preprocess);
            let found = model.tensor(image(1, grey.clone())).unwrap();
            assert_eq!(
                found,
                model.tensor(image(3, three.clone())).unwrap(),
                "{preprocess}"
            );
        }
    }
}
