//! What the queue and its workers do, case by case.

use super::super::queue::{Next, Waiting};
use super::super::{Busy, Lost};
use super::*;
use crate::queueing::{Client, Urgency};
use crate::telemetry::Refused;

#[test]
fn an_idle_worker_takes_what_is_there_and_a_busy_one_lets_it_gather() {
    let mut bench = Bench::new(sized(3, 0, 16), 1);
    let mut receivers = bench.submit_all(&[Kind::Good]);
    assert_eq!(bench.look(), Next::Compute { wake: false });
    receivers.extend((1..5).map(|n| bench.submit(n, Kind::Good, None)));
    bench.workers[0].answer_batch().unwrap();
    bench.work();
    bench.work();
    assert_eq!(bench.runs(), [vec![0], vec![1, 2, 3], vec![4]]);
    assert_eq!((bench.closed_for("empty"), bench.closed_for("full")), (2, 1));
    let expected: Vec<_> = (0..5).map(|n| Ok(vec![n as f32, -(n as f32)])).collect();
    assert_eq!(answers(receivers), expected);
}

#[test]
fn instances_are_busy_while_they_compute() {
    let mut bench = Bench::new(sized(3, 0, 16), 1);
    let busy = |bench: &Bench| bench.batcher.busy().total.as_micros() as u64;
    pass(1000);
    assert_eq!(
        bench.batcher.busy(),
        Busy {
            total: Duration::ZERO,
            instances: 1
        }
    );
    assert_eq!(bench.batcher.wait(), Duration::ZERO, "nothing is ahead");
    let mut receivers = bench.submit_all(&[Kind::Good; 4]);
    bench.work();
    bench.work();
    pass(1000);
    assert_eq!(busy(&bench), 2 * RUN_US);
    receivers.push(bench.submit(4, Kind::Good, None));
    assert_eq!(bench.look(), Next::Compute { wake: false });
    receivers.extend((5..9).map(|n| bench.submit(n, Kind::Good, None)));
    pass(300);
    assert_eq!(busy(&bench), 2 * RUN_US + 300, "the batch that runs counts");
    // A whole batch is ahead besides.
    assert!(
        bench.batcher.wait() >= Duration::from_micros(RUN_US),
        "{:?}",
        bench.batcher.wait()
    );
    bench.workers[0].answer_batch().unwrap();
    bench.work();
    bench.work();
    assert_eq!(busy(&bench), 2 * RUN_US + 300 + 3 * RUN_US);
    assert!(answers(receivers).iter().all(Result::is_ok));
}

#[test]
fn a_delay_counts_from_the_first_items_arrival() {
    let mut bench = Bench::new(sized(8, 1000, 16), 1);
    let first = bench.submit(0, Kind::Good, None);
    let due = now() + Duration::from_micros(1000);
    pass(300);
    assert_eq!(bench.look(), Next::Sleep { until: Some(due) });
    bench.workers[0].shared.lock().woke(Some(due));
    pass(400);
    let second = bench.submit(1, Kind::Good, None);
    assert_eq!(bench.look(), Next::Sleep { until: Some(due) });
    bench.workers[0].shared.lock().woke(Some(due));
    pass(300);
    bench.work();
    assert_eq!(bench.runs(), [[0, 1]]);
    assert_eq!(bench.closed_for("delay"), 1);
    // The worker began to wait 300 µs after the first and 400 µs before the second.
    let waits = |receiver| {
        let timing = answer(receiver).unwrap().timing;
        [timing.queue, timing.batch_wait, timing.inference].map(|wait| wait.as_micros() as u64)
    };
    assert_eq!(waits(first), [300, 700, RUN_US]);
    assert_eq!(waits(second), [0, 300, RUN_US]);
}

