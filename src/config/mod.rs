//! Every room's configuration, gathered: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::Serialized;
use serde::{Deserialize, Serialize};

use crate::engine::tune::Asked;
use crate::evaluate::gate;
use crate::model::ModelName;
use crate::{batcher, engine, http, jobs, predict, preprocess, retrain, service, store, telemetry};

pub(crate) mod environment;
mod limits;
mod schema;
mod sources;

use schema::Schema;
use sources::Setting;

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
    /// The listener of those who manage.
    pub admin: http::Admin,
    /// Who may do what.
    pub auth: http::auth::Config,
    /// What an image may cost.
    pub images: preprocess::Limits,
    /// The decode pool.
    pub decode: preprocess::pool::Config,
    /// Each model's queue.
    pub batcher: batcher::Config,
    /// Answers that cost no inference of their own.
    pub answers: predict::Config,
    /// The engine.
    pub engine: engine::Config,
    /// Which versions serve.
    pub service: service::Config,
    /// What is kept.
    pub store: store::Config,
    /// Retraining.
    pub retrain: retrain::Config,
    /// What a new version must show before it may answer.
    pub gate: gate::Rules,
    /// What is asked of new examples before they are learnt from.
    pub intake: gate::DataRules,
    /// Retraining jobs.
    pub jobs: jobs::Config,
    /// Logs.
    pub log: telemetry::logging::Config,
}

/// A configuration and where each value that is not the default came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration, checked.
    pub config: Config,
    /// Dotted key → a file's path, `environment SCONCE__…` or `command line`; defaults are left out.
    pub origins: BTreeMap<String, String>,
}

/// What is wrong with the configuration; the text names the key and where its value came from.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(pub String);

/// Read where no file is named and this one exists in the current folder.
pub const DEFAULT_FILE: &str = "config/default.toml";

impl Default for Config {
    fn default() -> Self {
        Self {
            models: PathBuf::from("models"),
            default_model: None,
            http: http::Config::default(),
            admin: http::Admin::default(),
            auth: http::auth::Config::default(),
            images: preprocess::Limits::default(),
            decode: preprocess::pool::Config::default(),
            batcher: batcher::Config::default(),
            answers: predict::Config::default(),
            engine: engine::Config::default(),
            service: service::Config::default(),
            store: store::Config::default(),
            retrain: retrain::Config::default(),
            gate: gate::Rules::default(),
            intake: gate::DataRules::default(),
            jobs: jobs::Config::default(),
            log: telemetry::logging::Config::default(),
        }
    }
}

impl Config {
    /// Reads `file` (or [`DEFAULT_FILE`] where none is given and it exists), the environment
    /// (`SCONCE__HTTP__LISTEN=…`) and `flags` (dotted key → value), in this order of rising weight, and checks the
    /// result.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        Self::resolve(file, flags).map(|resolved| resolved.config)
    }

    /// As [`Config::load`], and tells where each value came from.
    pub fn resolve(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Resolved, ConfigError> {
        let usual = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| usual.exists().then_some(usual));
        resolve(file, environment::variables(), flags)
    }

    /// What is set of how the cores are shared out, and what is left to timings.
    pub fn asked(&self) -> Asked {
        Asked {
            instances: self.engine.instances,
            threads: self.engine.threads,
            max_batch: self.batcher.max_batch(),
            open_batch: self.batcher.max_batch_size == 0,
        }
    }

    /// Holds every value against its range; the error names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        limits::check(self).map_err(|(key, problem)| ConfigError(format!("{key}: {problem}")))
    }
}

/// All sources in order of rising weight; the environment is handed in so that tests have their own.
fn resolve(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<Resolved, ConfigError> {
    let schema = Schema::new();
    let mut settings = match file {
        Some(path) => sources::file(&schema, path)?,
        None => Vec::new(),
    };
    settings.extend(sources::environment(&schema, environment)?);
    settings.extend(sources::flags(&schema, flags)?);
    merge(&settings)
}

fn merge(settings: &[Setting]) -> Result<Resolved, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    let mut winners = BTreeMap::new();
    for setting in settings {
        figment = figment.merge(setting);
        winners.insert(setting.key.as_str(), setting);
    }
    let told = |key: &str, problem: &str| match winner(&winners, key) {
        Some(setting) => setting.refused(problem),
        None => ConfigError(format!("{key}: {problem}")),
    };
    let config: Config = figment.extract().map_err(|error| {
        let key = error.path.join(".");
        match &*key {
            "http.listen" => told(&key, "an IP address and port is expected, such as 127.0.0.1:8080"),
            _ => told(&key, &error.kind.to_string()),
        }
    })?;
    limits::check(&config).map_err(|(key, problem)| told(&key, &problem))?;
    let origin = |(key, setting): (&str, &Setting)| (key.to_owned(), setting.origin.clone());
    let origins = winners.into_iter().map(origin).collect();
    Ok(Resolved { config, origins })
}

/// What set `key`, or the list of which `key` names a part.
fn winner<'a>(winners: &BTreeMap<&str, &'a Setting>, key: &str) -> Option<&'a Setting> {
    let ends = key.match_indices('.').map(|(end, _)| end).chain([key.len()]);
    ends.rev().find_map(|end| winners.get(&key[..end]).copied())
}

#[cfg(test)]
mod tests;
