//! Tests of the keeper on folders made for them; its turns are the tests', its workers have threads.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::handle::Turn;
use super::*;
use crate::batcher::{Answer, Item, ItemError, Timing};
use crate::engine::{DeviceChoice, Plan, device::Device};
use crate::model::{Spec, Weights};
use crate::predict::fixture::pipeline;
use crate::predict::{self, Served};
use crate::registry::{Author, Finding, Grounds, Manifest, Promotion, WeightsFile, atomic};

const SPEC: &str =
    "architecture = 'small-cnn'\nlabels = ['a', 'b']\ninput = { channels = 1, height = 8, width = 8 }\n";

/// A keeper over a folder with model `tiny`, whose champion is version 1 of three.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) registry: Registry,
    pub(super) name: ModelName,
    /// None: dropped.
    keeper: Option<Keeper>,
    pub(super) metrics: Arc<Metrics>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

pub(super) fn version(number: u32) -> Version {
    number.try_into().unwrap()
}

fn publish(registry: &Registry, name: &ModelName, seed: u64) -> Version {
    let graph = Spec::parse(SPEC).unwrap().graph().unwrap();
    let manifest = Manifest {
        format: Manifest::FORMAT,
        weights: WeightsFile::default(),
        architecture: "small-cnn".to_owned(),
        parameters: graph.parameters(),
        parent: None,
        parent_model: None,
        sconce: "test".to_owned(),
        command: "test".to_owned(),
        seed,
        data: Value::Null,
        training: Value::Null,
        evaluation: Value::Null,
    };
    let weights = Weights::initialise(&graph, seed).unwrap();
    registry.publish(name, &weights, manifest).unwrap()
}

pub(super) fn author() -> Author {
    Author {
        by: "a test".to_owned(),
        reason: Some("because".to_owned()),
    }
}

fn ask(step: Step) -> Ask {
    let Author { by, reason } = author();
    Ask { by, reason, step }
}

fn promote(number: u32, force: bool) -> Ask {
    ask(Step::Promote {
        version: version(number),
        force,
    })
}

fn model(folder: &Path, name: &str) -> ModelName {
    fs::create_dir(folder.join(name)).unwrap();
    atomic::write(&folder.join(name).join("model.toml"), SPEC.as_bytes()).unwrap();
    name.parse().unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = model(folder.path(), "tiny");
        let registry = Registry::open(folder.path()).unwrap();
        for seed in 1..=3 {
            publish(&registry, &name, seed);
        }
        registry
            .set_alias(&name, Alias::Champion, Some(version(1)), &author())
            .unwrap();
        let metrics = Metrics::new(&[]);
        let threads: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (_, orders) = channel(&config);
        let setup = setup(&registry, config, &metrics, &threads);
        let keeper = Keeper::open(setup, orders, |table| pipeline(table, &metrics));
        Self {
            folder,
            registry,
            name,
            keeper: Some(keeper.unwrap()),
            metrics,
            threads,
        }
    }

    pub(super) fn keeper(&mut self) -> &mut Keeper {
        self.keeper.as_mut().unwrap()
    }

    fn change(&mut self, ask: &Ask) -> Result<Changed, (Cause, String)> {
        let name = self.name.clone();
        let changed = self.keeper().change(&name, ask);
        self.keeper().sweep();
        changed.map_err(|error| error.told())
    }

    /// The champion, and all in service.
    pub(super) fn serving(&self) -> (u32, Vec<u32>) {
        let keeper = self.keeper.as_ref().unwrap();
        let model = keeper.in_service(&self.name).unwrap();
        let versions = model.versions.iter().map(|version| version.number());
        (model.champion.number(), versions.collect())
    }

    fn served(&self, version: Option<Version>) -> Arc<Served> {
        let predictor = self.keeper.as_ref().unwrap().predictor();
        predictor.find(Some(&self.name), version).unwrap()
    }

    /// Holds that the champion answers as this version's own plan does.
    #[track_caller]
    pub(super) fn answers_as(&self, number: u32) {
        let answer = answer(&self.served(None)).unwrap();
        let found = (answer.version, answer.logits);
        assert_eq!(found, (version(number), expected(u64::from(number))));
    }

    fn path(&self, number: u32) -> std::path::PathBuf {
        self.folder
            .path()
            .join(format!("tiny/{number}/model.safetensors"))
    }

    pub(super) fn failures(&self) -> u64 {
        self.metrics.service.of(&self.name).load_failures.get()
    }

    /// Until no more worker has a thread than this.
    fn wait_for_threads(&self, count: usize) {
        let running = || {
            let threads = self.threads.lock().unwrap();
            threads.iter().filter(|thread| !thread.is_finished()).count()
        };
        while running() > count {
            std::thread::yield_now();
        }
        assert_eq!(running(), count);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.keeper = None;
        for thread in self.threads.lock().unwrap().drain(..) {
            thread.join().unwrap();
        }
    }
}

