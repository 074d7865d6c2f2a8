//! Tests of the training loop on small data made for them.

use super::*;
use crate::dataset::Source;
use crate::model::spec::Augment;
use crate::model::{Input, Spec, arch};
use crate::preprocess::Limits;
use crate::registry::atomic;
use crate::train::early_stopping::{EarlyStopping, Watch};
use crate::train::optimizer::Rule;
use crate::train::schedule::Schedule;
use crate::train::{Recipe, cross_validation};

const SIDE: usize = 8;
const IMAGES: usize = 96;

/// Images of 8×8 noise with a light left (class 0) or right (class 1) half, read from idx files.
fn data() -> Dataset {
    let mut rng = Rng::new(11, Stream::Init, 0);
    let label = |image: usize| (image % 2) as u8;
    let mut pixel = |image: usize, at: usize| {
        let light = usize::from(label(image)) == at % SIDE / (SIDE / 2);
        rng.below(120) as u8 + if light { 100 } else { 0 }
    };
    let header = |kind: u8, sizes: &[usize]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|&size| (size as u32).to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let mut images = header(3, &[IMAGES, SIDE, SIDE]);
    images.extend((0..IMAGES * SIDE * SIDE).map(|i| pixel(i / (SIDE * SIDE), i % (SIDE * SIDE))));
    let mut labels = header(1, &[IMAGES]);
    labels.extend((0..IMAGES).map(label));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let source = Source::Idx {
        images: at("train-images-idx3-ubyte"),
        labels: at("train-labels-idx1-ubyte"),
    };
    atomic::write(&at("train-images-idx3-ubyte"), &images).unwrap();
    atomic::write(&at("train-labels-idx1-ubyte"), &labels).unwrap();
    Dataset::read(&source, &spec(), &Limits::default()).unwrap()
}

fn spec() -> Spec {
    let text = format!(
        "architecture = 'small-cnn'\nlabels = ['0', '1']\n\
         input = {{ channels = 1, height = {SIDE}, width = {SIDE} }}"
    );
    Spec::parse(&text).unwrap()
}

/// Every random thing at work: shuffling, augmentation, dropout.
fn config() -> Config {
    let augment = Augment {
        shift: 1,
        erase: 0.3,
        ..Augment::default()
    };
    Config {
        epochs: 3,
        batch_size: 10,
        learning_rate: 0.02,
        l1: 1e-5,
        l2: 1e-4,
        clip_norm: Some(1.0),
        label_smoothing: 0.05,
        ..Recipe::Fast.config(augment, 5)
    }
}

/// What a task borrows.
struct Bench {
    data: Dataset,
    split: Split,
    graph: Graph,
    initial: Weights,
}

impl Bench {
    fn new() -> Self {
        Self::of("small-cnn")
    }

    fn of(architecture: &str) -> Self {
        let input = Input {
            channels: 1,
            height: SIDE,
            width: SIDE,
        };
        let graph = arch::build(architecture, input, 2).unwrap();
        Self {
            data: data(),
            split: Split {
                train: (0..72).collect(),
                hold_out: (72..IMAGES).collect(),
            },
            initial: Weights::initialise(&graph, 5).unwrap(),
            graph,
        }
    }

    fn task<'a>(&'a self, config: &'a Config, checkpoint: Option<&'a Path>) -> Task<'a> {
        Task {
            graph: &self.graph,
            initial: &self.initial,
            data: &self.data,
            split: &self.split,
            background: &[0.0],
            config,
            device: &Device::Cpu,
            checkpoint,
            time: None,
        }
    }

    fn fit(&self, config: &Config) -> Result<Fitted, TrainError> {
        fit(self.task(config, None), &mut ignore)
    }
}

