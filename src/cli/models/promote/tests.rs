//! Tests of the command from its flags to what lies on disk.

use std::fs;

use clap::Parser;
use serde_json::Value;

use super::super::super::fixture::Models;
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A model of two versions, the first of them the champion, and four labelled images.
fn models() -> Models {
    let models = Models::new(&["tiny"]);
    models.publish("tiny", 1);
    let registry = Registry::open(models.path()).unwrap();
    registry.keep_champion(&"tiny".parse().unwrap()).unwrap();
    models.publish("tiny", 2);
    for (label, level) in [("a", 0), ("a", 90), ("b", 180), ("c", 255)] {
        fs::create_dir_all(models.path().join(".data/test").join(label)).unwrap();
        models.image(&format!(".data/test/{label}/{level}.png"), level);
    }
    models
}

/// `@` stands for the folder of models.
fn promote(models: &Models, line: &str) -> Result<(), CliError> {
    let line = line.replace('@', &models.path().display().to_string());
    let args = ["promote"].into_iter().chain(line.split(' '));
    let args = Line::try_parse_from(args)
        .map_err(|e| CliError::Usage(e.to_string()))?
        .args;
    run(&args, &models.config())
}

fn champion(models: &Models) -> String {
    let registry = Registry::open(models.path()).unwrap();
    let entry = registry.entry(&"tiny".parse().unwrap()).unwrap();
    entry.champion().unwrap().to_string()
}

fn history(models: &Models) -> Vec<Change> {
    let registry = Registry::open(models.path()).unwrap();
    registry.history(&"tiny".parse().unwrap()).unwrap()
}

#[test]
fn the_gates_no_is_kept_and_changes_nothing() {
    let models = models();
    let error = promote(&models, "tiny 2 --data @/.data").unwrap_err();
    assert!(
        matches!(error, CliError::Refused(_)) && error.code() == 3,
        "{error}"
    );
    assert_eq!(
        (champion(&models), history(&models)),
        ("1".to_owned(), Vec::new())
    );
    let text = fs::read(models.path().join("tiny/2/gate.json")).unwrap();
    let verdict: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        verdict["reasons"][0],
        "4 images are fewer than the 1000 that a verdict needs"
    );
    assert_eq!(
        (&verdict["champion_version"], &verdict["n"]),
        (&1.into(), &4.into())
    );
    assert_eq!((&verdict["uses"], &verdict["pinned"]), (&1.into(), &Value::Null));
    let page = fs::read_to_string(models.path().join("tiny/2/gate.html")).unwrap();
    assert!(
        page.contains("blessed: false, because 4 images are fewer than the 1000"),
        "{page}"
    );
    assert!(verdict["at"].as_str().unwrap().ends_with('Z') && verdict["harm"].is_array());
}

#[test]
fn a_forced_promotion_keeps_its_reason_and_what_the_gate_said() {
    let check = |line: &str, finding: Finding| {
        let models = models();
        promote(&models, line).unwrap();
        assert_eq!(champion(&models), "2");
        let change = history(&models).remove(0);
        assert_eq!((change.forced, change.verdict), (true, finding));
        assert_eq!((change.reason.as_deref(), &*change.by), (Some("urgent"), "me"));
    };
    check("tiny 2 --force --reason urgent --by me", Finding::None);
    check(
        "tiny 2 --data @/.data --force --reason urgent --by me --json",
        Finding::Refused,
    );
}

#[test]
fn a_no_that_nobody_asked_for_again_is_what_a_force_overrules() {
    let models = models();
    promote(&models, "tiny 2 --data @/.data").unwrap_err();
    promote(&models, "tiny 2 --force --reason urgent").unwrap();
    assert_eq!(history(&models)[0].verdict, Finding::Refused);
    let card = fs::read_to_string(models.path().join("tiny/2/card.md")).unwrap();
    assert!(
        card.starts_with("# tiny version 2 (champion)\n\n> **Promoted by force** at "),
        "{card}"
    );
    assert!(
        card.contains("by command line: urgent. The gate had found: refused."),
        "{card}"
    );
    assert!(models.path().join("tiny/1/card.json").exists());
}

#[test]
fn what_does_not_make_sense_is_refused() {
    let models = models();
    let check = |line: &str, code: u8| {
        let error = promote(&models, line).unwrap_err();
        assert_eq!(error.code(), code, "{line}: {error}");
        assert_eq!(
            (champion(&models), history(&models)),
            ("1".to_owned(), Vec::new())
        );
    };
    check("tiny 2", 64);
    check("tiny 2 --force", 64);
    check("tiny 2 --force --reason a --hold-out", 64);
    check("tiny 1 --data @/.data", 65);
    check("tiny 1 --force --reason a", 65);
    check("tiny 7 --data @/.data", 65);
    check("tiny 7 --force --reason a", 65);
    check("other 2 --force --reason a", 65);
    models.damage("tiny", "2".parse().unwrap());
    check("tiny 2 --force --reason a", 65);
}

#[test]
fn the_gates_yes_holds_against_the_champion_it_knew() {
    let models = models();
    let sample = Sample {
        data: models.path().join(".data"),
        part: None,
        hold_out: false,
    };
    let versions = ["1", "2"].map(|version| version.parse().unwrap());
    let mut gate = comparison(&"tiny".parse().unwrap(), &sample, &models.config(), versions).unwrap();
    assert_eq!(grounds(false, Some(&gate), Finding::Refused), None);
    gate.verdict.blessed = true;
    let blessed = Grounds::Blessed { over: versions[0] };
    assert_eq!(grounds(false, Some(&gate), Finding::Refused), Some(blessed));
    assert_eq!(grounds(true, Some(&gate), Finding::Refused), Some(blessed));
    assert_eq!(grounds(false, None, Finding::None), None);
}