fn setup(
    registry: &Registry,
    config: Config,
    metrics: &Arc<Metrics>,
    threads: &Arc<Mutex<Vec<JoinHandle<()>>>>,
) -> Setup {
    let threads = Arc::clone(threads);
    Setup {
        registry: registry.clone(),
        default_model: None,
        config,
        engine: engine::Config {
            device: DeviceChoice::Cpu,
            cache: std::path::PathBuf::new(),
            ..engine::Config::default()
        },
        batcher: batcher::Config::default(),
        answers: predict::Config::default(),
        asked: Asked {
            instances: 1,
            threads: 1,
            max_batch: 4,
            open_batch: false,
        },
        metrics: Arc::clone(metrics),
        spawn: Box::new(move |name, worker| {
            let thread = Builder::new()
                .name(name.to_owned())
                .spawn(|| worker.run().unwrap())?;
            threads.lock().unwrap().push(thread);
            Ok(())
        }),
    }
}

fn input() -> Vec<f32> {
    (0..64u8).map(|level| f32::from(level % 7) / 7.0).collect()
}

fn expected(seed: u64) -> Vec<f32> {
    let graph = Spec::parse(SPEC).unwrap().graph().unwrap();
    let weights = Weights::initialise(&graph, seed).unwrap();
    let plan = Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap();
    let mut logits = Vec::new();
    plan.run(&input(), 1, &mut logits).unwrap();
    logits
}

fn answer(served: &Served) -> Result<Answer, ItemError> {
    let (reply, answer) = oneshot::channel();
    served.batcher.submit(Item {
        tensor: input(),
        deadline: None,
        timing: Timing::default(),
        reply,
    });
    answer.blocking_recv().unwrap()
}

#[test]
fn a_promotion_and_a_rollback_are_served_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.serving(), (1, vec![1]));
    bench.answers_as(1);
    let changed = bench.change(&promote(2, true)).unwrap();
    assert_eq!(changed.change.to, Some(version(2)));
    assert_eq!(bench.serving(), (2, vec![1, 2]));
    bench.answers_as(2);
    bench.change(&ask(Step::Rollback)).unwrap();
    assert_eq!(bench.serving(), (1, vec![1, 2]));
    bench.answers_as(1);
    let series = bench.metrics.service.of(&bench.name);
    let counts = (
        series.promotions.get(),
        series.rollbacks.get(),
        series.champion.get(),
    );
    assert_eq!(counts, (1, 1, 1));
    assert!(bench.metrics.service.swap_seconds.get() > 0.0);
}

#[test]
fn what_leaves_takes_its_threads_and_series_with_it() {
    let mut bench = Bench::new();
    // Each promotion brings one in and sends one away: three versions, two aliases.
    for number in [2, 3, 1, 2, 3, 1] {
        bench.change(&promote(number, true)).unwrap();
        bench.answers_as(number);
    }
    assert_eq!(bench.serving(), (1, vec![1, 3]));
    bench.wait_for_threads(2);
    let text = bench.metrics.render();
    let series = |number: u32| text.contains(&format!("version=\"{number}\""));
    assert_eq!([series(1), series(2), series(3)], [true, false, true]);
    assert!(bench.keeper().retired.is_empty());
}

#[test]
fn whoever_found_a_version_is_answered_by_it() {
    let mut bench = Bench::new();
    let name = bench.name.clone();
    bench.keeper().load(&name, version(3)).unwrap();
    let held = bench.served(Some(version(3)));
    let batcher = held.batcher.clone();
    bench.keeper().unload(&name, version(3)).unwrap();
    bench.keeper().sweep();
    assert_eq!(bench.serving(), (1, vec![1]));
    // Found before, handed in after.
    assert_eq!(answer(&held).unwrap().logits, expected(3));
    assert!(bench.metrics.render().contains("version=\"3\""));
    drop(held);
    bench.wait_for_threads(1);
    bench.keeper().sweep();
    assert!(!bench.metrics.render().contains("version=\"3\""));
    let (reply, closed) = oneshot::channel();
    batcher.submit(Item {
        tensor: input(),
        deadline: None,
        timing: Timing::default(),
        reply,
    });
    assert_eq!(closed.blocking_recv().unwrap(), Err(ItemError::Closed));
}

