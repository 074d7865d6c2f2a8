//! Against the plain loops in f64.

use proptest::prelude::*;

use super::*;
use crate::kernels::testing::{Field, cases, most, places, shares};

#[derive(Clone, Debug)]
struct Layer {
    windows: Windows,
    input: [usize; 3],
    output: [usize; 2],
    items: usize,
    nan: bool,
}

/// What lies in a window, and how many numbers it has with its padding.
fn window(layer: &Layer, x: &Field, item: usize, [row, column, channel]: [usize; 3]) -> (Vec<f64>, usize) {
    let Windows {
        kernel,
        stride,
        padding,
        dilation,
    } = layer.windows;
    let (mut found, mut size) = (Vec::new(), 0);
    for tap_row in 0..kernel[0] {
        for tap_column in 0..kernel[1] {
            let at = [
                row * stride[0] + tap_row * dilation[0],
                column * stride[1] + tap_column * dilation[1],
            ];
            let within = |axis: usize| at[axis] < layer.input[axis] + 2 * padding[axis];
            let on_map = |axis: usize| (padding[axis]..padding[axis] + layer.input[axis]).contains(&at[axis]);
            size += usize::from(within(0) && within(1));
            if on_map(0) && on_map(1) {
                found.push(x.at(item, [at[0] - padding[0], at[1] - padding[1], channel]));
            }
        }
    }
    (found, size)
}

fn largest(numbers: &[f64]) -> f64 {
    let nan = numbers.iter().any(|x| x.is_nan());
    if nan {
        f64::NAN
    } else {
        numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

fn input(layer: &Layer, seed: u64) -> Field {
    let mut x = Field::random(layer.items, layer.input, seed);
    if layer.nan {
        let [height, width, channels] = layer.input;
        x.set(layer.items - 1, [height / 2, width / 3, channels - 1], f64::NAN);
        x.set(0, [0, 0, 0], f64::INFINITY);
        x.set(0, [height - 1, width - 1, channels / 2], f64::NEG_INFINITY);
    }
    x
}

fn check_layer(layer: &Layer, slack: usize, parts: usize, seed: u64) {
    let x = input(layer, seed);
    let shape = [layer.output[0], layer.output[1], layer.input[2]];
    let most = Field::new(layer.items, shape, |item, at| {
        largest(&window(layer, &x, item, at).0)
    });
    let means = Field::new(layer.items, shape, |item, at| {
        let (numbers, size) = window(layer, &x, item, at);
        numbers.iter().sum::<f64>() / size as f64
    });
    for place in places(slack, 1e-6) {
        let (values, map) = x.laid_out(place.isa, slack);
        let source = Source {
            values: &values[slack..],
            map,
        };
        most.check_written(place, |target| {
            for batch in shares(layer.items, parts) {
                max_pool(place.isa, layer.windows, source, target(), batch);
            }
        });
        if layer.windows.dilation == [1; 2] {
            means.check_written(place, |target| {
                for batch in shares(layer.items, parts) {
                    avg_pool(place.isa, layer.windows, source, target(), batch);
                }
            });
        }
    }
}

fn pair(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

prop_compose! {
    fn layers()(
        kernel in pair(1..=4), stride in pair(1..=3), padding in pair(0..=3), dilation in pair(1..=2),
        input in [4..=most(12).max(4), 4..=most(12).max(5), 1..=most(70)], items in 1..=2usize, nan in any::<bool>(), ceil in any::<bool>()
    ) -> Layer {
        let padding = [0, 1].map(|axis| padding[axis].min(kernel[axis] / 2));
        let dilation = [0, 1].map(|axis| if input[axis] > 8 { dilation[axis] } else { 1 });
        let windows = Windows { kernel, stride, padding, dilation };
        let fitting = windows.output([input[0], input[1]]);
        // torch's rule: one more, where it begins on the map or the padding before it.
        let output = [0, 1].map(|axis| {
            let more = fitting[axis] * stride[axis] < input[axis] + padding[axis];
            fitting[axis] + usize::from(ceil && more)
        });
        Layer { windows, input, output, items, nan }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_pooling_equals_the_plain_loops(
        layer in layers(), slack in 0..=3usize, parts in 1..=4usize, seed in any::<u32>()
    ) {
        prop_assume!(layer.output.iter().all(|&size| size > 0));
        check_layer(&layer, slack, parts, u64::from(seed));
    }

    #[test]
    fn the_global_mean_is_that_of_all_pixels(
        shape in [1..=9usize, 1..=9, 1..=most(90)], items in 1..=3usize, parts in 1..=4usize, nan in any::<bool>()
    ) {
        let layer = Layer {
            windows: Windows::square(1, 1, 0), input: shape, output: [1, 1], items, nan: false,
        };
        let mut x = input(&layer, 5);
        if nan {
            x.set(0, [0, shape[1] - 1, shape[2] - 1], f64::NAN);
        }
        let mean = Field::new(items, [1, 1, shape[2]], |item, [_, _, channel]| {
            let pixels = (0..shape[0]).flat_map(|row| (0..shape[1]).map(move |column| [row, column, channel]));
            pixels.map(|at| x.at(item, at)).sum::<f64>() / (shape[0] * shape[1]) as f64
        });
        for place in places(1, 1e-6) {
            let (values, map) = x.laid_out(place.isa, 1);
            let source = Source { values: &values[1..], map };
            mean.check_written(place, |target| {
                for batch in shares(items, parts) {
                    global_avg_pool(place.isa, source, target(), batch);
                }
            });
        }
    }
}

/// Plain summing of 112² numbers near 1 is off by 1e-4.
#[test]
fn the_global_mean_of_a_large_map_is_exact() {
    let size = if cfg!(miri) { 12 } else { 112 };
    let x = Field::new(1, [size, size, 1], |_, [row, column, _]| {
        f64::from(1.0 + ((row * 31 + column * 17) % 97) as f32 / 1000.0)
    });
    let sum: f64 = (0..size * size)
        .map(|pixel| x.at(0, [pixel / size, pixel % size, 0]))
        .sum();
    let mean = Field::new(1, [1, 1, 1], |_, _| sum / (size * size) as f64);
    for place in places(0, 1e-6) {
        let (values, map) = x.laid_out(place.isa, 0);
        mean.check_written(place, |target| {
            global_avg_pool(
                place.isa,
                Source { values: &values, map },
                target(),
                Batch::whole(1),
            );
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |windows: Windows, output: [usize; 2]| {
        std::panic::catch_unwind(|| {
            let map = Map {
                height: 5,
                width: 5,
                channels: 2,
                stride: 4,
            };
            let to = Map {
                height: output[0],
                width: output[1],
                ..map
            };
            let (x, mut y) = (vec![0.0; 100], vec![0.0; 400]);
            let target = Target {
                values: y.as_mut_slice().into(),
                map: to,
            };
            max_pool(
                Isa::PORTABLE,
                windows,
                Source { values: &x, map },
                target,
                Batch::whole(1),
            );
        })
        .is_err()
    };
    assert!(!refused(Windows::square(2, 2, 0), [2, 2]));
    assert!(!refused(Windows::square(2, 2, 0), [3, 3]));
    assert!(refused(Windows::square(2, 2, 0), [4, 3]));
    assert!(refused(Windows::square(2, 2, 2), [3, 3]));
    assert!(refused(Windows::square(0, 2, 0), [2, 2]));
    assert!(refused(Windows::square(2, 0, 0), [2, 2]));
}