#[test]
fn a_full_batch_a_full_queue_and_a_drain_end_a_delay() {
    let check = |config: Config, items: usize, close: bool, reason: &str| {
        let mut bench = Bench::new(config, 1);
        let receivers = bench.submit_all(&vec![Kind::Good; items]);
        if close {
            bench.batcher.close();
        }
        bench.work();
        assert_eq!(bench.closed_for(reason), 1, "{reason}");
        assert!(answers(receivers).iter().all(Result::is_ok));
    };
    check(sized(2, 1000, 16), 2, false, "full");
    check(sized(8, 1000, 3), 3, false, "full");
    check(sized(8, 1000, 16), 1, true, "drain");
    check(sized(8, u64::MAX, 16), 1, true, "drain");
}

#[test]
fn sizes_of_one_work() {
    let mut bench = Bench::new(sized(1, 0, 1), 1);
    let first = bench.submit(0, Kind::Good, None);
    let refused = bench.submit(1, Kind::Good, None);
    bench.work();
    let third = bench.submit(2, Kind::Good, None);
    bench.work();
    assert!(matches!(answer(refused), Err(ItemError::Refused(_))));
    let expected = [Ok(vec![0.0, -0.0]), Ok(vec![2.0, -2.0])];
    assert_eq!(answers(vec![first, third]), expected);
}

#[test]
fn only_the_guilty_fail() {
    use Kind::{Fail, Good, NaN, Panic};
    let check = |kinds: &[Kind], panics: u64| {
        let mut bench = Bench::new(sized(8, 0, 8), 1);
        let receivers = bench.submit_all(kinds);
        bench.work();
        let expected = |(n, kind): (u16, &Kind)| match kind {
            Good => Ok(vec![f32::from(n), -f32::from(n)]),
            Fail | Panic => Err(ItemError::Inference),
            NaN => Err(ItemError::NonFinite),
        };
        let expected: Vec<_> = (0..).zip(kinds).map(expected).collect();
        assert_eq!(answers(receivers), expected, "{kinds:?}");
        assert_eq!(bench.model.engine_panics.get(), panics, "{kinds:?}");
        let runs = bench.engine.log.runs.lock().unwrap();
        assert!(
            runs.iter().all(|run| run.version == runs[0].version),
            "one binding: {runs:?}"
        );
        assert_eq!(bench.closed_for("retry"), runs.len() as u64 - 1);
    };
    check(&[Good, NaN, Good], 0);
    check(&[Good, Fail, Good], 0);
    check(&[Good, Panic, NaN, Good], 2);
    check(&[Fail, Panic], 1);
    check(&[Fail], 0);
    check(&[Panic], 1);
}

#[test]
fn a_lost_engine_refuses_everything_until_it_computes_again() {
    let config = Config {
        max_lost_ms: 2,
        ..sized(2, 0, 16)
    };
    let lost = || Err(ItemError::Lost);
    for panics in [false, true] {
        let mut bench = Bench::new(config, 1);
        let place = bench.batcher.admit(&anything()).unwrap();
        let kind = if panics { Kind::Panic } else { Kind::Good };
        let receivers = bench.submit_all(&[kind; 5]);
        bench.engine.log.is_lost.store(true, Ordering::Relaxed);
        assert!(matches!(bench.look(), Next::Compute { .. }));
        // Nothing but the batch and its first item was tried.
        assert_eq!(bench.workers[0].answer_batch(), Err(Lost));
        assert_eq!(bench.runs(), [vec![0, 1], vec![0]]);
        assert_eq!(answers(receivers), [lost(), lost(), lost(), lost(), lost()]);
        let (late, receiver) = item(vec![9.0, 0.0], None);
        place.submit(late);
        assert_eq!(answer(receiver), Err(ItemError::Lost));
        assert_eq!(bench.batcher.would_admit(&anything()), Err(ItemError::Lost));
        let told = "sconce_engine_lost{model=\"digits\",version=\"1\"} ";
        assert!(bench.batcher.is_lost() && bench.metrics.render().contains(&format!("{told}1\n")));
        assert_eq!(bench.model.queue_depth.get(), 0);

        let begun = now();
        pass(1999);
        assert_eq!(bench.workers[0].try_again(begun), Ok(()));
        assert!(bench.batcher.is_lost());
        pass(1);
        assert_eq!(bench.workers[0].try_again(begun), Err(Lost));
        bench.engine.log.is_lost.store(false, Ordering::Relaxed);
        assert_eq!(bench.workers[0].try_again(begun), Ok(()));
        assert!(!bench.batcher.is_lost() && bench.metrics.render().contains(&format!("{told}0\n")));
        // Nobody who found it needs to be waited for.
        assert!(!bench.workers[0].shared.rests_lost(Duration::MAX));
        let receiver = bench.submit(7, Kind::Good, None);
        bench.work();
        assert!(answer(receiver).is_ok());
    }
}

