//! Every room's configuration, gathered: defaults < file < environment < flags.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::ModelName;
use crate::{batcher, engine, http, preprocess, telemetry};

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of models.
    pub models: PathBuf,
    /// The model of `/v1/predict` where the request names none; unset: the only model, or the first by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_model: Option<ModelName>,
    /// The server's edge.
    pub http: http::Config,
    /// What an image may cost.
    pub images: preprocess::Limits,
    /// The decode pool.
    pub decode: preprocess::pool::Config,
    /// Each model's queue.
    pub batcher: batcher::Config,
    /// The engine.
    pub engine: engine::Config,
    /// Logs.
    pub log: telemetry::logging::Config,
}

/// What is wrong with the configuration; the text names the key and where its value came from.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(pub String);

impl Default for Config {
    fn default() -> Self {
        Self {
            models: PathBuf::from("models"),
            default_model: None,
            http: http::Config::default(),
            images: preprocess::Limits::default(),
            decode: preprocess::pool::Config::default(),
            batcher: batcher::Config::default(),
            engine: engine::Config::default(),
            log: telemetry::logging::Config::default(),
        }
    }
}

impl Config {
    /// Reads `file` (where given), the environment (`SCONCE__HTTP__LISTEN=…`) and `flags` (dotted key → value), in
    /// this order of rising weight, and checks the result.
    pub fn load(_file: Option<&Path>, _flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        todo!()
    }
}
