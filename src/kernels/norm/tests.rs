//! Against the formula in f64.

use proptest::prelude::*;

use super::*;
use crate::kernels::testing::{Field, cases, most, numbers, places, shares};

/// The normed pixels of `x`.
fn expected(x: &Field, weight: &[f32], bias: &[f32], epsilon: f32) -> Field {
    Field::new(x.items, x.shape, |item, [row, column, channel]| {
        let pixel: Vec<f64> = (0..x.shape[2])
            .map(|channel| x.at(item, [row, column, channel]))
            .collect();
        let count = pixel.len() as f64;
        let mean = pixel.iter().sum::<f64>() / count;
        let variance = pixel.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let scaled = (pixel[channel] - mean) / (variance + f64::from(epsilon)).sqrt();
        scaled * f64::from(weight[channel]) + f64::from(bias[channel])
    })
}

fn check(x: &Field, slack: usize, parts: usize, tolerance: f64) {
    let (weight, bias) = (numbers(x.shape[2], 1), numbers(x.shape[2], 2));
    let expected = expected(x, &weight, &bias, 1e-6);
    for place in places(slack, tolerance) {
        let norm = LayerNorm::pack(place.isa, &weight, &bias, 1e-6);
        let (values, map) = x.laid_out(place.isa, slack);
        let source = Source {
            values: &values[slack..],
            map,
        };
        expected.check_written(place, |target| {
            for batch in shares(x.items, parts) {
                norm.run(source, target(), batch);
            }
        });
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn pixels_are_normed(
        items in 1..=2usize, shape in [1..=most(4), 1..=most(4), 2..=most(100)], slack in 0..=3usize, parts in 1..=3usize,
        seed in any::<u32>()
    ) {
        let x = Field::random(items, shape, u64::from(seed));
        // Two channels may lie so close together that rounding shows.
        check(&x, slack, parts, if shape[2] < 8 { 1e-2 } else { 1e-4 });
    }
}

/// One pass loses the variance of these altogether.
#[test]
fn a_large_mean_hides_no_variance() {
    let x = Field::new(1, [2, 2, 40], |_, [_, _, channel]| {
        1000.0 + f64::from((channel % 8) as u8) / 8.0
    });
    check(&x, 0, 1, 1e-3);
}

#[test]
fn nan_fills_its_pixel_alone() {
    let mut x = Field::random(1, [2, 3, 21], 3);
    x.set(0, [1, 1, 20], f64::NAN);
    check(&x, 1, 1, 1e-4);
}

#[test]
#[should_panic(expected = "other channels")]
fn other_channels_are_refused() {
    let map = Map {
        height: 1,
        width: 1,
        channels: 3,
        stride: 4,
    };
    let mut y = [0.0; 4];
    let target = Target {
        values: y.as_mut_slice().into(),
        map,
    };
    let norm = LayerNorm::pack(Isa::PORTABLE, &[1.0; 4], &[0.0; 4], 1e-6);
    norm.run(
        Source {
            values: &[0.0; 4],
            map,
        },
        target,
        Batch::whole(1),
    );
}
