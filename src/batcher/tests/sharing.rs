//! One inference for several items: whose turn it is, who is answered, and what is left where it fails.

use super::super::{Member, Place, Share, SharedItem};
use super::*;

/// One that asks for the image of `share`, with its place and not yet queued.
struct Asked {
    place: Place,
    member: Member,
    receiver: Receiver,
}

fn ask(bench: &Bench, share: &Arc<Share>, client: u64) -> Asked {
    let ask = Ask {
        asker: Asker {
            client: crate::queueing::Client(client),
            ..Asker::default()
        },
        deadline: None,
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    };
    let (reply, receiver) = oneshot::channel();
    Asked {
        place: bench.batcher.admit(&ask).unwrap(),
        member: share.join(reply, now()).unwrap(),
        receiver,
    }
}

/// Queues it, as item `n`.
fn queue(asked: Asked, (n, kind): (u32, Kind), deadline: Option<Instant>) -> Receiver {
    asked.place.submit_shared(SharedItem {
        tensor: Arc::new(vec![n as f32, f32::from(kind as u8)]),
        deadline,
        timing: Timing::default(),
        member: asked.member,
    });
    asked.receiver
}

fn logits(receiver: Receiver) -> Result<Vec<f32>, ItemError> {
    answer(receiver).map(|answer| answer.logits)
}

#[test]
fn the_first_turn_answers_all() {
    let mut bench = Bench::new(sized(2, 0, 16), 1);
    let share = Arc::default();
    // The greedy client's image waits behind three of its own; the other's turn comes after one.
    let own: Vec<_> = (0..3).map(|n| bench.submit(n, Kind::Good, None)).collect();
    let behind = queue(ask(&bench, &share, 0), (7, Kind::Good), None);
    let ahead = queue(ask(&bench, &share, 1), (7, Kind::Good), None);
    // Its own has not been queued yet.
    let unready = ask(&bench, &share, 2);
    bench.work();
    assert_eq!(bench.runs(), [vec![0, 7]]);
    for receiver in [behind, ahead] {
        assert_eq!(logits(receiver), Ok(vec![7.0, -7.0]));
    }
    let Asked {
        place,
        member,
        receiver,
    } = unready;
    assert!(!member.is_waiting());
    assert_eq!(logits(receiver), Ok(vec![7.0, -7.0]));
    drop((place, member));
    assert_eq!(bench.model.sharing.shares(), 2);
    // What was answered is passed over.
    bench.work();
    assert!(own.into_iter().all(|receiver| logits(receiver).is_ok()));
    assert_eq!(bench.runs(), [vec![0, 7], vec![1, 2]]);
    assert_eq!(bench.look(), Next::Compute { wake: false });
    bench.workers[0].answer_batch().unwrap();
    assert_eq!(bench.runs().len(), 2, "nothing was left to compute");
    let (reply, _receiver) = oneshot::channel();
    assert!(
        share.is_answered() && share.join(reply, now()).is_err(),
        "who comes now needs another"
    );
}

#[test]
fn who_leaves_leaves_the_others() {
    let mut bench = Bench::new(sized(4, 0, 16), 1);
    let share = Arc::default();
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|client| ask(&bench, &share, client));
    let first = queue(first, (7, Kind::Good), None);
    let second = queue(second, (7, Kind::Good), Some(now() + Duration::from_micros(50)));
    let third = queue(third, (7, Kind::Good), None);
    // The first hangs up, the second is late, the fourth never comes to the queue.
    drop((first, fourth));
    pass(60);
    bench.work();
    assert_eq!(bench.runs(), [vec![7]]);
    assert_eq!(answer(second), Err(ItemError::DeadlinePassed));
    assert_eq!(logits(third), Ok(vec![7.0, -7.0]));
    assert_eq!(bench.model.sharing.shares(), 0);
}

#[test]
fn a_failure_is_everybodys() {
    for (kind, expected) in [
        (Kind::Fail, ItemError::Inference),
        (Kind::Panic, ItemError::Inference),
        (Kind::NaN, ItemError::NonFinite),
    ] {
        let mut bench = Bench::new(sized(4, 0, 16), 1);
        let share = Arc::default();
        let good = bench.submit(1, Kind::Good, None);
        let asked = [0, 1, 2].map(|client| ask(&bench, &share, client));
        let receivers = asked.map(|asked| queue(asked, (7, kind), None));
        bench.work();
        assert_eq!(logits(good), Ok(vec![1.0, -1.0]));
        for receiver in receivers {
            assert_eq!(answer(receiver), Err(expected), "{kind:?}");
        }
        // Once with the other, and where that failed, once alone.
        let runs = bench.runs().iter().filter(|run| run.contains(&7)).count();
        assert_eq!(runs, if kind == Kind::NaN { 1 } else { 2 });
    }
}

#[test]
fn another_instance_does_not_compute_it_again() {
    let mut bench = Bench::new(sized(1, 0, 16), 2);
    let share = Arc::default();
    let [first, second] = [0, 1].map(|client| queue(ask(&bench, &share, client), (7, Kind::Good), None));
    assert!(matches!(look(&mut bench.workers[0]), Next::Compute { .. }));
    // The second instance finds it on its way.
    assert!(matches!(look(&mut bench.workers[1]), Next::Compute { .. }));
    bench.workers[1].answer_batch().unwrap();
    assert!(bench.runs().is_empty());
    // Nor is it lost where the queue is aborted meanwhile.
    bench.batcher.abort();
    bench.workers[0].answer_batch().unwrap();
    for receiver in [first, second] {
        assert_eq!(logits(receiver), Ok(vec![7.0, -7.0]));
    }
    assert_eq!(bench.runs(), [[7]]);
}

#[test]
fn an_aborted_queue_answers_each() {
    let bench = Bench::new(sized(4, 0, 16), 1);
    let share = Arc::default();
    let queued = queue(ask(&bench, &share, 0), (7, Kind::Good), None);
    let unready = ask(&bench, &share, 1);
    bench.batcher.abort();
    assert_eq!(answer(queued), Err(ItemError::Closed));
    assert_eq!(
        answer(queue(unready, (7, Kind::Good), None)),
        Err(ItemError::Closed)
    );
    // A worker that ends with a batch it took tells everybody who waits for it.
    let mut bench = Bench::new(sized(4, 0, 16), 1);
    let share = Arc::default();
    let [first, second] = [0, 1].map(|client| queue(ask(&bench, &share, client), (7, Kind::Good), None));
    assert!(matches!(bench.look(), Next::Compute { .. }));
    bench.workers.clear();
    for receiver in [first, second] {
        assert_eq!(answer(receiver), Err(ItemError::Closed));
    }
}
