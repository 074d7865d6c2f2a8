//! Tests of `sconce models import` on small networks made for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::Parser;

use super::super::super::fixture::Models;
use super::super::super::{Cli, Command};
use super::super::Command as ModelsCommand;
use super::*;
use crate::model::{Spec, Weights, arch};
use crate::registry::atomic;

/// Models of 8×8 grey images and three classes, with what may be imported beside them: the folder is hidden from the
/// registry by its dot.
struct Bench {
    models: Models,
}

impl Bench {
    fn new(names: &[&str]) -> Self {
        let bench = Self {
            models: Models::new(names),
        };
        fs::create_dir(bench.models.path().join(".files")).unwrap();
        bench.write("labels.txt", b"ant\nbee\ncat\n");
        bench.write("small.safetensors", &weights("small-cnn", 3));
        bench
    }

    fn path(&self, file: &str) -> PathBuf {
        self.models.path().join(".files").join(file)
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        atomic::write(&self.path(file), bytes).unwrap();
    }

    /// Runs `sconce models import` with these arguments, `@` standing for the folder of files.
    fn import(&self, arguments: &str) -> Result<String, CliError> {
        let folder = self.path("");
        let words = ["sconce", "models", "import"].into_iter().map(str::to_owned);
        let given = arguments
            .split_whitespace()
            .map(|word| word.replace('@', &folder.to_string_lossy()));
        let cli =
            Cli::try_parse_from(words.chain(given)).map_err(|error| CliError::Usage(error.to_string()))?;
        let Command::Models(super::super::Args {
            command: ModelsCommand::Import(args),
        }) = cli.command
        else {
            panic!("another command");
        };
        run_as(&args, &self.models.config(), "sconce models import")
    }

    fn registry(&self) -> Registry {
        Registry::open(self.models.path()).unwrap()
    }

