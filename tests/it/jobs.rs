//! Retraining jobs through the program: a child that fails, a stop while one runs, a worker in another process.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use sconce::store::{self, JobState, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;
use crate::serve::models;
use crate::server::{Server, sconce};

/// A server with a store of its own.
struct Bench {
    models: TempDir,
    store: TempDir,
    server: Server,
}

impl Bench {
    fn new(settings: &[&str]) -> Self {
        Self::at(models(), tempfile::tempdir().unwrap(), settings)
    }

    fn at(models: TempDir, store: TempDir, settings: &[&str]) -> Self {
        let folder = format!("store.folder={}", store.path().display());
        let all: Vec<&str> = ["http.drain_delay_ms=0", &folder]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        let server = Server::ready(models.path(), &all);
        Self {
            models,
            store,
            server,
        }
    }

    /// The answer, held against the contract.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, text) = self.server.ask(&head, body.as_bytes());
        contract::check(method, path, status, text.as_bytes());
        (status, serde_json::from_str(&text).unwrap())
    }

    fn submit(&self) -> Value {
        let (status, job) = self.ask("POST", "/v1/retrain", r#"{"model":"tiny","without_replay":true}"#);
        assert_eq!(status, 202, "{job}");
        job
    }

    /// Waits for the end of the job's events.
    fn follow(&self) -> String {
        let (status, text) = self.server.get("/v1/retrain/1/events");
        assert_eq!(status, 200, "{text}");
        text
    }

    fn job(&self) -> Value {
        self.ask("GET", "/v1/retrain/1", "").1
    }
}

fn stored_state(folder: &Path) -> (JobState, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let config = store::Config {
        folder: folder.to_owned(),
        ..store::Config::default()
    };
    runtime.unwrap().block_on(async {
        let store = Store::open(&config).await.unwrap();
        let job = store.job("1".parse().unwrap()).await.unwrap().unwrap();
        (job.state, job.reason.unwrap_or_default())
    })
}

