//! The shipped models on samples of their test sets, asked as any caller asks them.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::contract;
use crate::server::{Server, head};

const SIDE: usize = 28;
/// As many as one request may carry by default.
const REQUEST: usize = 64;

#[test]
fn digits_are_recognised() {
    check("mnist", 0.985);
}

#[test]
fn clothes_are_recognised() {
    check("fashion-mnist", 0.905);
}

/// Depth, colour, alpha, palette, interlace, orientation and format say the same picture in other words.
#[test]
fn a_digit_is_the_same_in_every_form() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = Server::ready(
        &root.join("models"),
        &["engine.instances=1", "http.drain_delay_ms=0"],
    );
    let path = "/v1/models/mnist/predict?probabilities=true";
    let asked = |file: &Path| {
        ask(
            &server,
            path,
            "application/octet-stream",
            &fs::read(file).unwrap(),
        )
        .remove(0)
    };
    let plain = asked(&root.join("examples/digit.png"));
    assert_eq!(plain["label"], "7");
    let probabilities = |prediction: &Value| -> Vec<f64> {
        prediction["probabilities"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_f64().unwrap())
            .collect()
    };
    let files: Vec<PathBuf> = fs::read_dir(root.join("tests/fixtures/variants"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 25);
    for file in files {
        let variant = asked(&file);
        assert_eq!(variant["label"], plain["label"], "{}", file.display());
        let exact = file.file_name().unwrap().to_string_lossy().starts_with("exact-");
        let most = if exact { 1e-6 } else { 1e-2 };
        for (found, expected) in probabilities(&variant).iter().zip(probabilities(&plain)) {
            assert!(
                (found - expected).abs() <= most,
                "{}: {found}, not {expected}",
                file.display()
            );
        }
    }
}

/// Holds that at least this share of the sample is classified right, whichever way an image is sent.
fn check(model: &str, share: f64) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sample = root.join("tests/fixtures").join(model);
    let pixels = unzip(&sample.join("t10k-images-idx3-ubyte.gz"), 16);
    let classes = unzip(&sample.join("t10k-labels-idx1-ubyte.gz"), 8);
    let images: Vec<&[u8]> = pixels.chunks_exact(SIDE * SIDE).collect();
    assert_eq!(images.len(), classes.len());

    let server = Server::ready(
        &root.join("models"),
        &["engine.instances=1", "http.drain_delay_ms=0"],
    );
    let path = format!("/v1/models/{model}/predict");
    let predictions: Vec<Value> = images
        .chunks(REQUEST)
        .flat_map(|some| levels(&server, &path, some))
        .collect();
    let right = predictions
        .iter()
        .zip(&classes)
        .filter(|(found, class)| found["index"] == **class)
        .count();
    let reached = right as f64 / classes.len() as f64;
    assert!(
        reached >= share,
        "{right} of {} are right: {reached}",
        classes.len()
    );

    for (pixels, as_levels) in images.iter().zip(&predictions).take(20) {
        let as_file = ask(&server, &path, "image/png", &png(pixels)).remove(0);
        assert_eq!(as_file["label"], as_levels["label"]);
        let probability = |prediction: &Value| prediction["probability"].as_f64().unwrap();
        // A batch may round differently from a single image.
        assert!((probability(&as_file) - probability(as_levels)).abs() < 1e-5);
    }
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
}

/// The predictions of several images, sent as numbers in one request.
fn levels(server: &Server, path: &str, images: &[&[u8]]) -> Vec<Value> {
    let rows = |image: &&[u8]| image.chunks(SIDE).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let body = json!({"instances": images.iter().map(rows).collect::<Vec<_>>()});
    let predictions = ask(server, path, "application/json", body.to_string().as_bytes());
    assert_eq!(predictions.len(), images.len());
    predictions
}

fn ask(server: &Server, path: &str, content_type: &str, body: &[u8]) -> Vec<Value> {
    let (status, answer) = server.ask(&head(path, content_type, body.len()), body);
    assert_eq!(status, 200, "{answer}");
    contract::check("POST", path, status, answer.as_bytes());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["predictions"].as_array().unwrap().clone()
}

fn png(pixels: &[u8]) -> Vec<u8> {
    let image = image::GrayImage::from_raw(SIDE as u32, SIDE as u32, pixels.to_vec()).unwrap();
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// What an idx file holds behind its head.
fn unzip(path: &PathBuf, head: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes.split_off(head)
}
