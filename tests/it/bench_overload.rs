//! `sconce bench overload` against a real server: every request accounted for, nothing left of who hung up.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::server::{Server, sconce};

fn digit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digit.png");
    path.to_str().unwrap().to_owned()
}

/// A drill of moments on a server with a short queue: what is asserted are counts, not times.
#[test]
fn a_short_drill_accounts_for_everything() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let short = [
        "engine.instances=1",
        "decode.threads=1",
        "batcher.max_queue=4",
        "http.drain_delay_ms=0",
    ];
    let server = Server::ready(&models, &short);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json").to_str().unwrap().to_owned();
    let url = format!("http://{}/v1/predict", server.address);
    let image = digit();
    let drill: [&str; 17] = [
        "bench",
        "overload",
        &url,
        "--image",
        &image,
        "--json",
        &json,
        "--capacity",
        "100",
        "--times",
        "5",
        "--duration",
        "0.4",
        "--connections",
        "32",
        "--hang-ups",
        "300",
    ];
    let done = sconce(&drill).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        done.status.success(),
        "{}{text}",
        String::from_utf8_lossy(&done.stderr)
    );
    for told in ["goodput", "refused p99", "normal after", "300 clients hung up"] {
        assert!(text.contains(told), "{told} in {text}");
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    // In 0.4 s, 200 of 500 per second are due.
    assert_eq!(count("sent") + count("never_sent"), 200, "{report}");
    let statuses: BTreeMap<String, u64> = serde_json::from_value(report["statuses"].clone()).unwrap();
    let errors = count("connect_errors") + count("timeouts") + count("protocol_errors");
    assert_eq!(statuses.values().sum::<u64>() + errors, count("sent"), "{report}");
    assert_eq!((errors, count("unexplained")), (0, 0), "{report}");
    let honest = |status: &String| ["200", "429", "504"].contains(&status.as_str());
    assert!(
        statuses.keys().all(honest) && statuses.contains_key("200"),
        "{report}"
    );
    let left = &report["hang_ups"]["left"];
    assert_eq!(report["hang_ups"]["sent"], 300, "{report}");
    for gone in ["items_in_flight", "queued", "decoding_bytes"] {
        assert_eq!(left[gone], 0.0, "{report}");
    }
    assert_eq!(left["connections"], 1.0, "the one that asks: {report}");
}