#[test]
fn a_child_that_fails_costs_its_job_and_nothing_else() {
    let bench = Bench::new(&[]);
    let job = bench.submit();
    assert_eq!(job["id"], 1);
    // Nobody has labelled anything, so there is nothing to learn from.
    let told = bench.follow();
    assert!(
        told.contains("\"state\":\"running\"") && told.contains("\"state\":\"failed\""),
        "{told}"
    );
    let job = bench.job();
    assert_eq!((&job["state"], &job["attempt"]), (&json!("failed"), &json!(1)));
    assert!(
        job["reason"].as_str().unwrap().contains("nothing to learn from"),
        "{job}"
    );
    assert_eq!(bench.server.predict().0, 200);
    let metrics = bench.server.get("/metrics").1;
    assert!(
        metrics.contains("sconce_job_runs_total{state=\"failed\"} 1\n"),
        "{metrics}"
    );

    assert_eq!(bench.ask("DELETE", "/v1/retrain/1", "").0, 409);
    assert_eq!(bench.ask("POST", "/v1/retrain/1/resume", "").0, 202);
    bench.follow();
    assert_eq!(bench.job()["attempt"], 2);
    assert_eq!(
        bench.ask("GET", "/v1/retrain?state=failed&limit=1", "").1["jobs"][0]["id"],
        1
    );
    assert_eq!(bench.ask("POST", "/v1/retrain", r#"{"model":"other"}"#).0, 404);
    assert_eq!(
        bench
            .ask("POST", "/v1/retrain", r#"{"model":"tiny","parent":9}"#)
            .0,
        422
    );
    let refused = |request: Value, part: &str| {
        let (status, problem) = bench.ask("POST", "/v1/retrain", &request.to_string());
        assert_eq!(status, 422, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    };
    // What it learnt from lies nowhere.
    refused(
        json!({"model": "tiny"}),
        "dataset: must be named: there is none to replay",
    );
    let unknown = json!({"model": "tiny", "parent_model": "other"});
    refused(unknown, "parent_model: there is no model 'other'");
    let alias = json!({"model": "tiny", "parent": "challenger"});
    refused(alias, "parent: model 'tiny' has no challenger");
    let spec = fs::read_to_string(bench.models.path().join("tiny/model.toml")).unwrap();
    fs::create_dir(bench.models.path().join("tall")).unwrap();
    let mut tall = File::create(bench.models.path().join("tall/model.toml")).unwrap();
    let spec = spec.replace("height = 8", "height = 16");
    tall.write_all(spec.as_bytes()).unwrap();
    let other_input = json!({"model": "tiny", "parent_model": "tall"});
    refused(other_input, "an input of 1×8×8, and one of 1×16×8");
    // Nothing was made of any of them.
    let jobs = bench.ask("GET", "/v1/retrain", "").1;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    bench.server.signal("TERM");
    assert_eq!(bench.server.end().0, Some(0));
}

/// A dataset of so many dark and light images, made for the model `tiny`.
#[cfg(target_os = "linux")]
fn shades(folder: &Path, images: u32) {
    let header = |kind: u8, sizes: &[u32]| -> Vec<u8> {
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).collect()
    };
    let mut pixels = header(3, &[images, 8, 8]);
    // Each is another: its number stands in its first pixels.
    pixels.extend((0..images).flat_map(|image| {
        let mut levels = [if image % 2 == 0 { 20 } else { 220 }; 64];
        levels[..4].copy_from_slice(&image.to_be_bytes());
        levels
    }));
    let mut labels = header(1, &[images]);
    labels.extend((0..images).map(|image| (image % 2) as u8));
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in [
        ("train-images-idx3-ubyte", pixels),
        ("train-labels-idx1-ubyte", labels),
    ] {
        File::create(folder.join(name))
            .unwrap()
            .write_all(&bytes)
            .unwrap();
    }
}

/// What a job may allocate in the next test: well over what small steps need (some 60 MB), well under what one of all images at
/// once does (some 265 MB).
#[cfg(target_os = "linux")]
const MEMORY: &str = "jobs.memory_bytes=100000000";

#[cfg(target_os = "linux")]
#[test]
fn a_child_that_runs_out_of_memory_says_so_and_the_server_answers() {
    let datasets = tempfile::tempdir().unwrap();
    shades(&datasets.path().join("shades"), 8_000);
    let place = format!("retrain.datasets={}", datasets.path().display());
    let bench = Bench::new(&[MEMORY, &place, "retrain.batch_size=65536"]);
    let request = r#"{"model":"tiny","dataset":"shades","feedback":false,"epochs":1,"promote":false}"#;
    assert_eq!(bench.ask("POST", "/v1/retrain", request).0, 202);
    let told = bench.follow();
    // It was well on its way, and had read every image.
    assert!(told.contains("\"phase\":\"train\""), "{told}");
    let job = bench.job();
    let reason = job["reason"].as_str().unwrap();
    assert_eq!(job["state"], "failed");
    assert!(
        reason.starts_with("out of memory (jobs.memory_bytes is its limit): memory allocation of "),
        "{reason}"
    );
    assert_eq!(bench.server.predict().0, 200);
    assert_eq!(bench.server.get("/health/ready").0, 200);

    // In smaller steps the same memory is enough.
    let Bench {
        models,
        store,
        server,
    } = bench;
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
    let bench = Bench::at(models, store, &[MEMORY, &place, "retrain.batch_size=128"]);
    assert_eq!(bench.ask("POST", "/v1/retrain/1/resume", "").0, 202);
    bench.follow();
    let job = bench.job();
    assert!(
        ["succeeded", "refused"].map(Value::from).contains(&job["state"]),
        "{job}"
    );
    assert_eq!((&job["attempt"], &job["version"]), (&json!(2), &json!(2)));
}

#[test]
fn a_stop_queues_the_job_that_runs() {
    let bench = Bench::new(&[]);
    // Somebody else works in the job's folder, so that the job runs for as long as the test wants.
    let folder = bench.store.path().join("jobs/1");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    bench.submit();
    assert!((0..10_000).any(|_| bench.job()["state"] == "running"));
    assert_eq!(bench.server.predict().0, 200);
    let (status, active) = bench.ask("POST", "/v1/retrain", r#"{"model":"tiny","without_replay":true}"#);
    assert_eq!((status, &active["job"]), (409, &json!(1)));
    bench.server.signal("TERM");
    assert_eq!(bench.server.end().0, Some(0));
    let (state, reason) = stored_state(bench.store.path());
    assert_eq!(state, JobState::Queued);
    assert!(reason.starts_with("interrupted"), "{reason}");
    drop(bench.models);
}

#[test]
fn a_worker_runs_the_jobs_of_a_server_that_runs_none() {
    let bench = Bench::new(&["jobs.enabled=false"]);
    bench.submit();
    let mut worker = sconce(&["worker", "--models"]);
    worker.arg(bench.models.path());
    worker.args(["--set", &format!("store.folder={}", bench.store.path().display())]);
    let mut worker = worker.spawn().unwrap();
    let told = bench.follow();
    assert!(told.contains("\"state\":\"failed\""), "{told}");
    let pid = worker.id().to_string();
    let signalled = std::process::Command::new("kill")
        .args(["-s", "TERM", &pid])
        .status();
    assert!(signalled.unwrap().success());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_without_a_store_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    File::create(&file).unwrap();
    for place in [file.to_str().unwrap(), ""] {
        let setting = format!("store.folder={place}");
        let output = sconce(&["worker", "--set", &setting]).output().unwrap();
        assert_eq!(output.status.code(), Some(70), "{output:?}");
    }
}