    /// Everything under the folder of models.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.models.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for child in fs::read_dir(folder).unwrap() {
                let path = child.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

/// A safetensors file of fresh weights for 8×8 grey images.
fn weights(architecture: &str, classes: usize) -> Vec<u8> {
    let input = Input {
        channels: 1,
        height: 8,
        width: 8,
    };
    let graph = arch::build(architecture, input, classes).unwrap();
    let weights = Weights::initialise(&graph, 1).unwrap();
    weights.to_safetensors(&BTreeMap::new()).unwrap()
}

const NEW: &str = "@/small.safetensors --name new --arch small-cnn --labels @/labels.txt --input 1x8x8";

#[test]
fn a_file_becomes_a_model_that_loads() {
    let bench = Bench::new(&[]);
    let text = bench
        .import(&format!("{NEW} --description Insects --default"))
        .unwrap();
    for part in [
        "new version 1 is in",
        "small.safetensors",
        "small-cnn, 23603 parameters",
        "3: ant … cat",
        "1×8×8\n",
        "It is the champion",
        "http://127.0.0.1:8080/v1/models/new/predict",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let loaded = bench
        .registry()
        .load(&"new".parse().unwrap(), Version::FIRST)
        .unwrap();
    let Spec {
        description,
        default,
        labels,
        ..
    } = &loaded.spec;
    assert_eq!(
        (&**description, *default, labels.join(" ")),
        ("Insects", true, "ant bee cat".to_owned())
    );
    let imported = &loaded.manifest.training["imported"];
    let file = fs::read(bench.path("small.safetensors")).unwrap();
    assert_eq!(imported["file"], "small.safetensors");
    assert_eq!(
        (
            imported["bytes"].as_u64(),
            imported["sha256"].as_str().unwrap().len()
        ),
        (Some(file.len() as u64), 64)
    );
    assert_eq!(loaded.weights.to_safetensors(&BTreeMap::new()).unwrap(), file);
}

#[test]
fn a_version_is_added_where_it_is_asked_for() {
    let bench = Bench::new(&["tiny"]);
    let first = bench.models.publish("tiny", 1);
    let add = "@/small.safetensors --name tiny --add-version";
    let text = bench.import(add).unwrap();
    assert!(
        text.contains("To let it answer: sconce models promote tiny 2 --data PATH"),
        "{text}"
    );
    assert!(text.contains("/v1/models/tiny/versions/2/predict"), "{text}");
    let aliases = || bench.registry().entry(&"tiny".parse().unwrap()).unwrap().aliases;
    assert_eq!(aliases().champion, Some(first));
    let numbers = |aliases: registry::Aliases| {
        [aliases.champion, aliases.challenger, aliases.previous].map(|alias| alias.map(Version::number))
    };
    bench.import(&format!("{add} --alias challenger")).unwrap();
    assert_eq!(numbers(aliases()), [Some(1), Some(3), None]);
    let text = bench.import(&format!("{add} --alias champion")).unwrap();
    assert_eq!(numbers(aliases()), [Some(4), Some(3), Some(1)]);
    assert!(text.contains("It is the champion"), "{text}");
}

#[test]
fn what_cannot_be_imported_is_told_and_leaves_nothing() {
    let bench = Bench::new(&["tiny"]);
    bench.models.publish("tiny", 1);
    bench.write("two.txt", b"ant\nbee\n");
    bench.write("seed.safetensors", &weights("seed-cnn", 3));
    bench.write("resnet18.pth", b"PK\x03\x04\0\0\x08\x08\0\0resnet18/data.pkl");
    let mut damaged = weights("small-cnn", 3);
    let end = damaged.len();
    damaged[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    bench.write("nan.safetensors", &damaged);
    bench.write("cut.safetensors", &damaged[..end / 2]);
    let before = bench.files();
    let check = |arguments: &str, expected: &str| {
        let Err(error) = bench.import(arguments) else {
            panic!("{arguments} was imported");
        };
        assert!(error.to_string().contains(expected), "{arguments}: {error}");
        assert_eq!(bench.files(), before, "{arguments}");
    };
    let replaced = |from: &str, to: &str| {
        let text = NEW.replace(from, to);
        assert_ne!(text, NEW);
        text
    };
    check(
        &replaced("labels.txt", "two.txt"),
        "small.safetensors has 3 classes, and there are 2 labels",
    );
    check(
        &replaced("small.saf", "seed.saf"),
        "seed.safetensors does not fit small-cnn with an input of 1×8×8 and 3 classes:\n  missing: bn1.weight,",
    );
    check(
        &replaced("1x8x8", "3x8x8"),
        "conv1.weight: expected [16, 3, 3, 3], found [16, 1, 3, 3]",
    );
    check(
        &replaced("small.safetensors", "resnet18.pth"),
        "python3 -c 'import torch;",
    );
    check(&replaced("small.saf", "nan.saf"), "not finite");
    check(&replaced("small.saf", "cut.saf"), "not a safetensors file");
    check(
        &replaced("small.saf", "none.saf"),
        "none.safetensors: No such file",
    );
    check(&replaced("labels.txt", "none.txt"), "none.txt: No such file");
    check(&replaced("small-cnn", "smal-cnn"), "did you mean 'small-cnn'?");
    check(&replaced("small-cnn", "layers"), "needs a list of [[layers]]");
    check(&replaced("1x8x8", "2x8x8"), "input.channels: 2");
    check(&replaced("1x8x8", "1x1x8"), "is smaller than its window");
    check(&format!("{NEW} --preset imagenet"), "preprocess.mean: 3 values");
    check(
        &replaced("--name new", "--name tiny"),
        "there is a model 'tiny' already; take another --name",
    );
    check(
        "@/small.safetensors --name new --add-version",
        "there is no model 'new' to add a version to",
    );
    check(&format!("{NEW} --add-version"), "cannot be used with");
    check(&format!("{NEW} --alias champion"), "--add-version");
    check("@/small.safetensors --name new --arch small-cnn", "--labels");
    check(&replaced("--input 1x8x8", "--input 8x8"), "such as 3x224x224");
    check(&format!("{NEW} --size 8"), "cannot be used with");
    check(&replaced("--name new", "--name ../new"), "a model name is");
    check(&format!("{NEW} --preset torch"), "known are imagenet, timm");
}

#[test]
fn only_one_model_may_be_the_default() {
    let bench = Bench::new(&[]);
    bench.import(&format!("{NEW} --default")).unwrap();
    let second = NEW.replace("--name new", "--name other");
    let error = bench.import(&format!("{second} --default")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("model 'new' says default = true already")
    );
    bench.import(&second).unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let bench = Bench::new(&[]);
    let config = Config {
        models: Path::new("nowhere").to_owned(),
        ..bench.models.config()
    };
    let error = registry(&config).unwrap_err().to_string();
    assert!(
        error.contains("nowhere: there is no such folder; make it"),
        "{error}"
    );
}
