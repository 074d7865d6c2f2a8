//! A predictor over a network of three classes that tests see through.

use std::io::Cursor;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, panicking};

use image::{GrayImage, ImageFormat, Luma};

use super::{Config, Picture, Predictor, Served, ServedModel, Table};
use crate::batcher::{self, Batcher, Infer};
use crate::model::{ModelName, Spec, Version};
use crate::preprocess::pool::{self, Pool};
use crate::preprocess::{Limits, Pixels};
use crate::telemetry::Metrics;

/// Levels of a first pixel at which inference goes wrong.
pub(crate) const FAILS: u8 = 200;
pub(crate) const NOT_FINITE: u8 = 201;
pub(crate) const PANICS: u8 = 202;

/// Longest side that is taken.
pub(crate) const MAX_SIDE: u32 = 64;

const SPEC: &str = "
    architecture = 'seed-cnn'
    labels = ['zero', 'one', 'two']
    input = { channels = 1, height = 2, width = 2 }
";

/// Answers an image by its first pixel's level, modulo 3.
pub(crate) struct FirstPixel;

impl Infer for FirstPixel {
    type Bound = Version;

    fn bind(&self) -> Version {
        Version::FIRST
    }

    fn version(bound: &Version) -> Version {
        *bound
    }

    fn run(_: &Version, inputs: &[f32], items: usize, logits: &mut Vec<f32>) -> Result<(), ()> {
        assert_eq!(inputs.len(), items * 4);
        logits.clear();
        for input in inputs.chunks(4) {
            let level = (input[0] * 255.0).round() as u8;
            assert!(level != PANICS, "asked to");
            if level == FAILS {
                return Err(());
            }
            let on = if level == NOT_FINITE { f32::NAN } else { 2.0 };
            logits.extend((0..3).map(|class| if class == level % 3 { on } else { 0.0 }));
        }
        Ok(())
    }

    fn answers(_: &Version) -> bool {
        true
    }
}

/// A predictor whose threads are the test's: nothing moves until it is told to.
pub(crate) struct Workbench {
    pub(crate) predictor: Arc<Predictor>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pool: Pool,
    decoders: Vec<pool::Worker>,
    instances: Vec<batcher::Worker<FirstPixel>>,
}

/// Threads that end with the test.
pub(crate) struct Running {
    served: Arc<Served>,
    pool: Pool,
    threads: Vec<JoinHandle<()>>,
}

/// A pipeline over these models that decodes nothing.
pub(crate) fn pipeline(table: Table, metrics: &Arc<Metrics>) -> Arc<Predictor> {
    let (pool, _) = Pool::new(&pool::Config::default(), 1, Arc::clone(metrics));
    Predictor::new(table, pool, Limits::default())
}

impl Workbench {
    /// Model `digits`, version 1, with room for this many images to decode and to infer.
    pub(crate) fn new(max_decoding: usize, max_queue: usize) -> Self {
        Self::with(Config::default(), max_decoding, max_queue)
    }

    /// As [`Workbench::new`], with answers that cost no inference.
    pub(crate) fn with(answers: Config, max_decoding: usize, max_queue: usize) -> Self {
        let metrics = Metrics::new(&[]);
        let config = pool::Config {
            max_queue: max_decoding,
            ..pool::Config::default()
        };
        let (pool, decoders) = Pool::new(&config, 1, Arc::clone(&metrics));
        let name: ModelName = "digits".parse().unwrap();
        let series = metrics.model(&name, Version::FIRST);
        let config = batcher::Config {
            max_queue,
            ..batcher::Config::default()
        };
        let (batcher, instances) = Batcher::new(config, &Arc::new(FirstPixel), 1, Arc::clone(&series));
        let spec = Arc::new(Spec::parse(SPEC).unwrap());
        let served = Arc::new(Served::new(
            name.clone(),
            Version::FIRST,
            spec,
            (batcher, series),
            answers,
        ));
        let model = ServedModel {
            champion: Version::FIRST,
            versions: vec![served],
        };
        let limits = Limits {
            max_side: MAX_SIDE,
            ..Limits::default()
        };
        let table = Table {
            models: [(name.clone(), model)].into(),
            default: name,
        };
        Self {
            predictor: Predictor::new(table, pool.clone(), limits),
            metrics,
            pool,
            decoders,
            instances,
        }
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        self.predictor.find(None, None).unwrap()
    }

    /// Does the pool's work; it takes no more.
    pub(crate) fn decode(&mut self) {
        self.pool.close();
        self.decoders.drain(..).for_each(pool::Worker::run);
    }

    /// Does the queue's work; it takes no more.
    pub(crate) fn infer(&mut self) {
        self.served().batcher.close();
        self.instances.drain(..).for_each(|worker| worker.run().unwrap());
    }

    /// Gives the work to threads of its own.
    pub(crate) fn run(&mut self) -> Running {
        let spawn = |work: Box<dyn FnOnce() + Send>| Builder::new().spawn(work).unwrap();
        let decoders = self
            .decoders
            .drain(..)
            .map(|worker| spawn(Box::new(|| worker.run())));
        let instances = self
            .instances
            .drain(..)
            .map(|worker| spawn(Box::new(|| worker.run().unwrap())));
        Running {
            threads: decoders.chain(instances).collect(),
            pool: self.pool.clone(),
            served: self.served(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pool.close();
        self.served.batcher.close();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            // A second panic while the test's own unwinds would hide it.
            assert!(ended.is_ok() || panicking());
        }
    }
}

/// A grey image of the input's size, its first pixel of this level.
pub(crate) fn pixels(level: u8) -> Picture {
    Picture::Pixels(Pixels {
        width: 2,
        height: 2,
        channels: 1,
        bytes: vec![level, 0, 0, 0],
    })
}

/// The same as a PNG file.
pub(crate) fn png(level: u8) -> Vec<u8> {
    let mut image = GrayImage::new(2, 2);
    image.put_pixel(0, 0, Luma([level]));
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}
