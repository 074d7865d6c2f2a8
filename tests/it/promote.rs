//! Another version answers, and the first one again.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::serve::{models, publish};
use crate::server::{Server, head, sconce};

/// Exit code and standard output.
fn run(models: &Path, line: &str) -> (Option<i32>, String) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = sconce(&arguments).arg("--models").arg(models).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The version by which a server that starts now answers.
fn answering(models: &Path) -> Value {
    let server = Server::ready(models, &["engine.instances=1", "http.drain_delay_ms=0"]);
    let image = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digit.png")).unwrap();
    let (status, body) = server.ask(&head("/v1/models/tiny/predict", "image/png", image.len()), &image);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["model"]["version"].clone()
}

#[test]
fn a_promotion_and_a_rollback_hold_from_the_next_start() {
    let folder = models();
    let path = folder.path();
    publish(path);
    let check = |line: &str, code: i32| {
        let (found, text) = run(path, line);
        assert_eq!(found, Some(code), "{line}: {text}");
        text
    };
    check("models alias tiny champion 1", 0);
    check("models promote tiny 2", 64);
    check("models promote tiny 2 --force", 64);
    check("models promote tiny 1 --force --reason again", 65);
    check("models promote tiny 2 --force --reason trial --by me", 0);
    assert_eq!(answering(path), 2);
    check("models rollback tiny --reason worse", 0);
    assert_eq!(answering(path), 1);
    check("models alias tiny previous", 0);
    check("models rollback tiny", 65);
    let history: Value = serde_json::from_str(&check("models history tiny --json", 0)).unwrap();
    let told: Vec<String> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            format!(
                "{} {} {} {}",
                change["action"], change["from"], change["to"], change["by"]
            )
        })
        .collect();
    let expected = [
        "\"alias\" null 1 \"command line\"",
        "\"promote\" 1 2 \"me\"",
        "\"rollback\" 2 1 \"command line\"",
        "\"alias\" 2 null \"command line\"",
    ];
    assert_eq!(told, expected);
}