#[test]
fn a_lost_engine_does_not_hold_up_the_end() {
    let mut bench = Bench::new(sized(2, 0, 8), 1);
    bench.engine.log.is_lost.store(true, Ordering::Relaxed);
    let receiver = bench.submit(0, Kind::Good, None);
    assert!(matches!(bench.look(), Next::Compute { .. }));
    assert_eq!(bench.workers[0].answer_batch(), Err(Lost));
    assert_eq!(answer(receiver), Err(ItemError::Lost));
    bench.batcher.close();
    assert!(!bench.workers[0].shared.rests_lost(Duration::MAX));
    assert_eq!(bench.look(), Next::Stop);
    assert_eq!(bench.batcher.would_admit(&anything()), Err(ItemError::Closed));
}

#[test]
fn the_late_and_the_gone_are_passed_over() {
    let mut bench = Bench::new(sized(8, 0, 8), 1);
    let in_us = |us| Some(now() + Duration::from_micros(us));
    let late = bench.submit(0, Kind::Good, in_us(50));
    drop(bench.submit(1, Kind::Good, None));
    let in_time = bench.submit(2, Kind::Good, in_us(51));
    pass(50);
    bench.work();
    assert_eq!(bench.runs(), [[2]]);
    assert_eq!(answer(late), Err(ItemError::DeadlinePassed));
    assert!(answer(in_time).is_ok());
    drop(bench.submit(3, Kind::Good, None));
    bench.work();
    assert_eq!(bench.runs().len(), 1, "a batch of nobody is not computed");
    // The second run of a failing batch lasts until the deadline of the second item, which the first would not have missed.
    let run = Duration::from_micros(RUN_US);
    bench.batcher.seed(&[(1, run), (8, run), (1, run), (8, run)]);
    let guilty = bench.submit(4, Kind::Fail, None);
    let late = bench.submit(5, Kind::Good, in_us(5 * RUN_US));
    pass(3 * RUN_US);
    bench.work();
    let expected = [Err(ItemError::Inference), Err(ItemError::DeadlinePassed)];
    assert_eq!(answers(vec![guilty, late]), expected);
}

#[test]
fn who_would_be_late_is_refused_when_its_turn_comes() {
    let mut bench = Bench::new(sized(8, 0, 8), 1);
    // Every batch takes RUN_US, whatever is in it.
    for _ in 0..3 {
        let asked = bench.submit(0, Kind::Good, None);
        bench.work();
        assert!(answer(asked).is_ok());
    }
    let mut bench_of = |patience_us: &[u64]| {
        let before = bench.runs().len();
        let asked: Vec<_> = patience_us
            .iter()
            .map(|&us| bench.submit(1, Kind::Good, in_us(us)))
            .collect();
        bench.work();
        (
            answers(asked),
            bench.runs()[before..].iter().map(Vec::len).collect::<Vec<_>>(),
        )
    };
    let (found, runs) = bench_of(&[RUN_US / 2, 3 * RUN_US]);
    assert!(
        matches!(&found[0], Err(ItemError::Refused(refusal)) if refusal.why == Refused::Deadline),
        "{found:?} {runs:?}"
    );
    assert!(found[1].is_ok());
    assert_eq!(runs, [1]);
    // Alone it is computed, whatever is expected.
    let (found, runs) = bench_of(&[RUN_US / 2]);
    assert!(found[0].is_ok(), "{found:?}");
    assert_eq!(runs, [1]);
}

