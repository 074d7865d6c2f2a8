//! Runs that begin from a version of another model.

use super::*;
use crate::model::Spec;
use crate::registry::{Alias, Author};

const SHAPES: &str = "architecture = 'small-cnn'\nlabels = ['circle', 'square', 'star']\n\
                      input = { channels = 1, height = 8, width = 8 }\n";

/// A model beside `halves`, with versions of these seeds; the first is its champion.
fn model(bench: &Bench, name: &str, spec: &str, seeds: &[u64]) -> ModelName {
    let folder = bench.folder.path().join("models").join(name);
    fs::create_dir(&folder).unwrap();
    atomic::write(&folder.join("model.toml"), spec.as_bytes()).unwrap();
    let (name, graph): (ModelName, _) = (name.parse().unwrap(), Spec::parse(spec).unwrap().graph().unwrap());
    for &seed in seeds {
        let manifest = Manifest {
            parameters: graph.parameters(),
            data: serde_json::json!({ "name": "shapes" }),
            ..bench.manifest(Version::FIRST)
        };
        let weights = Weights::initialise(&graph, seed).unwrap();
        bench.place.registry.publish(&name, &weights, manifest).unwrap();
    }
    if seeds.len() > 1 {
        let author = Author {
            by: "a test".to_owned(),
            reason: None,
        };
        let set = |alias, version| {
            bench
                .place
                .registry
                .set_alias(&name, alias, Some(version), &author)
        };
        set(Alias::Champion, Version::FIRST).unwrap();
        set(Alias::Challenger, second()).unwrap();
    }
    name
}

fn from(name: &ModelName, parent: Option<&str>) -> Request {
    Request {
        parent_model: Some(name.clone()),
        parent: parent.map(|parent| parent.parse().unwrap()),
        ..request()
    }
}

fn values(weights: &Weights, param: &str) -> Vec<f32> {
    let tensor = weights.get(param).unwrap().flatten_all().unwrap();
    tensor.to_vec1().unwrap()
}

/// Asks for a run that changes next to nothing: the weights that it begins from are those that it ends with.
fn still(asked: Request) -> Request {
    Request {
        epochs: Some(1),
        learning_rate: Some(1e-12),
        ..asked
    }
}

/// The trained parameters that a version has in common with another, to within what [`still`] changes.
fn shared(bench: &Bench, version: Version, parent: (&ModelName, Version)) -> Vec<String> {
    let load = |name: &ModelName, version| bench.place.registry.load(name, version).unwrap();
    let (new, old) = (load(&name(), version).weights, load(parent.0, parent.1).weights);
    let is_same = |param: &str| {
        let (new, old) = (values(&new, param), values(&old, param));
        new.len() == old.len() && new.iter().zip(&old).all(|(a, b)| (a - b).abs() < 1e-6)
    };
    let names = new
        .iter()
        .map(|(param, _)| param)
        .filter(|param| !param.contains("running"));
    names.filter(|param| is_same(param)).map(str::to_owned).collect()
}

#[test]
fn another_models_body_is_learnt_on_and_proved_against_the_own_champion() {
    let bench = Bench::with_samples();
    let shapes = model(&bench, "shapes", SHAPES, &[7, 8]);
    let (events, outcome) = bench.told(&from(&shapes, Some("2")));
    assert!(outcome.finished.promoted, "{:?}", outcome.finished);
    assert_eq!(bench.champion(), second());
    let expected = "begins from version 2 of 'shapes' with a fresh last layer";
    let says = |event: &Progress| matches!(event, Progress::Note { text } if text == expected);
    assert!(events.iter().any(says), "{events:?}");
    let comparison = outcome.comparison.unwrap();
    assert_eq!(
        (comparison.model, comparison.champion_version),
        (name(), Version::FIRST)
    );
    let manifest = bench.manifest(second());
    assert_eq!(
        (manifest.parent_model, manifest.parent),
        (Some(shapes.clone()), Some(second()))
    );
    // Replayed is what the model itself has learnt from, not what the parent has.
    assert_eq!(manifest.data["name"], "halves");
    let card = fs::read_to_string(bench.folder.path().join("models/halves/2/card.md")).unwrap();
    assert!(
        card.contains("- parent: version 2 of shapes, another model\n"),
        "{card}"
    );
    let untouched = bench.place.registry.entry(&shapes).unwrap();
    assert_eq!(
        (untouched.versions.len(), untouched.champion().unwrap()),
        (2, Version::FIRST)
    );
}

#[test]
fn the_last_layer_is_fresh_where_the_classes_are_others() {
    let bench = Bench::with_samples();
    let shapes = model(&bench, "shapes", SHAPES, &[7, 8]);
    let twin = SHAPES.replace("'circle', 'square', 'star'", "'0', '1'");
    let twin = model(&bench, "twin", &twin, &[9]);
    let other_names = SHAPES.replace("'circle', 'square', 'star'", "'off', 'on'");
    let renamed = model(&bench, "renamed", &other_names, &[10]);
    let mut number = Version::FIRST;
    let mut check = |asked: Request, parent: (&ModelName, Version), fresh: bool| {
        number = number.next().unwrap();
        let mut place = bench.place.clone();
        place.work = bench.folder.path().join(format!("work-{number}"));
        run(&still(asked), &place, &mut |_| Ok(())).unwrap();
        let shared = shared(&bench, number, parent);
        assert!(shared.contains(&"conv1.weight".to_owned()), "{shared:?}");
        assert_eq!(shared.contains(&"fc.weight".to_owned()), !fresh, "{shared:?}");
    };
    check(from(&shapes, None), (&shapes, Version::FIRST), true);
    check(from(&shapes, Some("champion")), (&shapes, Version::FIRST), true);
    check(from(&shapes, Some("challenger")), (&shapes, second()), true);
    check(from(&renamed, None), (&renamed, Version::FIRST), true);
    check(from(&twin, None), (&twin, Version::FIRST), false);
    let anew = Request {
        new_head: true,
        ..from(&twin, None)
    };
    check(anew, (&twin, Version::FIRST), true);
    // Of itself it is no other model.
    let own = from(&name(), Some("1"));
    check(own, (&name(), Version::FIRST), false);
    assert_eq!(bench.manifest(number).parent_model, None);
}

