//! The vocabulary every room shares: what a classifier is, its network as data, its weights.

pub mod arch;
pub mod autograd;
pub mod builder;
pub mod classes;
mod cost;
pub mod dialect;
pub mod graph;
pub mod layers;
pub mod name;
pub mod ops;
pub mod rng;
pub mod spec;
pub mod text;
pub mod weights;

pub use graph::Graph;
pub use name::{ModelName, NameError, Version};
pub use spec::{Input, Spec, SpecError};
pub use weights::{Weights, WeightsError};
