//! `vgg11_bn`: eight 3×3 convolutions with batch-norm, three dense layers.

use crate::model::Input;
use crate::model::builder::{ConvOptions, GraphBuilder};
use crate::model::dialect::Dialect;
use crate::model::graph::{Activation, Graph, GraphError, NodeId, Pool, Shape};

/// Channels of the convolutions (configuration A); each group ends in a max-pool 2.
const GROUPS: [&[usize]; 5] = [&[64], &[128], &[256, 256], &[512, 512], &[512, 512]];

/// Rows and columns that the dense layers read.
const SIDE: usize = 7;

/// Simonyan, Zisserman, arXiv 1409.1556, in torchvision's form. The map before the dense layers is averaged down to 7×7,
/// so rows and columns of the input must be multiples of 224 (or up to 31 more).
pub(super) fn build(input: Input, classes: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(input);
    let mut x = NodeId::INPUT;
    let mut layer = 0;
    for channels in GROUPS {
        for &out in channels {
            x = convolution(&mut g, layer, x, out)?;
            layer += 3;
        }
        x = g.max_pool(&format!("features.{layer}"), x, Pool::square(2))?;
        layer += 1;
    }
    x = averaged(&mut g, x)?;
    x = g.flatten("flatten", x)?;
    for layer in [0, 3] {
        x = g.linear(&format!("classifier.{layer}"), x, 4096, true)?;
        x = g.activation(&format!("classifier.{}", layer + 1), x, Activation::Relu)?;
        x = g.dropout(&format!("classifier.{}", layer + 2), x, 0.5)?;
    }
    g.linear("classifier.6", x, classes, false)?;
    g.also_named(timm());
    g.finish()
}

fn convolution(g: &mut GraphBuilder, layer: usize, x: NodeId, out: usize) -> Result<NodeId, GraphError> {
    let options = ConvOptions {
        padding: [1; 2],
        ..ConvOptions::default()
    };
    let x = g.conv2d(&format!("features.{layer}"), x, (out, [3; 2]), options)?;
    let x = g.batch_norm(&format!("features.{}", layer + 1), x)?;
    g.activation(&format!("features.{}", layer + 2), x, Activation::Relu)
}

/// torch's adaptive average to 7×7 where every window has the same size.
fn averaged(g: &mut GraphBuilder, x: NodeId) -> Result<NodeId, GraphError> {
    let window = match g.shape(x) {
        Shape::Map { height, width, .. } if height % SIDE == 0 && width % SIDE == 0 => {
            [height / SIDE, width / SIDE]
        }
        other => {
            return Err(GraphError::Shape {
                layer: "avgpool".to_owned(),
                problem: format!(
                    "{other} cannot be averaged to {SIDE}×{SIDE}; rows and columns of the input must be multiples of 224"
                ),
            });
        }
    };
    if window == [1; 2] {
        return Ok(x);
    }
    let pool = Pool {
        kernel: window,
        stride: window,
        padding: [0; 2],
    };
    g.avg_pool("avgpool", x, pool)
}

/// timm's dense layers are convolutions.
fn timm() -> Dialect {
    let mut timm = Dialect::default();
    for (own, foreign) in [(0, "pre_logits.fc1"), (3, "pre_logits.fc2"), (6, "head.fc")] {
        timm.rename(format!("classifier.{own}"), foreign);
    }
    timm
}