#[test]
fn a_frozen_body_is_the_parents_bit_for_bit() {
    let bench = Bench::with_samples();
    let shapes = model(&bench, "shapes", SHAPES, &[7]);
    let asked = Request {
        freeze: 3,
        ..from(&shapes, None)
    };
    bench.run(&asked).unwrap();
    let load = |name: &ModelName, version| bench.place.registry.load(name, version).unwrap().weights;
    let (parent, new) = (load(&shapes, Version::FIRST), load(&name(), second()));
    for (param, _) in new.iter().filter(|(param, _)| !param.starts_with("fc")) {
        assert_eq!(values(&new, param), values(&parent, param), "{param}");
    }
    assert_eq!(values(&new, "fc.bias").len(), 2);
}

#[test]
fn a_first_version_may_begin_from_another_model() {
    let bench = Bench::with_samples();
    let shapes = model(&bench, "shapes", SHAPES, &[7]);
    fs::remove_dir_all(bench.folder.path().join("models/halves/1")).unwrap();
    // There is no champion whose manifest could name what is to be replayed.
    let error = bench.run(&from(&shapes, None)).unwrap_err();
    assert!(error.to_string().contains("dataset: must be named"), "{error}");
    let asked = Request {
        dataset: Some("halves".parse().unwrap()),
        ..from(&shapes, None)
    };
    let finished = bench.run(&asked).unwrap().finished;
    assert_eq!((finished.version, finished.blessed), (Some(Version::FIRST), None));
    assert_eq!(bench.manifest(Version::FIRST).parent_model, Some(shapes));
}

#[test]
fn a_killed_run_goes_on_from_the_same_parent() {
    let (whole, killed) = (Bench::with_samples(), Bench::with_samples());
    let asked = from(&"shapes".parse().unwrap(), Some("challenger"));
    for bench in [&whole, &killed] {
        model(bench, "shapes", SHAPES, &[7, 8]);
    }
    whole.run(&asked).unwrap();
    killed.killed(&asked, |event| matches!(event, Progress::Epoch(_)));
    // Another is the challenger by now.
    let author = Author {
        by: "a test".to_owned(),
        reason: None,
    };
    let registry = &killed.place.registry;
    let shapes = asked.parent_model.as_ref().unwrap();
    registry
        .set_alias(shapes, Alias::Challenger, None, &author)
        .unwrap();
    assert!(killed.run(&asked).unwrap().finished.promoted);
    assert_eq!(whole.weights(second()), killed.weights(second()));
    assert_eq!(killed.manifest(second()).parent, Some(second()));
}

#[test]
fn what_is_no_parent_is_refused_before_anything_starts() {
    let bench = Bench::with_samples();
    let shapes = model(&bench, "shapes", SHAPES, &[7, 8]);
    let check = |asked: &Request, fault: Fault, expected: &str| {
        let error = bench.run(asked).unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(bench.versions(), 1);
    };
    let named = |name: &str| from(&name.parse().unwrap(), None);
    let unknown = "parent_model: there is no model 'pets'";
    check(&named("pets"), Fault::Request, unknown);
    check(
        &from(&shapes, Some("9")),
        Fault::Data,
        "'shapes' has no version 9",
    );
    let previous = "parent: model 'shapes' has no previous";
    check(&from(&shapes, Some("previous")), Fault::Request, previous);
    model(
        &bench,
        "large",
        &SHAPES.replace("height = 8", "height = 16"),
        &[7],
    );
    let input = "parent_model: 'halves' (small-cnn) cannot begin from 'large' (small-cnn): their networks differ before the \
                 last layer (an input of 1×8×8, and one of 1×16×8)";
    check(&named("large"), Fault::Request, input);
    let own = "labels = ['a', 'b']\ninput = { channels = 1, height = 8, width = 8 }\n\
               [[layers]]\ntype = 'flatten'\n[[layers]]\ntype = 'linear'\nname = 'fc'\nout = 'classes'\n";
    model(&bench, "own", own, &[7]);
    let body = "parent_model: 'halves' (small-cnn) cannot begin from 'own' (layers): their networks differ";
    check(&named("own"), Fault::Request, body);
    // Two versions, none of them the champion.
    model(&bench, "undecided", SHAPES, &[7]);
    let manifest = bench.manifest(Version::FIRST);
    let weights = bench
        .place
        .registry
        .load(&shapes, Version::FIRST)
        .unwrap()
        .weights;
    let undecided = "undecided".parse().unwrap();
    bench
        .place
        .registry
        .publish(&undecided, &weights, manifest)
        .unwrap();
    check(&named("undecided"), Fault::Data, "'undecided' has no champion");
}
