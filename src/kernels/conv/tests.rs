//! Convolutions against the reference.

use proptest::prelude::*;

use super::super::reference::{Check, Layer};
use super::super::testing::most;
use super::super::{Activation, Isa};
use super::*;

/// Each sum of n products in `f32` is off by at most n·2⁻²⁴ of their sizes.
fn allowed(layer: &Layer) -> f64 {
    let products = layer.windows.tap_count() * layer.size[2] / layer.groups + 4;
    f64::from(u32::try_from(products).unwrap()) * f64::from(f32::EPSILON) / 2.0
}

fn check(layer: &Layer, wide: bool) {
    for isa in Isa::available() {
        let check = Check::new(isa, layer.clone(), 7);
        let conv = Conv::pack(isa, check.filters(), layer.windows, wide);
        let conv = if layer.pooled { conv.pooled() } else { conv };
        check.check(allowed(layer), |source, out, part| {
            conv.run(source, out, check.to, part);
        });
    }
}

fn windows(kernel: usize, stride: usize, padding: usize, dilation: usize) -> Windows {
    Windows {
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [dilation; 2],
    }
}

prop_compose! {
    fn any_windows()(
        kernel in [1usize..=4, 1..=4],
        stride in [1usize..=3, 1..=3],
        padding in [0usize..=3, 0..=3],
        dilation in [1usize..=2, 1..=2],
    ) -> Windows {
        let padding = [0, 1].map(|axis| padding[axis].min((kernel[axis] - 1) * dilation[axis]));
        Windows { kernel, stride, padding, dilation }
    }
}

