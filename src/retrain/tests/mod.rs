//! The pipeline on small images made for it, from a store to a champion.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::LazyLock;

use image::{GrayImage, ImageFormat, Luma};

use super::material::Material;
use super::*;
use crate::dataset::is_held_out;
use crate::engine::{self, DeviceChoice};
use crate::evaluate::gate::{DataRules, Rules};
use crate::model::rng::{Rng, Stream};
use crate::model::{ModelName, Version, Weights};
use crate::preprocess::Limits;
use crate::registry::{Manifest, Registry, WeightsFile, atomic};
use crate::store::{self, Classes, Digest, Outcome as Taken, Sample, Store};

mod data;
mod erasure;
mod faults;
mod pipeline;
mod resume;
mod transfer;

const SIDE: usize = 8;
/// Enough that some ten are held out: fewer prove nothing.
const SAMPLES: u64 = 150;
const NOW: i64 = 1_800_000_000_000;

/// A model `halves` with a champion that knows nothing, a dataset `halves` and an empty store.
struct Bench {
    folder: tempfile::TempDir,
    place: Place,
}

impl Bench {
    fn new() -> Self {
        let folder = folder();
        let models = folder.path().join("models");
        fs::create_dir_all(models.join("halves")).unwrap();
        let spec = format!(
            "architecture = 'small-cnn'\nlabels = ['0', '1']\n\
             input = {{ channels = 1, height = {SIDE}, width = {SIDE} }}\n"
        );
        atomic::write(&models.join("halves/model.toml"), spec.as_bytes()).unwrap();
        let data = folder.path().join("datasets/halves");
        fs::create_dir_all(&data).unwrap();
        write_idx(&data, "train", 300);
        write_idx(&data, "t10k", 80);
        let bench = Self::at(folder);
        bench.publish("halves");
        bench
    }

    /// In a folder where all of it is.
    fn at(folder: tempfile::TempDir) -> Self {
        let place = Place {
            registry: Registry::open(folder.path().join("models")).unwrap(),
            store: store::Config {
                folder: folder.path().join("store"),
                ..store::Config::default()
            },
            config: Config {
                datasets: folder.path().join("datasets"),
                epochs: 2,
                learning_rate: 0.01,
                batch_size: 16,
                reservoir: 200,
                ..Config::default()
            },
            rules: Rules {
                min_images: 50,
                max_ece_rise: 1.0,
                // Two plans of one network: what differs is what else this machine does.
                max_latency_ratio: 1000.0,
                ..Rules::default()
            },
            intake: DataRules {
                min_new: 20,
                max_source_share: 1.0,
                max_suspects: 1.0,
                ..DataRules::default()
            },
            images: Limits::default(),
            engine: engine::Config {
                device: DeviceChoice::Cpu,
                ..engine::Config::default()
            },
            work: folder.path().join("work"),
        };
        Self { folder, place }
    }

    /// The same with [`SAMPLES`] samples of three sources.
    fn with_samples() -> Self {
        // Made once and copied: the store waits for the disk with each sample.
        static MADE: LazyLock<Bench> = LazyLock::new(|| {
            let bench = Bench::new();
            bench.add(0..SAMPLES);
            bench
        });
        MADE.again()
    }

    /// All of it once more, in another folder.
    fn again(&self) -> Self {
        let folder = folder();
        copy(self.folder.path(), folder.path());
        Self::at(folder)
    }

    /// A version of fresh weights, which says that it learnt from `dataset`.
    fn publish(&self, dataset: &str) -> Version {
        let spec = self.place.registry.entry(&name()).unwrap().spec;
        let graph = spec.graph().unwrap();
        let manifest = Manifest {
            format: Manifest::FORMAT,
            weights: WeightsFile::default(),
            architecture: spec.architecture,
            parameters: graph.parameters(),
            parent: None,
            parent_model: None,
            sconce: "0.1.0".to_owned(),
            command: "sconce train".to_owned(),
            seed: 3,
            data: serde_json::json!({ "name": dataset }),
            training: serde_json::Value::Null,
            evaluation: serde_json::Value::Null,
        };
        let weights = Weights::initialise(&graph, 3).unwrap();
        self.place.registry.publish(&name(), &weights, manifest).unwrap()
    }

