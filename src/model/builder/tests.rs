//! Shapes that layers give, and what is told of those that do not meet.

use super::*;

const RGB: Input = Input {
    channels: 3,
    height: 32,
    width: 32,
};

fn conv(stride: usize, padding: usize, groups: usize) -> ConvOptions {
    ConvOptions {
        stride: [stride; 2],
        padding: [padding; 2],
        groups,
        bias: false,
        ..ConvOptions::default()
    }
}

fn map(channels: usize, height: usize, width: usize) -> Shape {
    Shape::Map {
        channels,
        height,
        width,
    }
}

#[test]
fn residual_depthwise_and_squeeze_excite_blocks_fit() {
    let mut g = GraphBuilder::new(RGB);
    let stem = g.conv2d("stem", g.input(), (16, [3, 3]), conv(2, 1, 1)).unwrap();
    let block = g.conv2d("block.conv", stem, (16, [3, 3]), conv(1, 1, 1)).unwrap();
    let block = g.batch_norm("block.bn", block).unwrap();
    let sum = g.add("block.add", block, stem).unwrap();
    let depthwise = g.conv2d("dw", sum, (16, [5, 5]), conv(2, 2, 16)).unwrap();
    let squeeze = g.global_avg_pool("se.squeeze", depthwise).unwrap();
    let gate = g
        .conv2d("se.fc", squeeze, (16, [1, 1]), ConvOptions::default())
        .unwrap();
    let gate = g.activation("se.gate", gate, Activation::HardSigmoid).unwrap();
    let scaled = g.mul("se.scale", depthwise, gate).unwrap();
    let padded = g.pad("pad", scaled, [0, 1, 0, 1]).unwrap();
    let joined = g.concat("join", &[padded, padded]).unwrap();
    let features = g.flatten("flatten", joined).unwrap();
    g.linear("fc", features, 10, false).unwrap();
    let graph = g.finish().unwrap();
    assert_eq!(graph.node(depthwise).shape, map(16, 8, 8));
    assert_eq!(graph.node(joined).shape, map(32, 9, 9));
    assert_eq!(graph.classes(), 10);
    let weight = graph.params.iter().find(|p| p.name == "dw.weight").unwrap();
    assert_eq!(weight.shape, [16, 1, 5, 5]);
    let trained = 16 * 27 + 16 * 16 * 9 + 32 + 16 * 25 + 16 * 16 + 16 + 10 * 32 * 81 + 10;
    assert_eq!(graph.parameters(), trained);
}

#[test]
fn windows_follow_torchs_floor_formula() {
    let check = |size: usize, window: Pool, expected: usize| {
        let output = window_output("w", [size, 40], window).map(|o| o[0]);
        assert_eq!(output, Ok(expected), "{size} {window:?}");
    };
    let window = |kernel, stride, padding| Pool {
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
    };
    check(28, window(3, 1, 0), 26);
    check(5, window(2, 2, 0), 2);
    check(5, window(3, 2, 1), 3);
    check(224, window(7, 2, 3), 112);
    check(1, window(1, 1, 0), 1);
}

#[test]
fn layers_that_do_not_meet_are_named() {
    let check = |build: &dyn Fn(&mut GraphBuilder) -> Result<NodeId, GraphError>, expected: &str| {
        let error = build(&mut GraphBuilder::new(RGB)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        &|g| g.linear("fc", g.input(), 10, false),
        "layer 'fc': needs flat features, got 3×32×32",
    );
    check(
        &|g| g.conv2d("c", g.input(), (16, [33, 3]), conv(1, 0, 1)),
        "32×32 is smaller",
    );
    check(
        &|g| g.conv2d("c", g.input(), (16, [3, 3]), conv(1, 0, 2)),
        "do not divide into 2 groups",
    );
    check(
        &|g| g.conv2d("c", g.input(), (16, [3, 3]), conv(0, 0, 1)),
        "stride of 0",
    );
    check(
        &|g| {
            g.max_pool(
                "p",
                g.input(),
                Pool {
                    padding: [2; 2],
                    ..Pool::square(2)
                },
            )
        },
        "over half",
    );
    check(&|g| g.dropout("d", g.input(), 1.0), "probability of 1");
    check(&|g| g.dropout("input", g.input(), 0.5), "named twice");
    check(
        &|g| {
            let small = g.global_avg_pool("pool", g.input())?;
            g.add("sum", small, g.input())
        },
        "3×1×1 and 3×32×32 cannot be added",
    );
}

#[test]
fn a_network_ends_in_a_row_of_classes() {
    assert!(matches!(
        GraphBuilder::new(RGB).finish(),
        Err(GraphError::Output(_))
    ));
}

#[test]
fn same_padding_is_tensorflows() {
    let check = |size: usize, kernel: usize, stride: usize, pad: Option<[usize; 4]>, padding: usize| {
        let input = Input {
            channels: 1,
            height: size,
            width: size,
        };
        let mut g = GraphBuilder::new(input);
        let options = conv(stride, 9, 1);
        let x = g.conv2d_same("c", g.input(), (2, [kernel; 2]), options).unwrap();
        let side = size.div_ceil(stride);
        assert_eq!(g.shape(x), map(2, side, side), "{size} {kernel} {stride}");
        let nodes = &g.nodes[1..];
        let padded = nodes.iter().find_map(|node| match node.op {
            Op::Pad(border) => Some(border),
            _ => None,
        });
        assert_eq!(padded, pad, "{size} {kernel} {stride}");
        let Op::Conv2d(convolution) = nodes[nodes.len() - 1].op else {
            panic!("{nodes:?}");
        };
        assert_eq!(convolution.padding, [padding; 2], "{size} {kernel} {stride}");
    };
    check(224, 3, 2, Some([0, 1, 0, 1]), 0);
    check(112, 5, 2, Some([1, 2, 1, 2]), 0);
    check(7, 3, 2, None, 1);
    check(14, 3, 1, None, 1);
    check(14, 1, 1, None, 0);
    check(5, 1, 2, None, 0);
}
