//! Random schedules of callers, workers and time against a model of the queue.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::queue::Next;
use super::*;
use crate::telemetry::Refused;

/// One event.
#[derive(Clone, Copy, Debug)]
enum Event {
    Submit {
        kind: Kind,
        deadline_us: Option<u16>,
    },
    /// A caller hangs up: of those so far, the one at this place.
    HangUp(prop::sample::Index),
    Pass {
        us: u16,
    },
    /// A worker does its next thing: looks, woken by whatever where it slept, or computes what it took.
    Step(usize),
    /// A worker that is awake is dropped, with what it took.
    Quit(usize),
    Close,
    Abort,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let kind = prop_oneof![
        8 => Just(Kind::Good),
        1 => Just(Kind::Fail),
        1 => Just(Kind::Panic),
        1 => Just(Kind::NaN),
    ];
    let submit = (kind, prop::option::weighted(0.3, 0u16..1500))
        .prop_map(|(kind, deadline_us)| Event::Submit { kind, deadline_us });
    let event = prop_oneof![
        200 => submit,
        200 => (0usize..WORKERS).prop_map(Event::Step),
        60 => (0u16..800).prop_map(|us| Event::Pass { us }),
        30 => any::<prop::sample::Index>().prop_map(Event::HangUp),
        2 => (0usize..WORKERS).prop_map(Event::Quit),
        1 => Just(Event::Close),
        1 => Just(Event::Abort),
    ];
    prop::collection::vec(event, 0..150)
}

/// Largest number of workers.
const WORKERS: usize = 3;

/// An item as its caller knows it.
struct Ticket {
    kind: Kind,
    deadline: Option<Instant>,
    submitted: Instant,
    /// None once refused or once the caller hung up.
    receiver: Option<Receiver>,
}

/// What a worker does next.
enum Doing {
    Looking,
    Sleeping(Option<Instant>),
    Computing,
}

struct Simulation {
    config: Config,
    bench: Bench,
    workers: Vec<Option<(Worker<Engine>, Doing)>>,
    tickets: Vec<Ticket>,
    /// Numbers of the items that must be in the queue now.
    waiting: VecDeque<usize>,
    closed: bool,
    /// A worker was dropped, perhaps with a batch.
    quits: bool,
}

impl Simulation {
    fn new(config: Config, workers: usize) -> Self {
        let mut bench = Bench::new(config, workers);
        let workers = std::mem::take(&mut bench.workers);
        Self {
            config,
            bench,
            workers: workers
                .into_iter()
                .map(|worker| Some((worker, Doing::Looking)))
                .collect(),
            tickets: Vec::new(),
            waiting: VecDeque::new(),
            closed: false,
            quits: false,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit { kind, deadline_us } => self.submit(kind, deadline_us),
            Event::HangUp(place) if !self.tickets.is_empty() => {
                let place = place.index(self.tickets.len());
                self.tickets[place].receiver = None;
            }
            Event::HangUp(_) => {}
            Event::Pass { us } => pass(us.into()),
            Event::Step(worker) => self.step(worker),
            Event::Quit(worker) => self.quit(worker),
            Event::Close => {
                self.bench.batcher.close();
                self.closed = true;
            }
            Event::Abort => {
                self.bench.batcher.abort();
                self.aborted();
            }
        }
        self.check_queue();
    }

    fn aborted(&mut self) {
        self.closed = true;
        self.waiting.clear();
    }

    fn submit(&mut self, kind: Kind, deadline_us: Option<u16>) {
        let number = self.tickets.len();
        let deadline = deadline_us.map(|us| now() + Duration::from_micros(us.into()));
        // The last quarter is for clients with few, and here is one client.
        let full = self.waiting.len() >= self.config.max_queue - self.config.max_queue / 4;
        let mut receiver = self.bench.submit(number as u32, kind, deadline);
        let refusal = receiver.try_recv();
        match &refusal {
            Ok(Err(ItemError::Closed)) => assert!(self.closed),
            Ok(Err(ItemError::Refused(refusal))) if refusal.why == Refused::Queue => {
                assert!(full && !self.closed);
            }
            Ok(Err(ItemError::Refused(_))) => assert!(deadline.is_some() && !full && !self.closed),
            Err(oneshot::error::TryRecvError::Empty) => {
                assert!(!full && !self.closed);
                self.waiting.push_back(number);
            }
            other => panic!("{other:?} at once"),
        }
        self.tickets.push(Ticket {
            kind,
            deadline,
            submitted: now(),
            receiver: refusal.is_err().then_some(receiver),
        });
    }

    fn step(&mut self, index: usize) {
        let Some(Some((worker, doing))) = self.workers.get_mut(index) else {
            return;
        };
        match *doing {
            Doing::Sleeping(until) => {
                worker.shared.lock().woke(until);
                self.look(index);
            }
            Doing::Computing => {
                let runs = self.bench.engine.log.runs.lock().unwrap().len();
                worker.answer_batch().unwrap();
                *doing = Doing::Looking;
                let log = self.bench.engine.log.runs.lock().unwrap();
                let batch = &log[runs..];
                assert!(
                    batch.iter().all(|run| run.version == batch[0].version),
                    "one binding: {batch:?}"
                );
                assert!(
                    batch.iter().skip(1).all(|run| run.items.len() == 1),
                    "retried alone: {batch:?}"
                );
            }
            Doing::Looking => self.look(index),
        }
    }

