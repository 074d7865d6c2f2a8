//! The listener of those who manage: what it answers, what the other leaves out, and who may not start it.

use serde_json::Value;

use crate::keys::keys;
use crate::serve::{models, publish_seeded};
use crate::server::{Server, ask_at, sconce};

fn get(address: &str, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    ask_at(address, &head, &[])
}

fn post(address: &str, path: &str, key: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nX-API-Key: {key}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    ask_at(address, &head, body.as_bytes())
}

const PROMOTE: &str = "/v1/models/tiny/promote";
const FORCED: &str = r#"{"version": 2, "by": "anna\nb", "reason": "a test", "force": true}"#;

#[test]
fn managing_is_apart_and_every_act_has_its_line() {
    let folder = models();
    publish_seeded(folder.path(), 2);
    let aliases = folder.path().join("tiny/aliases.json");
    sconce::registry::atomic::write(&aliases, b"{\"champion\": 1}").unwrap();
    let settings = [
        "admin.address=127.0.0.1:0",
        "http.drain_delay_ms=0",
        "log.filter=off",
    ];
    let mut server = Server::start(folder.path(), &settings);
    let admin = server.admin();
    while get(&admin, "/health/ready").0 != 200 {}
    assert_eq!(server.predict().0, 200);
    assert_eq!(server.get("/health/live").0, 200);
    for path in [
        "/metrics",
        "/v1/models/tiny/history",
        "/v1/retrain",
        "/v1/feedback/summary",
    ] {
        let (status, body) = server.get(path);
        assert!(
            status == 404 && body.contains("admin.address"),
            "{path}: {status} {body}"
        );
        assert_ne!(get(&admin, path).0, 404, "{path}");
    }
    assert_eq!(post(&server.address, PROMOTE, "", FORCED).0, 404);
    let (status, body) = post(&admin, PROMOTE, "", FORCED);
    assert_eq!(status, 200, "{body}");
    assert_eq!(post(&admin, PROMOTE, "", FORCED).0, 409);
    assert!(
        get(&admin, "/metrics")
            .1
            .contains("sconce_model_champion_version{model=\"tiny\"} 2\n")
    );
    server.signal("TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |field: &str| {
        lines
            .iter()
            .map(|line| line[field].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("target"), ["audit"; 2], "{log}");
    assert_eq!(told("who"), ["127.0.0.1"; 2]);
    assert_eq!(
        (told("act"), told("model"), told("version")),
        (vec!["promote"; 2], vec!["tiny"; 2], vec!["2"; 2])
    );
    assert_eq!(told("outcome"), ["done", "conflict"]);
    assert_eq!(told("by"), ["anna\\nb"; 2]);
}

#[test]
fn an_act_is_the_keys_and_a_refused_one_is_told_too() {
    let (folder, secrets) = (models(), tempfile::tempdir().unwrap());
    let file = secrets.path().join("keys");
    let file = file.to_str().unwrap();
    let root = &keys(&["new", "--id", "root", "--scopes", "admin", "--append", file])[0];
    let ann = &keys(&["new", "--id", "ann", "--scopes", "predict", "--append", file])[0];
    let keys_file = format!("auth.keys_file={file}");
    let settings = [
        "admin.address=0.0.0.0:0",
        &keys_file,
        "http.drain_delay_ms=0",
        "log.filter=warn",
    ];
    let mut server = Server::start(folder.path(), &settings);
    let admin = server.admin().replace("0.0.0.0", "127.0.0.1");
    while get(&admin, "/health/ready").0 != 200 {}
    let rollback = |key: &str| post(&admin, "/v1/models/tiny/rollback", key, r#"{"by": "x"}"#).0;
    assert_eq!(
        [rollback(""), rollback("wrong"), rollback(ann), rollback(root)],
        [401, 401, 403, 409]
    );
    // Others reach this address, so that the series need a key as well.
    assert_eq!(get(&admin, "/metrics").0, 401);
    server.signal("TERM");
    let log = server.end().1;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let acts = lines.iter().filter(|line| line["target"] == "audit");
    let told: Vec<_> = acts
        .map(|line| (line["who"].as_str().unwrap(), line["outcome"].as_str().unwrap()))
        .collect();
    let here = "127.0.0.1";
    assert_eq!(
        told,
        [
            (here, "unauthorized"),
            (here, "unauthorized"),
            ("ann", "wrong-scope"),
            ("root", "conflict")
        ]
    );
    assert!(!log.contains(root) && !log.contains(ann), "{log}");
}

#[test]
fn who_lets_others_manage_without_a_key_does_not_start() {
    let folder = models();
    let check = |arguments: &[&str], part: &str| {
        let mut command = sconce(&["serve", "--models"]);
        let output = command.arg(folder.path()).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{text}");
        let said: Vec<&str> = text.lines().filter(|line| line.starts_with("sconce: ")).collect();
        assert!(said.len() == 1 && said[0].contains(part), "{text}");
        assert!(output.stdout.is_empty());
    };
    check(
        &["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"],
        "admin.address = 0.0.0.0:0: others reach it",
    );
    check(
        &[
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "",
            "--set",
            "http.management=on",
        ],
        "http.listen = 0.0.0.0:0: others reach it",
    );
    check(
        &["--listen", "127.0.0.1:0", "--admin", "localhost:81"],
        "admin.address = \"localhost:81\" (command line): an IP address",
    );
    check(
        &["--listen", "127.0.0.1:7", "--admin", "127.0.0.1:7"],
        "http.listen has the same",
    );
}
