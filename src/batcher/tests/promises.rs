//! What a place promises, in a world where every batch takes exactly what is expected.

use proptest::prelude::*;

use super::super::queue::{Batch, Next, Queue, Waiting};
use super::*;

/// Since the one before, and how long the answer is worth something.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    gap_us: u64,
    patience_us: u64,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let patience_us = prop_oneof![4 => 1_000u64..60_000, 1 => 1u64..3_000, 1 => 60_000u64..500_000];
    let gap_us = prop_oneof![3 => 0u64..300, 1 => 0u64..3_000, 1 => Just(0u64)];
    let arrival = (gap_us, patience_us).prop_map(|(gap_us, patience_us)| Arrival { gap_us, patience_us });
    prop::collection::vec(arrival, 1..300)
}

/// What an instance does.
#[derive(Clone, Copy)]
enum Doing {
    Sleeping(Option<Instant>),
    Until(Instant),
}

/// A promise to one item.
struct Promise {
    deadline: Instant,
    /// It was let in because nothing was ahead, whatever its deadline.
    idle: bool,
    answered: Option<Instant>,
}

struct World {
    queue: Queue,
    instances: Vec<Doing>,
    now: Instant,
    promises: Vec<Promise>,
    replies: Vec<Receiver>,
}

/// Float sums are off by less.
const CLOCK: Duration = Duration::from_micros(1);

impl World {
    fn new(config: Config, instances: usize, (fixed_us, each_us): (u64, u64)) -> Self {
        let mut queue = Queue::new(config, instances, Instant::now());
        for items in (1..=32).cycle().take(96) {
            queue.measured(items, Duration::from_micros(fixed_us + each_us * items as u64));
        }
        let mut world = Self {
            queue,
            instances: Vec::new(),
            now: Instant::now(),
            promises: Vec::new(),
            replies: Vec::new(),
        };
        world.instances = (0..instances).map(|instance| world.look(instance)).collect();
        world
    }

    /// What an instance does next, its batch already promised when it will end.
    fn look(&mut self, instance: usize) -> Doing {
        let mut batch = Batch::new();
        match self.queue.next(instance, self.now, &mut batch) {
            Next::Compute { .. } => {
                let hopeless = batch.hopeless.iter().map(|(item, _)| item);
                for item in batch.unwanted.iter().chain(hopeless) {
                    let promise = &mut self.promises[item.tensor[0] as usize];
                    assert!(promise.idle, "an item was let in and its turn came too late");
                    promise.answered = Some(self.now);
                }
                let seconds = self.queue.fit().at(batch.items.len() as f64);
                let end = self.now + Duration::from_secs_f64(seconds);
                for item in &batch.items {
                    self.promises[item.tensor[0] as usize].answered = Some(end);
                }
                Doing::Until(end)
            }
            Next::Sleep { until } => Doing::Sleeping(until),
            Next::Stop => unreachable!("nobody closes it"),
        }
    }

    /// Lets time pass until `until`, all instances at work.
    fn pass(&mut self, until: Instant) {
        loop {
            let due = |doing: &Doing| match *doing {
                Doing::Sleeping(at) => at,
                Doing::Until(at) => Some(at),
            };
            let Some(next) = self
                .instances
                .iter()
                .filter_map(due)
                .min()
                .filter(|&at| at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            for instance in 0..self.instances.len() {
                if let Doing::Until(end) = self.instances[instance]
                    && end <= self.now
                {
                    self.queue.finish(instance, self.now);
                    self.instances[instance] = self.look(instance);
                }
            }
            self.wake();
        }
        self.now = until;
    }

    /// Every sleeping instance looks; the real ones are woken where there is something for them.
    fn wake(&mut self) {
        for instance in 0..self.instances.len() {
            if let Doing::Sleeping(until) = self.instances[instance] {
                self.queue.woke(until);
                self.instances[instance] = self.look(instance);
            }
        }
    }

    fn arrive(&mut self, patience_us: u64) {
        let deadline = self.now + Duration::from_micros(patience_us);
        let free = self
            .instances
            .iter()
            .any(|doing| matches!(doing, Doing::Sleeping(_)));
        let idle = free && self.queue.len() == 0;
        let ask = Ask {
            asker: Asker::default(),
            deadline: Some(deadline),
            waits: Duration::ZERO,
            takes: Duration::ZERO,
        };
        let found = self.queue.look_at(&ask, self.now);
        assert!(!idle || found.is_ok(), "refused though idle");
        let Ok(largest) = found else {
            return;
        };
        let (item, reply) = item(vec![self.promises.len() as f32, 0.0], Some(deadline));
        let held = self.queue.hold(ask.asker, largest, self.now);
        let waiting = Waiting::new(item, &held, self.now);
        self.queue.push(held, waiting);
        self.replies.push(reply);
        self.promises.push(Promise {
            deadline,
            idle,
            answered: None,
        });
        self.wake();
    }

    fn check(&self) {
        for promise in &self.promises {
            let answered = promise.answered.expect("answered in the end");
            assert!(
                promise.idle || answered <= promise.deadline + CLOCK,
                "{:?} late",
                answered - promise.deadline
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn who_is_let_in_is_answered_in_time(
        line in (0u64..2_000, 1u64..500),
        max_batch_size in 1usize..33,
        max_queue in 1usize..300,
        max_delay_us in prop_oneof![3 => Just(0u64), 1 => 1u64..2_000],
        instances in 1usize..5,
        arrivals in arrivals(),
    ) {
        let mut world = World::new(sized(max_batch_size, max_delay_us, max_queue), instances, line);
        for Arrival { gap_us, patience_us } in arrivals {
            world.pass(world.now + Duration::from_micros(gap_us));
            world.arrive(patience_us);
        }
        world.pass(world.now + Duration::from_secs(60));
        world.check();
    }
}
