//! What every run is like that does not say otherwise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::DeviceChoice;
use crate::model::spec::Augment;
use crate::train::schedule::Schedule;
use crate::train::{self, Recipe};

use super::Request;

/// Retraining.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of datasets, each a folder (or a CSV file) under its own name.
    pub datasets: PathBuf,
    /// Passes over the images, 1 to 1,000.
    pub epochs: usize,
    /// Highest learning rate, above 0 and at most 1.
    pub learning_rate: f64,
    /// Images per step, 1 to 65,536.
    pub batch_size: usize,
    /// Images of a dataset's training part that may be replayed, as many of each class, 100 to 10,000,000.
    pub reservoir: usize,
    /// Where networks are trained: `cpu`, `auto` or `cuda:N`. Only the CPU gives the same bits every time.
    pub device: DeviceChoice,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            datasets: PathBuf::from("data/datasets"),
            epochs: 3,
            learning_rate: 1e-3,
            batch_size: 64,
            reservoir: 20_000,
            device: DeviceChoice::Cpu,
        }
    }
}

impl Config {
    /// Tells, as `key: problem`, which value is out of its range.
    pub fn check(&self) -> Result<(), String> {
        let ranges = [
            ("epochs", self.epochs, 1..=1_000),
            ("batch_size", self.batch_size, 1..=65_536),
            ("reservoir", self.reservoir, 100..=10_000_000),
        ];
        for (key, value, range) in ranges {
            if !range.contains(&value) {
                return Err(format!("{key}: {} to {} is possible", range.start(), range.end()));
            }
        }
        let rate = self.learning_rate;
        if !(rate > 0.0 && rate <= 1.0) {
            return Err("learning_rate: a number above 0, at most 1, is expected".to_owned());
        }
        if self.datasets.as_os_str().is_empty() {
            return Err("datasets: a folder is expected".to_owned());
        }
        Ok(())
    }

    /// The hyper-parameters of a run; `augment` is what the model says keeps a label.
    pub(super) fn training(&self, request: &Request, augment: Augment) -> train::Config {
        let usual = match request.recipe {
            Some(recipe) => recipe.config(augment, request.seed),
            None => train::Config {
                epochs: self.epochs,
                batch_size: self.batch_size,
                learning_rate: self.learning_rate,
                // Falls to nothing, so that the last steps settle.
                schedule: Schedule::OneCycle,
                augment,
                ..Recipe::Seed.config(Augment::default(), request.seed)
            },
        };
        train::Config {
            epochs: request.epochs.unwrap_or(usual.epochs),
            learning_rate: request.learning_rate.unwrap_or(usual.learning_rate),
            freeze: request.freeze,
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_ranges() {
        let check = |text: &str, key: Option<&str>| {
            let config: Config = toml::from_str(text).unwrap();
            let found = config.check().err();
            let found = found.as_deref().and_then(|text| text.split(':').next());
            assert_eq!(found, key, "{text}");
        };
        check("", None);
        check("epochs = 0", Some("epochs"));
        check("epochs = 1001", Some("epochs"));
        check("batch_size = 0", Some("batch_size"));
        check("reservoir = 99", Some("reservoir"));
        check("learning_rate = 0.0", Some("learning_rate"));
        check("learning_rate = nan", Some("learning_rate"));
        check("datasets = ''", Some("datasets"));
        assert!(toml::from_str::<Config>("epoch = 1").is_err());
    }

    #[test]
    fn a_request_says_otherwise() {
        let mut request = Request::new("digits".parse().unwrap());
        let config = Config::default();
        let plain = config.training(&request, Augment::default());
        assert_eq!((plain.epochs, plain.learning_rate), (3, 1e-3));
        plain.check().unwrap();
        (request.epochs, request.learning_rate) = (Some(7), Some(0.25));
        (request.freeze, request.seed) = (2, 9);
        let changed = config.training(&request, Augment::default());
        assert_eq!((changed.epochs, changed.learning_rate), (7, 0.25));
        assert_eq!((changed.freeze, changed.seed), (2, 9));
        request.recipe = Some(Recipe::Fast);
        let fast = Recipe::Fast.config(Augment::default(), 9);
        let changed = config.training(&request, Augment::default());
        let expected = train::Config {
            epochs: 7,
            learning_rate: 0.25,
            freeze: 2,
            ..fast.clone()
        };
        assert_eq!(changed, expected);
        (request.epochs, request.learning_rate, request.freeze) = (None, None, 0);
        assert_eq!(config.training(&request, Augment::default()), fast);
    }
}
