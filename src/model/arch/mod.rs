//! Named architectures: small functions from (input, classes) to a [`Graph`].

use super::Input;
use super::graph::{Graph, GraphError};

/// Every architecture that [`build`] knows, in alphabetical order.
pub const NAMES: &[&str] = &["seed-cnn", "small-cnn"];

/// Why an architecture could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ArchError {
    /// A name that is not in [`NAMES`].
    #[error("no architecture '{name}'{}; known are {}", hint.as_deref().map(|h| format!(" (did you mean '{h}'?)")).unwrap_or_default(), NAMES.join(", "))]
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
pub fn build(_name: &str, _input: Input, _classes: usize) -> Result<Graph, ArchError> {
    todo!()
}