prop_compose! {
    fn any_layer()(
        items in 1usize..=3,
        size in [1..=most(9), 1..=most(9)],
        groups in prop_oneof![4 => Just(1usize), 1 => 2usize..=4],
        channels in 1..=most(19),
        out in 1..=most(37),
        windows in any_windows(),
        pooled in prop::bool::weighted(0.3),
        residual in any::<bool>(),
        function in prop::sample::select(vec![None, Some(Activation::Relu), Some(Activation::Relu6)]),
        apart in 0usize..=1,
    ) -> Layer {
        let (channels, out) = (channels.div_ceil(groups) * groups, out.div_ceil(groups) * groups);
        Layer {
            items,
            size: [size[0], size[1], channels],
            out,
            groups,
            windows,
            more: [0; 2],
            pooled,
            residual,
            function,
            apart,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 160 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn equals_the_reference(layer in any_layer(), wide in any::<bool>()) {
        check(&layer, wide && !layer.pooled);
    }
}

#[test]
fn every_remainder_of_channels() {
    let most = if cfg!(miri) { 5 } else { 67 };
    for out in 1..=most {
        for wide in [false, true] {
            check(&Layer::new([3, 5, 1 + out % 5], out, windows(1, 1, 0, 1)), wide);
        }
    }
}

#[test]
fn shapes_of_their_own() {
    let layers = [
        // Rows of several tiles, and groups of tiles.
        Layer::new([4, 61, 3], 20, windows(3, 1, 1, 1)),
        // A point read from every second pixel.
        Layer::new([9, 8, 5], 33, windows(1, 2, 0, 1)),
        // Whole vectors of each group.
        Layer {
            groups: 2,
            ..Layer::new([5, 6, 6], 64, windows(3, 1, 1, 1))
        },
        // A window larger than its map.
        Layer::new([2, 3, 4], 17, windows(7, 1, 3, 1)),
        // A dense layer over a batch.
        Layer {
            items: 17,
            function: Some(Activation::Relu),
            ..Layer::new([1, 1, 70], 70, Windows::POINT)
        },
        // Nothing.
        Layer {
            items: 0,
            ..Layer::new([3, 3, 3], 5, windows(3, 1, 1, 1))
        },
    ];
    for layer in layers {
        let products =
            layer.size.iter().product::<usize>() * layer.out * layer.windows.tap_count() * layer.items;
        if cfg!(miri) && products > 9000 {
            continue;
        }
        check(&layer, false);
        check(&layer, true);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many products")]
fn weights_in_passes() {
    // More weights than stay in the cache at once: within one tap, and by taps.
    for (size, out, kernel) in [([1, 1, 2300], 64, 1), ([5, 6, 256], 48, 3)] {
        let layer = Layer {
            items: 33 / size[0],
            function: Some(Activation::Relu),
            ..Layer::new(size, out, windows(kernel, 1, kernel / 2, 1))
        };
        check(&layer, false);
        check(&layer, true);
    }
}

#[test]
fn strips_are_for_windows_at_a_known_distance_inside_the_map() {
    let map = |height: usize, width: usize, stride: usize| Map {
        height,
        width,
        channels: stride,
        stride,
    };
    let lines = Windows {
        kernel: [3, 1],
        ..Windows::POINT
    };
    let bordered = Windows {
        padding: [1, 0],
        ..lines
    };
    for isa in Isa::available() {
        for (taps, from, to, expected) in [
            (lines, map(9, 16, 3), map(7, 14, 16), true),
            (lines, map(9, 16, 1), map(7, 14, 16), true),
            (lines, map(9, 16, 2), map(7, 14, 16), false),
            (lines, map(8, 16, 3), map(7, 14, 16), false),
            (lines, map(9, 13, 3), map(7, 14, 16), false),
            (lines, map(9, 16, 3), map(7, 2, 16), false),
            (bordered, map(9, 16, 3), map(7, 14, 16), false),
            (windows(3, 1, 0, 1), map(9, 16, 3), map(7, 14, 16), false),
        ] {
            let weight = vec![0.0; 16 * from.channels * taps.tap_count()];
            let filters = Filters {
                weight: &weight,
                bias: &[],
                out: 16,
                channels: from.channels,
                groups: 1,
            };
            let conv = Conv::pack(isa, filters, taps, false);
            assert_eq!(
                conv.has_strips(from, to),
                expected,
                "{isa} {taps:?} {from:?} {to:?}"
            );
        }
    }
}

fn panics(what: impl FnOnce() + std::panic::UnwindSafe) {
    assert!(std::panic::catch_unwind(what).is_err());
}

#[test]
fn lengths_that_do_not_meet_are_refused() {
    let isa = Isa::PORTABLE;
    let layer = Layer {
        residual: true,
        ..Layer::new([3, 3, 4], 8, windows(3, 1, 1, 1))
    };
    let check = Check::new(isa, layer, 7);
    let (filters, windows) = (check.filters(), check.layer.windows);
    let conv = Conv::pack(isa, filters, windows, false);
    let values = vec![0.0; 100];
    let run = |input: usize, out: usize, residual: usize, to: Map| {
        let source = Job {
            values: &values[..input],
            map: check.map,
            items: 1,
            residual: Some((&values[..residual], check.to)),
            function: None,
        };
        conv.run(source, &Output::from(&mut vec![0.0; out][..]), to, Part::WHOLE);
    };
    run(36, 72, 72, check.to);
    let narrow = Map {
        stride: 4,
        ..check.to
    };
    for (input, out, residual, to) in [
        (35, 72, 72, check.to),
        (36, 71, 72, check.to),
        (36, 72, 71, check.to),
        (36, 72, 72, narrow),
    ] {
        panics(std::panic::AssertUnwindSafe(|| run(input, out, residual, to)));
    }
    for part in [Part { index: 1, of: 1 }, Part { index: 0, of: 0 }] {
        let source = Job {
            values: &values,
            map: check.map,
            items: 1,
            residual: None,
            function: None,
        };
        let mut out = vec![0.0; 72];
        let run = || conv.run(source, &Output::from(&mut out[..]), check.to, part);
        panics(std::panic::AssertUnwindSafe(run));
    }
    let huge = Map {
        height: 1 << 62,
        width: 1 << 2,
        ..check.to
    };
    panics(std::panic::AssertUnwindSafe(|| run(36, 72, 72, huge)));
    let short = Filters {
        weight: &filters.weight[1..],
        ..filters
    };
    let biased = Filters {
        bias: &filters.bias[1..],
        ..filters
    };
    let grouped = Filters { groups: 3, ..filters };
    for filters in [short, biased, grouped] {
        panics(|| drop(Conv::pack(isa, filters, windows, false)));
    }
    let large = Windows {
        kernel: [513, 1],
        ..windows
    };
    let weight = vec![0.0; 513];
    let one = Filters {
        weight: &weight,
        bias: &[],
        out: 1,
        channels: 1,
        groups: 1,
    };
    panics(|| drop(Conv::pack(isa, one, large, false)));
    let still = Windows {
        stride: [1, 0],
        ..windows
    };
    panics(|| drop(Conv::pack(isa, filters, still, false)));
    let many = Filters {
        weight: &[0.0; 16 * 9],
        out: 16,
        ..one
    };
    panics(|| drop(Conv::pack(isa, many, windows, true).pooled()));
}
