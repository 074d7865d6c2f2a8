//! The disk that fails at each step of a run.

use super::*;
use crate::registry::atomic::faults;

/// Work that is done with one step of the disk failing: the result, and whether there was such a step.
type Failing = fn(usize, &dyn Fn() -> Result<Outcome, RetrainError>) -> (Result<Outcome, RetrainError>, bool);

/// Lets each step of a run fail in turn. Afterwards the old or the new version answers, whole, and the next run ends as if
/// nothing had been.
fn check(fail: Failing, bench: impl Fn() -> Bench, least: usize) {
    let mut step = 0;
    loop {
        let (bench, asked) = (bench(), asked());
        let (result, failed) = fail(step, &|| bench.run(&asked));
        if !failed {
            assert!(result.unwrap().finished.promoted);
            break;
        }
        let champion = bench.champion();
        if let Err(error) = &result {
            assert_eq!(error.fault(), Fault::Disk, "step {step}: {error}");
        }
        bench.place.registry.load(&name(), champion).unwrap();
        assert!(bench.versions() <= 2, "step {step}");
        let finished = bench.run(&asked).unwrap().finished;
        assert!(finished.promoted, "step {step}: {finished:?}");
        assert_eq!((bench.versions(), bench.champion()), (2, second()), "step {step}");
        bench.place.registry.load(&name(), second()).unwrap();
        step += 1;
    }
    assert!(step > least, "{step}");
}

fn asked() -> Request {
    Request {
        epochs: Some(1),
        ..request()
    }
}

#[test]
fn a_full_disk_leaves_the_old_or_the_new() {
    // The plan, a checkpoint, a version, three changes of the aliases and a verdict take several steps each.
    check(|step, work| faults::at(step, work), Bench::with_samples, 20);
}

#[test]
fn a_crash_leaves_the_old_or_the_new() {
    // From where it is trained: what comes before is a checkpoint, which has tests of its own.
    let trained = Bench::with_samples();
    let stage = Progress::Phase { phase: Phase::Stage };
    trained.killed(&asked(), |event| *event == stage);
    check(|step, work| faults::from(step, work), || trained.again(), 15);
}
