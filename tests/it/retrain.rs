//! `sconce retrain --lines` as whoever starts it sees it: exit codes, events, and what a kill leaves.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};

use image::{GrayImage, Luma};
use sconce::retrain::{Phase, Progress};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::serve::{model_beside, models};
use crate::server::sconce;

/// Models with one of them, `tiny`; beside them a folder with a dataset `shades` for it, and where a run works.
struct Place {
    models: TempDir,
    beside: TempDir,
}

fn place() -> Place {
    let (models, beside) = (models(), tempfile::tempdir().unwrap());
    for label in ["a", "b"] {
        let class = beside.path().join("datasets/shades").join(label);
        fs::create_dir_all(&class).unwrap();
        for image in 0..100u32 {
            let level = if label == "a" { image } else { 255 - image };
            let pixel = |x: u32, y: u32| Luma([level.wrapping_add(x * y % 3) as u8]);
            GrayImage::from_fn(8, 8, pixel)
                .save(class.join(format!("{image}.png")))
                .unwrap();
        }
    }
    Place { models, beside }
}

fn started(place: &Place, request: &Value) -> Child {
    let beside = place.beside.path();
    let mut command = sconce(&["retrain", "--lines", "--request", "-", "--work"]);
    command
        .arg(beside.join("work"))
        .arg("--models")
        .arg(place.models.path());
    for (key, value) in [("store.folder", "store"), ("retrain.datasets", "datasets")] {
        command
            .arg("--set")
            .arg(format!("{key}={}", beside.join(value).display()));
    }
    command.args(["--set", "engine.device=cpu"]);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(request.to_string().as_bytes()).unwrap();
    child
}

fn events(output: &Output) -> Vec<Progress> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_is_wrong_has_its_exit_code() {
    let place = place();
    let check = |request: Value, code: i32, expected: &str| {
        let output = started(&place, &request).wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{request}: {told}");
        assert!(told.contains(expected), "{told}");
        assert!(
            !events(&output)
                .iter()
                .any(|event| matches!(event, Progress::Finished(_)))
        );
    };
    check(
        json!({"model": "tiny", "epochs": 0}),
        64,
        "epochs: must be 1 to 1000",
    );
    check(json!({"model": "tiny", "epoch": 1}), 64, "unknown field");
    check(json!({"model": "other"}), 65, "no model 'other'");
    let stranger = json!({"model": "tiny", "parent_model": "other"});
    check(stranger, 64, "parent_model: there is no model 'other'");
    let alone = json!({"model": "tiny", "dataset": "none", "feedback": false});
    check(alone, 65, "no dataset 'none'");
    check(json!({"model": "tiny"}), 64, "dataset: must be named");
    check(
        json!({"model": "tiny", "dataset": "shades"}),
        65,
        "nothing to learn from",
    );
}

#[test]
fn a_killed_run_goes_on_after_its_last_epoch() {
    let place = place();
    let request = json!({"model": "tiny", "dataset": "shades", "feedback": false, "epochs": 40});
    let mut child = started(&place, &request);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_epoch = |line: &String| line.contains(r#""event":"epoch""#);
    let first = lines.map(Result::unwrap).find(is_epoch);
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.is_some());

    let output = started(&place, &request).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let events = events(&output);
    let epochs = events.iter().filter_map(|event| match event {
        Progress::Epoch(epoch) => Some(epoch.epoch),
        _ => None,
    });
    let epochs: Vec<usize> = epochs.collect();
    let first = epochs.first().copied().unwrap_or(41);
    assert!(first > 1 && epochs.iter().copied().eq(first..=40), "{epochs:?}");
    assert_eq!(events.first(), Some(&Progress::Phase { phase: Phase::Data }));
    let Some(Progress::Finished(finished)) = events.last() else {
        panic!("{events:?}");
    };
    // So few images prove nothing, which is an outcome and no failure.
    assert_eq!((finished.blessed, finished.promoted), (Some(false), false));
    assert!(finished.version.is_some());
    assert!(!finished.reasons.is_empty());
}

#[test]
fn a_version_of_another_model_may_be_the_parent() {
    let place = place();
    model_beside(place.models.path(), "shapes", "['circle', 'square', 'star']");
    let request = json!({
        "model": "tiny", "dataset": "shades", "feedback": false, "epochs": 1, "parent_model": "shapes", "freeze": 1,
    });
    let output = started(&place, &request).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let begins = "begins from version 1 of 'shapes' with a fresh last layer";
    let says = |event: &Progress| matches!(event, Progress::Note { text } if text == begins);
    assert!(events(&output).iter().any(says), "{:?}", events(&output));
    let manifest = fs::read(place.models.path().join("tiny/2/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        (&manifest["parent_model"], &manifest["parent"]),
        (&json!("shapes"), &json!(1))
    );
    let show = sconce(&["models", "card", "tiny", "2", "--models"])
        .arg(place.models.path())
        .output()
        .unwrap();
    let card = String::from_utf8(show.stdout).unwrap();
    assert!(
        card.contains("parent: version 1 of shapes, another model"),
        "{card}"
    );
}
