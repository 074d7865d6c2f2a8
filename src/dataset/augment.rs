//! Random changes of a tensor that keep its label.

use crate::model::Input;
use crate::model::rng::Rng;
use crate::model::spec::Augment;

/// Share of the image that an erased rectangle takes: s_l and s_h of Zhong et al., arXiv 1708.04896, section 4.
const ERASED_AREA: (f32, f32) = (0.02, 0.4);
/// Height by width of an erased rectangle: r_1 and r_2 there.
const ERASED_ASPECT: (f32, f32) = (0.3, 1.0 / 0.3);
/// Draws until a rectangle fits; the paper draws for ever.
const ERASE_ATTEMPTS: usize = 100;

/// Changes C×H×W tensors of one shape in place: rotation, shift, flip and erasing, in this order.
///
/// What comes from outside the image is the background. All numbers are drawn from the given generator. The arithmetic
/// is IEEE 754 and the same everywhere, except for the sine and cosine of a rotation, which are the platform's own:
/// with `rotate` off, the bits are the same on every machine; with it on, on every machine of the same platform.
#[derive(Clone, Debug)]
pub struct Augmenter {
    augment: Augment,
    input: Input,
    background: Vec<f32>,
    /// One plane as it was before a rotation.
    before: Vec<f32>,
}

impl Augmenter {
    /// For tensors of `input`'s shape; `background` has one value per channel.
    ///
    /// # Panics
    /// When `background` has not one value per channel.
    pub fn new(augment: Augment, input: Input, background: Vec<f32>) -> Self {
        assert_eq!(
            background.len(),
            input.channels,
            "augmentation fills every channel with its own background"
        );
        Self {
            augment,
            input,
            background,
            before: Vec::with_capacity(input.height * input.width),
        }
    }

    /// Whether it changes anything at all.
    pub fn is_active(&self) -> bool {
        self.augment != Augment::default()
    }

    /// One random change of each kind that is on.
    pub fn apply(&mut self, tensor: &mut [f32], rng: &mut Rng) {
        let Augment {
            shift,
            flip,
            rotate,
            erase,
        } = self.augment;
        if rotate > 0.0 {
            self.rotate(tensor, rng.uniform(-rotate, rotate));
        }
        if shift > 0 {
            let [x, y] = [(); 2].map(|()| rng.below(2 * shift as u64 + 1) as isize - shift as isize);
            self.shift(tensor, x, y);
        }
        if flip && rng.unit() < 0.5 {
            self.flip(tensor);
        }
        if erase > 0.0 && rng.unit() < erase {
            self.erase(tensor, rng);
        }
    }

    /// Moves the content `right` and `down` by whole pixels.
    fn shift(&self, tensor: &mut [f32], right: isize, down: isize) {
        let (height, width) = (self.input.height, self.input.width);
        for (plane, &ground) in tensor.chunks_exact_mut(height * width).zip(&self.background) {
            let (columns, rows) = (right.unsigned_abs().min(width), down.unsigned_abs().min(height));
            // Rows: the whole plane moves as one run.
            if down >= 0 {
                plane.copy_within(..(height - rows) * width, rows * width);
                plane[..rows * width].fill(ground);
            } else {
                plane.copy_within(rows * width.., 0);
                plane[(height - rows) * width..].fill(ground);
            }
            for row in plane.chunks_exact_mut(width) {
                if right >= 0 {
                    row.copy_within(..width - columns, columns);
                    row[..columns].fill(ground);
                } else {
                    row.copy_within(columns.., 0);
                    row[width - columns..].fill(ground);
                }
            }
        }
    }

    /// Exchanges left and right.
    fn flip(&self, tensor: &mut [f32]) {
        tensor
            .chunks_exact_mut(self.input.width)
            .for_each(<[f32]>::reverse);
    }