/// Why an item with this deadline is refused now, when it may come again, and the limit.
/// An item of nobody in particular, which has all the time in the world.
fn anything() -> Ask {
    Ask {
        asker: Asker::default(),
        deadline: None,
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    }
}

fn refusal(bench: &Bench, deadline: Option<Instant>) -> (Refused, f64, usize) {
    match answer(bench.submit(0, Kind::Good, deadline)) {
        Err(ItemError::Refused(refusal)) => (refusal.why, refusal.retry_after.as_secs_f64(), refusal.limit),
        other => panic!("{other:?}"),
    }
}

fn in_us(us: u64) -> Option<Instant> {
    Some(now() + Duration::from_micros(us))
}

#[test]
fn the_refused_are_told_how_long_the_queue_takes() {
    let mut bench = Bench::new(sized(1, 0, 2000), 2);
    // The last quarter is for clients with few.
    let mut receivers = bench.submit_all(&[Kind::Good; 1500]);
    let least = (Refused::Queue, 1.0, 1500);
    assert_eq!(refusal(&bench, None), least, "before anything is known");
    bench.work();
    receivers.push(bench.submit(0, Kind::Good, None));
    assert_eq!(
        refusal(&bench, None),
        least,
        "1500 items of 100 µs on two instances"
    );
    for _ in 0..1000 {
        bench.batcher.seed(&[(1, Duration::from_millis(5))]);
    }
    let (why, seconds, _) = refusal(&bench, None);
    assert!(
        why == Refused::Queue && (3.7..3.8).contains(&seconds),
        "{seconds}"
    );
}

#[test]
fn who_cannot_be_answered_in_time_is_refused_at_once() {
    let mut bench = Bench::new(sized(1, 0, 100), 1);
    let _first = bench.submit(0, Kind::Good, None);
    bench.work();
    let _waiting = bench.submit_all(&[Kind::Good; 10]);
    // The wait, an eighth of it to spare, and its own run.
    let needs = |wait_us: u64| RUN_US + (wait_us * 8).div_ceil(7);
    let in_time = bench.submit(1, Kind::Good, in_us(needs(10 * RUN_US) + 5));
    let (why, seconds, limit) = refusal(&bench, in_us(needs(10 * RUN_US) + 5));
    assert_eq!((why, seconds, limit), (Refused::Deadline, 1.0, 10));
    assert!(matches!(bench.look(), Next::Compute { .. }));
    pass(RUN_US / 2);
    // What runs has half its time left; ten wait.
    let ahead = 10 * RUN_US + RUN_US / 2;
    refusal(&bench, in_us(needs(ahead) - 5));
    let also_in_time = bench.submit(2, Kind::Good, in_us(needs(ahead) + 5));
    pass(RUN_US / 2);
    PASSED.set(PASSED.get() - Duration::from_micros(RUN_US));
    bench.workers[0].answer_batch().unwrap();
    (0..11).for_each(|_| bench.work());
    assert!(answer(in_time).is_ok() && answer(also_in_time).is_ok());
}

#[test]
fn an_idle_instance_takes_whatever_comes() {
    let mut bench = Bench::new(sized(1, 0, 100), 2);
    bench.batcher.seed(&[(1, Duration::from_secs(10)); 9]);
    let hopeless = bench.submit(0, Kind::Good, in_us(RUN_US));
    refusal(&bench, in_us(RUN_US));
    bench.work();
    assert!(answer(hopeless).is_ok(), "the times were wrong, and are learnt");
    assert!(matches!(bench.look(), Next::Sleep { .. }));
    // One of two is idle.
    let _one = bench.submit(0, Kind::Good, None);
    look(&mut bench.workers[1]);
    let other = bench.submit(1, Kind::Good, in_us(RUN_US));
    bench.work();
    assert!(answer(other).is_ok());
}

