//! Keys: who may go where, held against the contract, and a running server whose keys change.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sconce::http::auth::{self, Auth, KeyEntry, KeyHash, Scope};
use sconce::http::{Config, Door, Phase, ROUTES, State, router};
use sconce::telemetry::Metrics;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::contract;
use crate::http::filled;
use crate::serve::{image, models};
use crate::server::{Server, sconce};

/// A router without models, on an address that others reach, with a key of each scope whose token is the scope's name.
fn guarded() -> Router {
    let key = |scope: Scope| KeyEntry {
        id: scope.name().parse().unwrap(),
        scopes: vec![scope],
        hash: KeyHash::of(scope.name().as_bytes()),
        requests_per_second: None,
        burst: None,
    };
    let config = auth::Config {
        keys: Scope::ALL.map(key).to_vec(),
        ..auth::Config::default()
    };
    let door = Door {
        manages: true,
        is_local: false,
    };
    let metrics = Metrics::new(&[]);
    let phase = watch::channel(Phase::Ready).1;
    let state = State {
        auth: Auth::load(&config, &metrics).unwrap(),
        ..State::new(Config::default(), &metrics, phase)
    };
    router(Arc::new(state), door)
}

/// Status, headers and body, held against the contract.
async fn ask(router: &Router, method: &str, path: &str, key: &str) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let response = router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    contract::check(method, path, head.status.as_u16(), &body);
    (head.status.as_u16(), head.headers, body)
}

