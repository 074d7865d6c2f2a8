//! Named architectures: small functions from (input, classes) to a [`Graph`].

use super::Input;
use super::graph::{Graph, GraphError};
use super::layers::LayersError;

mod convnext;
mod densenet;
mod efficientnet;
mod inverted_residual;
mod mobilenet;
mod resnet;
mod seed_cnn;
mod small_cnn;
mod squeezenet;
mod vgg;

/// Every architecture that [`build`] knows, in alphabetical order.
pub const NAMES: &[&str] = &[
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_lite0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "seed-cnn",
    "small-cnn",
    "squeezenet1_1",
    "vgg11_bn",
];

/// Why an architecture could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ArchError {
    /// A name that is not in [`NAMES`].
    #[error("no architecture '{name}'{}; known are {}", suggestion(hint.as_deref()), NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest known name.
        hint: Option<String>,
    },
    /// The input is too small, or the like.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The layers of `model.toml` are no network.
    #[error(transparent)]
    Layers(#[from] LayersError),
}

/// The network `name` for this input and number of classes.
pub fn build(name: &str, input: Input, classes: usize) -> Result<Graph, ArchError> {
    use resnet::Block::{Basic, Bottleneck};
    let graph = match name {
        "convnext_tiny" => convnext::build(input, classes),
        "densenet121" => densenet::build(input, classes),
        "efficientnet_b0" => efficientnet::build_b0(input, classes),
        "efficientnet_lite0" => efficientnet::build_lite0(input, classes),
        "mobilenet_v2" => mobilenet::build_v2(input, classes),
        "mobilenet_v3_large" => mobilenet::build_v3(input, classes, &mobilenet::LARGE),
        "mobilenet_v3_small" => mobilenet::build_v3(input, classes, &mobilenet::SMALL),
        "resnet18" => resnet::build(input, classes, (Basic, [2, 2, 2, 2])),
        "resnet34" => resnet::build(input, classes, (Basic, [3, 4, 6, 3])),
        "resnet50" => resnet::build(input, classes, (Bottleneck, [3, 4, 6, 3])),
        "seed-cnn" => seed_cnn::build(input, classes),
        "small-cnn" => small_cnn::build(input, classes),
        "squeezenet1_1" => squeezenet::build(input, classes),
        "vgg11_bn" => vgg::build(input, classes),
        _ => {
            return Err(ArchError::Unknown {
                name: name.to_owned(),
                hint: nearest(name),
            });
        }
    };
    Ok(graph?)
}

fn nearest(name: &str) -> Option<String> {
    let scored = NAMES
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.7).then(|| (*best.1).to_owned())
}

fn suggestion(hint: Option<&str>) -> String {
    hint.map(|known| format!(" (did you mean '{known}'?)"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGIT: Input = Input {
        channels: 1,
        height: 28,
        width: 28,
    };

    #[test]
    fn every_name_builds_for_many_inputs_and_class_counts() {
        for name in NAMES {
            let sizes = match *name {
                "vgg11_bn" => [(1, 224, 224, 10), (3, 448, 224, 100), (3, 250, 672, 2)],
                "seed-cnn" | "small-cnn" => [(1, 28, 28, 10), (3, 32, 32, 100), (1, 17, 40, 2)],
                _ => [(1, 32, 32, 10), (3, 224, 224, 100), (1, 45, 67, 2)],
            };
            for (channels, height, width, classes) in sizes {
                let input = Input {
                    channels,
                    height,
                    width,
                };
                assert_eq!(build(name, input, classes).unwrap().classes(), classes, "{name}");
            }
        }
    }

    #[test]
    fn counts_of_parameters_are_the_published_ones() {
        let photo = Input {
            channels: 3,
            height: 224,
            width: 224,
        };
        for (name, expected) in [
            ("convnext_tiny", 28_589_128),
            ("densenet121", 7_978_856),
            ("efficientnet_b0", 5_288_548),
            ("efficientnet_lite0", 4_652_008),
            ("mobilenet_v2", 3_504_872),
            ("mobilenet_v3_large", 5_483_032),
            ("mobilenet_v3_small", 2_542_856),
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("squeezenet1_1", 1_235_496),
            ("vgg11_bn", 132_868_840),
        ] {
            assert_eq!(build(name, photo, 1000).unwrap().parameters(), expected, "{name}");
        }
    }

    #[test]
    fn the_seed_cnn_has_the_names_and_shapes_of_its_public_weights() {
        let graph = build("seed-cnn", DIGIT, 10).unwrap();
        let params: Vec<(&str, &[usize])> = graph.params.iter().map(|p| (&*p.name, &*p.shape)).collect();
        let expected: [(&str, &[usize]); 6] = [
            ("conv1.weight", &[32, 1, 3, 3]),
            ("conv1.bias", &[32]),
            ("fc1.weight", &[64, 5408]),
            ("fc1.bias", &[64]),
            ("fc2.weight", &[10, 64]),
            ("fc2.bias", &[10]),
        ];
        assert_eq!(params, expected);
        assert_eq!(graph.parameters(), 347_146);
    }

    #[test]
    fn the_small_cnn_is_small() {
        let parameters = build("small-cnn", DIGIT, 10).unwrap().parameters();
        assert!((24_000..60_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let check = |name: &str, input: Input, expected: &str| {
            let error = build(name, input, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("seed-cn", DIGIT, "did you mean 'seed-cnn'?");
        check(
            "transformer",
            DIGIT,
            "no architecture 'transformer'; known are convnext_tiny, densenet121,",
        );
        check(
            "seed-cnn",
            Input { height: 2, ..DIGIT },
            "layer 'conv1': 2×28 is smaller",
        );
        check("resnet-18", DIGIT, "did you mean 'resnet18'?");
        check("vgg11_bn", DIGIT, "layer 'features.28'");
        let large = Input {
            height: 256,
            width: 224,
            ..DIGIT
        };
        check(
            "vgg11_bn",
            large,
            "layer 'avgpool': 512×8×7 cannot be averaged to 7×7; rows and columns of the input must be multiples of 224",
        );
        check("small-cnn", Input { width: 3, ..DIGIT }, "is smaller");
    }
}
