//! Cards of versions made for them.

use std::fs;

use serde_json::json;

use super::*;
use crate::model::Weights;
use crate::registry::{Author, Finding, Grounds, Promotion, WeightsFile, atomic};

const SPEC: &str = "description = 'Tells cats from <dogs>.'\narchitecture = 'small-cnn'\nlabels = ['cat', 'dog|']\n\
                    input = { channels = 1, height = 8, width = 8 }\n";

/// A model of two versions, the first one its champion.
fn models() -> (tempfile::TempDir, Registry, ModelName) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pets")).unwrap();
    atomic::write(&folder.path().join("pets/model.toml"), SPEC.as_bytes()).unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    let name: ModelName = "pets".parse().unwrap();
    publish(&registry, &name, None);
    registry.keep_champion(&name).unwrap();
    publish(&registry, &name, Some(Version::FIRST));
    (folder, registry, name)
}

fn publish(registry: &Registry, name: &ModelName, parent: Option<Version>) {
    let graph = Spec::parse(SPEC).unwrap().graph().unwrap();
    let class = |label: &str, support: usize, low: f64| {
        json!({
            "label": label, "precision": 0.9, "recall": 0.875, "f1": 0.8874, "support": support,
            "precision_interval": {"low": 0.8, "high": 0.95}, "recall_interval": {"low": low, "high": 0.95},
        })
    };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        weights: WeightsFile::default(),
        architecture: "small-cnn".to_owned(),
        parameters: graph.parameters(),
        parent,
        parent_model: None,
        sconce: "0.1.0".to_owned(),
        command: "sconce train --model pets".to_owned(),
        seed: 7,
        data: json!({"name": "pets", "sha256": "ab", "images": 100, "test": {"images": 40}}),
        training: json!({"recipe": "fast", "optimizer": {"kind": "adamw"}}),
        evaluation: json!({"test": {
            "n": 40, "accuracy": 0.875, "accuracy_interval": {"low": 0.739, "high": 0.945}, "ece": 0.0312,
            "per_class": [class("cat", 30, 0.8), class("dog|", 10, 0.55)],
        }}),
    };
    registry
        .publish(name, &Weights::initialise(&graph, 1).unwrap(), manifest)
        .unwrap();
}

fn second() -> Version {
    2.try_into().unwrap()
}

fn force(registry: &Registry, name: &ModelName, reason: &str) {
    let promotion = Promotion {
        author: Author {
            by: "anna".to_owned(),
            reason: Some(reason.to_owned()),
        },
        grounds: Grounds::Forced {
            finding: Finding::Refused,
        },
    };
    registry.promote(name, second(), &promotion).unwrap();
}

/// The card's lines, its times and the hash of the weights left out.
fn steady(card: &Card) -> String {
    let mut text = card.markdown().replace(&card.origin.weights_sha256, "SHA256");
    for change in &card.history {
        text = text.replace(&change.at, "AT");
    }
    text
}