#[test]
fn who_is_in_a_hurry_is_in_no_batch_that_is_too_late_for_him() {
    let mut bench = Bench::new(sized(8, 0, 100), 1);
    // A millisecond for each item.
    let timings = [1, 2, 4, 8].map(|items| (items, Duration::from_millis(items as u64)));
    bench.batcher.seed(&timings.repeat(10));
    let mut receivers = bench.submit_all(&[Kind::Good; 3]);
    receivers.push(bench.submit(3, Kind::Good, in_us(9000)));
    receivers.extend((4..9).map(|n| bench.submit(n, Kind::Good, None)));
    bench.work();
    bench.work();
    assert_eq!(bench.runs(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7, 8]]);
    assert_eq!(bench.closed_for("deadline"), 1);
    assert!(answers(receivers).iter().all(Result::is_ok));
}

#[test]
fn a_place_is_kept_until_its_item_comes_or_will_not() {
    let mut bench = Bench::new(sized(8, 0, 2), 1);
    let ask = Ask {
        asker: Asker::default(),
        deadline: None,
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    };
    let [first, second] = [0, 1].map(|_| bench.batcher.admit(&ask).unwrap());
    assert!(bench.batcher.would_admit(&ask).is_err());
    drop(first);
    let third = bench.batcher.admit(&ask).unwrap();
    // Ready the other way round, they go in the order of their places.
    let (item, late) = item(vec![3.0, 0.0], None);
    third.submit(item);
    let (item, early) = super::item(vec![2.0, 0.0], None);
    second.submit(item);
    bench.work();
    assert_eq!(bench.runs(), [[2, 3]]);
    assert!(answer(late).is_ok() && answer(early).is_ok());
    let place = bench.batcher.admit(&ask).unwrap();
    bench.batcher.close();
    let (item, closed) = super::item(vec![4.0, 0.0], None);
    place.submit(item);
    assert_eq!(answer(closed), Err(ItemError::Closed));
    assert!(matches!(bench.batcher.admit(&ask), Err(ItemError::Closed)));
}

#[test]
fn what_is_prepared_first_counts() {
    let bench = Bench::new(sized(1, 0, 100), 1);
    bench.batcher.seed(&[(1, Duration::from_millis(1)); 9]);
    let ask = |waits_ms, takes_ms, deadline_ms: u64| Ask {
        asker: Asker::default(),
        deadline: in_us(1000 * deadline_ms),
        waits: Duration::from_millis(waits_ms),
        takes: Duration::from_millis(takes_ms),
    };
    let check =
        |ask: Ask, expected: bool| assert_eq!(bench.batcher.would_admit(&ask).is_ok(), expected, "{ask:?}");
    // An eighth of the wait is to spare.
    check(ask(3, 5, 11), true);
    check(ask(3, 6, 11), false);
    check(ask(0, 99, 9), true);
    let _place = bench.batcher.admit(&ask(0, 0, 9)).unwrap();
    check(ask(3, 4, 11), true);
    check(ask(3, 4, 10), false);
    check(ask(0, 99, 9), false);
}

#[test]
fn nobody_waits_for_ever() {
    let bench = Bench::new(sized(8, 0, 8), 2);
    let waiting = bench.submit_all(&[Kind::Good; 3]);
    bench.batcher.abort();
    assert_eq!(answers(waiting), [const { Err(ItemError::Closed) }; 3]);
    let later = bench.submit(0, Kind::Good, None);
    assert_eq!(answer(later), Err(ItemError::Closed));

    let mut bench = Bench::new(sized(1, 0, 8), 2);
    let waiting = bench.submit_all(&[Kind::Good; 2]);
    bench.look();
    bench.workers.remove(0);
    assert_eq!(bench.model.queue_depth.get(), 1, "one worker is left");
    bench.workers.pop();
    assert_eq!(bench.model.queue_depth.get(), 0);
    assert_eq!(answers(waiting), [const { Err(ItemError::Closed) }; 2]);
    let later = bench.submit(0, Kind::Good, None);
    assert_eq!(answer(later), Err(ItemError::Closed));
}