    /// Adds sample images by number; those of odd numbers are of class 1.
    fn add(&self, images: std::ops::Range<u64>) {
        self.with_store(async |store| {
            for number in images {
                let sample = Sample {
                    model: name(),
                    image: png(number).into(),
                    label: (number % 2) as u32,
                    source: format!("s{}", number % 3).parse().unwrap(),
                    key: None,
                };
                let classes = Classes::from([(name(), 2)]);
                assert_eq!(
                    store.sample(&sample, &classes, NOW).await.unwrap(),
                    Taken::Accepted
                );
            }
        });
    }

    /// Erases as a server does.
    fn erase(&self, image: u64) -> Learners {
        let erased = self.with_store(async |store| store.erase(&Digest::of(&png(image)), NOW).await.unwrap());
        bar_learners(&self.place.registry, erased).unwrap()
    }

    fn with_store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let store = Store::open(&self.place.store).await.unwrap();
            let done = work(&store).await;
            store.close().await;
            done
        })
    }

    fn run(&self, request: &Request) -> Result<Outcome, RetrainError> {
        run(request, &self.place, &mut |_| Ok(()))
    }

    /// A run that dies when it is told of the first event that `dies` knows.
    fn killed(&self, request: &Request, dies: impl Fn(&Progress) -> bool) {
        let mut listener = |event: &Progress| match dies(event) {
            true => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            false => Ok(()),
        };
        let died = run(request, &self.place, &mut listener);
        assert!(matches!(died, Err(RetrainError::Listener(_))), "{died:?}");
    }

    /// Every event of a run, and what came of it.
    fn told(&self, request: &Request) -> (Vec<Progress>, Outcome) {
        let mut events = Vec::new();
        let outcome = run(request, &self.place, &mut |event| {
            events.push(event.clone());
            Ok(())
        });
        (events, outcome.unwrap())
    }

    fn champion(&self) -> Version {
        self.place.registry.entry(&name()).unwrap().champion().unwrap()
    }

    fn versions(&self) -> usize {
        self.place.registry.entry(&name()).unwrap().versions.len()
    }

    fn weights(&self, version: Version) -> Vec<u8> {
        let path = format!("models/halves/{version}/model.safetensors");
        fs::read(self.folder.path().join(path)).unwrap()
    }

    fn manifest(&self, version: Version) -> Manifest {
        self.place.registry.manifest(&name(), version).unwrap()
    }
}

fn name() -> ModelName {
    "halves".parse().unwrap()
}

fn request() -> Request {
    Request::new(name())
}

fn second() -> Version {
    Version::FIRST.next().unwrap()
}

/// In memory where there is such a place: the runs wait for the disk many times.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Copies what a folder holds.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|e| (e.path(), to.join(e.file_name()))).unwrap();
        if path.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Noise with a light left (even numbers) or right half.
fn pixels(number: u64) -> Vec<u8> {
    let mut rng = Rng::new(number, Stream::Init, 9);
    let light = |at: usize| number as usize % 2 == at % SIDE / (SIDE / 2);
    (0..SIDE * SIDE)
        .map(|at| rng.below(120) as u8 + if light(at) { 100 } else { 0 })
        .collect()
}

fn png(number: u64) -> Vec<u8> {
    let pixels = pixels(number);
    let image = GrayImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        Luma([pixels[y as usize * SIDE + x as usize]])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Images of other numbers than the samples have.
fn write_idx(folder: &Path, part: &str, count: usize) {
    let first = if part == "train" { 10_000 } else { 20_000 };
    let header = |kind: u8, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|&size| (size as u32).to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let mut images = header(3, &[count, SIDE, SIDE]);
    images.extend((0..count as u64).flat_map(|image| pixels(first + image)));
    let mut labels = header(1, &[count]);
    labels.extend((0..count).map(|image| (image % 2) as u8));
    atomic::write(&folder.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
    atomic::write(&folder.join(format!("{part}-labels-idx1-ubyte")), &labels).unwrap();
}