/// The scopes that the contract tells of a route, none where any will do; `None` where it needs no key.
fn told(method: &str, path: &str) -> Option<BTreeSet<String>> {
    let operation = &contract::DOCUMENT["paths"][path][method.to_lowercase()];
    let ways = operation["security"].as_array()?;
    let scopes = |way: &Value| {
        let ways = way.as_object().unwrap().values();
        ways.flat_map(|scopes| scopes.as_array().unwrap())
            .map(|scope| scope.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    Some(ways.iter().flat_map(scopes).collect())
}

#[tokio::test]
async fn each_route_asks_for_the_key_that_the_contract_tells() {
    let router = guarded();
    let mut open = 0;
    for (method, template) in ROUTES {
        let path = filled(template);
        let (status, headers, _) = ask(&router, method, &path, "").await;
        let Some(scopes) = told(method, template) else {
            assert!(!matches!(status, 401 | 403), "{method} {template}: {status}");
            open += 1;
            continue;
        };
        assert_eq!(status, 401, "{method} {template}");
        assert_eq!(headers["www-authenticate"], "Bearer realm=\"sconce\"");
        for scope in Scope::ALL {
            let (status, headers, _) = ask(&router, method, &path, scope.name()).await;
            // An admin's key opens everything; where no scope is told, any key does.
            let expected = scope == Scope::Admin || scopes.is_empty() || scopes.contains(scope.name());
            assert_eq!(
                status != 403,
                expected,
                "{method} {template} with {}: {status}",
                scope.name()
            );
            assert_eq!(headers.contains_key("www-authenticate"), !expected);
        }
    }
    assert_eq!(open, 7, "health, the pages about the server, and no more");
}

#[tokio::test]
async fn whatever_is_wrong_with_a_key_the_bytes_are_the_same() {
    let router = guarded();
    let (_, _, missing) = ask(&router, "GET", "/v1/models", "").await;
    for wrong in ["predic", "predict2", "PREDICT", "x"] {
        let (status, _, body) = ask(&router, "GET", "/v1/models", wrong).await;
        assert_eq!((status, &body), (401, &missing), "{wrong}");
    }
}

#[tokio::test]
async fn paths_that_are_not_there_need_no_key() {
    let router = guarded();
    assert_eq!(ask(&router, "GET", "/nothing", "").await.0, 404);
    assert_eq!(ask(&router, "GET", "/v1/predict", "").await.0, 401);
    assert_eq!(ask(&router, "GET", "/v1/predict", "predict").await.0, 405);
}

/// Runs `sconce keys` and gives back the lines of its standard output.
pub(crate) fn keys(arguments: &[&str]) -> Vec<String> {
    let output = sconce(&["keys"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_running_server_takes_new_keys_and_lets_old_ones_go() {
    let (folder, secrets) = (models(), tempfile::tempdir().unwrap());
    let file = secrets.path().join("keys");
    let file = file.to_str().unwrap();
    let limited = ["--requests-per-second", "0.001", "--burst", "2"];
    let first = keys(
        &[
            &["new", "--id", "ann", "--scopes", "predict", "--append", file],
            &limited[..],
        ]
        .concat(),
    );
    // Only the signal has it read anew.
    let settings = [
        &format!("auth.keys_file={file}"),
        "http.poll_ms=0",
        "http.drain_delay_ms=0",
    ];
    let mut server = Server::ready(folder.path(), &settings);
    let predict = |server: &Server, token: &str| {
        let image = image();
        let head = format!(
            "POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/png\r\n\
             X-API-Key: {token}\r\nContent-Length: {}\r\n\r\n",
            image.len()
        );
        server.ask(&head, &image)
    };
    assert_eq!(server.predict().0, 401);
    assert_eq!(server.get("/health/ready").0, 200);
    assert_eq!(predict(&server, &first[0]).0, 200);
    assert_eq!(predict(&server, &first[0]).0, 200);
    let (status, body) = predict(&server, &first[0]);
    assert!(status == 429 && body.contains("rate-limited"), "{status} {body}");

    let second = keys(&["new", "--id", "bob", "--scopes", "predict", "--append", file]);
    server.signal("HUP");
    server.wait_for("the keys were read anew");
    assert_eq!(predict(&server, &second[0]).0, 200);
    // The same bucket as before.
    assert_eq!(predict(&server, &first[0]).0, 429);

    let lines = fs::read_to_string(file).unwrap();
    let kept: String = lines.lines().filter(|line| line.contains("bob")).collect();
    sconce::registry::atomic::write(file.as_ref(), kept.as_bytes()).unwrap();
    server.signal("HUP");
    server.wait_for("the keys were read anew");
    assert_eq!(
        (predict(&server, &first[0]).0, predict(&server, &second[0]).0),
        (401, 200)
    );

    sconce::registry::atomic::write(file.as_ref(), b"{").unwrap();
    server.signal("HUP");
    server.wait_for("the keys could not be read anew; those before go on");
    assert_eq!(predict(&server, &second[0]).0, 200);
    server.signal("TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    assert!(!log.contains(&second[0]), "{log}");
}

#[test]
fn labels_carry_the_key_that_they_came_with() {
    let (folder, place) = (models(), tempfile::tempdir().unwrap());
    let file = place.path().join("keys");
    let file = file.to_str().unwrap();
    let giver = &keys(&[
        "new",
        "--id",
        "scanner-3",
        "--scopes",
        "feedback",
        "--append",
        file,
    ])[0];
    let admin = &keys(&["new", "--id", "root", "--scopes", "admin", "--append", file])[0];
    let store = format!("store.folder={}", place.path().join("data").display());
    let settings = [&store, &format!("auth.keys_file={file}"), "http.drain_delay_ms=0"];
    let server = Server::ready(folder.path(), &settings);
    let ask = |method: &str, path: &str, token: &str, kind: &str, body: &[u8]| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (status, answer) = server.ask(&head, body);
        contract::check(method, path, status, answer.as_bytes());
        (status, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let mut form = b"--XX\r\nContent-Disposition: form-data; name=\"label\"\r\n\r\na\r\n".to_vec();
    form.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n");
    form.extend_from_slice(&image());
    form.extend_from_slice(b"\r\n--XX--\r\n");
    let kind = "multipart/form-data; boundary=XX";
    let (status, sample) = ask("POST", "/v1/samples", giver, kind, &form);
    assert_eq!(status, 201, "{sample}");
    let sha256 = sample["samples"][0]["sha256"].as_str().unwrap();
    let entry = format!(r#"{{"sha256": "{sha256}", "model": "tiny", "label": 1, "source": "bob"}}"#);
    let (status, outcome) = ask(
        "POST",
        "/v1/feedback",
        giver,
        "application/json",
        entry.as_bytes(),
    );
    assert_eq!((status, &outcome["outcome"]), (201, &"quarantined".into()));

    let (status, _) = ask("GET", "/v1/feedback/quarantine", giver, "x/x", b"");
    assert_eq!(status, 403);
    let (status, page) = ask("GET", "/v1/feedback/quarantine", admin, "x/x", b"");
    assert_eq!(status, 200, "{page}");
    let labels = page["conflicts"][0]["labels"].as_array().unwrap();
    let told: Vec<_> = labels
        .iter()
        .map(|label| (&label["source"], &label["key"]))
        .collect();
    let key = Value::from("scanner-3");
    assert_eq!(told, [(&Value::from("bob"), &key), (&key, &key)]);
    let decision = format!(r#"{{"sha256": "{sha256}", "model": "tiny", "label": 0}}"#);
    let decided = ask(
        "POST",
        "/v1/feedback/decisions",
        admin,
        "application/json",
        decision.as_bytes(),
    );
    assert_eq!(decided.0, 200, "{}", decided.1);
    let (_, summary) = ask("GET", "/v1/feedback/summary", admin, "x/x", b"");
    let sources = summary["counts"].as_array().unwrap().iter();
    let sources: Vec<_> = sources
        .map(|count| (&count["source"], &count["key"], &count["state"]))
        .collect();
    let root = Value::from("root");
    let (accepted, overruled) = (Value::from("accepted"), Value::from("overruled"));
    assert_eq!(
        sources,
        [
            (&root, &root, &accepted),
            (&key, &key, &accepted),
            (&Value::from("bob"), &key, &overruled)
        ]
    );
}

#[test]
fn keys_that_are_not_right_end_the_start_before_a_port_is_bound() {
    let folder = models();
    let check = |setting: &str, part: &str| {
        let mut command = sconce(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "",
            "--set",
            setting,
            "--models",
        ]);
        let output = command.arg(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains(part) && !text.contains("sconce_secret"), "{text}");
        assert!(output.stdout.is_empty());
    };
    check("auth.keys_file=no/such/file", "no/such/file: ");
    check(
        "auth.keys=[{id = 'a', scopes = ['admin'], hash = 'sconce_secret'}]",
        "auth.keys (command line): ",
    );
    check(
        "auth.keys=[{id = 'a', scopes = ['admin']}]",
        "missing field `hash`",
    );
    let hash = "0".repeat(64);
    check(
        &format!("auth.keys=[{{id = 'a', scopes = [], hash = '{hash}'}}]"),
        "at least one is expected",
    );
}

/// The middle of the times, in nanoseconds.
fn median(times: &mut [u128]) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Tells whether the time of a refusal hangs on how much of a token is right: asks with tokens of five kinds in turns.
#[test]
#[ignore = "measures, and holds nothing: cargo test --release --test it -- --ignored --nocapture a_refusal_takes"]
#[expect(clippy::print_stdout, reason = "it tells what it measures")]
fn a_refusal_takes_the_same_time_however_much_of_the_token_is_right() {
    let (folder, secrets) = (models(), tempfile::tempdir().unwrap());
    let file = secrets.path().join("keys");
    let file = file.to_str().unwrap();
    let token = keys(&["new", "--id", "ann", "--scopes", "predict", "--append", file]).remove(0);
    for other in 0..99 {
        keys(&[
            "new",
            "--id",
            &other.to_string(),
            "--scopes",
            "predict",
            "--append",
            file,
        ]);
    }
    let server = Server::ready(folder.path(), &[&format!("auth.keys_file={file}")]);
    let wrong_from = |place: usize| -> String {
        let other = |c: char| if c == 'x' { 'y' } else { 'x' };
        token
            .chars()
            .enumerate()
            .map(|(at, c)| if at < place { c } else { other(c) })
            .collect()
    };
    let all = token.len();
    let kinds = [0, 1, all / 2, all - 1, all].map(|right| (right, wrong_from(right)));
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = [const { Vec::new() }; 5];
    for round in 0..4000 + 200 {
        for ((_, token), times) in kinds.iter().zip(&mut times) {
            let request = format!("GET /v1/models/none HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\n\r\n");
            let begin = Instant::now();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 4096];
            assert!(stream.read(&mut answer).unwrap() > 0);
            // Those of the beginning warm up.
            if round >= 200 {
                times.push(begin.elapsed().as_nanos());
            }
        }
    }
    for ((right, _), times) in kinds.iter().zip(&mut times) {
        println!(
            "{right:>2} of {all} characters right: median {} ns",
            median(times)
        );
    }
}
