//! Tests of `sconce train` on small data made for them.

use std::fs;
use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::super::{Cli, Command};
use super::*;
use crate::model::rng::{Rng, Stream};
use crate::registry::{Registry, atomic};

const SIDE: usize = 8;

/// A folder with a model `halves` and idx data: images with a light left or right half, 80 to train and 20 to test.
fn bench() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("models/halves");
    let data = root.path().join("data/halves");
    fs::create_dir_all(&model).unwrap();
    fs::create_dir_all(&data).unwrap();
    let spec = format!(
        "architecture = 'small-cnn'\nlabels = ['0', '1']\naugment = {{ shift = 1 }}\n\
         input = {{ channels = 1, height = {SIDE}, width = {SIDE} }}\n"
    );
    atomic::write(&model.join("model.toml"), spec.as_bytes()).unwrap();
    write_idx(&data, "train", 80);
    write_idx(&data, "t10k", 20);
    root
}

fn write_idx(folder: &Path, part: &str, count: usize) {
    let mut rng = Rng::new(count as u64, Stream::Init, 0);
    let mut pixel = |image: usize, at: usize| {
        let light = image % 2 == at % SIDE / (SIDE / 2);
        rng.below(120) as u8 + if light { 100 } else { 0 }
    };
    let header = |kind: u8, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|&size| (size as u32).to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let pixels = SIDE * SIDE;
    let mut images = header(3, &[count, SIDE, SIDE]);
    images.extend((0..count * pixels).map(|i| pixel(i / pixels, i % pixels)));
    let mut labels = header(1, &[count]);
    labels.extend((0..count).map(|image| (image % 2) as u8));
    atomic::write(&folder.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
    atomic::write(&folder.join(format!("{part}-labels-idx1-ubyte")), &labels).unwrap();
}

/// Runs `sconce train` on the bench's model and data with these further arguments.
fn train(root: &Path, arguments: &str) -> Result<(), CliError> {
    let at = |path: &str| root.join(path).to_string_lossy().into_owned();
    let mut words: Vec<String> = [
        "sconce",
        "train",
        "--model",
        "halves",
        "--epochs",
        "2",
        "--batch-size",
        "16",
    ]
    .map(str::to_owned)
    .into();
    words.extend([
        "--models".to_owned(),
        at("models"),
        "--data".to_owned(),
        at("data/halves"),
    ]);
    words.extend(
        arguments
            .split_whitespace()
            .map(|word| word.replace("ROOT", &root.to_string_lossy())),
    );
    let cli = Cli::try_parse_from(words).map_err(|e| CliError::Usage(e.to_string()))?;
    match cli.command {
        Command::Train(args) => run_as(&args, &cli.common, "sconce train"),
        other => panic!("{other:?}"),
    }
}

fn read(root: &Path, path: &str) -> Vec<u8> {
    fs::read(root.join(path)).unwrap()
}

fn manifest(root: &Path, version: u32) -> Value {
    serde_json::from_slice(&read(root, &format!("models/halves/{version}/manifest.json"))).unwrap()
}

#[test]
fn a_version_is_published_with_all_that_made_it() {
    let (first, second) = (bench(), bench());
    train(first.path(), "--run-dir ROOT/run").unwrap();
    train(second.path(), "--run-dir ROOT/run").unwrap();
    for file in ["model.safetensors", "manifest.json"] {
        let path = format!("models/halves/1/{file}");
        assert_eq!(read(first.path(), &path), read(second.path(), &path), "{file}");
    }
    let manifest = manifest(first.path(), 1);
    assert_eq!(
        (&manifest["command"], &manifest["seed"]),
        (&"sconce train".into(), &1.into())
    );
    let (data, training) = (&manifest["data"], &manifest["training"]);
    assert_eq!((&data["name"], &data["images"]), (&"halves".into(), &80.into()));
    let parts = data["trained_on"].as_u64().unwrap() + data["hold_out"].as_u64().unwrap();
    assert_eq!((parts, &data["test"]["images"]), (80, &20.into()));
    assert_eq!(
        (&training["recipe"], &training["epochs"]),
        (&"fast".into(), &2.into())
    );
    assert_eq!(
        (&training["augment"]["shift"], &training["dropout"]),
        (&1.into(), &0.3.into())
    );
    assert_eq!(manifest["evaluation"]["test"]["n"], 20);
    assert_eq!(manifest["evaluation"]["hold_out"]["n"], data["hold_out"]);
    let text = String::from_utf8(read(first.path(), "models/halves/1/manifest.json")).unwrap();
    assert!(!text.contains(&*first.path().to_string_lossy()));
    for file in ["checkpoint.safetensors", "history.json", "curves.svg"] {
        assert!(!read(first.path(), &format!("run/{file}")).is_empty());
    }
    let events = fs::read_dir(first.path().join("run")).unwrap();
    let is_events = |name: &str| name.starts_with("events.out.tfevents.");
    let events = events.filter(|entry| is_events(&entry.as_ref().unwrap().file_name().to_string_lossy()));
    assert_eq!(events.count(), 1);
}

#[test]
fn a_second_version_leaves_the_champion() {
    let root = bench();
    train(root.path(), "--run-dir ROOT/a").unwrap();
    train(root.path(), "--run-dir ROOT/b --from 1 --all-images --seed 2").unwrap();
    let registry = Registry::open(root.path().join("models")).unwrap();
    let entry = registry.entry(&"halves".parse().unwrap()).unwrap();
    assert_eq!(entry.versions.len(), 2);
    assert_eq!(entry.aliases.champion, Some(Version::FIRST));
    let manifest = manifest(root.path(), 2);
    assert_eq!((&manifest["parent"], &manifest["seed"]), (&1.into(), &2.into()));
    assert_eq!(manifest["data"]["trained_on"], 80);
    assert!(manifest["evaluation"].get("hold_out").is_none());
}

#[test]
fn layers_of_ones_own_are_trained_and_load() {
    let root = bench();
    let spec = format!(
        "labels = ['0', '1']\ninput = {{ channels = 1, height = {SIDE}, width = {SIDE} }}\nlayers = [\n\
         {{ type = 'conv2d', name = 'a', out = 4, kernel = 3, padding = 1 }}, {{ type = 'batch_norm', name = 'b' }},\n\
         {{ type = 'gelu', name = 'act' }}, {{ type = 'conv2d', name = 'c', out = 4, kernel = 3, padding = 1 }},\n\
         {{ type = 'add', inputs = ['act', 'c'] }}, {{ type = 'flatten' }},\n\
         {{ type = 'linear', name = 'fc', out = 'classes' }}]\n"
    );
    atomic::write(&root.path().join("models/halves/model.toml"), spec.as_bytes()).unwrap();
    train(root.path(), "--run-dir ROOT/run").unwrap();
    let manifest = manifest(root.path(), 1);
    assert_eq!(manifest["architecture"], "layers");
    assert!(manifest["evaluation"]["test"]["accuracy"].as_f64() > Some(0.9));
    let registry = Registry::open(root.path().join("models")).unwrap();
    let loaded = registry.load(&"halves".parse().unwrap(), Version::FIRST).unwrap();
    let names: Vec<&str> = loaded.weights.iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["a.bias", "a.weight", "b.bias"]);
}

