//! `squeezenet1_1`: fire modules, no dense layer.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::graph::{Activation, Graph, GraphError, NodeId, Pool, Shape};

/// Number and squeezed channels of the fire modules between max-pools; each expands to eight times as many.
const FIRES: [&[(usize, usize)]; 3] = [
    &[(3, 16), (4, 16)],
    &[(6, 32), (7, 32)],
    &[(9, 48), (10, 48), (11, 64), (12, 64)],
];

/// Iandola et al., arXiv 1602.07360, in torchvision's form of version 1.1.
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let options = ConvOptions {
        stride: [2; 2],
        ..ConvOptions::default()
    };
    let x = g.conv2d("features.0", NodeId::INPUT, (64, [3; 2]), options)?;
    let mut x = g.activation("features.1", x, Activation::Relu)?;
    for (layer, fires) in [2, 5, 8].into_iter().zip(FIRES) {
        x = pool(&mut g, &format!("features.{layer}"), x)?;
        for &(layer, squeezed) in fires {
            x = fire(&mut g, &format!("features.{layer}"), x, squeezed)?;
        }
    }
    let x = g.dropout("classifier.0", x, 0.5)?;
    let x = g.conv2d("classifier.1", x, (classes, [1; 2]), ConvOptions::default())?;
    let x = g.activation("classifier.2", x, Activation::Relu)?;
    let x = g.global_avg_pool("classifier.3", x)?;
    g.flatten("flatten", x)?;
    g.finish()
}

/// Max-pool 3, stride 2, with torch's `ceil_mode`: zeros below and right complete the last window. They are never the
/// largest, since what a ReLU gives is not below 0.
fn pool(g: &mut GraphBuilder, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
    let missing = |side: usize| usize::from(side > 3 && side.is_multiple_of(2));
    let x = match g.shape(x) {
        Shape::Map { height, width, .. } if missing(height) + missing(width) > 0 => {
            g.pad(&format!("{name}.pad"), x, [0, missing(height), 0, missing(width)])?
        }
        _ => x,
    };
    let window = Pool {
        stride: [2; 2],
        ..Pool::square(3)
    };
    g.max_pool(name, x, window)
}

fn fire(g: &mut GraphBuilder, name: &str, x: NodeId, squeezed: usize) -> Result<NodeId, GraphError> {
    let x = convolution(g, &format!("{name}.squeeze"), x, (squeezed, 1))?;
    let narrow = convolution(g, &format!("{name}.expand1x1"), x, (4 * squeezed, 1))?;
    let wide = convolution(g, &format!("{name}.expand3x3"), x, (4 * squeezed, 3))?;
    g.concat(name, &[narrow, wide])
}

fn convolution(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    (out, kernel): (usize, usize),
) -> Result<NodeId, GraphError> {
    let options = ConvOptions {
        padding: [kernel / 2; 2],
        ..ConvOptions::default()
    };
    let x = g.conv2d(name, x, (out, [kernel; 2]), options)?;
    g.activation(&format!("{name}_activation"), x, Activation::Relu)
}
