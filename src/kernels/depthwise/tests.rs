//! Against the plain loops in f64.

use proptest::prelude::*;

use super::*;
use crate::kernels::activation::formula;
use crate::kernels::testing::{Field, cases, most, numbers, places, shares};
use crate::kernels::{Map, Part};

#[derive(Clone, Debug)]
struct Layer {
    windows: Windows,
    input: [usize; 2],
    channels: usize,
    items: usize,
    function: Option<Activation>,
    seed: u64,
}

/// The plain loops; zeros where a tap lies beyond the map.
fn expected(layer: &Layer, x: &Field, weight: &[f32], bias: &[f32]) -> Field {
    let Windows {
        kernel,
        stride,
        padding,
        dilation,
    } = layer.windows;
    let [height, width] = layer.windows.output(layer.input);
    Field::new(
        layer.items,
        [height, width, layer.channels],
        |item, [row, column, channel]| {
            let mut sum = f64::from(bias[channel]);
            for tap_row in 0..kernel[0] {
                for tap_column in 0..kernel[1] {
                    let at = [
                        (row * stride[0] + tap_row * dilation[0]).wrapping_sub(padding[0]),
                        (column * stride[1] + tap_column * dilation[1]).wrapping_sub(padding[1]),
                    ];
                    if at[0] < layer.input[0] && at[1] < layer.input[1] {
                        let tap = (channel * kernel[0] + tap_row) * kernel[1] + tap_column;
                        sum += f64::from(weight[tap]) * x.at(item, [at[0], at[1], channel]);
                    }
                }
            }
            layer.function.map_or(sum, |function| formula(function, sum))
        },
    )
}

fn check(layer: &Layer, slack: usize, parts: usize) {
    let taps = layer.windows.kernel[0] * layer.windows.kernel[1];
    let weight = numbers(layer.channels * taps, layer.seed);
    let bias = numbers(layer.channels, layer.seed + 1);
    let [height, width] = layer.input;
    let x = Field::random(layer.items, [height, width, layer.channels], layer.seed + 2);
    let expected = expected(layer, &x, &weight, &bias);
    for place in places(slack, 1e-5) {
        let depthwise = Depthwise::pack(place.isa, &weight, Some(&bias), layer.windows, layer.function);
        let (values, map) = x.laid_out(place.isa, slack);
        let source = Source {
            values: &values[slack..],
            map,
        };
        expected.check_written(place, |target| {
            for batch in shares(layer.items, parts) {
                depthwise.run(source, target(), batch);
            }
        });
    }
}

fn pair(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

prop_compose! {
    fn any_windows()(
        kernel in pair(1..=5), stride in pair(1..=3), padding in pair(0..=3), dilation in pair(1..=2)
    ) -> Windows {
        Windows { kernel, stride, padding, dilation }
    }
}

/// Windows whose loops are their own.
fn common_windows() -> impl Strategy<Value = Windows> {
    (
        prop::sample::select(vec![(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)]),
        0..=3usize,
    )
        .prop_map(|((kernel, stride), padding)| Windows::square(kernel, stride, padding.min(kernel)))
}

fn any_function() -> impl Strategy<Value = Option<Activation>> {
    prop::sample::select(vec![
        None,
        Some(Activation::Relu),
        Some(Activation::Relu6),
        Some(Activation::HardSwish),
        Some(Activation::Gelu),
    ])
}

prop_compose! {
    fn layers()(
        windows in prop_oneof![any_windows(), common_windows()], input in pair(1..=most(19)), channels in 1..=most(35),
        items in 1..=2usize, function in any_function(), seed in any::<u32>()
    ) -> Layer {
        Layer { windows, input, channels, items, function, seed: u64::from(seed) }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_layer_equals_the_plain_loops(layer in layers(), slack in 0..=3usize, parts in 1..=4usize) {
        check(&layer, slack, parts);
    }
}

/// One map of a square kernel that keeps its size, or halves it.
fn check_square(kernel: usize, stride: usize, input: [usize; 2], channels: usize) {
    let layer = Layer {
        windows: Windows::square(kernel, stride, kernel / 2),
        input,
        channels,
        items: 1,
        function: Some(Activation::Relu6),
        seed: 7,
    };
    check(&layer, 1, 2);
}

#[test]
fn every_remainder_of_channels_and_columns_is_right() {
    let (channels, width) = if cfg!(miri) { (2, 2) } else { (33, 45) };
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)] {
        (1..=channels).for_each(|channels| check_square(kernel, stride, [4, 9], channels));
        (1..=width).for_each(|width| check_square(kernel, stride, [3, width], 3));
    }
}

