//! Versions change while the server answers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;
use crate::serve::{image, models, publish_seeded};
use crate::server::{Server, sconce};
use client::Client;

mod client;
#[cfg(target_os = "linux")]
mod measure;

/// One version in service has one thread, so that they can be counted. Of the log, which nobody reads on, only a few lines:
/// a full pipe would stop whoever writes to it.
const SETTINGS: [&str; 5] = [
    "log.filter=sconce::app=info",
    "engine.instances=1",
    "http.threads=1",
    "http.drain_delay_ms=0",
    "service.poll_ms=0",
];
/// Requests after which a change that never comes is given up.
const PATIENCE: usize = 100_000;

/// A folder with `tiny` of as many versions, each with weights of its own; the first is the champion.
fn folder(versions: u64) -> TempDir {
    let folder = models();
    (2..=versions).for_each(|seed| publish_seeded(folder.path(), seed));
    let alias = sconce(&["models", "alias", "tiny", "champion", "1", "--models"])
        .arg(folder.path())
        .output();
    assert!(alias.unwrap().status.success());
    folder
}

impl Server {
    /// Asks a managing route; the answer is held against the contract.
    fn manage(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, answer) = self.ask(&head, body.as_bytes());
        contract::check(method, path, status, answer.as_bytes());
        (status, serde_json::from_str(&answer).unwrap())
    }

    fn post(&self, route: &str, body: &Value) -> (u16, Value) {
        self.manage("POST", &format!("/v1/models/tiny/{route}"), body)
    }

    fn promote(&self, version: u64) {
        let body = json!({"version": version, "by": "a test", "reason": "to and fro", "force": true});
        let (status, answer) = self.post("promote", &body);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["model"]["champion"], version);
    }

    /// The whole answer, the request's name included.
    fn predict_by(&self, route: &str) -> (u16, Value) {
        let (status, body) = Client::new(&self.address).predict(route, &image());
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// Each version's probabilities, asked for by its number.
fn probabilities(server: &Server, versions: u64) -> BTreeMap<u64, Value> {
    let of = |version: u64| {
        let (status, _) = server.post(&format!("versions/{version}/load"), &Value::Null);
        assert_eq!(status, 200);
        let (status, answer) = server.predict_by(&format!("/versions/{version}"));
        assert_eq!(status, 200, "{answer}");
        (version, answer["predictions"][0]["probabilities"].clone())
    };
    // The champion serves without being loaded by request, and is to go when it is no longer.
    let first = server.predict_by("").1["predictions"][0]["probabilities"].clone();
    let others = (2..=versions).map(of);
    let all: BTreeMap<u64, Value> = [(1, first)].into_iter().chain(others).collect();
    for version in 2..=versions {
        server.post(&format!("versions/{version}/unload"), &Value::Null);
    }
    let clearly_different =
        |a: &Value, b: &Value| (a[0].as_f64().unwrap() - b[0].as_f64().unwrap()).abs() > 1e-3;
    for (version, of_it) in &all {
        let mut others = all.iter().filter(|(other, _)| *other != version);
        assert!(
            others.all(|(_, of_other)| clearly_different(of_it, of_other)),
            "{all:?}"
        );
    }
    all
}

/// How many changes of the champion have begun and have been answered.
#[derive(Default)]
struct Progress {
    begun: AtomicUsize,
    done: AtomicUsize,
    /// Whether a measurement is between its swaps.
    quiet: AtomicBool,
    over: AtomicBool,
}

/// Ends the asking when dropped, also by a failed assertion.
struct Over<'a>(&'a Progress);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

impl Progress {
    /// Asks until all is over; how many were answered.
    fn ask_along(&self, address: &str, champion: impl Fn(usize) -> u64, own: &BTreeMap<u64, Value>) -> usize {
        let (mut client, image) = (Client::new(address), image());
        let mut answered = 0;
        while !self.over.load(Ordering::SeqCst) {
            self.ask(&mut client, &image, &champion, own);
            answered += 1;
        }
        answered
    }

