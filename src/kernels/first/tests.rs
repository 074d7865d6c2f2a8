//! First layers against the reference.

use proptest::prelude::*;

use super::super::reference::{Check, Layer};
use super::*;

fn check(layer: &Layer) {
    let image = Image {
        channels: layer.size[2],
        height: layer.size[0],
        width: layer.size[1],
    };
    let products = layer.windows.tap_count() * image.channels + 4;
    let allowed = f64::from(u32::try_from(products).unwrap()) * f64::from(f32::EPSILON) / 2.0;
    for isa in Isa::available() {
        let check = Check::new(isa, layer.clone(), 7);
        let after = [0, 1].map(|axis| layer.windows.padding[axis] + layer.more[axis]);
        let first = First::pack(isa, check.filters(), layer.windows, after, layer.pooled);
        check.check(allowed, |source, out, part| {
            let planar = planar(source, image);
            let mut packed = vec![f32::NAN; first.packed_len(source.items, image)];
            first.pack_image(&planar, image, &mut packed);
            let packed = (&packed[..], image, source.items);
            first.run(packed, source.function, (out, check.to), part);
        });
    }
}

/// The numbers of a channels-last source, plane by plane.
fn planar(source: Job<'_>, image: Image) -> Vec<f32> {
    let mut planes = Vec::new();
    for item in 0..source.items {
        for channel in 0..image.channels {
            for pixel in 0..source.map.pixels() {
                planes
                    .push(source.values[(item * source.map.pixels() + pixel) * source.map.stride + channel]);
            }
        }
    }
    planes
}

/// The largest width, and number of outputs; fewer where each step takes long.
const MOST: usize = if cfg!(miri) { 8 } else { 50 };

prop_compose! {
    fn any_layer()(
        items in 1usize..=2,
        size in [7usize..=12, 7..=MOST],
        channels in prop_oneof![Just(1usize), Just(3), Just(3), Just(2), Just(4)],
        out in prop_oneof![1usize..=8, Just(16), Just(32), 33usize..=50].prop_map(|out| out.min(MOST)),
        kernel in [1usize..=7, 1..=7],
        padding in [0usize..=3, 0..=3],
        more in [0usize..=2, 0..=2],
        stride in [1usize..=2, 1..=2],
        down in 1usize..=2,
        pooled in any::<bool>(),
        apart in 0usize..=1,
    ) -> Layer {
        let windows = Windows { kernel, stride, padding, dilation: [1, 1] };
        let windows = match kernel[0] {
            ..=4 => Windows { dilation: [down, 1], ..windows },
            _ => windows,
        };
        let function = Some(Activation::Relu);
        Layer { items, more, pooled, apart, function, ..Layer::new([size[0], size[1], channels], out, windows) }
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
        check(&layer);
    }
}

#[test]
fn every_width_of_a_tile() {
    let widths = if cfg!(miri) { 9..=9 } else { 3..=46 };
    for width in widths {
        for (channels, stride, pooled) in [
            (1, 1, true),
            (1, 1, false),
            (3, 1, true),
            (3, 1, false),
            (3, 2, false),
        ] {
            let windows = Windows {
                kernel: [3, 3],
                stride: [stride; 2],
                ..Windows::POINT
            };
            let layer = Layer {
                pooled,
                ..Layer::new([5, width, channels], MOST.min(20), windows)
            };
            check(&layer);
        }
    }
}

/// As TensorFlow has it: a row and a column of zeros behind an image of even sides.
#[test]
fn every_width_of_a_tile_with_a_border_behind_the_image_alone() {
    let widths = if cfg!(miri) { 10..=10 } else { 6..=60 };
    for width in widths.step_by(2) {
        let windows = Windows {
            kernel: [3, 3],
            stride: [2; 2],
            ..Windows::POINT
        };
        let layer = Layer {
            items: 2,
            more: [1; 2],
            function: Some(Activation::Relu6),
            ..Layer::new([6, width, 3], MOST.min(32), windows)
        };
        check(&layer);
    }
}

/// Where the weights fill whole cache lines, nothing of theirs lies behind the last: for Miri.
#[test]
fn weights_that_fill_their_lines() {
    let windows = Windows {
        kernel: [2, 3],
        ..Windows::POINT
    };
    check(&Layer {
        pooled: true,
        ..Layer::new([5, 9, 3], 8, windows)
    });
}

#[test]
fn images_and_windows_that_do_not_meet_are_refused() {
    let isa = Isa::PORTABLE;
    let layer = Layer::new(
        [6, 6, 3],
        4,
        Windows {
            kernel: [3, 3],
            ..Windows::POINT
        },
    );
    let check = Check::new(isa, layer, 7);
    let first = First::pack(isa, check.filters(), check.layer.windows, [0; 2], false);
    let image = Image {
        channels: 3,
        height: 6,
        width: 6,
    };
    let pack = |numbers: usize, image: Image, room: usize| {
        first.pack_image(&vec![0.0; numbers], image, &mut vec![0.0; room]);
    };
    pack(108, image, 108);
    let grey = Image { channels: 1, ..image };
    for (numbers, image, room) in [(107, image, 108), (108, image, 107), (36, grey, 36)] {
        assert!(std::panic::catch_unwind(|| pack(numbers, image, room)).is_err());
    }
    let run = |to: Map| {
        let mut out = vec![0.0; 1000];
        let out = Output::from(&mut out[..]);
        first.run((&vec![0.0; 108], image, 1), None, (&out, to), Part::WHOLE);
    };
    run(check.to);
    for to in [
        Map { width: 5, ..check.to },
        Map {
            height: 5,
            ..check.to
        },
    ] {
        assert!(std::panic::catch_unwind(|| run(to)).is_err());
    }
}