    fn look(&mut self, index: usize) {
        let Some((worker, doing)) = self.workers[index].as_mut() else {
            return;
        };
        let full = worker.shared.lock().is_full();
        let delay = Duration::from_micros(self.config.max_delay_us);
        let due = self
            .waiting
            .front()
            .map(|&first| self.tickets[first].submitted + delay);
        let next = look(worker);
        match next {
            Next::Compute { .. } => {
                *doing = Doing::Computing;
                assert!(
                    full || self.closed || due.is_some_and(|due| due <= now()),
                    "too early"
                );
                let (items, unwanted) = (&worker.batch.items, &worker.batch.unwanted);
                assert!(items.len() <= self.config.max_batch_size);
                let number = |tensor: &[f32]| tensor[0] as usize;
                let taken: Vec<usize> = items.iter().map(|item| number(&item.tensor)).collect();
                let passed: Vec<usize> = unwanted.iter().map(|item| number(&item.tensor)).collect();
                let hopeless = worker.batch.hopeless.iter();
                let hopeless: Vec<usize> = hopeless.map(|(item, _)| number(&item.tensor)).collect();
                let mut all = [taken.as_slice(), &passed, &hopeless].concat();
                all.sort_unstable();
                let expected: Vec<usize> = self.waiting.drain(..all.len()).collect();
                assert_eq!(all, expected, "first in, first out");
                let wanted = |n: &usize| {
                    let ticket = &self.tickets[*n];
                    ticket.receiver.is_some() && ticket.deadline.is_none_or(|deadline| now() < deadline)
                };
                assert!(taken.is_sorted() && taken.iter().all(wanted));
                assert!(!passed.iter().any(wanted));
                assert!(
                    hopeless
                        .iter()
                        .all(|n| wanted(n) && self.tickets[*n].deadline.is_some())
                );
            }
            Next::Sleep { until } => {
                *doing = Doing::Sleeping(until);
                let idle = self.waiting.is_empty() || due.is_some_and(|due| now() < due) && !full;
                assert!(idle && !self.closed, "sleeps beside work");
                assert!(until.is_none() || until == due);
            }
            Next::Stop => {
                assert!(self.closed && self.waiting.is_empty());
                self.workers[index] = None;
            }
        }
    }

    /// As a panicking thread would: not in its sleep.
    fn quit(&mut self, index: usize) {
        let quits = |(_, doing): &mut (Worker<Engine>, Doing)| !matches!(doing, Doing::Sleeping(_));
        let worker = self
            .workers
            .get_mut(index)
            .and_then(|worker| worker.take_if(quits));
        if worker.is_some() {
            drop(worker);
            self.quits = true;
            if self.workers.iter().all(Option::is_none) {
                self.aborted();
            }
        }
    }

    fn check_queue(&self) {
        assert!(self.waiting.len() <= self.config.max_queue);
        assert_eq!(self.bench.model.queue_depth.get(), self.waiting.len() as i64);
        let gathers = |(_, doing): &(_, Doing)| matches!(doing, Doing::Sleeping(Some(_)));
        let gathering = self.workers.iter().flatten().any(gathers);
        if let Some((worker, _)) = self.workers.iter().flatten().next() {
            assert!(!worker.shared.lock().is_forgotten(gathering));
        }
    }

    /// Closes and lets the workers finish.
    fn finish(&mut self) {
        self.happen(Event::Close);
        while self.workers.iter().any(Option::is_some) {
            pass(10);
            (0..WORKERS).for_each(|worker| self.happen(Event::Step(worker)));
        }
    }

    fn check_answers(self) {
        let log = &self.bench.engine.log;
        assert_eq!(
            self.bench.model.engine_panics.get(),
            log.panics.load(Ordering::Relaxed)
        );
        let runs = log.runs.lock().unwrap();
        for (number, ticket) in self.tickets.into_iter().enumerate() {
            let Some(receiver) = ticket.receiver else {
                continue;
            };
            match (answer(receiver), ticket.kind) {
                (Ok(answer), Kind::Good) => {
                    assert_eq!(answer.logits, [number as f32, -(number as f32)]);
                    let by =
                        |run: &&Run| run.items.contains(&(number as u32)) && run.version == answer.version;
                    assert!(runs.iter().any(|run| by(&run)));
                }
                (Err(ItemError::Inference), Kind::Fail | Kind::Panic) => {}
                (Err(ItemError::NonFinite), Kind::NaN) => {}
                (Err(ItemError::DeadlinePassed), _) => {
                    assert!(ticket.deadline.is_some_and(|deadline| deadline <= now()));
                }
                (Err(ItemError::Refused(_)), _) => assert!(ticket.deadline.is_some()),
                (Err(ItemError::Closed), _) => assert!(self.closed || self.quits),
                (other, kind) => panic!("{other:?} for an item that is {kind:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn each_item_gets_its_one_answer_whatever_happens(
        max_batch_size in 1usize..6,
        max_queue in 1usize..12,
        max_delay_us in prop_oneof![Just(0u64), 1u64..1000],
        workers in 1usize..=WORKERS,
        events in events(),
    ) {
        let config = sized(max_batch_size, max_delay_us, max_queue);
        let mut simulation = Simulation::new(config, workers);
        events.iter().for_each(|&event| simulation.happen(event));
        simulation.finish();
        simulation.check_answers();
    }
}