fn ignore(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn bytes(weights: &Weights) -> Vec<u8> {
    weights.to_safetensors(&BTreeMap::new()).unwrap()
}

/// Without the seconds, which no seed decides.
fn timeless(history: &History) -> Vec<EpochRecord> {
    let timeless = |record: &EpochRecord| EpochRecord {
        seconds: 0.0,
        ..*record
    };
    history.epochs.iter().map(timeless).collect()
}

#[test]
fn the_same_task_gives_the_same_bits() {
    for architecture in ["small-cnn", "seed-cnn"] {
        let bench = Bench::of(architecture);
        let (first, second) = (bench.fit(&config()).unwrap(), bench.fit(&config()).unwrap());
        assert_eq!(bytes(&first.weights), bytes(&second.weights));
        assert_eq!(timeless(&first.history), timeless(&second.history));
        let other = Config { seed: 6, ..config() };
        assert_ne!(bytes(&bench.fit(&other).unwrap().weights), bytes(&first.weights));
    }
}

#[test]
fn a_resumed_run_ends_in_the_same_bits() {
    let rules = [
        Rule::adam(),
        Rule::adam_w(0.02),
        Rule::Sgd {
            momentum: 0.9,
            nesterov: true,
        },
    ];
    let bench = Bench::new();
    for rule in rules {
        let config = Config {
            optimizer: rule,
            early_stopping: Some(EarlyStopping {
                patience: 2,
                watch: Watch::Loss,
            }),
            ..config()
        };
        let whole = bench.fit(&config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let task = bench.task(&config, Some(&path));
        // Broken off after the first epoch, then in the middle of the second.
        let mut after_epoch = |event: Event<'_>| match event {
            Event::Epoch(_) => ControlFlow::Break(()),
            Event::Step { .. } => ControlFlow::Continue(()),
        };
        assert!(matches!(fit(task, &mut after_epoch), Err(TrainError::Stopped(1))));
        let mut in_second = |event: Event<'_>| match event {
            Event::Step {
                epoch: 2, step: 3, ..
            } => ControlFlow::Break(()),
            Event::Step { epoch: 1, .. } => panic!("the first epoch is done"),
            _ => ControlFlow::Continue(()),
        };
        assert!(matches!(fit(task, &mut in_second), Err(TrainError::Stopped(1))));
        let resumed = fit(task, &mut ignore).unwrap();
        assert_eq!(bytes(&resumed.weights), bytes(&whole.weights), "{rule:?}");
        assert_eq!(timeless(&resumed.history), timeless(&whole.history));
        assert_eq!(resumed.kept_epoch, whole.kept_epoch);
        // A finished run only gives its result again.
        let mut none = |_: Event<'_>| panic!("nothing is left to train");
        assert_eq!(
            bytes(&fit(task, &mut none).unwrap().weights),
            bytes(&whole.weights)
        );
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("checkpoint");
    let config = Config {
        epochs: 1,
        ..config()
    };
    fit(bench.task(&config, Some(&path)), &mut ignore).unwrap();
    let check = |task: Task<'_>, expected: &str| {
        let error = fit(task, &mut ignore).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let longer = Config {
        epochs: 2,
        ..config.clone()
    };
    check(
        bench.task(&longer, Some(&path)),
        "other hyper-parameters (epochs)",
    );
    let split = Split {
        train: (0..60).collect(),
        hold_out: (60..IMAGES).collect(),
    };
    let task = bench.task(&config, Some(&path));
    check(
        Task {
            split: &split,
            ..task
        },
        "other images",
    );
    let initial = Weights::initialise(&bench.graph, 6).unwrap();
    let other = Task {
        initial: &initial,
        ..task
    };
    check(other, "other initial weights");
}

#[test]
fn frozen_layers_stay_bit_by_bit_and_the_others_move() {
    let check = |architecture: &str, freeze: usize, frozen: &[&str]| {
        let bench = Bench::of(architecture);
        let config = Config { freeze, ..config() };
        let weights = bench.fit(&config).unwrap().weights;
        let values = |weights: &Weights, name: &str| {
            let tensor = weights.get(name).unwrap().flatten_all().unwrap();
            tensor.to_vec1::<f32>().unwrap()
        };
        for (name, _) in weights.iter() {
            let stays = values(&weights, name) == values(&bench.initial, name);
            let layer = name.split('.').next().unwrap();
            assert_eq!(stays, frozen.contains(&layer), "{architecture} {freeze} {name}");
        }
    };
    check("small-cnn", 0, &[]);
    check("small-cnn", 1, &["conv1", "bn1"]);
    check("small-cnn", 2, &["conv1", "bn1", "conv2", "bn2"]);
    let layers = Bench::new().graph.layers();
    let refused = Bench::new().fit(&Config {
        freeze: layers,
        ..config()
    });
    assert!(
        matches!(refused, Err(TrainError::Config { key: "freeze", .. })),
        "{refused:?}"
    );
}

#[test]
fn frozen_runs_go_on_from_their_own_checkpoint_alone() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("checkpoint");
    let config = Config {
        freeze: 1,
        ..config()
    };
    let whole = bench.fit(&config).unwrap();
    let mut stop = |event: Event<'_>| match event {
        Event::Epoch(_) => ControlFlow::Break(()),
        Event::Step { .. } => ControlFlow::Continue(()),
    };
    assert!(matches!(
        fit(bench.task(&config, Some(&path)), &mut stop),
        Err(TrainError::Stopped(1))
    ));
    let resumed = fit(bench.task(&config, Some(&path)), &mut ignore).unwrap();
    assert_eq!(bytes(&whole.weights), bytes(&resumed.weights));
    let other = Config { freeze: 2, ..config };
    let error = fit(bench.task(&other, Some(&path)), &mut ignore).unwrap_err();
    assert!(error.to_string().contains("checkpoint"), "{error}");
}