#[test]
fn a_card_reads_as_the_fixture_does() {
    let (_folder, registry, name) = models();
    let verdict = json!({
        "blessed": false, "reasons": ["recall of class cat fell 3.10 points (p = 0.002, n = 480)"],
        "champion_version": 1, "uses": 3, "form": "of a later Sconce",
    });
    registry.keep_verdict(&name, second(), &verdict).unwrap();
    force(&registry, &name, "the old one\n# cannot see <cats>");
    let card = Card::of(&registry, &name, second()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/card.md");
    assert_eq!(steady(&card), fs::read_to_string(path).unwrap());
}

#[test]
fn a_force_stands_above_all_and_stays() {
    let (_folder, registry, name) = models();
    force(&registry, &name, "urgent");
    let author = Author {
        by: "bert".to_owned(),
        reason: None,
    };
    registry.rollback(&name, &author).unwrap();
    let card = Card::of(&registry, &name, second()).unwrap();
    assert_eq!(
        (card.forced.len(), card.aliases.as_slice()),
        (1, [Alias::Previous].as_slice())
    );
    let text = card.markdown();
    let (force, use_) = (text.find("**Promoted by force**"), text.find("Tells cats"));
    assert!(force.is_some() && force < use_, "{text}");
    assert!(text.contains("rolled back") && text.contains("The gate had found: refused."));
    // The champion that came back was not forced.
    assert!(
        Card::of(&registry, &name, Version::FIRST)
            .unwrap()
            .forced
            .is_empty()
    );
}

#[test]
fn a_card_of_many_changes_stays_short_and_forgets_no_force() {
    let (folder, registry, name) = models();
    force(&registry, &name, "urgent");
    let path = folder.path().join("pets/history.jsonl");
    let line = fs::read_to_string(&path).unwrap();
    // To and fro many times more, once for another reason.
    let again = |reason: &str, at: &str| {
        let line = line.replace("urgent", reason);
        let rest = line.split_once(",\"action\"").unwrap().1;
        format!("{{\"at\":\"{at}\",\"action\"{rest}")
    };
    let mut text = line.clone();
    (0..Card::MOST_CHANGES).for_each(|_| text += &again("urgent", "2027-01-01T00:00:00.000Z"));
    text += &again("a bet", "2027-01-02T00:00:00.000Z");
    text += &again("urgent", "2027-01-03T00:00:00.000Z");
    atomic::write(&path, text.as_bytes()).unwrap();
    let card = Card::of(&registry, &name, second()).unwrap();
    let all = Card::MOST_CHANGES + 3;
    assert_eq!((card.changes, card.history.len()), (all, Card::MOST_CHANGES));
    assert_eq!(card.history.last().unwrap().at, "2027-01-03T00:00:00.000Z");
    let told: Vec<_> = card
        .forced
        .iter()
        .map(|forced| {
            (
                forced.change.reason.as_deref().unwrap(),
                forced.times,
                &*forced.latest,
            )
        })
        .collect();
    let expected = [
        ("urgent", all - 1, "2027-01-03T00:00:00.000Z"),
        ("a bet", 1, "2027-01-02T00:00:00.000Z"),
    ];
    assert_eq!(told, expected);
    let text = card.markdown();
    assert!(
        text.contains(" and 101 times more, the last at 2027-01-03T00:00:00.000Z, by anna: urgent."),
        "{text}"
    );
    assert!(
        text.contains("The latest 100 of 103 changes; `history.jsonl` has all."),
        "{text}"
    );
    let json: Value = serde_json::from_str(&card.json()).unwrap();
    assert_eq!(
        (&json["forced"][0]["by"], &json["forced"][0]["times"]),
        (&json!("anna"), &json!(102))
    );
}

#[test]
fn a_bar_stands_above_all() {
    let (_folder, registry, name) = models();
    let at = std::time::UNIX_EPOCH;
    registry
        .bar(&name, second(), "learnt from an image that was erased", at)
        .unwrap();
    let card = Card::of(&registry, &name, second()).unwrap();
    let text = card.markdown();
    let said = "\n> **Not promoted any more** since 1970-01-01T00:00:00.000Z: it learnt from an image that was erased.\n";
    let (bar, use_) = (text.find(said), text.find("Tells cats"));
    assert!(bar.is_some() && bar < use_, "{text}");
    let told: Value = serde_json::from_str(&card.json()).unwrap();
    assert_eq!(told["barred"]["at"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn cards_are_written_for_every_version_and_follow_what_changes() {
    let (folder, registry, name) = models();
    refresh(&registry, &name).unwrap();
    let read = |file: &str| fs::read_to_string(folder.path().join("pets").join(file)).unwrap();
    assert!(read("1/card.md").starts_with("# pets version 1 (champion)\n"));
    assert!(read("2/card.md").starts_with("# pets version 2\n"));
    force(&registry, &name, "urgent");
    refresh(&registry, &name).unwrap();
    assert!(read("1/card.md").starts_with("# pets version 1 (previous)\n"));
    let card: Value = serde_json::from_str(&read("2/card.json")).unwrap();
    assert_eq!(
        (&card["aliases"][0], &card["forced"][0]["by"]),
        (&json!("champion"), &json!("anna"))
    );
    assert_eq!(card["evaluation"][0]["per_class"][1]["support"], 10);
}

#[test]
fn a_parent_of_another_model_is_told_with_it() {
    let (folder, registry, name) = models();
    let path = folder.path().join("pets/2/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["parent_model"] = json!("animals");
    atomic::write(&path, manifest.to_string().as_bytes()).unwrap();
    let card = Card::of(&registry, &name, second()).unwrap();
    let text = card.markdown();
    assert!(
        text.contains("- parent: version 1 of animals, another model\n"),
        "{text}"
    );
    let told: Value = serde_json::from_str(&card.json()).unwrap();
    assert_eq!(told["origin"]["parent_model"], "animals");
}

#[test]
fn a_version_of_which_nothing_is_known_says_so() {
    let (folder, registry, name) = models();
    let path = folder.path().join("pets/2/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for key in ["evaluation", "data", "training"] {
        manifest[key] = Value::Null;
    }
    atomic::write(&path, manifest.to_string().as_bytes()).unwrap();
    let text = Card::of(&registry, &name, second()).unwrap().markdown();
    for part in [
        "Nothing was measured.",
        "Not recorded.",
        "It was not asked.",
        "Nobody: no alias",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
