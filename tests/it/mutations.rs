//! Damaged weights are never served, and what serves goes on as it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use sconce::model::{Spec, Weights};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::serve::{image, models, publish};
use crate::server::{Server, head, sconce};

mod make;

use make::{Harm, Mutation, mutations};

const LOAD: &str = "/v1/models/tiny/versions/2/load";

fn good(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("tiny/1/model.safetensors")).unwrap()
}

/// Puts a file in the place of version 2's weights; `told`: with a manifest that knows it.
fn offer(folder: &Path, bytes: &[u8], told: bool) {
    let version = folder.join("tiny/2");
    let write = |name: &str, bytes: &[u8]| {
        File::create(version.join(name))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    write("model.safetensors", bytes);
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(version.join("manifest.json")).unwrap()).unwrap();
    let known = if told { bytes.to_vec() } else { good(folder) };
    let sha256: String = Sha256::digest(&known)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    manifest["weights"] = json!({"file": "model.safetensors", "sha256": sha256, "bytes": known.len()});
    write("manifest.json", manifest.to_string().as_bytes());
}

fn load(server: &Server) -> (u16, Value) {
    let head = format!("POST {LOAD} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let (status, body) = server.ask(&head, &[]);
    crate::contract::check("POST", LOAD, status, body.as_bytes());
    (status, serde_json::from_str(&body).unwrap())
}

fn prediction(server: &Server) -> Value {
    let image = image();
    let path = "/v1/predict?probabilities=true";
    let (status, body) = server.ask(&head(path, "image/png", image.len()), &image);
    assert_eq!(status, 200, "{body}");
    let mut answer: Value = serde_json::from_str(&body).unwrap();
    answer["id"] = Value::Null;
    answer
}

/// Holds that the load was refused with one line that tells nothing internal.
#[track_caller]
fn check_refused(folder: &Path, mutation: &Mutation, (status, answer): &(u16, Value)) {
    let name = &mutation.name;
    assert_eq!(*status, 409, "{name}: {answer}");
    assert_eq!(
        answer["type"], "urn:sconce:problem:version-unfit",
        "{name}: {answer}"
    );
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.len() < 2000 && !detail.contains(&*folder.to_string_lossy()),
        "{name}: {detail}"
    );
    assert!(!detail.chars().any(char::is_control), "{name}: {detail}");
}

#[test]
fn damaged_weights_are_refused_and_the_old_version_answers_on() {
    let folder = models();
    publish(folder.path());
    assert!(
        sconce(&["models", "alias", "tiny", "champion", "1", "--models"])
            .arg(folder.path())
            .output()
            .unwrap()
            .status
            .success()
    );
    let settings = [
        "log.filter=off",
        "engine.instances=1",
        "service.poll_ms=0",
        "http.drain_delay_ms=0",
    ];
    // Nobody reads the log on, and it says nothing.
    let server = Server::start(folder.path(), &settings);
    while server.get("/health/ready").0 != 200 {}
    let before = prediction(&server);
    let all = mutations(&good(folder.path()));
    let names: BTreeSet<&str> = all.iter().map(|mutation| &*mutation.name).collect();
    assert!(names.len() == all.len() && all.len() >= 100, "{}", all.len());
    for mutation in &all {
        // As the file of the manifest that is there.
        offer(folder.path(), &mutation.bytes, false);
        check_refused(folder.path(), mutation, &load(&server));
        if mutation.harm == Harm::Wrong {
            offer(folder.path(), &mutation.bytes, true);
            check_refused(folder.path(), mutation, &load(&server));
        }
        assert_eq!(prediction(&server), before, "{}", mutation.name);
    }
    // The refusals were the files' fault.
    offer(folder.path(), &good(folder.path()), true);
    assert_eq!(load(&server).0, 200);
    let served = server.get("/v1/models/tiny").1;
    assert!(served.contains("\"champion\":1"), "{served}");
}

#[test]
fn what_no_server_loads_no_other_way_takes() {
    let folder = models();
    let good = good(folder.path());
    let text = fs::read_to_string(folder.path().join("tiny/model.toml")).unwrap();
    let graph = Spec::parse(&text).unwrap().graph().unwrap();
    let all = mutations(&good);
    let wrong: Vec<&Mutation> = all
        .iter()
        .filter(|mutation| mutation.harm == Harm::Wrong)
        .collect();
    // Numbers that overflow on the way through are finite themselves: only the whole network tells.
    let needs_network = |mutation: &Mutation| mutation.name.ends_with("of 3e38");
    for mutation in wrong.iter().filter(|mutation| !needs_network(mutation)) {
        let error = Weights::from_safetensors(&mutation.bytes, &graph).expect_err(&mutation.name);
        assert!(
            error.to_string().starts_with("weights"),
            "{}: {error}",
            mutation.name
        );
    }
    publish(folder.path());
    for mutation in wrong
        .iter()
        .step_by(16)
        .copied()
        .chain(wrong.iter().copied().filter(|m| needs_network(m)))
    {
        offer(folder.path(), &mutation.bytes, true);
        let verify = sconce(&["models", "verify", "tiny", "--models"])
            .arg(folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&verify.stdout);
        assert_eq!(verify.status.code(), Some(65), "{}: {told}", mutation.name);
        let import = sconce(&["models", "import", "--name", "tiny", "--add-version", "--models"])
            .arg(folder.path())
            .arg(folder.path().join("tiny/2/model.safetensors"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&import.stderr);
        assert_eq!(import.status.code(), Some(65), "{}: {told}", mutation.name);
        assert!(!folder.path().join("tiny/3").exists(), "{}", mutation.name);
    }
}
