//! Named architectures: small functions from (input, classes) to a [`Graph`].

use super::Input;
use super::graph::{Graph, GraphError};

mod seed_cnn;
mod small_cnn;

/// Every architecture that [`build`] knows, in alphabetical order.
pub const NAMES: &[&str] = &["seed-cnn", "small-cnn"];

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
}

/// The network `name` for this input and number of classes.
pub fn build(name: &str, input: Input, classes: usize) -> Result<Graph, ArchError> {
    match name {
        "seed-cnn" => Ok(seed_cnn::build(input, classes)?),
        "small-cnn" => Ok(small_cnn::build(input, classes)?),
        _ => Err(ArchError::Unknown {
            name: name.to_owned(),
            hint: nearest(name),
        }),
    }
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
            for (channels, height, width, classes) in [(1, 28, 28, 10), (3, 32, 32, 100), (1, 17, 40, 2)] {
                let graph = build(
                    name,
                    Input {
                        channels,
                        height,
                        width,
                    },
                    classes,
                )
                .unwrap();
                assert_eq!(graph.classes(), classes, "{name}");
            }
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
            "no architecture 'transformer'; known are seed-cnn, small-cnn",
        );
        check(
            "seed-cnn",
            Input { height: 2, ..DIGIT },
            "layer 'conv1': 2×28 is smaller",
        );
        check("small-cnn", Input { width: 3, ..DIGIT }, "is smaller");
    }
}