    /// Asks once. The answer is of a version that was champion meanwhile, and is that version's own.
    fn ask(
        &self,
        client: &mut Client,
        image: &[u8],
        champion: &impl Fn(usize) -> u64,
        own: &BTreeMap<u64, Value>,
    ) {
        let before = self.done.load(Ordering::SeqCst);
        let (status, body) = client.predict("", image);
        let after = self.begun.load(Ordering::SeqCst);
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{answer}");
        let version = answer["model"]["version"].as_u64().unwrap();
        let champions: Vec<u64> = (before..=after).map(champion).collect();
        assert!(champions.contains(&version), "{version} is none of {champions:?}");
        assert_eq!(answer["predictions"][0]["probabilities"], own[&version]);
    }
}

/// Three versions and two aliases: each promotion loads one and sends one away.
fn after(changes: usize) -> u64 {
    changes as u64 % 3 + 1
}

#[test]
fn two_hundred_promotions_under_load_fail_nobody() {
    let folder = folder(3);
    let server = Server::ready(folder.path(), &SETTINGS);
    let own = probabilities(&server, 3);
    let progress = Progress::default();
    server.promote(after(1));
    server.promote(after(2));
    progress.begun.store(2, Ordering::SeqCst);
    progress.done.store(2, Ordering::SeqCst);
    let threads = settled_threads(&server);
    let series = settled_metrics(&server).lines().count();
    let asked: usize = std::thread::scope(|scope| {
        let over = Over(&progress);
        let ask = || progress.ask_along(&server.address, after, &own);
        let clients = [(); 4].map(|()| scope.spawn(ask));
        for number in 3..=203 {
            progress.begun.store(number, Ordering::SeqCst);
            server.promote(after(number));
            progress.done.store(number, Ordering::SeqCst);
        }
        drop(over);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(asked > 203, "{asked} requests are no load");
    // 203 and 2 leave the same two versions behind.
    assert_eq!(settled_threads(&server), threads);
    let text = settled_metrics(&server);
    assert_eq!(text.lines().count(), series, "{text}");
    assert!(
        text.contains("sconce_promotions_total{model=\"tiny\"} 203\n"),
        "{text}"
    );
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
}

/// The metrics once the series of two versions are left: they go after a version's threads.
fn settled_metrics(server: &Server) -> String {
    loop {
        let text = server.get("/metrics").1;
        // They do not all go at once.
        let has = |version: &u64| text.contains(&format!("version=\"{version}\""));
        if (1..=3).filter(has).count() == 2 {
            return text;
        }
        std::thread::yield_now();
    }
}

/// The threads once those of two versions are left.
#[cfg(target_os = "linux")]
fn settled_threads(server: &Server) -> Vec<String> {
    let process = format!("/proc/{}", server.child.id());
    let names = || crate::serve::thread_names(&process);
    let of_two = |names: &[String]| names.iter().filter(|name| name.starts_with("infer-")).count() == 2;
    let mut all = (0..PATIENCE).map(|_| names());
    all.find(|names| of_two(names)).unwrap()
}

#[cfg(not(target_os = "linux"))]
fn settled_threads(_: &Server) -> Vec<String> {
    Vec::new()
}

#[test]
fn what_another_process_promotes_is_served() {
    let folder = folder(2);
    let server = Server::ready(folder.path(), &["engine.instances=1", "service.poll_ms=1"]);
    let run = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = sconce(&arguments).arg("--models").arg(folder.path()).output();
        assert!(output.unwrap().status.success(), "{line}");
    };
    let until = |version: u64| {
        let mut answers = (0..PATIENCE).map(|_| server.predict_by("").1["model"]["version"].clone());
        assert!(answers.any(|answering| answering == version));
    };
    run("models promote tiny 2 --force --reason trial");
    until(2);
    run("models rollback tiny");
    until(1);
    let metrics = server.get("/metrics").1;
    assert!(
        metrics.contains("sconce_rollbacks_total{model=\"tiny\"} 1\n"),
        "{metrics}"
    );
}

#[test]
fn damage_is_refused_and_the_old_answers_stay_the_same_bytes() {
    let folder = folder(2);
    let server = Server::ready(folder.path(), &SETTINGS);
    let cut = |version: u64| {
        let path = format!("tiny/{version}/model.safetensors");
        let file = File::options().write(true).open(folder.path().join(path));
        file.unwrap().set_len(100).unwrap();
    };
    let mut client = Client::new(&server.address);
    let mut answer = || client.predict("", &image());
    let before = answer();
    let aliases = || fs::read(folder.path().join("tiny/aliases.json")).unwrap();
    let aliases_before = aliases();
    cut(2);
    let forced = json!({"version": 2, "by": "a test", "reason": "trial", "force": true});
    let (status, problem) = server.post("promote", &forced);
    assert_eq!(
        (status, &problem["type"]),
        (409, &"urn:sconce:problem:version-unfit".into())
    );
    assert!(!problem["detail"].as_str().unwrap().contains('/'), "{problem}");
    assert_eq!((answer(), aliases()), (before.clone(), aliases_before));
    // The files of the version that answers.
    cut(1);
    assert_eq!(answer(), before);
    assert_eq!(before.0, 200);
}

#[test]
fn the_managing_routes_say_what_they_did_and_why_not() {
    let folder = folder(3);
    let server = Server::ready(folder.path(), &SETTINGS);
    let check = |method: &str, route: &str, body: Value, expected: u16, kind: &str| {
        let (status, answer) = server.manage(method, &format!("/v1/models/tiny/{route}"), &body);
        assert_eq!(status, expected, "{route} {body}: {answer}");
        if expected != 200 {
            assert_eq!(answer["type"], format!("urn:sconce:problem:{kind}"), "{answer}");
        }
        answer
    };
    let anna = |version: Value| json!({"version": version, "by": "anna"});
    check("POST", "promote", anna(2.into()), 409, "gate-refused");
    check("POST", "promote", anna(1.into()), 409, "conflict");
    check("POST", "promote", anna(9.into()), 404, "version-not-found");
    check(
        "POST",
        "promote",
        json!({"version": 2, "by": "anna", "force": true}),
        422,
        "invalid-input",
    );
    check("POST", "rollback", json!({"by": "anna"}), 409, "conflict");
    keep_verdict(folder.path());
    let changed = check("POST", "promote", anna(2.into()), 200, "");
    assert_eq!(changed["change"]["verdict"], "blessed");
    assert_eq!(
        changed["model"],
        json!({"name": "tiny", "champion": 2, "versions": [1, 2]})
    );
    check(
        "POST",
        "rollback",
        json!({"by": "anna", "reason": "complaints"}),
        200,
        "",
    );
    let on_trial = check("PUT", "aliases/challenger", anna(3.into()), 200, "");
    assert_eq!(on_trial["model"]["versions"], json!([1, 2, 3]));
    check(
        "PUT",
        "aliases/challenger",
        json!({"by": "anna"}),
        422,
        "invalid-input",
    );
    check("PUT", "aliases/champion", anna(3.into()), 409, "conflict");
    check("PUT", "aliases/best", anna(3.into()), 404, "not-found");
    check("POST", "versions/3/unload", Value::Null, 409, "conflict");
    check("PUT", "aliases/challenger", anna(Value::Null), 200, "");
    check("POST", "versions/3/unload", Value::Null, 404, "version-not-found");
    check("POST", "versions/3/load", Value::Null, 200, "");
    check("POST", "versions/3/unload", Value::Null, 200, "");
    let history = check("GET", "history", Value::Null, 200, "");
    let told = history["changes"].as_array().unwrap().iter();
    let told: Vec<&str> = told.map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["alias", "promote", "rollback", "alias", "alias"]);
    let (status, _) = server.manage("GET", "/v1/models/other/history", &Value::Null);
    assert_eq!(status, 404);
}

/// As the gate keeps it of version 2, compared with version 1.
fn keep_verdict(folder: &Path) {
    let registry = sconce::registry::Registry::open(folder).unwrap();
    let verdict = json!({"champion_version": 1, "blessed": true, "reasons": []});
    let version = 2.try_into().unwrap();
    registry
        .keep_verdict(&"tiny".parse().unwrap(), version, &verdict)
        .unwrap();
}

#[test]
fn management_is_off_where_it_is_told() {
    let folder = folder(2);
    let server = Server::ready(folder.path(), &["http.management=off"]);
    let (status, problem) = server.post("rollback", &json!({"by": "anna"}));
    assert_eq!(
        (status, &problem["type"]),
        (403, &"urn:sconce:problem:forbidden".into())
    );
    assert_eq!(server.predict_by("").0, 200);
}
