//! Requests and what comes of them.

use super::*;
use crate::registry::{Alias, Author};

#[test]
fn what_came_in_is_learnt_proved_and_promoted() {
    let bench = Bench::with_samples();
    let (events, outcome) = bench.told(&request());
    let expected = Finished {
        version: Some(second()),
        blessed: Some(true),
        reasons: Vec::new(),
        promoted: true,
    };
    assert_eq!(outcome.finished, expected);
    assert_eq!(bench.champion(), second());
    let phases: Vec<Phase> = events
        .iter()
        .filter_map(|event| match event {
            Progress::Phase { phase } => Some(*phase),
            _ => None,
        })
        .collect();
    assert_eq!(
        phases,
        [
            Phase::Data,
            Phase::Train,
            Phase::Stage,
            Phase::Gate,
            Phase::Promote
        ]
    );
    let epochs = events
        .iter()
        .filter(|event| matches!(event, Progress::Epoch(_)))
        .count();
    assert_eq!(epochs, 2);
    let checks = events.iter().filter_map(|event| match event {
        Progress::Check { check, passed, .. } => Some((check.as_str(), *passed)),
        _ => None,
    });
    let checks: HashSet<(&str, bool)> = checks.collect();
    let names = [
        "labels",
        "images",
        "non_inferiority",
        "superiority",
        "class_harm",
        "calibration",
        "latency",
    ];
    assert_eq!(checks, names.map(|name| (name, true)).into());
    assert_eq!(events.last(), Some(&Progress::Finished(expected)));

    let manifest = bench.manifest(second());
    assert_eq!(
        (manifest.parent, &manifest.data["name"]),
        (Some(Version::FIRST), &"halves".into())
    );
    assert!(manifest.accuracy().unwrap() > 0.9);
    assert_eq!(manifest.training["request"]["model"], "halves");
    let kept = bench.place.registry.verdict(&name(), second()).unwrap().unwrap();
    assert_eq!(
        (&kept["blessed"], &kept["champion_version"]),
        (&true.into(), &1.into())
    );
    assert!(kept["at"].is_string());
    let change = bench.place.registry.history(&name()).unwrap().pop().unwrap();
    assert_eq!(
        (&*change.by, change.alias, change.forced),
        ("retrain", Alias::Champion, false)
    );
    assert!(change.reason.unwrap().contains("of feedback and 200 of halves"));
    bench.with_store(async |store| {
        let told = store.erase(&Digest::of(&png(1)), NOW).await.unwrap();
        assert_eq!(told.learnt, [(name(), second())]);
    });
}

#[test]
fn the_gates_no_leaves_a_challenger() {
    let mut bench = Bench::with_samples();
    bench.place.rules.min_images = 1_000;
    let outcome = bench.run(&request()).unwrap();
    let finished = outcome.finished;
    assert_eq!((finished.blessed, finished.promoted), (Some(false), false));
    assert!(
        finished.reasons[0].contains("fewer than the 1000"),
        "{:?}",
        finished.reasons
    );
    let aliases = bench.place.registry.entry(&name()).unwrap().aliases;
    assert_eq!(
        (aliases.champion, aliases.challenger),
        (Some(Version::FIRST), Some(second()))
    );
    let kept = bench.place.registry.verdict(&name(), second()).unwrap().unwrap();
    assert_eq!(kept["blessed"], false);
}

#[test]
fn a_person_may_keep_the_last_word() {
    let bench = Bench::with_samples();
    let asked = Request {
        promote: false,
        ..request()
    };
    let finished = bench.run(&asked).unwrap().finished;
    assert_eq!((finished.blessed, finished.promoted), (Some(true), false));
    assert_eq!(bench.champion(), Version::FIRST);
}

#[test]
fn rehearsals_make_nothing() {
    let bench = Bench::with_samples();
    let asked = Request {
        dry_run: true,
        ..request()
    };
    let (events, outcome) = bench.told(&asked);
    assert_eq!((outcome.finished.version, outcome.finished.blessed), (None, None));
    let says = |event: &Progress| matches!(event, Progress::Note { text } if text.contains("200 of halves"));
    assert!(events.iter().any(says), "{events:?}");
    assert_eq!(bench.versions(), 1);
}

