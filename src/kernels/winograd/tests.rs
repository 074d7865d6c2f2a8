//! Winograd convolutions against the reference.

use proptest::prelude::*;

use super::super::reference::{Check, Layer};
use super::super::testing::most;
use super::super::{Activation, Windows};
use super::*;

const SQUARES: [Square; 2] = [Square::Two, Square::Four];

fn layer(size: [usize; 3], out: usize, padding: [usize; 2]) -> Layer {
    let windows = Windows {
        kernel: [3; 2],
        padding,
        ..Windows::POINT
    };
    Layer::new(size, out, windows)
}

/// Asserts that the error is at most `allowed` of the largest sum of products' sizes: an output in the border, which is its
/// bias alone, has the errors of the square it is computed in.
fn check(layer: &Layer, allowed: f64) {
    for isa in Isa::available() {
        let check = Check::new(isa, layer.clone(), 7);
        for square in SQUARES {
            let conv = Winograd::pack(isa, check.filters(), layer.windows.padding, square);
            check.check_together(allowed, |source, out, part| {
                let mut scratch = vec![f32::NAN; conv.scratch_len(source.items, check.to)];
                conv.run(source, (out, check.to), &mut scratch, part);
            });
        }
    }
}

/// Channels at most; fewer where each step takes long.
const MOST: usize = if cfg!(miri) { 6 } else { 38 };

prop_compose! {
    fn any_layer()(
        items in 1usize..=3,
        size in [1..=most(11), 1..=most(11)],
        channels in 1usize..=MOST / 2,
        out in 1usize..=MOST,
        padding in [0usize..=2, 0..=2],
        residual in any::<bool>(),
        function in prop::sample::select(vec![None, Some(Activation::Relu), Some(Activation::Relu6)]),
        apart in 0usize..=1,
    ) -> Layer {
        Layer {
            items,
            residual,
            function,
            apart,
            ..layer([size[0], size[1], channels], out, padding)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 100 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn equals_the_reference(layer in any_layer()) {
        check(&layer, 1e-5);
    }
}

#[test]
fn several_chunks_of_squares() {
    if !cfg!(miri) {
        check(&layer([30, 33, 3], 5, [1, 1]), 1e-5);
    }
    check(&layer([1, 2, 1], 1, [1, 1]), 1e-5);
}

/// The largest error, in parts of the largest output: at most 8·10⁻⁷ with squares of 2 and 4·10⁻⁶ with squares of 4 were
/// found; twice as much is allowed.
#[test]
#[cfg_attr(miri, ignore = "too many products")]
fn errors_are_small_beside_the_largest_output() {
    for (square, allowed) in [(Square::Two, 1.6e-6), (Square::Four, 8e-6)] {
        for (size, out) in [([9, 9, 512], 32), ([16, 16, 64], 64)] {
            for isa in Isa::available() {
                let check = Check::new(isa, layer(size, out, [1, 1]), 7);
                let conv = Winograd::pack(isa, check.filters(), [1, 1], square);
                let mut found = check.run(0..1, 1, |source, output, part| {
                    let mut scratch = vec![0.0; conv.scratch_len(1, check.to)];
                    conv.run(source, (output, check.to), &mut scratch, part);
                });
                let expected = check.expected();
                let largest = expected.iter().fold(0.0, |a: f64, [value, _]| a.max(value.abs()));
                let errors = found.drain(..).zip(&expected);
                let error = errors.fold(0.0, |a: f64, (found, [value, _])| {
                    a.max((f64::from(found) - value).abs())
                });
                assert!(
                    error <= allowed * largest,
                    "{square:?} {isa}: {:e}",
                    error / largest
                );
            }
        }
    }
}

#[test]
fn squares_are_chosen_by_the_layer() {
    let map = |side: usize, channels: usize| Map {
        height: side,
        width: side,
        channels,
        stride: channels,
    };
    for (channels, side, expected) in [
        (64, 56, Some(Square::Four)),
        (128, 28, Some(Square::Four)),
        (256, 14, Some(Square::Four)),
        (512, 7, Some(Square::Four)),
        (16, 56, Some(Square::Four)),
        (64, 6, Some(Square::Two)),
        (512, 2, None),
        (64, 1, None),
    ] {
        let found = Square::choose(channels, map(side, channels));
        assert_eq!(found, expected, "{channels} channels, {side} × {side}");
    }
}

#[test]
fn lengths_that_do_not_meet_are_refused() {
    let isa = Isa::PORTABLE;
    let check = Check::new(isa, layer([3, 3, 4], 8, [1, 1]), 7);
    let conv = Winograd::pack(isa, check.filters(), [1, 1], Square::Two);
    let run = |input: usize, out: usize, scratch: usize| {
        let source = Job {
            values: &vec![0.0; input],
            map: check.map,
            items: 1,
            residual: None,
            function: None,
        };
        let mut out = vec![0.0; out];
        let to = (&Output::from(&mut out[..]), check.to);
        conv.run(source, to, &mut vec![0.0; scratch], Part::WHOLE);
    };
    let scratch = conv.scratch_len(1, check.to);
    run(36, 72, scratch);
    for (input, out, scratch) in [(35, 72, scratch), (36, 71, scratch), (36, 72, scratch - 1)] {
        let run = std::panic::AssertUnwindSafe(|| run(input, out, scratch));
        assert!(std::panic::catch_unwind(run).is_err(), "{input} {out} {scratch}");
    }
}
