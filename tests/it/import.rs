//! A file of weights becomes a model that answers.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::server::{Server, head, sconce};

#[test]
fn an_imported_file_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    let labels = folder.path().join("labels.json");
    let mut file = File::create(&labels).unwrap();
    file.write_all(br#"{"0": ["n1", "ant"], "1": ["n2", "bee"], "2": ["n3", "cat"]}"#)
        .unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Three classes of 8×8 grey images, as torch wrote it.
    let weights = root.join("tests/golden/seed_cnn.safetensors");
    let arguments = [
        "models", "import", "--name", "new", "--arch", "seed-cnn", "--input", "1x8x8",
    ];
    let mut command = sconce(&arguments);
    let output = command
        .arg(weights)
        .arg("--labels")
        .arg(labels)
        .arg("--models")
        .arg(&models)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let server = Server::ready(&models, &["engine.instances=1", "http.drain_delay_ms=0"]);
    let image = fs::read(root.join("examples/digit.png")).unwrap();
    let (status, body) = server.ask(&head("/v1/models/new/predict", "image/png", image.len()), &image);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let label = answer["predictions"][0]["label"].as_str().unwrap();
    assert!(["ant", "bee", "cat"].contains(&label), "{body}");
}
