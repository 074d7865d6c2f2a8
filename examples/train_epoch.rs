//! Times an epoch of the recipe `seed` on MNIST, in Sconce or in stock candle; `benches/train_epoch.py` sets torch beside it.
//!
//! usage: cargo run --release --example train_epoch -- sconce|candle MNIST_DIR [ORDER]
//!
//! Both train on one thread from the same weights and see the same batches, without augmentation. Prints the processor time of the epoch and the
//! mean loss of its batches. Where ORDER is given, the images' order is written there (32-bit numbers, little-endian) for
//! others to follow. The folder holds the unpacked idx files.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{
    AdamW, Conv2d, Dropout, Linear, Module, ModuleT, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss,
};
use sconce::dataset::batches::Order;
use sconce::dataset::{Batches, Dataset, Dropped, Split};
use sconce::model::rng::{Rng, Stream};
use sconce::model::spec::Augment;
use sconce::model::{Input, Weights, arch};
use sconce::train::{Event, Recipe, Task, fit};

const CLASSES: usize = 10;
const SIDE: usize = 28;
const BATCH: usize = 64;
const SEED: u64 = 1;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (way, folder, order) = match &arguments[..] {
        [way, folder] => (way, folder, None),
        [way, folder, order] => (way, folder, Some(order)),
        _ => return Err("usage: train_epoch sconce|candle MNIST_DIR [ORDER]".into()),
    };
    let data = read(Path::new(folder))?;
    if let Some(order) = order {
        write_order(data.len(), Path::new(order))?;
    }
    let epoch = match &**way {
        "sconce" => sconce,
        "candle" => candle,
        other => return Err(format!("'{other}' is neither sconce nor candle").into()),
    };
    let start = cpu_seconds()?;
    let loss = epoch(&data)?;
    println!("{:.2} s CPU, mean loss {loss:.4}", cpu_seconds()? - start);
    Ok(())
}

/// The training images, levels 0 to 1.
fn read(folder: &Path) -> Outcome<Dataset> {
    let images = std::fs::read(folder.join("train-images-idx3-ubyte"))?;
    let labels = std::fs::read(folder.join("train-labels-idx1-ubyte"))?;
    let (levels, labels) = (
        images.get(16..).unwrap_or_default(),
        labels.get(8..).unwrap_or_default(),
    );
    if labels.is_empty() || levels.len() != labels.len() * SIDE * SIDE {
        return Err(format!("{}: not the idx files of MNIST", folder.display()).into());
    }
    Ok(Dataset {
        input: Input {
            channels: 1,
            height: SIDE,
            width: SIDE,
        },
        tensors: levels.iter().map(|&level| f32::from(level) / 255.0).collect(),
        labels: labels.iter().copied().map(u32::from).collect(),
        hashes: vec![[0; 32]; labels.len()],
        classes: CLASSES,
        dropped: Dropped::default(),
    })
}

/// The order in which [`Batches`] gives the images of the first epoch.
fn write_order(images: usize, path: &Path) -> Outcome<()> {
    let mut order: Vec<u32> = (0..u32::try_from(images)?).collect();
    Rng::new(SEED, Stream::Shuffle, 0).shuffle(&mut order);
    let bytes: Vec<u8> = order.into_iter().flat_map(u32::to_le_bytes).collect();
    Ok(File::create(path)?.write_all(&bytes)?)
}

fn sconce(data: &Dataset) -> Outcome<f64> {
    let graph = arch::build("seed-cnn", data.input, CLASSES)?;
    let mut config = Recipe::Seed.config(Augment::default(), SEED);
    config.epochs = 1;
    assert_eq!(config.batch_size, BATCH, "the recipe's batches");
    let split = Split {
        train: (0..data.len()).collect(),
        hold_out: Vec::new(),
    };
    let task = Task {
        graph: &graph,
        initial: &Weights::initialise(&graph, SEED)?,
        data,
        split: &split,
        background: &[0.0],
        config: &config,
        device: &Device::Cpu,
        checkpoint: None,
        time: None,
    };
    let mut mean = f64::NAN;
    fit(task, &mut |event| {
        if let Event::Step { score, .. } = event {
            mean = score.loss.into();
        }
        ControlFlow::Continue(())
    })?;
    Ok(mean)
}

/// The network as a program on candle-nn has it.
struct Network {
    conv: Conv2d,
    hidden: Linear,
    output: Linear,
    dropout: Dropout,
}

impl Network {
    fn new(vars: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let pooled = (SIDE - 2) / 2;
        Ok(Self {
            conv: candle_nn::conv2d(1, 32, 3, Default::default(), vars.pp("conv1"))?,
            hidden: candle_nn::linear(32 * pooled * pooled, 64, vars.pp("fc1"))?,
            output: candle_nn::linear(64, CLASSES, vars.pp("fc2"))?,
            dropout: Dropout::new(0.5),
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what stock candle does is the subject: its gradient is wrong, and takes as long"
    )]
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.conv.forward(images)?.relu()?.max_pool2d(2)?;
        let x = self.hidden.forward(&x.flatten_from(1)?)?.relu()?;
        self.output.forward(&self.dropout.forward_t(&x, true)?)
    }
}

fn candle(data: &Dataset) -> Outcome<f64> {
    let (device, mut vars) = (Device::Cpu, VarMap::new());
    let network = Network::new(&VarBuilder::from_varmap(&vars, DType::F32, &device))?;
    let graph = arch::build("seed-cnn", data.input, CLASSES)?;
    for (name, weights) in Weights::initialise(&graph, SEED)?.iter() {
        vars.set_one(name, weights)?;
    }
    // Without decay it is Adam, of which candle-nn has no other.
    let adam = ParamsAdamW {
        lr: 1e-3,
        weight_decay: 0.0,
        ..ParamsAdamW::default()
    };
    let mut optimizer = AdamW::new(vars.all_vars(), adam)?;
    let order = Order {
        batch_size: BATCH,
        seed: SEED,
        epoch: 0,
        augment: Augment::default(),
        background: vec![0.0],
    };
    let all: Vec<usize> = (0..data.len()).collect();
    let batches = Batches::new(data, &all, order);
    let (count, mut total) = (batches.len() as f64, 0.0);
    for batch in batches {
        let shape = (batch.labels.len(), 1, SIDE, SIDE);
        let images = Tensor::from_vec(batch.images, shape, &device)?;
        let labels = Tensor::from_vec(batch.labels, shape.0, &device)?;
        let loss = loss::cross_entropy(&network.forward(&images)?, &labels)?;
        optimizer.backward_step(&loss)?;
        total += f64::from(loss.to_scalar::<f32>()?);
    }
    Ok(total / count)
}

/// Processor time of this process so far, in ticks of 10 ms: `utime` and `stime` of proc(5).
fn cpu_seconds() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").ok_or("/proc/self/stat names no program")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}
