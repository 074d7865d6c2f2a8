//! Tests of folders that go while their models serve, and come back.

use std::fs;

use super::tests::{Bench, author, version};
use crate::registry::{Finding, Grounds, Promotion};
use crate::telemetry::captured::Lines;

/// A log that writes into `lines`, as people read it.
fn log_to(lines: &Lines) -> tracing::Dispatch {
    let lines = lines.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("sconce=info")
        .with_writer(move || lines.clone())
        .finish()
        .into()
}

/// Looks at the folder three times; the lines that this logs, from their level on.
fn looked(bench: &mut Bench) -> Vec<String> {
    let lines = Lines::default();
    // While there is only one, another test's thread that meets an event first would switch it off for all.
    let _another = log_to(&Lines::default());
    tracing::dispatcher::with_default(&log_to(&lines), || {
        for _ in 0..3 {
            bench.keeper().refresh();
        }
    });
    let from_level = |line: &str| line.split_once(' ').unwrap().1.trim_start().to_owned();
    lines.text().lines().map(from_level).collect()
}

/// Holds that there is one line, of this level and with this part.
#[track_caller]
fn one(lines: &[String], level: &str, part: &str) {
    assert!(
        lines.len() == 1 && lines[0].starts_with(level) && lines[0].contains(part),
        "{lines:?}"
    );
}

#[test]
fn a_model_serves_on_without_its_folder_and_is_followed_when_it_is_back() {
    let mut bench = Bench::new();
    let (there, away) = (
        bench.folder.path().join("tiny"),
        bench.folder.path().join(".away"),
    );
    assert_eq!(looked(&mut bench), [""; 0]);
    for gone in 1..=2 {
        fs::rename(&there, &away).unwrap();
        one(&looked(&mut bench), "WARN", "its folder is gone");
        assert_eq!(looked(&mut bench), [""; 0]);
        assert_eq!(bench.failures(), gone);
        bench.answers_as(bench.serving().0);

        fs::rename(&away, &there).unwrap();
        one(&looked(&mut bench), "INFO", "the model is followed again");
        assert_eq!(looked(&mut bench), [""; 0]);
        let next = if gone == 1 { 2 } else { 3 };
        let promotion = Promotion {
            author: author(),
            grounds: Grounds::Forced {
                finding: Finding::None,
            },
        };
        bench
            .registry
            .promote(&bench.name, version(next), &promotion)
            .unwrap();
        bench.keeper().refresh();
        assert_eq!(bench.serving().0, next);
        bench.answers_as(next);
    }
}

#[test]
fn what_goes_before_it_serves_is_forgotten() {
    let mut bench = Bench::new();
    let broken = bench.folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    one(&looked(&mut bench), "WARN", "broken");
    fs::remove_dir(&broken).unwrap();
    assert_eq!(looked(&mut bench), [""; 0]);
    fs::create_dir(&broken).unwrap();
    one(&looked(&mut bench), "WARN", "broken");
}

#[test]
fn everything_serves_on_without_the_folder_of_models() {
    let mut bench = Bench::new();
    let there = bench.folder.path().to_owned();
    let away = there.with_extension("away");
    fs::rename(&there, &away).unwrap();
    one(&looked(&mut bench), "WARN", "the folder of models cannot be read");
    assert_eq!(looked(&mut bench), [""; 0]);
    bench.answers_as(1);
    fs::rename(&away, &there).unwrap();
    one(
        &looked(&mut bench),
        "INFO",
        "the folder of models is followed again",
    );
    bench.answers_as(1);
}
