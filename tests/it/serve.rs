//! The program as its users run it: start, answers, signals, exit codes.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use sconce::model::{Spec, Weights};
use sconce::registry::{Manifest, Registry, WeightsFile};
use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Server, answer, head, sconce};

const SPEC: &str =
    "architecture = 'small-cnn'\nlabels = ['a', 'b']\ninput = { channels = 1, height = 8, width = 8 }\n";
/// Ten minutes: a wait that a test can only pass by not waiting.
const NEVER: &str = "600000";

/// A folder with one model, `tiny`, of one version.
pub(crate) fn models() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tiny")).unwrap();
    let mut file = File::create(folder.path().join("tiny/model.toml")).unwrap();
    file.write_all(SPEC.as_bytes()).unwrap();
    publish(folder.path());
    folder
}

/// Adds a version with weights as they are before training.
pub(crate) fn publish(folder: &Path) {
    publish_seeded(folder, 1);
}

/// Adds a version whose weights are drawn with this seed.
pub(crate) fn publish_seeded(folder: &Path, seed: u64) {
    publish_as(folder, ("tiny", SPEC), seed);
}

/// Adds a model of these labels beside `tiny`, of the same network but for the last layer, with one version.
pub(crate) fn model_beside(folder: &Path, name: &str, labels: &str) {
    let spec = SPEC.replace("['a', 'b']", labels);
    fs::create_dir(folder.join(name)).unwrap();
    let mut file = File::create(folder.join(name).join("model.toml")).unwrap();
    file.write_all(spec.as_bytes()).unwrap();
    publish_as(folder, (name, &spec), 7);
}

/// Adds a version to the model `tiny` of this spec.
pub(crate) fn publish_to(folder: &Path, spec: &str, seed: u64) {
    publish_as(folder, ("tiny", spec), seed);
}

fn publish_as(folder: &Path, (name, spec): (&str, &str), seed: u64) {
    let spec = Spec::parse(spec).unwrap();
    let graph = spec.graph().unwrap();
    let manifest = Manifest {
        format: Manifest::FORMAT,
        weights: WeightsFile::default(),
        architecture: spec.architecture,
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
    let registry = Registry::open(folder).unwrap();
    let weights = Weights::initialise(&graph, seed).unwrap();
    registry
        .publish(&name.parse().unwrap(), &weights, manifest)
        .unwrap();
}

impl Server {
    pub(crate) fn predict(&self) -> (u16, String) {
        let image = image();
        self.ask(&png_head(image.len()), &image)
    }

    /// Until one request besides the one that asks is being answered.
    fn wait_for_in_flight(&self) {
        let both = |_| self.get("/metrics").1.contains("\nsconce_http_in_flight 2\n");
        assert!((0..10_000).any(both));
    }

    fn health(&self) -> Option<i32> {
        let url = format!("http://{}/health/ready", self.address);
        let asked = sconce(&["health", "--timeout-ms", NEVER, "--url", &url]).output();
        asked.unwrap().status.code()
    }
}

fn png_head(length: usize) -> String {
    head("/v1/predict", "image/png", length)
}

pub(crate) fn image() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let pixels = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y * 5) as u8]));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Runs a command that must fail with one line.
#[track_caller]
fn refused(command: &mut Command, code: i32, parts: &[&str]) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("sconce: ")).collect();
    assert_eq!(said.len(), 1, "{text}");
    for part in parts {
        assert!(said[0].contains(part), "'{part}' is not in: {text}");
    }
    output
}

