//! What a network costs: floating-point operations of one image.

use super::Graph;
use super::graph::{Node, Op, Shape};

impl Graph {
    /// Floating-point operations for one image: two (multiply, add) for each weight of a convolution at each place of
    /// its output and for each weight of a dense layer. Biases, norms, pools and activations do not count, as is the
    /// custom of the papers, which give multiply-adds: half of this.
    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|node| self.flops_of(node)).sum()
    }

    /// [`Graph::flops`] of one node of this graph.
    pub fn flops_of(&self, node: &Node) -> u64 {
        let (weight, places) = match (&node.op, node.shape) {
            (Op::Conv2d(conv), Shape::Map { height, width, .. }) => (conv.weight, height * width),
            (Op::Linear { weight, .. }, _) => (*weight, 1),
            _ => return 0,
        };
        let weights: usize = self.param(weight).shape.iter().product();
        2 * (weights * places) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Input, arch};

    #[test]
    fn the_seed_cnn_is_counted_by_hand() {
        let input = Input {
            channels: 1,
            height: 28,
            width: 28,
        };
        let graph = arch::build("seed-cnn", input, 10).unwrap();
        assert_eq!(graph.flops(), 2 * (32 * 9 * 26 * 26 + 5408 * 64 + 64 * 10));
        let counted: Vec<&str> = graph
            .nodes
            .iter()
            .filter(|node| graph.flops_of(node) > 0)
            .map(|node| &*node.name)
            .collect();
        assert_eq!(counted, ["conv1", "fc1", "fc2"]);
    }

    /// Multiply-adds in millions at 3×224×224 and 1000 classes, as torchvision and timm publish them.
    #[test]
    fn published_figures_are_met() {
        let check = |name: &str, published: f64| {
            let input = Input {
                channels: 3,
                height: 224,
                width: 224,
            };
            let found = arch::build(name, input, 1000).unwrap().flops() as f64 / 2e6;
            assert!((found / published - 1.0).abs() < 0.02, "{name}: {found}");
        };
        check("resnet18", 1814.0);
        check("resnet50", 4089.0);
        check("mobilenet_v2", 300.0);
        check("mobilenet_v3_large", 217.0);
        check("efficientnet_b0", 386.0);
        check("vgg11_bn", 7609.0);
        check("squeezenet1_1", 349.0);
        check("densenet121", 2834.0);
        check("convnext_tiny", 4456.0);
    }
}