#[test]
fn what_is_not_possible_is_told_by_its_fault() {
    let check = |bench: &Bench, asked: &Request, fault: Fault, expected: &str| {
        let error = bench.run(asked).unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(bench.versions(), 1);
    };
    let bench = Bench::with_samples();
    let freeze = Request {
        freeze: 9,
        ..request()
    };
    check(&bench, &freeze, Fault::Request, "freeze: must be below");
    let unknown = Request {
        dataset: Some("other".parse().unwrap()),
        ..request()
    };
    check(&bench, &unknown, Fault::Data, "no dataset 'other'");
    let parent = Request {
        parent: Some("9".parse().unwrap()),
        ..request()
    };
    check(&bench, &parent, Fault::Data, "no version 9");
    check(&Bench::new(), &request(), Fault::Data, "nothing to learn from");
    fs::rename(
        bench.folder.path().join("datasets"),
        bench.folder.path().join("away"),
    )
    .unwrap();
    check(&bench, &request(), Fault::Request, "dataset: must be named");
}

#[test]
fn too_few_labels_are_refused_before_an_epoch() {
    let mut bench = Bench::with_samples();
    bench.place.intake.min_new = 151;
    let (events, outcome) = bench.told(&request());
    let finished = outcome.finished;
    assert_eq!((finished.version, finished.blessed), (None, Some(false)));
    assert!(
        finished.reasons[0].contains("fewer than the 151"),
        "{:?}",
        finished.reasons
    );
    assert!(!events.iter().any(|event| matches!(event, Progress::Epoch(_))));
    assert_eq!(bench.versions(), 1);
}

#[test]
fn frozen_layers_are_the_parents_and_a_fresh_head_is_not() {
    let bench = Bench::with_samples();
    let asked = Request {
        freeze: 3,
        new_head: true,
        epochs: Some(1),
        ..request()
    };
    bench.run(&asked).unwrap();
    let load = |version| bench.place.registry.load(&name(), version).unwrap().weights;
    let (old, new) = (load(Version::FIRST), load(second()));
    let values = |weights: &Weights, param: &str| -> Vec<f32> {
        weights
            .get(param)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    };
    for (param, _) in old.iter() {
        let stays = values(&old, param) == values(&new, param);
        assert_eq!(stays, !param.starts_with("fc"), "{param}");
    }
    let graph = bench.place.registry.load(&name(), Version::FIRST).unwrap().graph;
    let fresh = old.with_fresh_head(&graph, 5).unwrap();
    for (param, _) in old.iter() {
        let same = values(&old, param) == values(&fresh, param);
        // A bias begins at 0, with a fresh head and before.
        assert_eq!(same, param != "fc.weight", "{param}");
    }
}

#[test]
fn the_same_request_on_the_same_store_gives_the_same_bits() {
    let (one, other) = (Bench::with_samples(), Bench::with_samples());
    for bench in [&one, &other] {
        bench.run(&request()).unwrap();
    }
    assert_eq!(one.weights(second()), other.weights(second()));
    let third = Bench::with_samples();
    let asked = Request { seed: 1, ..request() };
    third.run(&asked).unwrap();
    assert_ne!(one.weights(second()), third.weights(second()));
}

#[test]
fn without_a_champion_a_person_names_the_first() {
    let bench = Bench::with_samples();
    let third = bench.publish("halves");
    assert_eq!(third, second());
    // Two versions, and nobody said which answers.
    let error = bench.run(&request()).unwrap_err();
    assert_eq!(error.fault(), Fault::Data, "{error}");
    let asked = Request {
        parent: Some(Parent::Version(second())),
        ..request()
    };
    let finished = bench.run(&asked).unwrap().finished;
    assert_eq!((finished.blessed, finished.promoted), (None, false));
    let author = Author {
        by: "a person".to_owned(),
        reason: None,
    };
    let registry = &bench.place.registry;
    registry
        .set_alias(&name(), Alias::Champion, finished.version, &author)
        .unwrap();
}

#[test]
fn a_dataset_alone_makes_a_first_version() {
    let bench = Bench::new();
    fs::remove_dir_all(bench.folder.path().join("models/halves/1")).unwrap();
    let asked = Request {
        feedback: false,
        dataset: Some("halves".parse().unwrap()),
        ..request()
    };
    let finished = bench.run(&asked).unwrap().finished;
    // A model's only version answers.
    assert_eq!(
        (finished.version, finished.blessed, finished.promoted),
        (Some(Version::FIRST), None, true)
    );
    assert_eq!(bench.manifest(Version::FIRST).parent, None);
}
