//! Feedback through the program: kept on the disk whatever ends the server, shared by several, gone when erased.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::contract;
use crate::serve::models;
use crate::server::{Server, head, sconce};

/// A server whose predictions are all kept, with their images, in `folder`.
fn server(models: &Path, folder: &Path) -> Server {
    let folder = format!("store.folder={}", folder.display());
    let settings = [
        &folder,
        "store.sampling_rate=1",
        "store.keep_images=true",
        "http.drain_delay_ms=0",
    ];
    Server::ready(models, &settings)
}

/// An image like no other of another number.
fn image(number: u8) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let pixels = image::GrayImage::from_fn(8, 8, |x, _| image::Luma([number.wrapping_mul(x as u8 + 1)]));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    /// The answer, held against the contract.
    fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = head(path, "application/json", body.len()).replacen("POST", method, 1);
        let (status, answer) = self.ask(&head, body.as_bytes());
        contract::check(method, path, status, answer.as_bytes());
        (status, serde_json::from_str(&answer).unwrap())
    }

    /// The answer's id.
    fn predicted(&self, number: u8) -> String {
        let image = image(number);
        let (status, body) = self.ask(&head("/v1/predict", "image/png", image.len()), &image);
        contract::check("POST", "/v1/predict", status, body.as_bytes());
        let body: Value = serde_json::from_str(&body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    fn feedback(&self, id: &str, source: &str) -> (u16, Value) {
        self.json("POST", "/v1/feedback", &entry(id, source))
    }

    /// Accepted, quarantined, overruled.
    fn summary(&self) -> [u64; 3] {
        let (status, body) = self.json("GET", "/v1/feedback/summary", &Value::Null);
        assert_eq!(status, 200, "{body}");
        ["accepted", "quarantined", "overruled"].map(|state| body[state].as_u64().unwrap())
    }

    fn stop(self) {
        self.signal("TERM");
        assert_eq!(self.end().0, Some(0));
    }
}

fn entry(id: &str, source: &str) -> Value {
    json!({ "id": id, "label": "b", "source": source })
}

/// As [`Server::ask`], of a server that may die meanwhile.
fn ask(address: &str, head: &str, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(inside).collect()
}

#[test]
fn a_prediction_gets_its_label_and_both_outlive_the_server() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let first = server(models.path(), &data.path().join("data"));
    let id = first.predicted(1);
    assert_eq!(
        first.feedback(&id, "ann"),
        (201, json!({ "outcome": "accepted" }))
    );
    let many = json!({ "feedback": [entry(&id, "ann"), entry("never", "ann"), entry(&id, "bob")] });
    let (status, body) = first.json("POST", "/v1/feedback", &many);
    let outcomes = ["duplicate", "unknown", "accepted"].map(|outcome| json!({ "outcome": outcome }));
    assert_eq!((status, body), (200, json!({ "outcomes": outcomes })));
    let metrics = first.get("/metrics").1;
    for line in [
        "sconce_store_open 1",
        "sconce_collected_predictions_total{outcome=\"kept\"} 1",
        "sconce_feedback_total{outcome=\"accepted\"} 2",
        "sconce_feedback_total{outcome=\"duplicate\"} 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}");
    }
    first.stop();

    let second = server(models.path(), &data.path().join("data"));
    assert_eq!(second.summary(), [2, 0, 0]);
    assert_eq!(second.feedback(&id, "ann").0, 200);
    // What the start measured.
    let metrics = second.get("/metrics").1;
    assert!(
        metrics.contains("sconce_live_judged{model=\"tiny\",version=\"1\"}"),
        "{metrics}"
    );
    second.stop();
}

