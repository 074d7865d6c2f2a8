//! Times training steps of small networks, to set beside `benches/train_step.py`.
//!
//! usage: cargo run --release --example train_step -- NET [STEPS]
//!
//! Each step is one of `sconce train`: batch, forward, loss, backward, Adam; on random images. Prints the mean CPU time
//! of the steps after the first five, of the thread that trains. Wants the environment that `sconce train` gives itself:
//! `RAYON_NUM_THREADS=1 CANDLE_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_MMAP_THRESHOLD_=33554432`.

use std::error::Error;
use std::ops::ControlFlow;

use candle_core::Device;
use sconce::dataset::{Dataset, Dropped, Split};
use sconce::model::arch;
use sconce::model::builder::{ConvOptions, GraphBuilder};
use sconce::model::graph::{Activation, Graph, GraphError, NodeId};
use sconce::model::rng::{Rng, Stream};
use sconce::model::spec::Augment;
use sconce::model::{Input, Weights};
use sconce::train::{Event, Recipe, Task, fit};

const CLASSES: usize = 10;
const WARM_UP: usize = 5;

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("seed-cnn", String::as_str);
    let steps = arguments.get(1).map_or(Ok(30), |n| n.parse())?;
    let (graph, batch_size) = network(name)?;
    let ends = step_ends(&graph, batch_size, steps + WARM_UP)?;
    let spent = ends[ends.len() - 1] - ends[WARM_UP - 1];
    println!(
        "{name}, batch {batch_size}: {:.2} ms per step, {steps} steps",
        spent / steps as f64
    );
    Ok(())
}

/// A network by name, and how many images its step has.
fn network(name: &str) -> Result<(Graph, usize), Box<dyn Error>> {
    let digits = Input {
        channels: 1,
        height: 28,
        width: 28,
    };
    Ok(match name {
        "small-cnn" => (arch::build(name, digits, CLASSES)?, 128),
        "resnet" => (resnet()?, 32),
        "separable" => (separable()?, 32),
        _ => (arch::build("seed-cnn", digits, CLASSES)?, 64),
    })
}

fn photos() -> GraphBuilder {
    GraphBuilder::new(Input {
        channels: 3,
        height: 32,
        width: 32,
    })
}

/// Convolution without bias, batch-norm and, where given, an activation.
fn block(
    g: &mut GraphBuilder,
    name: &str,
    x: NodeId,
    (out, kernel, stride, groups): (usize, usize, usize, usize),
    function: Option<Activation>,
) -> Result<NodeId, GraphError> {
    let options = ConvOptions {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        groups,
        bias: false,
        ..ConvOptions::default()
    };
    let x = g.conv2d(&format!("{name}.conv"), x, (out, [kernel; 2]), options)?;
    let x = g.batch_norm(&format!("{name}.bn"), x)?;
    match function {
        Some(function) => g.activation(&format!("{name}.act"), x, function),
        None => Ok(x),
    }
}

fn head(mut g: GraphBuilder, x: NodeId) -> Result<Graph, GraphError> {
    let x = g.global_avg_pool("pool", x)?;
    let x = g.flatten("flatten", x)?;
    g.linear("fc", x, CLASSES, false)?;
    g.finish()
}

/// A stem of 64 channels; two residual blocks of 64 at 32×32, two of 128 at 16×16.
fn resnet() -> Result<Graph, GraphError> {
    let mut g = photos();
    let relu = Some(Activation::Relu);
    let input = g.input();
    let mut x = block(&mut g, "stem", input, (64, 3, 1, 1), relu)?;
    for (index, (out, stride)) in [(64, 1), (64, 1), (128, 2), (128, 1)].into_iter().enumerate() {
        let y = block(&mut g, &format!("{index}.a"), x, (out, 3, stride, 1), relu)?;
        let y = block(&mut g, &format!("{index}.b"), y, (out, 3, 1, 1), None)?;
        if stride != 1 {
            x = block(&mut g, &format!("{index}.down"), x, (out, 1, stride, 1), None)?;
        }
        let sum = g.add(&format!("{index}.add"), y, x)?;
        x = g.activation(&format!("{index}.relu"), sum, Activation::Relu)?;
    }
    head(g, x)
}

/// A stem of 32 channels; five depthwise 3×3 with pointwise 1×1 convolutions, up to 256 channels at 8×8.
fn separable() -> Result<Graph, GraphError> {
    let mut g = photos();
    let relu6 = Some(Activation::Relu6);
    let input = g.input();
    let mut x = block(&mut g, "stem", input, (32, 3, 1, 1), relu6)?;
    let mut channels = 32;
    for (index, (out, stride)) in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1)]
        .into_iter()
        .enumerate()
    {
        x = block(
            &mut g,
            &format!("{index}.dw"),
            x,
            (channels, 3, stride, channels),
            relu6,
        )?;
        x = block(&mut g, &format!("{index}.pw"), x, (out, 1, 1, 1), relu6)?;
        channels = out;
    }
    head(g, x)
}

/// CPU milliseconds at the end of each step.
fn step_ends(graph: &Graph, batch_size: usize, steps: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    let data = random_images(graph.input, batch_size * steps);
    let mut config = Recipe::Seed.config(Augment::default(), 1);
    (config.epochs, config.batch_size) = (1, batch_size);
    let split = Split {
        train: (0..data.labels.len()).collect(),
        hold_out: Vec::new(),
    };
    let task = Task {
        graph,
        initial: &Weights::initialise(graph, 1)?,
        data: &data,
        split: &split,
        background: &vec![0.0; graph.input.channels],
        config: &config,
        device: &Device::Cpu,
        checkpoint: None,
        time: None,
    };
    let mut ends = Vec::new();
    fit(task, &mut |event| {
        if let Event::Step { .. } = event {
            ends.push(cpu_ms());
        }
        ControlFlow::Continue(())
    })?;
    Ok(ends)
}

fn random_images(input: Input, count: usize) -> Dataset {
    let mut rng = Rng::new(1, Stream::Init, 0);
    let numbers = count * input.channels * input.height * input.width;
    Dataset {
        input,
        tensors: (0..numbers).map(|_| rng.unit()).collect(),
        labels: (0..count).map(|index| (index % CLASSES) as u32).collect(),
        hashes: (0..count).map(|_| [0; 32]).collect(),
        classes: CLASSES,
        dropped: Dropped::default(),
    }
}

/// CPU time of this thread so far, as Linux counts it.
fn cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e6
}
