//! One round of load on one server.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Client, Target};
use super::payload::Payload;
use super::recorder::{Recorder, Sample};
use super::schedule::Schedule;

/// How a server is loaded.
#[derive(Debug)]
pub(super) struct Load {
    /// Sent in turn.
    pub(super) payloads: Vec<Payload>,
    /// How many requests may be on their way at once.
    pub(super) connections: usize,
    /// Arrivals per second of an open loop; none: a closed loop.
    pub(super) rate: Option<f64>,
    /// Load before anything is counted.
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// How long a request may take.
    pub(super) timeout: Duration,
}

/// What the connections of a round share; they all run on one thread.
#[derive(Debug)]
struct Round {
    load: Rc<Load>,
    start: Instant,
    end: Duration,
    recorder: RefCell<Recorder>,
    /// Requests sent, which says whose turn among the payloads it is.
    sent: Cell<usize>,
    /// Of an open loop.
    schedule: Option<RefCell<Schedule>>,
    /// One permit for each arrival that is due and not taken; closed at the end.
    due: Arc<Semaphore>,
}

/// Loads `target` for the warm-up and the duration, and waits for the answers. Must be called within a `LocalSet`.
///
/// # Errors
///
/// When no thread can be started.
pub(super) async fn run(load: &Rc<Load>, target: &Rc<Target>) -> std::io::Result<Recorder> {
    let end = load.warm_up + load.duration;
    let schedule = load.rate.map(|rate| Schedule::new(rate, end));
    let round = Rc::new(Round {
        load: Rc::clone(load),
        start: Instant::now(),
        end,
        recorder: RefCell::new(Recorder::new(load.warm_up..end)),
        sent: Cell::new(0),
        schedule: schedule.clone().map(RefCell::new),
        due: Arc::new(Semaphore::new(0)),
    });
    let pacer = schedule.map(|schedule| start_pacer(schedule, round.start, Arc::clone(&round.due)));
    let pacer = pacer.transpose()?;
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        let client = Client::new(Rc::clone(target), load.timeout);
        connections.spawn_local(Rc::clone(&round).ask_until_the_end(client));
    }
    connections.join_all().await;
    if let Some(pacer) = pacer {
        // It ended with the schedule.
        let _ = pacer.join();
    }
    Ok(round.result())
}

/// A thread that lets each arrival go at its time. The runtime's own timer is a millisecond coarse, which is longer than
/// a good answer takes.
fn start_pacer(
    schedule: Schedule,
    start: Instant,
    due: Arc<Semaphore>,
) -> std::io::Result<thread::JoinHandle<()>> {
    let pace = move || {
        let mut schedule = schedule;
        while let Some(arrival) = schedule.take() {
            park_until(start + arrival);
            due.add_permits(1);
        }
        park_until(start + schedule.end());
        due.close();
    };
    thread::Builder::new().name("pacer".to_owned()).spawn(pace)
}

fn park_until(time: Instant) {
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

impl Round {
    async fn ask_until_the_end(self: Rc<Self>, mut client: Client) {
        while let Some(intended) = self.next().await {
            let payload = self.next_payload();
            let sent = self.start.elapsed();
            let outcome = client.ask(payload).await;
            let sample = Sample {
                intended,
                sent,
                ended: self.start.elapsed(),
                outcome,
            };
            self.recorder.borrow_mut().add(sample);
        }
    }

    /// Waits until this connection has a request to send, and says when that was due. None at the end.
    async fn next(&self) -> Option<Duration> {
        let Some(schedule) = &self.schedule else {
            let now = self.start.elapsed();
            return (now < self.end).then_some(now);
        };
        // Closed at the end.
        self.due.acquire().await.ok()?.forget();
        schedule.borrow_mut().take()
    }

    fn next_payload(&self) -> &Payload {
        let index = self.sent.replace(self.sent.get() + 1);
        &self.load.payloads[index % self.load.payloads.len()]
    }

    fn result(&self) -> Recorder {
        let mut recorder = self.recorder.borrow().clone();
        if let Some(schedule) = &self.schedule {
            recorder.unsent = schedule.borrow().left(self.load.warm_up);
        }
        recorder
    }
}