    /// Turns about the centre, clockwise, with bilinear interpolation.
    fn rotate(&mut self, tensor: &mut [f32], degrees: f32) {
        let (height, width) = (self.input.height, self.input.width);
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (middle_x, middle_y) = ((width - 1) as f32 / 2.0, (height - 1) as f32 / 2.0);
        for (plane, &ground) in tensor.chunks_exact_mut(height * width).zip(&self.background) {
            self.before.clear();
            self.before.extend_from_slice(plane);
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                for (x, value) in row.iter_mut().enumerate() {
                    let (dx, dy) = (x as f32 - middle_x, y as f32 - middle_y);
                    // Where this pixel comes from: turned back.
                    let from = (cos * dx + sin * dy + middle_x, cos * dy - sin * dx + middle_y);
                    *value = bilinear(&self.before, width, from, ground);
                }
            }
        }
    }

    /// Blanks one rectangle that lies wholly inside. An image too small for any stays as it is.
    fn erase(&self, tensor: &mut [f32], rng: &mut Rng) {
        let (height, width) = (self.input.height, self.input.width);
        for _ in 0..ERASE_ATTEMPTS {
            let area = (height * width) as f32 * rng.uniform(ERASED_AREA.0, ERASED_AREA.1);
            let aspect = rng.uniform(ERASED_ASPECT.0, ERASED_ASPECT.1);
            let high = (area * aspect).sqrt().round() as usize;
            let wide = (area / aspect).sqrt().round() as usize;
            if !(1..=height).contains(&high) || !(1..=width).contains(&wide) {
                continue;
            }
            let top = rng.below((height - high + 1) as u64) as usize;
            let left = rng.below((width - wide + 1) as u64) as usize;
            for (plane, &ground) in tensor.chunks_exact_mut(height * width).zip(&self.background) {
                for row in plane.chunks_exact_mut(width).skip(top).take(high) {
                    row[left..left + wide].fill(ground);
                }
            }
            return;
        }
    }
}

/// The value of `plane` between pixel centres; outside is `ground`.
fn bilinear(plane: &[f32], width: usize, (x, y): (f32, f32), ground: f32) -> f32 {
    let height = plane.len() / width;
    let (left, top) = (floor(x), floor(y));
    let (right_share, bottom_share) = (x - left as f32, y - top as f32);
    let at = |x: i32, y: i32| {
        // A negative coordinate is a huge unsigned one.
        let (x, y) = (x as usize, y as usize);
        if x < width && y < height {
            plane[y * width + x]
        } else {
            ground
        }
    };
    let mix = |a: f32, b: f32, share: f32| a * (1.0 - share) + b * share;
    let upper = mix(at(left, top), at(left + 1, top), right_share);
    let lower = mix(at(left, top + 1), at(left + 1, top + 1), right_share);
    mix(upper, lower, bottom_share)
}

