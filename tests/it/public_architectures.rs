//! Public networks compute what torch computes, and files of other libraries load as they are.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sconce::engine::Plan;
use sconce::model::autograd::{Mode, Network};
use sconce::model::graph::{Param, ParamKind};
use sconce::model::rng::{Rng, Stream};
use sconce::model::{Graph, Input, Version, Weights, arch};
use serde::Deserialize;

use super::server::sconce;

/// Largest difference from torch's logits, as a share of the largest of them.
const TOLERANCE: f32 = 1e-4;

/// How far apart the logits of two images are at least, as a share of the largest: a network that lost the image on the
/// way would pass otherwise.
const SPREAD: f32 = 0.1;

#[derive(Deserialize)]
struct Golden {
    /// Channels, rows, columns.
    input: [usize; 3],
    /// By image.
    logits: Vec<Vec<f32>>,
    /// timm's, where its network divides by another ε.
    timm_logits: Option<Vec<Vec<f32>>>,
}

/// What a file calls a parameter, its shape there, and the graph's name.
type Renamed = (String, Vec<usize>, String);

impl Golden {
    fn all() -> BTreeMap<String, Self> {
        serde_json::from_str(include_str!("../golden/architectures.json")).unwrap()
    }

    fn graph(&self, name: &str) -> Graph {
        let [channels, height, width] = self.input;
        let input = Input {
            channels,
            height,
            width,
        };
        arch::build(name, input, self.logits[0].len()).unwrap()
    }

    fn images(&self) -> Vec<f32> {
        (0..self.logits.len())
            .flat_map(|index| image(index, self.input))
            .collect()
    }
}