#[test]
fn rehearsals_publish_nothing() {
    let root = bench();
    train(root.path(), "--dry-run --run-dir ROOT/run").unwrap();
    train(root.path(), "--folds 2").unwrap();
    assert!(!root.path().join("models/halves/1").exists());
    assert!(!root.path().join("run").exists());
}

#[test]
fn a_run_goes_on_only_when_told() {
    let root = bench();
    let check = |arguments: &str, expected: &str| match train(root.path(), arguments) {
        Err(CliError::Usage(text)) => assert!(text.contains(expected), "{text}"),
        other => panic!("{arguments}: {other:?}"),
    };
    check("--run-dir ROOT/run --resume", "no checkpoint to go on from");
    train(root.path(), "--run-dir ROOT/run").unwrap();
    check("--run-dir ROOT/run", "holds a checkpoint");
    check("--resume", "--run-dir");
    train(root.path(), "--run-dir ROOT/run --resume").unwrap();
    let weights = |version: u32| read(root.path(), &format!("models/halves/{version}/model.safetensors"));
    assert_eq!(weights(1), weights(2));
    match train(root.path(), "--run-dir ROOT/run --resume --seed 2") {
        Err(CliError::Data(text)) => assert!(text.contains("other hyper-parameters (seed)"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_wrong_is_told_before_training() {
    let root = bench();
    let check = |arguments: &str, expected: &str| {
        let error = train(root.path(), arguments).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("--run-dir ROOT/run --from 7", "no version 7");
    check("--run-dir ROOT/run --dropout 2", "dropout");
    check("--folds 1", "folds");
    check("--all-images --early-stopping 2", "cannot be used with");
    fs::remove_file(root.path().join("data/halves/t10k-images-idx3-ubyte")).unwrap();
    fs::remove_file(root.path().join("data/halves/t10k-labels-idx1-ubyte")).unwrap();
    check("--run-dir ROOT/run --all-images", "test part of their own");
    train(root.path(), "--run-dir ROOT/run").unwrap();
    assert_eq!(manifest(root.path(), 1)["data"]["test"], Value::Null);
}