/// The whole number at or below a coordinate; `f32::floor` is a call into libm where SSE 4.1 is not taken for granted.
fn floor(x: f32) -> i32 {
    let toward_zero = x as i32;
    toward_zero - i32::from(toward_zero as f32 > x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::model::rng::{Rng, Stream};

    use super::*;

    const INPUT: Input = Input {
        channels: 3,
        height: 5,
        width: 7,
    };
    const BACKGROUND: [f32; 3] = [-1.0, -2.0, -3.0];

    fn augmenter(augment: Augment) -> Augmenter {
        Augmenter::new(augment, INPUT, BACKGROUND.to_vec())
    }

    /// Every number another, all above every background.
    fn tensor() -> Vec<f32> {
        (0..INPUT.len()).map(|v| v as f32).collect()
    }

    fn changed(change: impl FnOnce(&mut Augmenter, &mut [f32])) -> Vec<f32> {
        let mut tensor = tensor();
        change(&mut augmenter(Augment::default()), &mut tensor);
        tensor
    }

    /// Value of channel 1 at a place that may lie outside.
    fn pixel(tensor: &[f32], x: isize, y: isize) -> f32 {
        let inside = (0..7).contains(&x) && (0..5).contains(&y);
        if inside {
            tensor[(35 + y * 7 + x) as usize]
        } else {
            BACKGROUND[1]
        }
    }

    #[test]
    fn changes_by_nothing_change_nothing() {
        assert_eq!(changed(|a, t| a.shift(t, 0, 0)), tensor());
        assert_eq!(changed(|a, t| a.rotate(t, 0.0)), tensor());
        let twice = changed(|a, t| {
            a.flip(t);
            a.flip(t);
        });
        assert_eq!(twice, tensor());
        let mut off = augmenter(Augment::default());
        assert!(!off.is_active());
        assert_eq!(
            changed(|_, t| off.apply(t, &mut Rng::new(1, Stream::Augment, 0))),
            tensor()
        );
    }

    #[test]
    fn a_flip_exchanges_left_and_right() {
        let flipped = changed(|a, t| a.flip(t));
        for (x, y) in [(0, 0), (3, 2), (6, 4)] {
            assert_eq!(pixel(&flipped, x, y), pixel(&tensor(), 6 - x, y));
        }
    }

    #[test]
    fn a_quarter_turn_is_clockwise_about_the_centre() {
        let turned = changed(|a, t| a.rotate(t, 90.0));
        for y in 0..5 {
            for x in 0..7 {
                let expected = pixel(&tensor(), y - 2 + 3, 3 - x + 2);
                let got = pixel(&turned, x, y);
                assert!((got - expected).abs() < 1e-3, "{x} {y}: {got} {expected}");
            }
        }
    }

    #[test]
    fn an_eighth_turn_mixes_four_neighbours() {
        let input = Input {
            channels: 1,
            height: 2,
            width: 2,
        };
        let mut tensor = [0.0, 8.0, 0.0, 0.0];
        Augmenter::new(Augment::default(), input, vec![0.0]).rotate(&mut tensor, 45.0);
        // Each corner comes from a point 0.2071 outside the middle of a side, so from that side's two pixels, each
        // weighing 0.5 · (1 - 0.2071); the corner with the 8 belongs to the upper and the right side.
        let part = 8.0 * 0.5 * 0.7929;
        let expected = [0.0, part, 0.0, part];
        for (got, expected) in tensor.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-3, "{tensor:?}");
        }
    }

    #[test]
    fn erasing_happens_as_often_as_asked_with_rectangles_of_the_paper() {
        let mut erasing = augmenter(Augment {
            erase: 0.3,
            ..Augment::default()
        });
        let mut rng = Rng::new(4, Stream::Augment, 0);
        let (runs, mut erased) = (4000, 0);
        for _ in 0..runs {
            let after = changed(|_, t| erasing.apply(t, &mut rng));
            let blank: Vec<usize> = (0..35).filter(|&i| after[i] == BACKGROUND[0]).collect();
            let (Some(first), Some(last)) = (blank.first(), blank.last()) else {
                assert_eq!(after, tensor());
                continue;
            };
            let (wide, high) = (last % 7 - first % 7 + 1, last / 7 - first / 7 + 1);
            assert_eq!(blank.len(), wide * high, "a full rectangle");
            // Sides are rounded: each may be half a pixel more than drawn.
            assert!((high as f32 - 0.5) * (wide as f32 - 0.5) <= 0.4 * 35.0);
            for (plane, ground) in BACKGROUND.into_iter().enumerate() {
                assert!(blank.iter().all(|i| after[plane * 35 + i] == ground));
            }
            erased += 1;
        }
        let share = f64::from(erased) / f64::from(runs);
        assert!((share - 0.3).abs() < 0.03, "{share}");
    }

    proptest! {
        #[test]
        fn a_shift_moves_every_pixel_alike(x in -9isize..=9, y in -9isize..=9) {
            let shifted = changed(|a, t| a.shift(t, x, y));
            for row in 0..5 {
                for column in 0..7 {
                    prop_assert_eq!(pixel(&shifted, column, row), pixel(&tensor(), column - x, row - y));
                }
            }
        }

        #[test]
        fn content_stays_between_background_and_image(seed: u64, rotate in 0f32..180.0, shift in 0usize..5) {
            let augment = Augment { shift, flip: true, rotate, erase: 0.5 };
            let apply = |seed| changed(|_, t| augmenter(augment).apply(t, &mut Rng::new(seed, Stream::Augment, 0)));
            let after = apply(seed);
            prop_assert_eq!(&after, &apply(seed));
            for (channel, plane) in after.chunks(35).enumerate() {
                let most = ((channel + 1) * 35 - 1) as f32;
                let range = BACKGROUND[channel] - 1e-3..=most + 1e-3;
                prop_assert!(plane.iter().all(|v| range.contains(v)), "{:?}", plane);
            }
        }
    }
}