#[test]
fn load_and_unload_mind_the_aliases() {
    let mut bench = Bench::new();
    let name = bench.name.clone();
    let check = |bench: &mut Bench, load: bool, number: u32, expected: Result<Vec<u32>, Cause>| {
        let keeper = bench.keeper();
        let result = match load {
            true => keeper.load(&name, version(number)),
            false => keeper.unload(&name, version(number)),
        };
        let found = result.map(|model| model.versions.iter().map(|v| v.number()).collect());
        assert_eq!(found.map_err(|error| error.told().0), expected);
    };
    check(&mut bench, false, 1, Err(Cause::Conflict));
    check(&mut bench, false, 2, Err(Cause::NoVersion));
    check(&mut bench, true, 9, Err(Cause::NoVersion));
    check(&mut bench, true, 2, Ok(vec![1, 2]));
    check(&mut bench, true, 2, Ok(vec![1, 2]));
    // What was asked for stays, whatever is promoted.
    bench.keeper().refresh();
    bench.change(&promote(3, true)).unwrap();
    assert_eq!(bench.serving(), (3, vec![1, 2, 3]));
    check(&mut bench, false, 2, Ok(vec![1, 3]));
    // An alias outweighs what was unloaded.
    bench
        .change(&ask(Step::Alias(Alias::Challenger, Some(version(2)))))
        .unwrap();
    assert_eq!(bench.serving(), (3, vec![1, 2, 3]));
    let other: ModelName = "other".parse().unwrap();
    let missing = bench.keeper().load(&other, version(1)).unwrap_err();
    assert_eq!(missing.told(), (Cause::NoModel, "no model 'other'".to_owned()));
}

#[test]
fn every_version_serves_where_all_shall() {
    let mut bench = Bench::with(Config {
        versions: Versions::All,
        ..Config::default()
    });
    assert_eq!(bench.serving(), (1, vec![1, 2, 3]));
    let name = bench.name.clone();
    bench.keeper().unload(&name, version(2)).unwrap();
    bench.keeper().refresh();
    assert_eq!(bench.serving(), (1, vec![1, 3]));
    publish(&bench.registry, &name, 4);
    bench.keeper().refresh();
    assert_eq!(bench.serving(), (1, vec![1, 3, 4]));
}

#[test]
fn the_gate_must_have_blessed_against_this_champion() {
    let mut bench = Bench::new();
    let kept = |bench: &Bench, blessed: bool, champion: u32| {
        let verdict = json!({"champion_version": champion, "blessed": blessed, "reasons": ["class 4 fell"]});
        bench
            .registry
            .keep_verdict(&bench.name, version(2), &verdict)
            .unwrap();
    };
    let refused = |bench: &mut Bench, part: &str| {
        let (cause, text) = bench.change(&promote(2, false)).unwrap_err();
        assert_eq!(cause, Cause::NotBlessed);
        assert!(text.contains(part), "{text}");
        assert_eq!(bench.serving(), (1, vec![1]));
    };
    refused(&mut bench, "has not compared");
    kept(&bench, false, 1);
    refused(&mut bench, "class 4 fell");
    kept(&bench, true, 3);
    refused(&mut bench, "with version 3, which is not the champion");
    kept(&bench, true, 1);
    let blessed = bench.change(&promote(2, false)).unwrap().change;
    assert_eq!((blessed.forced, blessed.verdict), (false, Finding::Blessed));
    kept(&bench, false, 2);
    bench.change(&ask(Step::Rollback)).unwrap();
    kept(&bench, false, 1);
    let forced = bench.change(&promote(2, true)).unwrap().change;
    assert_eq!((forced.forced, forced.verdict), (true, Finding::Refused));
    let unexplained = Ask {
        reason: None,
        ..promote(1, true)
    };
    assert_eq!(bench.change(&unexplained).unwrap_err().0, Cause::Impossible);
    assert_eq!(bench.change(&promote(2, true)).unwrap_err().0, Cause::Conflict);
    assert_eq!(bench.change(&promote(7, true)).unwrap_err().0, Cause::NoVersion);
}

#[test]
fn a_barred_version_is_refused_also_by_force() {
    let mut bench = Bench::new();
    let verdict = json!({"champion_version": 1, "blessed": true, "reasons": []});
    bench
        .registry
        .keep_verdict(&bench.name, version(2), &verdict)
        .unwrap();
    let at = std::time::SystemTime::now();
    bench
        .registry
        .bar(&bench.name, version(2), "learnt too much", at)
        .unwrap();
    for force in [false, true] {
        let (cause, text) = bench.change(&promote(2, force)).unwrap_err();
        assert_eq!(cause, Cause::Conflict);
        assert!(text.contains("learnt too much: it is not promoted"), "{text}");
    }
    assert_eq!(bench.serving(), (1, vec![1]));
}