#[test]
fn one_worker_is_woken_at_a_time() {
    let mut bench = Bench::new(sized(2, 0, 8), 3);
    let shared = Arc::clone(&bench.workers[0].shared);
    for worker in &mut bench.workers {
        assert_eq!(look(worker), Next::Sleep { until: None });
    }
    let push = |n: f32| {
        let (item, receiver) = item(vec![n, 0.0], None);
        let mut queue = shared.lock();
        let held = queue.hold(Asker::default(), 2, now());
        let item = Waiting::new(item, &held, now());
        (queue.push(held, item), receiver)
    };
    let (wakes, _receivers): (Vec<bool>, Vec<Receiver>) = [0.0, 1.0, 2.0].map(push).into_iter().unzip();
    assert_eq!(wakes, [true, false, false]);
    shared.lock().woke(None);
    let one_is_left = Next::Compute { wake: true };
    assert_eq!(bench.look(), one_is_left);
    shared.lock().woke(None);
    assert_eq!(look(&mut bench.workers[1]), Next::Compute { wake: false });
}

#[test]
fn only_what_goes_before_an_item_counts_for_it() {
    let mut bench = Bench::new(sized(1, 0, 100), 1);
    bench.batcher.seed(&[(1, Duration::from_millis(1)); 9]);
    let ask = |level, deadline_ms: u64| Ask {
        asker: Asker {
            urgency: Urgency::new(level).unwrap(),
            ..Asker::default()
        },
        deadline: in_us(1000 * deadline_ms),
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    };
    let check = |bench: &Bench, level, deadline_ms, expected: bool| {
        let asked = bench.batcher.would_admit(&ask(level, deadline_ms));
        assert_eq!(asked.is_ok(), expected, "{level} {deadline_ms}");
    };
    let usual: Vec<_> = (0..20).map(|n| bench.submit(n, Kind::Good, None)).collect();
    check(&bench, 3, 15, false);
    check(&bench, 4, 15, false);
    check(&bench, 2, 15, true);
    let place = bench.batcher.admit(&ask(0, 15)).unwrap();
    let (urgent, receiver) = item(vec![99.0, 0.0], None);
    place.submit(urgent);
    bench.work();
    assert_eq!(bench.runs(), [[99]]);
    assert!(answer(receiver).is_ok());
    // A step for each level between them, and those that wait go before.
    pass(3_000_000);
    check(&bench, 1, 15, false);
    check(&bench, 0, 15, false);
    drop(usual);
}

#[test]
fn one_who_asks_for_much_delays_nobody() {
    let mut bench = Bench::new(sized(8, 0, 1000), 1);
    let ask = |client| Ask {
        asker: Asker {
            client: Client(client),
            ..Asker::default()
        },
        deadline: None,
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    };
    let submit = |bench: &Bench, client: u64, n: u32| {
        let place = bench.batcher.admit(&ask(client))?;
        let (item, receiver) = item(vec![n as f32, 0.0], None);
        place.submit(item);
        Ok::<_, ItemError>(receiver)
    };
    let much: Vec<_> = (0..1000).map_while(|n| submit(&bench, 1, n).ok()).collect();
    assert_eq!(much.len(), 750);
    let Err(ItemError::Refused(refusal)) = submit(&bench, 1, 0) else {
        panic!("there is room");
    };
    assert_eq!((refusal.why, refusal.limit), (Refused::Queue, 750));
    let one = submit(&bench, 2, 5000).expect("a place is kept for it");
    bench.work();
    assert_eq!(bench.runs(), [[0, 5000, 1, 2, 3, 4, 5, 6]]);
    assert!(answer(one).is_ok());
    let rest: Vec<_> = (0..9).filter_map(|n| submit(&bench, 2, 6000 + n).ok()).collect();
    bench.work();
    assert_eq!(bench.runs()[1], [7, 6000, 8, 6001, 9, 6002, 10, 6003]);
    drop((much, rest));
}
