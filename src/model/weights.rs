//! Weights: safetensors bytes ↔ the named, checked parameters of a graph.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::Graph;

/// Largest weights file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// Largest safetensors header that is read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Every parameter of one graph: f32, on the CPU, finite, of the graph's names and shapes.
#[derive(Clone, Debug)]
pub struct Weights {
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Why bytes are not the weights of a graph.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Over [`MAX_FILE_BYTES`] or [`MAX_HEADER_BYTES`].
    #[error("weights: {0}")]
    TooLarge(String),
    /// Not a safetensors file.
    #[error("weights: not a safetensors file: {0}")]
    Format(String),
    /// Names or shapes differ from the architecture's; each list is complete.
    #[error("weights do not fit the architecture:{}", describe(missing, extra, misshaped))]
    Mismatch {
        /// Expected and absent.
        missing: Vec<String>,
        /// Present and not expected.
        extra: Vec<String>,
        /// `name: expected [..], found [..]`.
        misshaped: Vec<String>,
    },
    /// A dtype other than f32, f16, bf16.
    #[error("weights: '{name}' is {dtype}; f32, f16 and bf16 are read")]
    Dtype {
        /// Parameter.
        name: String,
        /// What the file says.
        dtype: String,
    },
    /// NaN or infinity.
    #[error("weights: '{name}' holds {count} values that are not finite")]
    NonFinite {
        /// Parameter.
        name: String,
        /// How many.
        count: usize,
    },
    /// candle refused.
    #[error("weights: {0}")]
    Tensor(#[from] candle_core::Error),
}

fn describe(missing: &[String], extra: &[String], misshaped: &[String]) -> String {
    let mut text = String::new();
    for (what, names) in [
        ("missing", missing),
        ("not expected", extra),
        ("of another shape", misshaped),
    ] {
        if !names.is_empty() {
            text.push_str(&format!(" {what}: {};", names.join(", ")));
        }
    }
    text
}

impl Weights {
    /// Reads `bytes` (a whole safetensors file) as the weights of `graph`; every rule above is checked.
    pub fn from_safetensors(_bytes: &[u8], _graph: &Graph) -> Result<Self, WeightsError> {
        todo!()
    }

    /// A safetensors file of these weights, f32, subnormal values written as 0; the same weights and metadata give
    /// the same bytes.
    pub fn to_safetensors(&self, _metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, WeightsError> {
        todo!()
    }

    /// Fresh weights by `seed`: He-normal or Glorot-uniform by [`super::graph::ParamKind`].
    pub fn initialise(_graph: &Graph, _seed: u64) -> Result<Self, WeightsError> {
        todo!()
    }

    /// The tensor of a parameter.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }
}
