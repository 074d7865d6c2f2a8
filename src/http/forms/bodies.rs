//! Room for the bodies of requests: a ceiling over the memory that all of them take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::problem::{Kind, Problem};
use crate::http::{Config, RETRY_AFTER};
use crate::predict::Room;

/// A body of at most so many bytes takes no room: a connection may hold as much for a head.
pub(super) const FREE_BYTES: usize = 64 << 10;
/// Bodies of at most this part of the room have a lane of their own, so that they need not wait for large ones…
const MEDIUM: usize = 40;
/// …of this part of the room.
const MEDIUM_LANE: usize = 10;
/// What room is counted in.
const UNIT: usize = 1 << 10;

/// How bodies are read, and the room for them.
#[derive(Debug)]
pub struct Bodies {
    pub(super) config: Config,
    medium_bytes: usize,
    medium: Arc<Lane>,
    large: Arc<Lane>,
}

#[derive(Debug)]
struct Lane {
    units: usize,
    free: Arc<Semaphore>,
    /// Bodies that wait for room in it.
    waiting: AtomicUsize,
}

/// A body's part of the room, until it is read.
#[derive(Debug)]
pub(super) struct Place {
    permit: OwnedSemaphorePermit,
    lane: Arc<Lane>,
}

/// Counts a body as waiting as long as it lives.
struct Waiting<'a>(&'a Lane);

impl Bodies {
    /// As configured; all of the room is free.
    pub fn new(config: &Config) -> Self {
        let lane = |bytes: usize| {
            let units = (bytes / UNIT).clamp(1, u32::MAX as usize);
            Arc::new(Lane {
                units,
                free: Arc::new(Semaphore::new(units)),
                waiting: AtomicUsize::new(0),
            })
        };
        let all = config.max_bodies_bytes;
        Self {
            config: config.clone(),
            medium_bytes: all / MEDIUM,
            medium: lane(all / MEDIUM_LANE),
            large: lane(all - all / MEDIUM_LANE),
        }
    }

    /// Bytes that a body may take at most, copies of it among them.
    pub(super) fn largest(&self) -> usize {
        self.large.units * UNIT
    }

    /// Room for `bytes`, as soon as there is some. A body larger than all the room takes all of it. One that waits longer than a
    /// body may take to arrive is refused.
    pub(super) async fn place(&self, bytes: usize) -> Result<Place, Problem> {
        let lane = if bytes <= self.medium_bytes {
            &self.medium
        } else {
            &self.large
        };
        if let Some(place) = lane.try_place(bytes) {
            return Ok(place);
        }
        // What nobody waits for may be taken for less.
        if self.large.waiting.load(Ordering::Relaxed) == 0
            && let Some(place) = self.large.try_place(bytes)
        {
            return Ok(place);
        }
        let wait = Duration::from_millis(self.config.body_timeout_ms);
        let place = timeout(wait, lane.place(bytes)).await;
        place.map_err(|_elapsed| {
            let detail = "too many large bodies are waiting to be read";
            Problem::new(Kind::QueueFull, detail).retry_after(RETRY_AFTER)
        })
    }
}

impl Lane {
    fn units_of(&self, bytes: usize) -> u32 {
        bytes.div_ceil(UNIT).clamp(1, self.units) as u32
    }

    fn try_place(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.units_of(bytes));
        Some(Place {
            permit: permit.ok()?,
            lane: Arc::clone(self),
        })
    }

    /// Cancelling loses the place in the row and nothing else.
    async fn place(self: &Arc<Self>, bytes: usize) -> Place {
        let _waiting = Waiting::new(self);
        let permit = Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes));
        Place {
            permit: permit.await.expect("nobody closes the semaphore"),
            lane: Arc::clone(self),
        }
    }
}

impl Place {
    /// Whether others wait for the room that this body takes.
    pub(super) fn is_wanted(&self) -> bool {
        self.lane.waiting.load(Ordering::Relaxed) > 0
    }

    /// Gives back what is more than `bytes`.
    pub(super) fn shrunk(mut self, bytes: usize) -> Room {
        let kept = self.lane.units_of(bytes) as usize;
        let surplus = self.permit.num_permits().saturating_sub(kept);
        drop(self.permit.split(surplus));
        self.permit.into()
    }
}

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.waiting.fetch_add(1, Ordering::Relaxed);
        Self(lane)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: usize = 1 << 20;

    /// Of 40 MiB: 4 for bodies of up to 1, 36 for larger ones.
    fn bodies() -> Bodies {
        Bodies::new(&Config {
            max_bodies_bytes: 40 * MIB,
            body_timeout_ms: 1000,
            ..Config::default()
        })
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_large_body_waits_for_room_and_a_medium_one_does_not_wait_for_it() {
        let bodies = bodies();
        let first = bodies.place(30 * MIB).await.unwrap();
        assert!(!first.is_wanted());
        let mut second = pin!(bodies.place(30 * MIB));
        assert!(poll(second.as_mut()).is_pending());
        assert!(first.is_wanted());
        // Four of 1 MiB have the lane; the fifth would take what the second waits for.
        let four: Vec<_> = [
            bodies.place(MIB).await,
            bodies.place(MIB).await,
            bodies.place(MIB).await,
            bodies.place(MIB).await,
        ]
        .map(Result::unwrap)
        .into();
        assert!(poll(pin!(bodies.place(MIB))).is_pending());
        drop(first);
        let second = second.await.unwrap();
        assert!(!second.is_wanted());
        // Nobody waits for the 6 MiB that are left there.
        let six = [(); 6].map(|()| poll(pin!(bodies.place(MIB))).is_ready());
        assert_eq!(six, [true; 6]);
        drop(four);
    }

    #[tokio::test]
    async fn what_a_body_does_not_need_is_given_back() {
        let bodies = bodies();
        let room = bodies.place(36 * MIB).await.unwrap().shrunk(3 * MIB);
        let rest = bodies.place(33 * MIB).await.unwrap();
        assert!(poll(pin!(bodies.place(2 * MIB))).is_pending());
        drop((room, rest));
        // More than everything is everything.
        let all = bodies.place(900 * MIB).await.unwrap();
        assert!(poll(pin!(bodies.place(2 * MIB))).is_pending());
        drop(all);
        assert!(poll(pin!(bodies.place(36 * MIB))).is_ready());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_when_to_come_again() {
        let bodies = Bodies::new(&Config {
            max_bodies_bytes: 40 * MIB,
            body_timeout_ms: 0,
            ..Config::default()
        });
        let _first = bodies.place(36 * MIB).await.unwrap();
        let problem = bodies.place(2 * MIB).await.unwrap_err();
        assert_eq!(problem.kind, Kind::QueueFull);
        assert_eq!(bodies.large.waiting.load(Ordering::Relaxed), 0);
    }
}