/// By architecture and dialect.
fn names() -> BTreeMap<String, BTreeMap<String, Vec<Renamed>>> {
    let packed = include_bytes!("../golden/architectures_names.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

/// `count` numbers in [-1, 1), as in `tests/golden/architectures.py`: FNV-1a of the name starts SplitMix64, whose upper 24
/// bits are taken.
fn numbers(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let start = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    (1..=count as u64).map(move |index| {
        let z = start.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn image(index: usize, [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let side = if index.is_multiple_of(2) { 4 } else { 16 };
    let squares: Vec<f32> = numbers(&format!("image {index}"), channels * height * width).collect();
    let offsets: Vec<f32> = numbers(&format!("offset {index}"), channels).collect();
    let level = |channel: usize, row: usize, column: usize| {
        squares[(channel * height + row / side) * width + column / side] + offsets[channel]
    };
    (0..channels)
        .flat_map(|channel| (0..height).map(move |row| (channel, row)))
        .flat_map(|(channel, row)| (0..width).map(move |column| (channel, row, column)))
        .map(|(channel, row, column)| level(channel, row, column))
        .collect()
}

/// The values of a parameter: from the formula, or from `statistics` where it is tracked.
fn values(architecture: &str, param: &Param, statistics: &SafeTensors<'_>) -> Vec<f32> {
    let count = param.shape.iter().product();
    let scaled = |base: f32, by: f32| numbers(&param.name, count).map(move |u| base + by * u).collect();
    match param.kind {
        ParamKind::Weight { .. } => {
            let fan_in: usize = param.shape[1..].iter().product();
            let bound = (6.0 / fan_in as f64).sqrt() as f32;
            numbers(&param.name, count).map(|u| bound * u).collect()
        }
        ParamKind::Bias | ParamKind::Offset => scaled(0.0, 0.25),
        ParamKind::Scale => scaled(1.0, 0.25),
        ParamKind::LayerScale => scaled(0.5, 0.25),
        ParamKind::RunningMean | ParamKind::RunningVar => {
            let view = statistics
                .tensor(&format!("{architecture}/{}", param.name))
                .unwrap();
            let halves = view.data().as_chunks::<2>().0.iter();
            halves.map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
        }
    }
}

fn tensors(architecture: &str, graph: &Graph) -> BTreeMap<String, Tensor> {
    let bytes = include_bytes!("../golden/architectures.safetensors");
    let statistics = SafeTensors::deserialize(bytes).unwrap();
    let tensor = |param: &Param| {
        let values = values(architecture, param, &statistics);
        let tensor = Tensor::from_vec(values, &*param.shape, &Device::Cpu).unwrap();
        (param.name.clone(), tensor)
    };
    graph.params.iter().map(tensor).collect()
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, value| most.max(value.abs()))
}

fn check_near(what: &str, found: &[f32], expected: &[Vec<f32>]) {
    let expected = expected.concat();
    assert_eq!(found.len(), expected.len(), "{what}");
    let off = largest(found.iter().zip(&expected).map(|(a, b)| a - b));
    let scale = largest(expected.iter().copied());
    assert!(off <= TOLERANCE * scale, "{what}: off by {off} of {scale}");
}

fn served(graph: &Graph, weights: &Weights, images: &[f32]) -> Vec<f32> {
    let device = Device::Cpu;
    let plan = Plan::compile(Version::FIRST, graph, weights, &device).unwrap();
    let mut logits = Vec::new();
    plan.run(images, images.len() / plan.input_len(), &mut logits)
        .unwrap();
    logits
}

fn by_autograd(graph: &Graph, weights: &Weights, images: &[f32]) -> Vec<f32> {
    let Input {
        channels,
        height,
        width,
    } = graph.input;
    let images = Tensor::from_slice(
        images,
        (images.len() / graph.input.len(), channels, height, width),
        &Device::Cpu,
    );
    let network = Network::new(graph.clone(), weights, &Device::Cpu).unwrap();
    let logits = network.forward(&images.unwrap(), &mut Mode::Eval).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn both_executors_compute_what_torch_does() {
    let all = Golden::all();
    let named: Vec<&str> = all.keys().map(String::as_str).collect();
    let public = arch::NAMES.iter().filter(|name| !name.ends_with("-cnn"));
    assert_eq!(named, public.copied().collect::<Vec<_>>());
    for (name, golden) in &all {
        let graph = golden.graph(name);
        let weights = Weights::from_tensors(tensors(name, &graph), &graph).unwrap();
        let images = golden.images();
        let logits = served(&graph, &weights, &images);
        check_near(&format!("{name}, served"), &logits, &golden.logits);
        check_near(
            &format!("{name}, autograd"),
            &by_autograd(&graph, &weights, &images),
            &golden.logits,
        );
        let (first, second) = logits.split_at(graph.classes());
        let apart = largest(first.iter().zip(second).map(|(a, b)| a - b));
        assert!(
            apart > SPREAD * largest(logits.iter().copied()),
            "{name}: the images give the same"
        );
    }
}

/// A safetensors file of f16 tensors that hold one number each.
fn file(tensors: &[(&str, &[usize], f32)]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape, value)| f16::from_f32(*value).to_le_bytes().repeat(shape.iter().product()))
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F16, shape.to_vec(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn files_of_every_dialect_load_with_each_tensor_in_its_place() {
    let golden = Golden::all();
    for (architecture, dialects) in names() {
        let graph = golden[&architecture].graph(&architecture);
        for (dialect, names) in dialects {
            // A number for each parameter, large enough that another ε does not matter, small enough for f16.
            let numbered = (100..).zip(&names);
            let tensors: Vec<(&str, &[usize], f32)> = numbered
                .clone()
                .map(|(number, (foreign, shape, _))| (foreign.as_str(), shape.as_slice(), number as f32))
                .collect();
            let weights = Weights::from_safetensors(&file(&tensors), &graph).unwrap();
            let mut found = 0;
            for (number, (foreign, _, own)) in numbered {
                let Some(tensor) = weights.get(own) else {
                    assert!(
                        own.ends_with("num_batches_tracked"),
                        "{architecture} has no {own}"
                    );
                    continue;
                };
                let value = tensor.flatten_all().unwrap().get(0).unwrap();
                let off = value.to_scalar::<f32>().unwrap() - number as f32;
                assert!(
                    off.abs() < 0.01,
                    "{architecture}, {dialect}: {foreign} is not {own}"
                );
                found += 1;
            }
            assert_eq!(found, graph.params.len(), "{architecture}, {dialect}");
        }
    }
}

#[test]
fn networks_of_another_epsilon_compute_what_their_library_does() {
    let all = Golden::all();
    let mut names = names();
    for (name, golden) in all {
        let Some(expected) = &golden.timm_logits else {
            continue;
        };
        let graph = golden.graph(&name);
        let own = tensors(&name, &graph);
        let foreign = names.remove(&name).unwrap().remove("timm").unwrap();
        let file = foreign
            .iter()
            .map(|(foreign, shape, name)| (foreign, own[name].reshape(shape.as_slice()).unwrap()));
        let bytes = safetensors::serialize(file, None).unwrap();
        let weights = Weights::from_safetensors(&bytes, &graph).unwrap();
        check_near(&name, &served(&graph, &weights, &golden.images()), expected);
    }
}

#[test]
fn every_parameter_of_a_public_architecture_is_reached_by_the_gradient() {
    let input = Input {
        channels: 3,
        height: 32,
        width: 32,
    };
    let images = Tensor::from_vec(
        [image(0, [3, 32, 32]), image(1, [3, 32, 32])].concat(),
        (2, 3, 32, 32),
        &Device::Cpu,
    )
    .unwrap();
    // Without VGG, which takes no small images, and the larger ones of a family: their layers are among the others'.
    let left_out = ["vgg11_bn", "resnet34", "resnet50", "mobilenet_v3_large"];
    for name in arch::NAMES.iter().filter(|name| !left_out.contains(name)) {
        let graph = arch::build(name, input, 3).unwrap();
        let weights = Weights::initialise(&graph, 1).unwrap();
        let network = Network::new(graph, &weights, &Device::Cpu).unwrap();
        let mut mode = Mode::Train {
            rng: &mut Rng::new(1, Stream::Dropout, 0),
            dropout: None,
        };
        let logits = network.forward(&images, &mut mode).unwrap();
        let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for (parameter, var) in network.trained() {
            let gradient = gradients.get(var);
            let gradient = gradient.unwrap_or_else(|| panic!("{name}: {parameter} has none"));
            let sum = gradient.sqr().unwrap().sum_all().unwrap();
            assert!(sum.to_scalar::<f32>().unwrap().is_finite(), "{name}: {parameter}");
        }
    }
}

/// An entry of `sconce predict --json`.
#[derive(Deserialize)]
struct Answer {
    file: PathBuf,
    label: String,
}

#[test]
#[ignore = "needs the folder that tests/golden/efficientnet_lite0.py makes, under the name LITE0_FOLDER"]
fn trained_weights_classify_photos() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the folder is too large to be shipped, so its place is given from outside"
    )]
    let folder = PathBuf::from(std::env::var("LITE0_FOLDER").unwrap());
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Vec<String>> = serde_json::from_slice(&expected).unwrap();
    let mut command = sconce(&["predict", "--json", "--models"]);
    command.arg(folder.join("models"));
    let photos = expected.keys().map(|photo| folder.join("photos").join(photo));
    let output = command.args(photos).output().unwrap();
    let answers: Vec<Answer> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), expected.len());
    for Answer { file, label } in answers {
        let right = &expected[file.file_name().unwrap().to_str().unwrap()];
        assert!(
            right.contains(&label),
            "{}: {label}, not {right:?}",
            file.display()
        );
    }
}
