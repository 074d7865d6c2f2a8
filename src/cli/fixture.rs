//! A folder of models made for the tests of commands.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::Config;
use crate::engine::DeviceChoice;
use crate::model::{ModelName, Version, Weights};
use crate::registry::{Manifest, Registry, WeightsFile, atomic};

/// Models of three classes of 8×8 grey images; removed when dropped.
pub(crate) struct Models {
    folder: TempDir,
}

impl Models {
    pub(crate) fn new(names: &[&str]) -> Self {
        let models = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in names {
            fs::create_dir(models.path().join(name)).unwrap();
            let text = "description = 'Tiny'\narchitecture = 'small-cnn'\nlabels = ['a', 'b', 'c']\n\
                        input = { channels = 1, height = 8, width = 8 }\n";
            atomic::write(&models.path().join(name).join("model.toml"), text.as_bytes()).unwrap();
        }
        models
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config {
            models: self.path().to_owned(),
            ..Config::default()
        };
        config.engine.device = DeviceChoice::Cpu;
        config
    }

    /// A new version with weights by `seed`.
    pub(crate) fn publish(&self, name: &str, seed: u64) -> Version {
        let registry = Registry::open(self.path()).unwrap();
        let name: ModelName = name.parse().unwrap();
        let spec = registry.entry(&name).unwrap().spec;
        let graph = spec.graph().unwrap();
        let manifest = Manifest {
            format: Manifest::FORMAT,
            weights: WeightsFile::default(),
            architecture: spec.architecture,
            parameters: graph.parameters(),
            parent: None,
            parent_model: None,
            sconce: "0.1.0".to_owned(),
            command: "sconce train --model tiny".to_owned(),
            seed,
            data: Value::Null,
            training: Value::Null,
            evaluation: json!({"test": {"n": 4, "accuracy": 0.75, "per_class": []}}),
        };
        let weights = Weights::initialise(&graph, seed).unwrap();
        registry.publish(&name, &weights, manifest).unwrap()
    }

    /// Changes the last byte of a version's weights.
    pub(crate) fn damage(&self, name: &str, version: Version) {
        let path = self
            .path()
            .join(name)
            .join(version.to_string())
            .join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        atomic::write(&path, &bytes).unwrap();
    }

    /// An 8×8 grey PNG beside the models, hidden from the registry by its dot.
    pub(crate) fn image(&self, name: &str, level: u8) -> PathBuf {
        let path = self.path().join(name);
        image::GrayImage::from_pixel(8, 8, image::Luma([level]))
            .save(&path)
            .unwrap();
        path
    }
}
