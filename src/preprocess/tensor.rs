//! Pixels to the numbers a network takes.

use std::sync::Arc;

use crate::model::Spec;
use crate::model::spec::{Alpha, Center, Invert};

use super::center;
use super::resize::{Opaque, Target};
use super::{ImageError, Pixels};

/// A border lighter than this is light ground.
const LIGHT: u8 = 127;

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

    /// The C×H×W tensor of an image.
    pub fn tensor(&self, pixels: &Pixels) -> Result<Vec<f32>, ImageError> {
        let channels = self.spec.input.channels;
        if pixels.channels == 1 && channels == 1 && self.takes_as_it_is(pixels) {
            return Ok(self.numbers(&pixels.bytes));
        }
        let expected = pixels.width as usize * pixels.height as usize * usize::from(pixels.channels);
        if expected == 0 || pixels.bytes.len() != expected {
            return Err(ImageError::Broken("its pixels do not fill its size"));
        }
        let image = opaque(pixels, channels, self.behind_alpha());
        Ok(self.numbers(&self.shaped(image).bytes))
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

    /// H×W×C bytes to C×H×W numbers.
    fn numbers(&self, bytes: &[u8]) -> Vec<f32> {
        let channels = self.levels.len();
        let mut numbers = Vec::with_capacity(bytes.len());
        for (channel, levels) in self.levels.iter().enumerate() {
            numbers.extend(
                bytes
                    .iter()
                    .skip(channel)
                    .step_by(channels)
                    .map(|&v| levels[usize::from(v)]),
            );
        }
        numbers
    }
}

/// The image in the model's channels, over `background` where it is transparent; without one alpha is left out.
fn opaque(pixels: &Pixels, channels: usize, background: Option<u8>) -> Opaque {
    let over = |value: u8, alpha: u8| {
        let Some(background) = background else {
            return value;
        };
        let (value, alpha, ground) = (u32::from(value), u32::from(alpha), u32::from(background));
        ((value * alpha + ground * (255 - alpha) + 127) / 255) as u8
    };
    let rgb = |pixel: &[u8]| match *pixel {
        [grey] => [grey; 3],
        [grey, alpha] => [over(grey, alpha); 3],
        [r, g, b] => [r, g, b],
        [r, g, b, alpha] => [over(r, alpha), over(g, alpha), over(b, alpha)],
        _ => [0; 3],
    };
    let each = pixels.bytes.chunks_exact(usize::from(pixels.channels)).map(rgb);
    let bytes = if channels == 1 {
        each.map(luma).collect()
    } else {
        each.flatten().collect()
    };
    Opaque {
        width: pixels.width as usize,
        height: pixels.height as usize,
        channels,
        bytes,
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
        let tensor = preprocessor(1, "")
            .tensor(&pixels(1, &[0, 51, 102, 255]))
            .unwrap();
        assert_eq!(tensor, [0.0, 51.0 / 255.0, 102.0 / 255.0, 1.0]);
    }

    #[test]
    fn channels_are_planes_with_their_own_moments() {
        let three = preprocessor(3, "mean = [0.0, 0.5, 1.0], std = [1.0, 0.5, 2.0]");
        let tensor = three.tensor(&pixels(1, &[0, 255, 0, 255])).unwrap();
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
        let tensor = preprocessor(1, "").tensor(&pixels(3, &bytes)).unwrap();
        assert_eq!(levels(&tensor), [76, 150, 29, 255]);
    }

    #[test]
    fn what_is_transparent_shows_the_background() {
        let bytes = [200, 0, 200, 255, 100, 128, 0, 0];
        let tensor = preprocessor(1, "").tensor(&pixels(2, &bytes)).unwrap();
        assert_eq!(levels(&tensor), [0, 200, 50, 0]);
        let white = preprocessor(1, "background = 255")
            .tensor(&pixels(2, &bytes))
            .unwrap();
        assert_eq!(levels(&white), [255, 200, 177, 255]);
        let ignored = preprocessor(1, "background = 255, alpha = 'ignore'")
            .tensor(&pixels(2, &bytes))
            .unwrap();
        assert_eq!(levels(&ignored), [200, 200, 100, 0]);
    }

    #[test]
    fn light_ground_is_inverted_where_asked() {
        let check = |invert: &str, bytes: &[u8], expected: &[u8]| {
            let tensor = preprocessor(1, &format!("invert = '{invert}'"))
                .tensor(&pixels(1, bytes))
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
            assert!(preprocessor(1, "").tensor(&broken).is_err(), "{channels} {count}");
        }
    }
}
