//! Tests of convolution: gradients against differences, values against candle.

use super::super::gradient;
use super::*;

const PLAIN: ConvGeometry = ConvGeometry {
    stride: [1; 2],
    padding: [0; 2],
    dilation: [1; 2],
    groups: 1,
    input_gradient: true,
};

/// Channels, outputs, kernel and geometry of convolutions of every kind.
fn cases() -> Vec<(usize, usize, [usize; 2], ConvGeometry)> {
    vec![
        (1, 3, [3, 3], PLAIN),
        (
            2,
            3,
            [3, 3],
            ConvGeometry {
                padding: [1; 2],
                ..PLAIN
            },
        ),
        (3, 2, [1, 1], PLAIN),
        (
            2,
            2,
            [7, 7],
            ConvGeometry {
                padding: [3; 2],
                ..PLAIN
            },
        ),
        (
            4,
            4,
            [3, 3],
            ConvGeometry {
                padding: [1; 2],
                ..PLAIN
            },
        ),
        (
            2,
            3,
            [3, 3],
            ConvGeometry {
                stride: [2; 2],
                padding: [1; 2],
                ..PLAIN
            },
        ),
        (
            2,
            3,
            [3, 2],
            ConvGeometry {
                stride: [2, 1],
                padding: [0, 1],
                ..PLAIN
            },
        ),
        (
            2,
            3,
            [3, 3],
            ConvGeometry {
                dilation: [2; 2],
                padding: [2; 2],
                ..PLAIN
            },
        ),
        (
            4,
            6,
            [3, 3],
            ConvGeometry {
                groups: 2,
                padding: [1; 2],
                ..PLAIN
            },
        ),
        (
            4,
            4,
            [3, 3],
            ConvGeometry {
                groups: 4,
                padding: [1; 2],
                stride: [2; 2],
                ..PLAIN
            },
        ),
    ]
}

fn operands(channels: usize, outputs: usize, kernel: [usize; 2], groups: usize) -> Vec<Tensor> {
    let [kh, kw] = kernel;
    let shapes = [
        vec![2, channels, 8, 9],
        vec![outputs, channels / groups, kh, kw],
        vec![outputs],
    ];
    (1..)
        .zip(shapes)
        .map(|(seed, shape)| gradient::random(&shape, seed))
        .collect()
}

#[test]
fn gradients_of_input_weight_and_bias_are_right() {
    for (channels, outputs, kernel, geometry) in cases() {
        let operands = operands(channels, outputs, kernel, geometry.groups);
        let name = format!("conv {channels}→{outputs} {kernel:?} {geometry:?}");
        gradient::check(&name, &operands, |t| conv2d(&t[0], &t[1], Some(&t[2]), geometry));
        gradient::check(&name, &operands[..2], |t| conv2d(&t[0], &t[1], None, geometry));
    }
}

#[test]
fn values_are_candles() {
    for (channels, outputs, kernel, geometry) in cases() {
        let [padding, stride, dilation] = [geometry.padding, geometry.stride, geometry.dilation];
        if [padding, stride, dilation].iter().any(|[a, b]| a != b) {
            continue;
        }
        for width in [8, 16, 17, 40] {
            let mut operands = operands(channels, outputs, kernel, geometry.groups);
            operands[0] = gradient::random(&[2, channels, 9, width], 4);
            let ours = conv2d(&operands[0], &operands[1], None, geometry).unwrap();
            let candles =
                operands[0].conv2d(&operands[1], padding[0], stride[0], dilation[0], geometry.groups);
            let off = (ours - candles.unwrap())
                .unwrap()
                .abs()
                .unwrap()
                .max_all()
                .unwrap();
            assert!(
                off.to_scalar::<f64>().unwrap() < 1e-10,
                "{channels}→{outputs} {kernel:?} {geometry:?}"
            );
        }
    }
}

#[test]
fn the_first_layer_is_spared_its_input_gradient() {
    let operands = operands(1, 2, [3, 3], 1);
    let x = candle_core::Var::from_tensor(&operands[0]).unwrap();
    let geometry = ConvGeometry {
        input_gradient: false,
        ..PLAIN
    };
    let loss = conv2d(&x, &operands[1], None, geometry)
        .unwrap()
        .sum_all()
        .unwrap();
    assert!(loss.backward().unwrap().get(&x).is_none());
}

#[test]
fn what_does_not_meet_is_an_error() {
    let operands = operands(2, 3, [3, 3], 1);
    let check = |geometry| conv2d(&operands[0], &operands[1], None, geometry).is_err();
    assert!(check(ConvGeometry { groups: 2, ..PLAIN }));
    assert!(check(ConvGeometry {
        stride: [0, 1],
        ..PLAIN
    }));
    assert!(check(ConvGeometry {
        dilation: [9, 9],
        ..PLAIN
    }));
}
