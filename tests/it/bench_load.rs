//! `sconce bench load` against real servers: counts, exit codes, files.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::server::{Server, sconce};

/// A load of moments: what is asserted are counts, not times.
const BRIEF: [&str; 8] = [
    "--rounds",
    "2",
    "--duration",
    "0.2",
    "--warm-up",
    "0.05",
    "--connections",
    "2",
];

fn load(arguments: &[&str]) -> Output {
    let all: Vec<&str> = ["bench", "load"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    sconce(&all).args(BRIEF).output().unwrap()
}

fn digit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digit.png");
    path.to_str().unwrap().to_owned()
}

fn server() -> Server {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    Server::ready(&models, &["engine.instances=1", "http.drain_delay_ms=0"])
}

/// A figure's rounds on each server; empty where the report has no such figure.
fn rounds(report: &Value, name: &str) -> Vec<Vec<f64>> {
    let figures = report["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["name"] == name);
    let servers = figure.map_or(&[][..], |figure| figure["servers"].as_array().unwrap());
    let values = |server: &Value| serde_json::from_value(server["rounds"].clone()).unwrap();
    servers.iter().map(values).collect()
}

#[test]
fn an_open_loop_accounts_for_every_arrival() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let [json, svg] = ["a.json", "a.svg"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let url = format!("http://{}/v1/predict?probabilities=true", server.address);
    let image = digit();
    let done = load(&[
        &url, "--image", &image, &image, "--rate", "100", "--json", &json, "--svg", &svg,
    ]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        text.contains("open loop, 100 requests per second") && text.contains("corrected latency p99"),
        "{text}"
    );
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let (sent, unsent) = (rounds(&report, "requests sent"), rounds(&report, "never sent"));
    let answered = rounds(&report, "answered 200");
    for round in 0..2 {
        // Twenty arrivals are due in 0.2 s of 100 per second.
        assert_eq!(sent[0][round] + unsent[0][round], 20.0, "{report}");
        assert_eq!(answered[0][round], sent[0][round], "{report}");
    }
    assert!(fs::read_to_string(svg).unwrap().contains("corrected latency"));
}

#[test]
fn two_servers_have_their_rounds_side_by_side() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json").to_str().unwrap().to_owned();
    let [a, b] =
        ["mnist", "fashion-mnist"].map(|name| format!("http://{}/v1/models/{name}/predict", server.address));
    let done = load(&[&a, "--against", &b, "--image", &digit(), "--json", &json]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["urls"], serde_json::json!([a, b]));
    let (requests, answered) = (rounds(&report, "requests sent"), rounds(&report, "answered 200"));
    assert_eq!(requests, answered, "{report}");
    assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    assert!(rounds(&report, "never sent").is_empty());
}

#[test]
fn what_fails_always_is_an_error() {
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let done = load(arguments);
        let error = String::from_utf8(done.stderr).unwrap();
        assert!(error.contains(expected), "{error}");
        assert_eq!(done.status.code(), Some(code), "{error}");
    };
    let image = digit();
    // Its port was free a moment ago.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(
        &[&format!("http://{nobody}/"), "--image", &image],
        70,
        "nobody listens",
    );
    check(
        &["https://127.0.0.1/", "--image", &image],
        64,
        "https is not spoken",
    );
    check(&["http://127.0.0.1/"], 64, "say what is sent: --image FILE");
    let server = server();
    let url = format!("http://{}/v1/nothing", server.address);
    check(&[&url, "--image", &image], 70, "answered 404");
    check(&[&busy(), "--image", &image], 70, "no request was answered 2xx");
}

/// The address of a server that answers 503 to everything, and closes the connection after each answer.
fn busy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = move || listener.incoming().flatten().for_each(|stream| refuse(&stream));
    thread::Builder::new().spawn(serve).unwrap();
    url
}

fn refuse(mut stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut length = 0;
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        line.clear();
    }
    // A socket that is closed with unread bytes resets the connection, and the answer is lost.
    let body = std::io::Read::take(&mut reader, length);
    let _ = std::io::copy(&mut { body }, &mut std::io::sink());
    let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
