//! Images that are erased while a run learns from them, and after it did.

use super::*;
use crate::registry::{Finding, Grounds, Promotion, RegistryError, atomic::faults};
use crate::store::Learner;

/// An image that is trained on.
fn trained() -> u64 {
    let is_trained = |&image: &u64| !is_held_out(Digest::of(&png(image)).bytes());
    (0..SAMPLES).find(is_trained).unwrap()
}

/// What a run tells while `image` is erased at the first event that `at` knows, what the erasure was told, and the outcome.
fn erased_at(bench: &Bench, at: impl Fn(&Progress) -> bool) -> (Vec<Progress>, Learners, Outcome) {
    let (mut events, mut told) = (Vec::new(), None);
    let outcome = run(&request(), &bench.place, &mut |event| {
        events.push(event.clone());
        if told.is_none() && at(event) {
            told = Some(bench.erase(trained()));
        }
        Ok(())
    });
    (events, told.unwrap(), outcome.unwrap())
}

fn at(phase: Phase) -> impl Fn(&Progress) -> bool {
    move |event| *event == Progress::Phase { phase }
}

fn versions(numbers: &[u32]) -> Vec<(ModelName, Version)> {
    let version = |&number: &u32| (name(), number.try_into().unwrap());
    numbers.iter().map(version).collect()
}

/// Holds that nobody makes the second version the champion, neither the gate nor a person nor by force.
#[track_caller]
fn never_promoted(bench: &Bench) {
    let registry = &bench.place.registry;
    let author = || crate::registry::Author {
        by: "a person".to_owned(),
        reason: Some("all the same".to_owned()),
    };
    let forced = Grounds::Forced {
        finding: Finding::Blessed,
    };
    let blessed = Grounds::Blessed { over: Version::FIRST };
    for grounds in [blessed, forced] {
        let author = author();
        let refused = registry.promote(&name(), second(), &Promotion { author, grounds });
        assert!(
            matches!(refused, Err(RegistryError::Barred { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(bench.champion(), Version::FIRST);
    let card = fs::read_to_string(bench.folder.path().join("models/halves/2/card.md")).unwrap();
    assert!(card.contains("learnt from an image that was erased"), "{card}");
}

#[test]
fn erased_during_training_the_run_is_told_and_begins_anew() {
    let bench = Bench::with_samples();
    let (events, told, outcome) = erased_at(&bench, |event| matches!(event, Progress::Epoch(_)));
    assert_eq!((told.versions.len(), told.runs.len()), (0, 1));
    let epochs: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Progress::Epoch(epoch) => Some(epoch.epoch),
            _ => None,
        })
        .collect();
    assert_eq!(epochs, [1, 1, 2]);
    assert!(outcome.finished.promoted);
    let manifest = bench.manifest(second());
    assert_eq!(manifest.data["feedback"]["images"], 149);
    // The version is of another run than the one that the erasure was told of, which is over.
    assert_ne!(manifest.training["run"], told.runs[0].run.as_str());
    assert_eq!(bench.erase(trained()), Learners::default());
    bench.with_store(async |store| assert_eq!(store.learners(&name()).await.unwrap(), []));
}

#[test]
fn erased_after_the_last_epoch_nothing_is_published_of_it() {
    let bench = Bench::with_samples();
    let (_, told, outcome) = erased_at(&bench, at(Phase::Stage));
    assert_eq!((told.versions.len(), told.runs.len()), (0, 1));
    assert_eq!((outcome.finished.version, bench.versions()), (Some(second()), 2));
    assert_eq!(bench.manifest(second()).data["feedback"]["images"], 149);
    assert_eq!(bench.champion(), second());
}

#[test]
fn erased_between_staging_and_promotion_the_version_is_told_and_never_promoted() {
    for phase in [Phase::Gate, Phase::Promote] {
        let bench = Bench::with_samples();
        let (_, told, outcome) = erased_at(&bench, at(phase));
        assert_eq!((told.versions, told.runs), (versions(&[2]), vec![]), "{phase:?}");
        let finished = outcome.finished;
        assert_eq!((finished.version, finished.promoted), (Some(second()), false));
        assert!(
            finished.reasons[0].contains("erased"),
            "{phase:?}: {:?}",
            finished.reasons
        );
        never_promoted(&bench);
        // Whoever asks again is told the same.
        assert_eq!(bench.erase(trained()).versions, versions(&[2]));
    }
}

#[test]
fn erased_after_a_crash_the_version_is_told_and_never_promoted() {
    let bench = Bench::with_samples();
    bench.killed(&request(), at(Phase::Gate));
    assert_eq!(bench.erase(trained()).versions, versions(&[2]));
    let finished = bench.run(&request()).unwrap().finished;
    assert_eq!(
        (finished.version, finished.blessed, finished.promoted),
        (Some(second()), Some(false), false)
    );
    assert!(finished.reasons[0].starts_with("1 of the images"));
    never_promoted(&bench);
}

#[test]
fn a_server_that_died_before_it_barred_is_made_up_for() {
    let bench = Bench::with_samples();
    bench.killed(&request(), at(Phase::Gate));
    // Gone from the store, and nobody was told.
    bench.with_store(async |store| {
        store.erase(&Digest::of(&png(trained())), NOW).await.unwrap();
    });
    bench.run(&request()).unwrap();
    never_promoted(&bench);
}

/// A run whose version is published while the store does not know of it: the disk failed as the last step of publishing.
fn untied() -> Bench {
    let trained = Bench::with_samples();
    trained.killed(&request(), at(Phase::Stage));
    for step in 0.. {
        let bench = trained.again();
        let (result, failed) = faults::at(step, || bench.run(&request()));
        assert!(failed, "no step publishes and fails");
        let untied = bench.with_store(async |store| store.learners(&name()).await.unwrap());
        if result.is_err() && bench.versions() == 2 && !untied.is_empty() {
            return bench;
        }
    }
    unreachable!("the steps end")
}

#[test]
fn a_version_that_the_store_does_not_know_of_is_told_by_its_run() {
    let bench = untied();
    let told = bench.erase(trained());
    assert_eq!((told.versions, told.runs), (versions(&[2]), vec![]));
    let finished = bench.run(&request()).unwrap().finished;
    assert_eq!((finished.version, finished.promoted), (Some(second()), false));
    never_promoted(&bench);
}

#[test]
fn what_runs_have_left_is_settled_by_the_next() {
    let mut bench = untied();
    let stranger = |run: &str| Learner {
        model: name(),
        run: run.parse().unwrap(),
    };
    let (old, young) = (stranger("old"), stranger("young"));
    bench.with_store(async |store| {
        let images = [Digest::of(b"x")];
        store
            .learns(&old, &images, NOW - 10_000_000_000_000)
            .await
            .unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        store.learns(&young, &images, now).await.unwrap();
        // An erasure of which no server told the folder of models.
        store.erase(&Digest::of(&png(trained())), NOW).await.unwrap();
    });
    bench.place.work = bench.folder.path().join("other");
    let finished = bench.run(&request()).unwrap().finished;
    assert_eq!(
        finished.version.map(|version| version.number()),
        Some(3),
        "{finished:?}"
    );
    let left = bench.with_store(async |store| store.learners(&name()).await.unwrap());
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, young);
    assert!(bench.place.registry.barred(&name(), second()).unwrap().is_some());
    let third = 3.try_into().unwrap();
    assert_eq!(bench.place.registry.barred(&name(), third).unwrap(), None);
}
