//! What the queue and its workers do, case by case.

use super::super::queue::{Next, Waiting};
use super::*;

#[test]
fn an_idle_worker_takes_what_is_there_and_a_busy_one_lets_it_gather() {
    let mut bench = Bench::new(sized(3, 0, 16), 1);
    let mut receivers = bench.submit_all(&[Kind::Good]);
    assert_eq!(bench.look(), Next::Compute { wake: false });
    receivers.extend((1..5).map(|n| bench.submit(n, Kind::Good, None)));
    bench.workers[0].answer_batch();
    bench.work();
    bench.work();
    assert_eq!(bench.runs(), [vec![0], vec![1, 2, 3], vec![4]]);
    assert_eq!((bench.closed_for("empty"), bench.closed_for("full")), (2, 1));
    let expected: Vec<_> = (0..5).map(|n| Ok(vec![n as f32, -(n as f32)])).collect();
    assert_eq!(answers(receivers), expected);
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
    assert!(matches!(answer(refused), Err(ItemError::QueueFull { .. })));
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
    // The first run of a failing batch lasts until the deadline of the second item.
    let guilty = bench.submit(4, Kind::Fail, None);
    let late = bench.submit(5, Kind::Good, in_us(RUN_US));
    bench.work();
    let expected = [Err(ItemError::Inference), Err(ItemError::DeadlinePassed)];
    assert_eq!(answers(vec![guilty, late]), expected);
}

#[test]
fn the_refused_are_told_how_long_the_queue_takes() {
    let mut bench = Bench::new(sized(1, 0, 2000), 2);
    let refusal = |bench: &Bench| match answer(bench.submit(0, Kind::Good, None)) {
        Err(ItemError::QueueFull { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    };
    let mut receivers = bench.submit_all(&[Kind::Good; 2000]);
    let least = Duration::from_millis(50);
    assert_eq!(refusal(&bench), least, "before anything is known");
    bench.work();
    receivers.push(bench.submit(0, Kind::Good, None));
    // 2000 items of 100 µs on two instances.
    assert_eq!(refusal(&bench), Duration::from_millis(100));
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
        (shared.lock().push(Waiting::new(item, now())), receiver)
    };
    let (wakes, _receivers): (Vec<bool>, Vec<Receiver>) = [0.0, 1.0, 2.0].map(push).into_iter().unzip();
    assert_eq!(wakes, [true, false, false]);
    shared.lock().woke(None);
    let one_is_left = Next::Compute { wake: true };
    assert_eq!(bench.look(), one_is_left);
    shared.lock().woke(None);
    assert_eq!(look(&mut bench.workers[1]), Next::Compute { wake: false });
}
