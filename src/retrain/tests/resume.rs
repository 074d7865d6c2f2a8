//! Runs that are killed, and whoever comes after them.

use super::*;
use crate::registry::Author;

fn after_epoch(event: &Progress) -> bool {
    matches!(event, Progress::Epoch(_))
}

fn at(phase: Phase) -> impl Fn(&Progress) -> bool {
    move |event| *event == Progress::Phase { phase }
}

#[test]
fn a_killed_run_ends_in_the_bits_of_one_that_was_not() {
    let (whole, killed) = (Bench::with_samples(), Bench::with_samples());
    whole.run(&request()).unwrap();
    killed.killed(&request(), after_epoch);
    // What came since is for the next run.
    killed.add(1_000..1_010);
    let (events, outcome) = killed.told(&request());
    let epochs: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Progress::Epoch(epoch) => Some(epoch.epoch),
            _ => None,
        })
        .collect();
    assert_eq!(epochs, [2]);
    assert!(outcome.finished.promoted);
    assert_eq!(whole.weights(second()), killed.weights(second()));
    assert_eq!(killed.manifest(second()).data["feedback"]["images"], 150);
}

#[test]
fn whenever_it_is_killed_one_version_comes_of_it() {
    for phase in [
        Phase::Data,
        Phase::Train,
        Phase::Stage,
        Phase::Gate,
        Phase::Promote,
    ] {
        let bench = Bench::with_samples();
        bench.killed(&request(), at(phase));
        let staged = bench.versions();
        assert_eq!(staged, if phase < Phase::Gate { 1 } else { 2 }, "{phase:?}");
        assert_eq!(bench.champion(), Version::FIRST);
        let finished = bench.run(&request()).unwrap().finished;
        assert_eq!(
            (finished.version, finished.promoted),
            (Some(second()), true),
            "{phase:?}"
        );
        assert_eq!((bench.versions(), bench.champion()), (2, second()));
    }
}

#[test]
fn what_was_promoted_is_not_promoted_again() {
    let bench = Bench::with_samples();
    bench.killed(&request(), |event| matches!(event, Progress::Finished(_)));
    assert_eq!(bench.champion(), second());
    let again = bench.run(&request()).unwrap().finished;
    assert_eq!((again.version, again.promoted), (Some(second()), true));
    let author = Author {
        by: "a person".to_owned(),
        reason: None,
    };
    bench.place.registry.rollback(&name(), &author).unwrap();
    let after = bench.run(&request()).unwrap().finished;
    assert_eq!((after.version, after.promoted), (Some(second()), false));
    assert_eq!((bench.versions(), bench.champion()), (2, Version::FIRST));
}

#[test]
fn an_image_that_is_erased_before_the_last_epoch_is_not_learnt() {
    let bench = Bench::with_samples();
    bench.killed(&request(), after_epoch);
    let image = (0..SAMPLES)
        .find(|&image| !is_held_out(Digest::of(&png(image)).bytes()))
        .unwrap();
    bench.erase(image);
    let (events, outcome) = bench.told(&request());
    let anew = |event: &Progress| matches!(event, Progress::Note { text } if text.contains("begins anew"));
    assert!(events.iter().any(anew), "{events:?}");
    assert!(outcome.finished.promoted);
    assert_eq!(bench.manifest(second()).data["feedback"]["images"], 149);
}