#[test]
fn a_damaged_version_is_refused_and_the_old_one_goes_on() {
    let mut bench = Bench::new();
    let path = bench.path(2);
    let whole = fs::read(&path).unwrap();
    atomic::write(&path, &whole[..whole.len() / 2]).unwrap();
    let before = fs::read(bench.folder.path().join("tiny/aliases.json")).unwrap();
    let (cause, text) = bench.change(&promote(2, true)).unwrap_err();
    assert_eq!(cause, Cause::Unfit);
    assert!(text.starts_with("model.safetensors: sha256 is"), "{text}");
    assert_eq!(
        fs::read(bench.folder.path().join("tiny/aliases.json")).unwrap(),
        before
    );
    assert_eq!((bench.serving(), bench.failures()), ((1, vec![1]), 1));
    bench.answers_as(1);
    // Another process names it all the same: tried once, not at every look.
    let aliases = br#"{"champion": 2, "challenger": 3, "previous": 1}"#;
    atomic::write(&bench.folder.path().join("tiny/aliases.json"), aliases).unwrap();
    for _ in 0..3 {
        bench.keeper().refresh();
        assert_eq!((bench.serving(), bench.failures()), ((1, vec![1, 3]), 2));
    }
    bench.answers_as(1);
    // Its files change, and so does the answer.
    atomic::write(&path, &whole).unwrap();
    bench.keeper().refresh();
    assert_eq!(bench.serving(), (2, vec![1, 2, 3]));
    bench.answers_as(2);
}

#[test]
fn files_of_a_version_in_service_may_go() {
    let mut bench = Bench::new();
    let file = fs::File::options().write(true).open(bench.path(1)).unwrap();
    file.set_len(10).unwrap();
    bench.keeper().refresh();
    bench.answers_as(1);
    fs::remove_dir_all(bench.folder.path().join("tiny")).unwrap();
    bench.keeper().refresh();
    bench.answers_as(1);
}

#[test]
fn what_another_process_changes_is_served() {
    let mut bench = Bench::new();
    let promotion = Promotion {
        author: author(),
        grounds: Grounds::Forced {
            finding: Finding::None,
        },
    };
    bench
        .registry
        .promote(&bench.name, version(3), &promotion)
        .unwrap();
    bench.keeper().refresh();
    assert_eq!(bench.serving(), (3, vec![1, 3]));
    bench.answers_as(3);
    bench.registry.rollback(&bench.name, &author()).unwrap();
    bench.keeper().refresh();
    bench.answers_as(1);
    let series = bench.metrics.service.of(&bench.name);
    assert_eq!((series.promotions.get(), series.rollbacks.get()), (1, 1));
    // Nothing is swapped where nothing changed.
    let predictor = bench.keeper().predictor();
    let table = predictor.table();
    bench.keeper().refresh();
    assert!(Arc::ptr_eq(&table, &predictor.table()));
}

#[test]
fn a_new_model_is_served_and_one_that_cannot_be_read_harms_nobody() {
    let mut bench = Bench::new();
    let broken: ModelName = "broken".parse().unwrap();
    fs::create_dir(bench.folder.path().join("broken")).unwrap();
    let second = model(bench.folder.path(), "second");
    bench.keeper().refresh();
    assert!(
        bench.keeper().in_service(&second).is_err(),
        "it has no version yet"
    );
    publish(&bench.registry, &second, 5);
    bench.keeper().refresh();
    assert_eq!(bench.keeper().in_service(&second).unwrap().champion, version(1));
    assert_eq!(bench.metrics.service.of(&broken).load_failures.get(), 1);
    bench.answers_as(1);
}

#[test]
fn turns_come_in_order_and_end_when_told() {
    let (handle, mut orders) = channel(&Config {
        poll_ms: 0,
        max_queue: 2,
        ..Config::default()
    });
    let name: ModelName = "tiny".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let ask = || Box::pin(handle.load(name.clone(), version(1)));
        let (mut first, mut second) = (ask(), ask());
        for waiting in [&mut first, &mut second] {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
        }
        assert!(matches!(ask().await, Err(ServiceError::Busy)));
        assert!(matches!(orders.next(), Turn::Command(_)));
        handle.close();
        assert!(matches!(orders.next(), Turn::Stop));
        drop(orders);
        for waiting in [first, second, ask()] {
            assert!(matches!(waiting.await, Err(ServiceError::Stopping)));
        }
    });
}

#[test]
fn the_time_to_look_comes_round_under_commands() {
    let (handle, mut orders) = channel(&Config {
        poll_ms: 1,
        ..Config::default()
    });
    // The queue is never empty, and yet the folder is looked at.
    let looked = (0..1_000_000).any(|_| {
        handle.wake();
        matches!(orders.next(), Turn::Refresh)
    });
    assert!(looked);
}
