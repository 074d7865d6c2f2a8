//! `manifest.json`: where a version comes from and how good it was.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{ModelName, Version};

/// Written once by the trainer, never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`Manifest::FORMAT`].
    pub format: u32,
    /// The weights file.
    pub weights: WeightsFile,
    /// Architecture's name.
    pub architecture: String,
    /// Trained numbers.
    pub parameters: usize,
    /// The version whose weights training began from.
    pub parent: Option<Version>,
    /// The model of that version, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<ModelName>,
    /// Sconce's version that wrote it.
    pub sconce: String,
    /// The exact command, to be run again.
    pub command: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Training data: name, sha256, images, hold-out.
    pub data: Value,
    /// The resolved training configuration; of weights that were trained elsewhere `{"imported": {file, sha256, bytes}}`,
    /// the file as it came.
    pub training: Value,
    /// Evaluation on data never trained on.
    pub evaluation: Value,
}

/// A file and its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Always `model.safetensors`.
    pub file: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

impl Manifest {
    /// The layout of this struct.
    pub const FORMAT: u32 = 1;

    /// Accuracy on the test or hold-out images, where it was measured.
    pub fn accuracy(&self) -> Option<f64> {
        ["test", "hold_out"]
            .iter()
            .find_map(|part| self.evaluation.get(part)?.get("accuracy")?.as_f64())
    }
}