#[test]
fn no_epoch_begins_when_the_time_is_spent() {
    let bench = Bench::new();
    let config = config();
    let epochs = |time| {
        let task = Task {
            time,
            ..bench.task(&config, None)
        };
        fit(task, &mut ignore).unwrap().history.epochs.len()
    };
    assert_eq!(epochs(Some(Duration::from_nanos(1))), 1);
    assert_eq!(epochs(Some(Duration::from_secs(3600))), config.epochs);
}

#[test]
fn a_network_learns_what_can_be_learnt() {
    let recipe = |rule| Config {
        epochs: 8,
        optimizer: rule,
        learning_rate: 0.05,
        dropout: Some(0.0),
        ..config()
    };
    let sgd = Rule::Sgd {
        momentum: 0.9,
        nesterov: false,
    };
    for rule in [Rule::adam(), Rule::adam_w(0.02), sgd] {
        let history = Bench::new().fit(&recipe(rule)).unwrap().history;
        let valid = |epoch: usize| history.epochs[epoch].valid.unwrap();
        assert_eq!(history.epochs.len(), 8);
        assert!(valid(7).accuracy >= 0.95, "{rule:?}: {history:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run() {
    let config = Config {
        learning_rate: 1e30,
        schedule: Schedule::Constant,
        clip_norm: None,
        optimizer: Rule::Sgd {
            momentum: 0.0,
            nesterov: false,
        },
        ..config()
    };
    match Bench::of("seed-cnn").fit(&config) {
        Err(TrainError::NotFinite { epoch: 1, step }) => assert!(step > 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let (bench, mut seen) = (Bench::new(), Vec::new());
    let config = Config {
        epochs: 40,
        // Steps this long make validation rise and fall.
        learning_rate: 0.3,
        schedule: Schedule::Constant,
        early_stopping: Some(EarlyStopping {
            patience: 2,
            watch: Watch::Loss,
        }),
        ..config()
    };
    let mut listener = |event: Event<'_>| {
        if let Event::Epoch(history) = event {
            seen.push(history.epochs.last().unwrap().valid.unwrap().loss);
        }
        ControlFlow::Continue(())
    };
    let fitted = fit(bench.task(&config, None), &mut listener).unwrap();
    let best = seen.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(seen[fitted.kept_epoch - 1], best);
    assert_eq!(fitted.kept_epoch + 2, seen.len(), "{seen:?}");
    assert!(seen.len() < 40, "{seen:?}");

    // The same run cut at that epoch ends in the weights that were kept.
    let cut = Config {
        epochs: fitted.kept_epoch,
        early_stopping: None,
        ..config
    };
    assert_eq!(bytes(&bench.fit(&cut).unwrap().weights), bytes(&fitted.weights));
}

#[test]
fn what_does_not_fit_is_refused() {
    let bench = Bench::new();
    let check = |task: Task<'_>, expected: &str| {
        let error = fit(task, &mut ignore).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let config = config();
    let task = bench.task(&config, None);
    let graph = arch::build("small-cnn", bench.graph.input, 3).unwrap();
    check(
        Task {
            graph: &graph,
            ..task
        },
        "do not fit a network",
    );
    let split = |train: &[usize]| Split {
        train: train.to_vec(),
        hold_out: Vec::new(),
    };
    let none = split(&[]);
    check(Task { split: &none, ..task }, "no images to train on");
    let unvalidated = split(&[1, 2]);
    let stopping = Config {
        early_stopping: Some(EarlyStopping {
            patience: 1,
            watch: Watch::Loss,
        }),
        ..config.clone()
    };
    let watched = Task {
        split: &unvalidated,
        config: &stopping,
        ..task
    };
    check(watched, "early stopping needs validation images");
    let zero = Config {
        epochs: 0,
        ..config.clone()
    };
    check(bench.task(&zero, None), "epochs");
}

#[test]
fn runs_without_validation_have_no_such_score() {
    let bench = Bench::new();
    let split = Split {
        train: (0..IMAGES).collect(),
        hold_out: Vec::new(),
    };
    let config = Config {
        epochs: 1,
        ..config()
    };
    let task = Task {
        split: &split,
        ..bench.task(&config, None)
    };
    let fitted = fit(task, &mut ignore).unwrap();
    assert_eq!(fitted.history.epochs[0].valid, None);
    assert_eq!(fitted.kept_epoch, 1);
}

#[test]
fn folds_are_trained_and_validated_apart() {
    let bench = Bench::new();
    let config = Config {
        epochs: 4,
        ..config()
    };
    let (mut started, mut epochs) = (Vec::new(), 0);
    let mut listener = |event: Event<'_>| {
        epochs += usize::from(matches!(event, Event::Epoch(_)));
        ControlFlow::Continue(())
    };
    let task = bench.task(&config, None);
    let result =
        cross_validation::cross_validate(task, 3, &mut |fold| started.push(fold), &mut listener).unwrap();
    assert_eq!((started, epochs), (vec![1, 2, 3], 12));
    let mean = result.folds.iter().map(|s| f64::from(s.accuracy)).sum::<f64>() / 3.0;
    assert!((result.accuracy.mean - mean).abs() < 1e-12);
    assert!(result.accuracy.mean > 0.8, "{result:?}");
    // A fold is the run one would make by hand.
    let split = &cross_validation::split(&bench.split.train, 3, config.seed)[1];
    let by_hand = fit(Task { split, ..task }, &mut ignore).unwrap();
    assert_eq!(by_hand.history.epochs[3].valid, Some(result.folds[1]));
    for folds in [1, 73] {
        let refused = cross_validation::cross_validate(task, folds, &mut |_| (), &mut ignore);
        assert!(matches!(refused, Err(TrainError::Config { key: "folds", .. })));
    }
}

#[test]
fn events_tell_every_step() {
    let (bench, mut steps) = (Bench::new(), Vec::new());
    let config = Config {
        epochs: 2,
        ..config()
    };
    let mut listener = |event: Event<'_>| {
        if let Event::Step {
            epoch,
            step,
            steps: of,
            ..
        } = event
        {
            steps.push((epoch, step, of));
        }
        ControlFlow::Continue(())
    };
    fit(bench.task(&config, None), &mut listener).unwrap();
    let expected: Vec<_> = (1..=2)
        .flat_map(|epoch| (1..=8).map(move |step| (epoch, step, 8)))
        .collect();
    assert_eq!(steps, expected);
}
