//! What `sconce doctor` measures, and what a server makes of it.

use std::fs;
use std::path::{Path, PathBuf};

use sconce::config::Config;
use sconce::engine::available_cores;
use sconce::engine::tune::{Asked, Cache, Key, Split, Timing, Timings};
use sconce::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;

use crate::serve::models;
use crate::server::{Server, sconce};

/// A model, and a cache beside it.
struct Place {
    models: TempDir,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            models: models(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// The event that tells how the model is served.
    fn served(&self, settings: &[&str]) -> Value {
        let cache = format!("engine.cache={}", self.cache().display());
        let settings = [&["engine.device=cpu", &cache], settings].concat();
        Server::start(self.models.path(), &settings).wait_for("loaded")
    }

    /// What doctor prints.
    fn examined(&self, arguments: &[&str]) -> String {
        let mut command = sconce(&[
            "doctor",
            "--seconds",
            "0",
            "--set",
            "engine.device=cpu",
            "--models",
        ]);
        command.arg(self.models.path());
        let cache = format!("engine.cache={}", self.cache().display());
        let output = command.args(["--set", &cache]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Keeps timings in which the last split is by far the quickest, and batches beyond 4 gain nothing. Returns it.
    fn keep(&self) -> Split {
        let registry = Registry::open(self.models.path()).unwrap();
        let name = "tiny".parse().unwrap();
        let champion = registry.entry(&name).unwrap().champion().unwrap();
        let loaded = registry.load(&name, champion).unwrap();
        let config = Config::default();
        let asked: Asked = config.asked();
        let splits = asked.splits(available_cores());
        let best = *splits.last().unwrap();
        let point = |batch: usize, split: Split| Timing {
            split,
            batch,
            spread: 0.0,
            seconds: if split == best { 1.0 } else { 100.0 } * (batch as f64 / 4.0).max(1.0),
        };
        let batches = asked.batches().into_iter();
        let points = batches.flat_map(|batch| splits.iter().map(move |&split| point(batch, split)));
        let timings = Timings {
            max_batch: asked.max_batch,
            points: points.collect(),
        };
        let key = Key::of(&loaded, &config.engine.open().unwrap().options);
        Cache::new(&self.cache()).write(&key, &timings).unwrap();
        best
    }
}

#[track_caller]
fn check(served: &Value, choice: &str, split: Split, max_batch_size: usize) {
    let expected = [
        ("choice", Value::from(choice)),
        ("instances", split.instances.into()),
        ("threads", split.threads.into()),
        ("max_batch_size", max_batch_size.into()),
    ];
    for (field, expected) in expected {
        assert_eq!(served[field], expected, "{field} of {served}");
    }
}

/// A thread for each instance.
fn usual() -> Split {
    Split {
        instances: available_cores(),
        threads: 1,
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn doctor_examines_the_machine_and_every_version() {
    let place = Place::new();
    let text = place.examined(&[]);
    for part in [
        "processor ",
        "GFLOP/s",
        "tiny version 1: small-cnn",
        "- ",
        "kept in ",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert_eq!(files(&place.cache()).len(), 1);
    let report: Value = serde_json::from_str(&place.examined(&["--json", "--model", "tiny"])).unwrap();
    assert_eq!(
        (&report["format"], &report["versions"][0]["name"]),
        (&1.into(), &"tiny".into())
    );
    assert_eq!(report["machine"]["cores"]["usable"], available_cores());
    assert_eq!(report["versions"][0]["timings"][0]["batch"], 1);
    let other = sconce(&["doctor", "--model", "other", "--models"])
        .arg(place.models.path())
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(65));
}

#[test]
fn a_server_takes_what_was_kept_where_nothing_else_is_set() {
    let place = Place::new();
    check(&place.served(&[]), "default", usual(), 32);
    let best = place.keep();
    let served = place.served(&[]);
    check(&served, "kept", best, 4);
    assert!(
        served["why"].as_str().unwrap().contains(&best.to_string()),
        "{served}"
    );
    let one = Split {
        instances: 1,
        threads: 1,
    };
    let set = ["engine.instances=1", "engine.threads=1"];
    check(
        &place.served(&[set[0], set[1], "batcher.max_batch_size=7"]),
        "set",
        one,
        7,
    );
    check(&place.served(&["engine.winograd=false"]), "default", usual(), 32);
}

#[test]
fn a_damaged_file_is_told_and_passed_over() {
    let place = Place::new();
    place.keep();
    let file = files(&place.cache()).remove(0);
    let text = fs::read_to_string(&file).unwrap();
    let half = fs::File::options().write(true).open(&file).unwrap();
    half.set_len(text.len() as u64 / 2).unwrap();
    let cache = format!("engine.cache={}", place.cache().display());
    let mut server = Server::start(place.models.path(), &["engine.device=cpu", &cache]);
    let warning = server.wait_for("kept timings are passed over");
    assert_eq!(warning["path"], file.display().to_string());
    check(&server.wait_for("loaded"), "default", usual(), 32);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_no_failure() {
    let place = Place::new();
    let file = place.folder.path().join("file");
    fs::File::create(&file).unwrap();
    let cache = format!("engine.cache={}", file.join("cache").display());
    let settings = ["engine.device=cpu", "engine.tune_ms=1000", &cache];
    let mut server = Server::start(place.models.path(), &settings);
    server.wait_for("timings are not kept");
    assert_eq!(server.wait_for("loaded")["choice"], "measured");
    server.wait_for("ready");
}

#[test]
fn a_start_measures_where_it_is_told_to_and_keeps_that() {
    let place = Place::new();
    let measured = place.served(&["engine.tune_ms=1000"]);
    assert_eq!(measured["choice"], "measured", "{measured}");
    let kept = place.served(&[]);
    for field in ["instances", "threads", "max_batch_size"] {
        assert_eq!(measured[field], kept[field]);
    }
    assert_eq!(kept["choice"], "kept");
}
