//! What the gate thinks of honest and of wrong labels, by the shipped network on the sample in this repository.

use std::path::{Path, PathBuf};

use sconce::dataset::{Dataset, Part, Source};
use sconce::engine::Plan;
use sconce::engine::device::Device;
use sconce::evaluate::gate::DataRules;
use sconce::evaluate::gate::intake::{DataReport, Golden, NewExample, check_data};
use sconce::evaluate::probabilities;
use sconce::model::Version;
use sconce::preprocess::Limits;
use sconce::registry::Registry;

const SIDE: usize = 28;
const CLASSES: usize = 10;

/// The shipped network, its sample, and how it answers the trusted half.
struct Bench {
    plan: std::sync::Arc<Plan>,
    data: Dataset,
    golden: Golden,
}

impl Bench {
    fn new() -> Self {
        let here = |path: &str| -> PathBuf { Path::new(env!("CARGO_MANIFEST_DIR")).join(path) };
        let registry = Registry::open(here("models")).unwrap();
        let loaded = registry.load(&"mnist".parse().unwrap(), Version::FIRST).unwrap();
        let plan = Plan::compile(Version::FIRST, &loaded.graph, &loaded.weights, &Device::Cpu).unwrap();
        let source = Source::detect(&here("tests/fixtures/mnist"), Part::Test).unwrap();
        let data = Dataset::read(&source, &loaded.spec, &Limits::default()).unwrap();
        let trusted: Vec<usize> = (0..data.len()).step_by(2).collect();
        let labels: Vec<u32> = trusted.iter().map(|&index| data.labels[index]).collect();
        let rows = probabilities(&plan, &data, &trusted).unwrap();
        let golden = Golden::of(&rows, &labels, CLASSES).unwrap();
        Self { plan, data, golden }
    }

    /// What is found among the other half, turned by some degrees and labelled by `label` of place and truth.
    fn check(&self, degrees: f64, label: impl Fn(usize, u32) -> u32) -> DataReport {
        let mut data = self.data.clone();
        for image in data.tensors.chunks_exact_mut(SIDE * SIDE) {
            image.copy_from_slice(&turned(image, degrees));
        }
        let new: Vec<usize> = (1..data.len()).step_by(2).collect();
        let rows = probabilities(&self.plan, &data, &new).unwrap();
        let places = new.iter().zip(rows.chunks_exact(CLASSES)).enumerate();
        let example = |(place, (&index, probabilities))| NewExample {
            sha256: "",
            label: label(place, data.labels[index]),
            source: "app",
            dhash: place as u64,
            probabilities,
            hold_out: false,
        };
        let examples: Vec<NewExample<'_>> = places.map(example).collect();
        let rules = DataRules {
            max_source_share: 1.0,
            ..DataRules::default()
        };
        check_data(&examples, &self.golden, &rules).unwrap().report
    }
}

/// Bilinear, about the middle, black outside.
fn turned(image: &[f32], degrees: f64) -> Vec<f32> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let middle = (SIDE as f64 - 1.0) / 2.0;
    let at = |x: f64, y: f64| {
        let inside = (0.0..SIDE as f64).contains(&x) && (0.0..SIDE as f64).contains(&y);
        if inside {
            f64::from(image[y as usize * SIDE + x as usize])
        } else {
            0.0
        }
    };
    let level = |place: usize| {
        let (dx, dy) = ((place % SIDE) as f64 - middle, (place / SIDE) as f64 - middle);
        let (x, y) = (cos * dx - sin * dy + middle, sin * dx + cos * dy + middle);
        let (left, top) = (x.floor(), y.floor());
        let (right, bottom) = (x - left, y - top);
        let upper = at(left, top) * (1.0 - right) + at(left + 1.0, top) * right;
        let lower = at(left, top + 1.0) * (1.0 - right) + at(left + 1.0, top + 1.0) * right;
        (upper * (1.0 - bottom) + lower * bottom) as f32
    };
    (0..SIDE * SIDE).map(level).collect()
}

/// One in `share` labels is another class.
fn flipped(share: usize) -> impl Fn(usize, u32) -> u32 {
    move |place, label| {
        if place % share == 0 {
            (label + 1 + (place / share) as u32 % 9) % 10
        } else {
            label
        }
    }
}

#[test]
fn honest_labels_of_hard_images_are_not_held() {
    let bench = Bench::new();
    let mut disagreements = Vec::new();
    for degrees in [0.0, 15.0, 30.0] {
        let report = bench.check(degrees, |_, label| label);
        assert!(report.passed, "{degrees}: {:?}", report.reasons);
        disagreements.push(report.suspects.disagreements as f64 / report.suspects.judged as f64);
    }
    assert!(
        disagreements[2] > 0.1,
        "turned images are hard: {disagreements:?}"
    );
}

#[test]
fn flipped_labels_are_held() {
    let bench = Bench::new();
    for (degrees, share) in [(0.0, 10), (0.0, 3), (15.0, 3)] {
        let report = bench.check(degrees, flipped(share));
        assert!(report.suspects.held, "{degrees} {share}: {:?}", report.suspects);
    }
    let report = bench.check(0.0, |_, label| if label == 7 { 1 } else { label });
    assert!(report.suspects.held, "7 as 1: {:?}", report.suspects);
    let listed = report
        .suspects
        .ranked
        .iter()
        .filter(|suspect| (suspect.label, suspect.champion) == (1, 7));
    assert!(listed.count() >= 40);
}