#[test]
fn what_is_queued_when_the_server_stops_is_kept() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let folder = data.path().join("data");
    let first = server(models.path(), &folder);
    let ids: Vec<String> = (1..=30).map(|number| first.predicted(number)).collect();
    first.stop();
    let second = server(models.path(), &folder);
    for id in &ids {
        assert_eq!(second.feedback(id, "ann").0, 201);
    }
    second.stop();
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let folder = data.path().join("data");
    let first = server(models.path(), &folder);
    let ids: Vec<String> = (1..=100).map(|number| first.predicted(number)).collect();
    // What a client knows to be kept: a prediction on which feedback was taken.
    assert_eq!(first.feedback(&ids[99], "ann").0, 201);
    let (acknowledged, received) = mpsc::channel();
    let address = first.address.clone();
    let known = std::thread::scope(|scope| {
        let (ids, address) = (&ids, &address);
        scope.spawn(move || {
            for (number, id) in ids.iter().enumerate() {
                let body = entry(id, "bob").to_string();
                let head = head("/v1/feedback", "application/json", body.len());
                if ask(address, &head, body.as_bytes()) == Some(201) {
                    acknowledged.send(number).unwrap();
                }
            }
        });
        // In the middle of the stream.
        let mut known: Vec<usize> = received.iter().take(20).collect();
        first.signal("KILL");
        known.extend(received);
        known
    });
    assert_eq!(first.end().0, None);

    let second = server(models.path(), &folder);
    let [before, ..] = second.summary();
    assert!(
        before > known.len() as u64,
        "{before} labels of {} and one",
        known.len()
    );
    for number in known {
        assert_eq!(second.feedback(&ids[number], "bob").0, 200, "{number}");
    }
    assert_eq!(second.summary(), [before, 0, 0], "none was taken twice");
    for id in &ids {
        assert!(matches!(second.feedback(id, "bob").0, 200 | 201));
    }
    assert_eq!(second.summary(), [101, 0, 0]);
    second.stop();
}

#[test]
fn two_servers_share_one_store() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let folder = data.path().join("data");
    let servers = [server(models.path(), &folder), server(models.path(), &folder)];
    std::thread::scope(|scope| {
        for (server, numbers) in servers.iter().zip([1..=20, 101..=120]) {
            scope.spawn(move || {
                for number in numbers {
                    let id = server.predicted(number);
                    assert_eq!(server.feedback(&id, "ann").0, 201);
                }
            });
        }
    });
    let id = servers[0].predicted(200);
    assert_eq!(servers[0].feedback(&id, "ann").0, 201);
    assert_eq!(servers[1].feedback(&id, "ann").0, 200);
    for server in &servers {
        assert_eq!(server.summary(), [41, 0, 0]);
    }
    servers.into_iter().for_each(Server::stop);
}

#[test]
fn what_was_erased_is_on_no_disk_and_does_not_come_back() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let folder = data.path().join("data");
    let server = server(models.path(), &folder);
    let (id, other) = (server.predicted(1), server.predicted(2));
    assert_eq!(server.feedback(&id, "the-only-source").0, 201);
    assert_eq!(server.feedback(&other, "ann").0, 201);
    let erased = image(1);
    let holds = |sought: &[u8]| {
        let held = |path: &PathBuf| fs::read(path).unwrap().windows(sought.len()).any(|w| w == sought);
        files(&folder).iter().any(held)
    };
    let everything: [&[u8]; 3] = [&erased, id.as_bytes(), b"the-only-source"];
    assert!(everything.into_iter().all(holds));
    let path = format!("/v1/data/{}", sha256(&erased));
    let (status, body) = server.json("DELETE", &path, &Value::Null);
    assert_eq!(
        (status, &body["predictions"], &body["labels"]),
        (200, &json!(1), &json!(1))
    );
    assert!(!everything.into_iter().any(holds));
    assert!(holds(&image(2)) && holds(other.as_bytes()));
    let again = server.predicted(1);
    assert_eq!(server.feedback(&again, "ann").0, 404);
    assert_eq!(server.summary(), [1, 0, 0]);
    server.stop();
}

#[test]
fn without_a_place_to_write_the_server_predicts_unless_it_is_to_keep() {
    let (models, data) = (models(), tempfile::tempdir().unwrap());
    let in_the_way = data.path().join("file");
    fs::File::create_new(&in_the_way).unwrap();
    let folder = format!("store.folder={}", in_the_way.display());
    let server = Server::ready(models.path(), &[&folder, "http.drain_delay_ms=0"]);
    server.predicted(1);
    let (status, body) = server.feedback("any", "ann");
    assert_eq!(
        (status, &body["type"]),
        (503, &json!("urn:sconce:problem:store-unavailable"))
    );
    assert!(server.get("/metrics").1.contains("\nsconce_store_open 0\n"));
    server.stop();

    let mut command = sconce(&["serve", "--listen", "127.0.0.1:0", "--admin", "", "--models"]);
    command
        .arg(models.path())
        .args(["--set", "engine.cache=", "--set", &folder]);
    command.args([
        "--set",
        "store.sampling_rate=0.5",
        "--set",
        "http.drain_delay_ms=0",
    ]);
    let output = command.stdout(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{text}");
    assert!(text.contains("sconce: the store: "), "{text}");
}