/// So many channels of such rows that they pass in parts, several rows at a time.
#[test]
fn large_rows_pass_in_parts() {
    if cfg!(miri) {
        return;
    }
    for (kernel, stride, width, channels) in
        [(3, 1, 30, 150), (5, 2, 61, 70), (3, 2, 112, 40), (7, 1, 20, 130)]
    {
        check_square(kernel, stride, [19, width], channels);
    }
}

#[test]
fn an_item_is_the_same_in_every_batch_and_part() {
    let windows = Windows::square(3, 1, 1);
    let x = Field::random(3, [most(9), most(30), most(20)], 3);
    for isa in Isa::available() {
        let depthwise = Depthwise::pack(
            isa,
            &numbers(most(20) * 9, 4),
            None,
            windows,
            Some(Activation::Silu),
        );
        let (values, map) = x.laid_out(isa, 0);
        let run = |first: usize, items: usize, of: usize| {
            let mut y = vec![0.0; items * map.item()];
            for index in 0..of {
                let target = Target {
                    values: y.as_mut_slice().into(),
                    map,
                };
                let source = Source {
                    values: &values[first * map.item()..],
                    map,
                };
                depthwise.run(
                    source,
                    target,
                    Batch {
                        items,
                        part: Part { index, of },
                    },
                );
            }
            y
        };
        let all = run(0, 3, 1);
        assert_eq!(run(0, 3, 7), all);
        for item in 0..3 {
            assert_eq!(
                run(item, 1, 2),
                all[item * map.item()..][..map.item()],
                "{isa} {item}"
            );
        }
    }
}

#[test]
fn nan_reaches_every_window_it_lies_in() {
    let windows = Windows::square(3, 1, 1);
    let mut x = Field::random(1, [6, 12, 4], 3);
    x.set(0, [2, 5, 1], f64::NAN);
    for isa in Isa::available() {
        for function in [None, Some(Activation::Relu6), Some(Activation::Gelu)] {
            let depthwise = Depthwise::pack(isa, &numbers(36, 4), None, windows, function);
            let (values, map) = x.laid_out(isa, 0);
            let mut y = vec![0.0; map.item()];
            let target = Target {
                values: y.as_mut_slice().into(),
                map,
            };
            depthwise.run(Source { values: &values, map }, target, Batch::whole(1));
            for (pixel, channels) in y.chunks(map.stride).enumerate() {
                let near = (1..=3).contains(&(pixel / 12)) && (4..=6).contains(&(pixel % 12));
                assert_eq!(channels[1].is_nan(), near, "{isa} {function:?} {pixel}");
                assert!(!channels[0].is_nan());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let map = |height, width, channels| Map {
        height,
        width,
        channels,
        stride: 4,
    };
    let refused = |from: Map, to: Map, len: usize, part: Part| {
        std::panic::catch_unwind(|| {
            let windows = Windows::square(3, 1, 1);
            let depthwise = Depthwise::pack(Isa::PORTABLE, &[0.0; 27], None, windows, None);
            let (x, mut y) = (vec![0.0; 80], vec![0.0; len]);
            let target = Target {
                values: y.as_mut_slice().into(),
                map: to,
            };
            depthwise.run(
                Source {
                    values: &x,
                    map: from,
                },
                target,
                Batch { items: 1, part },
            );
        })
        .is_err()
    };
    assert!(!refused(map(4, 5, 3), map(4, 5, 3), 80, Part::WHOLE));
    assert!(refused(map(4, 5, 3), map(4, 5, 3), 79, Part::WHOLE));
    assert!(refused(map(5, 5, 3), map(5, 5, 3), 100, Part::WHOLE));
    assert!(refused(map(4, 5, 3), map(4, 7, 3), 112, Part::WHOLE));
    assert!(refused(map(4, 5, 4), map(4, 5, 4), 80, Part::WHOLE));
    assert!(refused(map(4, 5, 3), map(4, 5, 3), 80, Part { index: 1, of: 1 }));
}