#[test]
fn it_answers_then_drains_and_further_signals_hurry() {
    let folder = models();
    let mut server = Server::ready(folder.path(), &[&format!("http.drain_delay_ms={NEVER}")]);
    let (status, body) = server.predict();
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (
            &body["model"]["name"],
            &body["predictions"][0]["top_k"][1]["index"].is_u64()
        ),
        (&"tiny".into(), &true)
    );
    let metrics = server.get("/metrics").1;
    assert!(metrics.contains("\nsconce_ready 1\n") && !metrics.contains("\nsconce_startup_seconds 0\n"));
    assert!(metrics.contains("sconce_build_info{"), "{metrics}");
    assert_eq!((server.get("/health/ready").0, server.health()), (200, Some(0)));

    server.signal("TERM");
    server.wait_for("draining");
    assert_eq!((server.get("/health/ready").0, server.health()), (503, Some(1)));
    assert!(server.get("/metrics").1.contains("\nsconce_ready 0\n"));
    assert_eq!(server.predict().0, 200);

    server.signal("TERM");
    let stopped = server.wait_for("stopped");
    assert_eq!(
        (&stopped["answered"], &stopped["dropped"]),
        (&1.into(), &0.into())
    );
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_request_in_flight_is_finished_before_the_end() {
    let folder = models();
    let mut server = Server::ready(
        folder.path(),
        &["http.drain_delay_ms=0", &format!("http.drain_timeout_ms={NEVER}")],
    );
    let image = image();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(png_head(image.len()).as_bytes()).unwrap();
    stream.write_all(&image[..20]).unwrap();
    server.wait_for_in_flight();
    server.signal("INT");
    server.wait_for("closing");
    stream.write_all(&image[20..]).unwrap();
    let (status, body) = answer(stream);
    assert_eq!(status, 200, "{body}");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_request_that_never_ends_is_given_up() {
    let folder = models();
    let settings = [
        "http.drain_delay_ms=0",
        &format!("http.drain_timeout_ms={NEVER}"),
        &format!("http.body_timeout_ms={NEVER}"),
    ];
    let mut server = Server::ready(folder.path(), &settings);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(png_head(100).as_bytes()).unwrap();
    server.wait_for_in_flight();
    server.signal("TERM");
    server.wait_for("closing");
    server.signal("TERM");
    server.wait_for("requests in flight are given up");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_signal_at_the_start_ends_it_too() {
    let folder = models();
    let server = Server::start(folder.path(), &["http.drain_delay_ms=0"]);
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn every_thread_has_a_name_and_a_computation_has_one_thread() {
    let folder = models();
    publish(folder.path());
    let mut aliases = File::create(folder.path().join("tiny/aliases.json")).unwrap();
    aliases.write_all(b"{\"champion\": 2}").unwrap();
    let settings = [
        "service.versions=all",
        "engine.instances=2",
        "decode.threads=1",
        "http.threads=1",
        "http.drain_delay_ms=0",
    ];
    let server = Server::ready(folder.path(), &settings);
    let process = format!("/proc/{}", server.child.id());
    let environment = fs::read_to_string(format!("{process}/environ")).unwrap();
    for variable in ["CANDLE_NUM_THREADS=1", "RAYON_NUM_THREADS=1"] {
        assert_eq!(
            environment.split('\0').filter(|entry| *entry == variable).count(),
            1,
            "{environment}"
        );
    }
    let expected = [
        "decode-0",
        "http-0",
        "infer-tiny-1-0",
        "infer-tiny-1-1",
        "infer-tiny-2-0",
        "infer-tiny-2-1",
        "models",
        "sconce",
    ];
    // A thread names itself when it begins to run.
    assert!(
        (0..10_000).any(|_| thread_names(&process) == expected),
        "{:?}",
        thread_names(&process)
    );
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
}

#[cfg(target_os = "linux")]
pub(crate) fn thread_names(process: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("{process}/task")).unwrap();
    // A thread may end between the two readings.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.filter_map(|task| name(task.unwrap()));
    let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_bad_configuration_ends_with_64_and_nothing_bound() {
    let check = |arguments: &[&str], part: &str| {
        let output = refused(
            sconce(&["serve", "--listen", "127.0.0.1:0"]).args(arguments),
            64,
            &[part],
        );
        assert!(output.stdout.is_empty(), "{output:?}");
    };
    check(&["--set", "http.thread=1"], "did you mean http.threads?");
    check(&["--device", "gpu"], "engine.device = \"gpu\" (command line)");
    check(&["--config", "no/such/file.toml"], "no/such/file.toml");
    let mut variable = sconce(&["serve", "--listen", "127.0.0.1:0"]);
    let output = refused(
        variable.env("SCONCE__BATCHER__MAX_QUEUE", "0"),
        64,
        &["batcher.max_queue = 0 (environment SCONCE__BATCHER__MAX_QUEUE)"],
    );
    assert!(output.stdout.is_empty());
    assert_eq!(
        sconce(&["serve", "--no-such-flag"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(64)
    );
}

#[test]
fn what_cannot_be_served_ends_it_with_one_line() {
    let serve = |folder: &Path| {
        let mut command = sconce(&["serve", "--listen", "127.0.0.1:0", "--admin", "", "--models"]);
        command.arg(folder);
        command
    };
    let folder = models();
    let path = folder.path();
    refused(&mut serve(&path.join("none")), 65, &["none: ", "--models DIR"]);

    publish(path);
    refused(
        &mut serve(path),
        65,
        &["no champion", "`sconce models alias tiny champion 2`"],
    );
    fs::remove_dir_all(path.join("tiny/2")).unwrap();

    let weights = path.join("tiny/1/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    File::create(&weights).unwrap().write_all(&bytes).unwrap();
    refused(&mut serve(path), 65, &["tiny/1/model.safetensors: sha256 is"]);

    fs::remove_dir_all(path.join("tiny/1")).unwrap();
    refused(&mut serve(path), 65, &["tiny has no version", "sconce train"]);
    refused(serve(path).args(["--default-model", "other"]), 65, &["'other'"]);
    fs::remove_dir_all(path.join("tiny")).unwrap();
    refused(&mut serve(path), 65, &[&path.display().to_string()]);
}

#[test]
fn a_taken_address_is_named() {
    let folder = models();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = sconce(&["serve", "--listen", &address, "--models"]);
    let output = refused(
        command.arg(folder.path()),
        70,
        &[&format!("cannot listen on {address} (http.listen): ")],
    );
    assert!(output.stdout.is_empty());
    assert_eq!(
        sconce(&["health", "--url", "http://127.0.0.1:1/"])
            .status()
            .unwrap()
            .code(),
        Some(1)
    );
}

#[test]
fn the_configuration_and_the_contract_are_printed() {
    let output = sconce(&["config", "--set", "http.threads=3"])
        .env("SCONCE__MODELS", "m")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nthreads = 3  # command line\n"), "{text}");
    assert!(
        text.starts_with("models = \"m\"  # environment SCONCE__MODELS\n"),
        "{text}"
    );
    let contract = sconce(&["openapi"]).output().unwrap().stdout;
    let contract = String::from_utf8(contract).unwrap();
    assert!(contract.lines().any(|line| line.starts_with("openapi: 3.")));
}
