//! A body read whole, within its size, its time, and the room that all bodies have.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::bodies::{Bodies, FREE_BYTES, Place};
use crate::http::problem::{Kind, Problem};
use crate::predict::Room;

/// While others wait for its room, a body must come at this pace; else it is given up for them.
const PACE: Duration = Duration::from_millis(500);
/// In each [`PACE`]: 4 Mbit/s.
const PACE_BYTES: usize = 256 << 10;

/// A body, and the room that it takes.
#[derive(Debug)]
pub(in crate::http) struct Whole {
    pub(in crate::http) bytes: Bytes,
    pub(in crate::http) room: Room,
}

/// What a body is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Use {
    /// Its parts are used where they stand.
    AsItIs,
    /// As JSON, from which as much may be unpacked again.
    Json,
}

/// The whole body. One over `http.max_body_bytes` is refused unread where its length is told, else as soon as it is
/// over; one slower than `http.body_timeout_ms` is given up. A large one waits until there is room for it. Whatever is wrong
/// with it, its connection ends with the answer.
pub(in crate::http) async fn read(body: Body, bodies: &Bodies, used: Use) -> Result<Whole, Problem> {
    whole(body, bodies, used).await.map_err(Problem::closing)
}

async fn whole(body: Body, bodies: &Bodies, used: Use) -> Result<Whole, Problem> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let limit = Limit::of(bodies, used);
    limit.check(told)?;
    let mut reader = Reader {
        deadline: Instant::now() + Duration::from_millis(bodies.config.body_timeout_ms),
        body,
        bodies,
    };
    let Some(first) = reader.next().await? else {
        return Ok(Whole::small(Bytes::new()));
    };
    limit.check(first.len())?;
    let Some(second) = reader.next().await? else {
        // The usual case: one chunk, handed on uncopied.
        let place = reader.place(limit.room(first.len())).await?;
        return Ok(Whole::new(first, place, limit));
    };
    let mut whole = BytesMut::with_capacity(told.min(FREE_BYTES));
    whole.extend_from_slice(&first);
    let mut chunk = Some(second);
    while let Some(more) = chunk {
        limit.check(whole.len() + more.len())?;
        if whole.len() + more.len() > FREE_BYTES {
            // A length that is not told may be any.
            let expected = if told > 0 { told } else { limit.bytes };
            let expected = expected.max(whole.len() + more.len());
            let place = reader.place(limit.room(expected)).await?;
            whole.reserve(expected - whole.len());
            whole.extend_from_slice(&more);
            reader.rest(&mut whole, limit, place.as_ref()).await?;
            return Ok(Whole::new(whole.freeze(), place, limit));
        }
        whole.extend_from_slice(&more);
        chunk = reader.next().await?;
    }
    Ok(Whole::small(whole.freeze()))
}

impl Whole {
    fn small(bytes: Bytes) -> Self {
        let room = Room::default();
        Self { bytes, room }
    }

    fn new(bytes: Bytes, place: Option<Place>, limit: Limit) -> Self {
        let room = place.map_or_else(Room::default, |place| place.shrunk(limit.room(bytes.len())));
        Self { bytes, room }
    }
}

/// How large a body may be, and how much of the room its bytes take.
#[derive(Clone, Copy)]
struct Limit {
    bytes: usize,
    used: Use,
}

impl Limit {
    fn of(bodies: &Bodies, used: Use) -> Self {
        let most = bodies.config.max_body_bytes;
        let bytes = match used {
            Use::AsItIs => most,
            // With what is unpacked from it, it must fit into the room too.
            Use::Json => most.min((bodies.largest() / 2).max(FREE_BYTES)),
        };
        Self { bytes, used }
    }

    fn room(self, bytes: usize) -> usize {
        match self.used {
            Use::AsItIs => bytes,
            Use::Json => bytes.saturating_mul(2),
        }
    }

    fn check(self, bytes: usize) -> Result<(), Problem> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let detail = format!("the body is over {} bytes", self.bytes);
        Err(Problem::new(Kind::BodyTooLarge, detail))
    }
}

struct Reader<'a> {
    body: Body,
    bodies: &'a Bodies,
    /// When the body must be there; waiting for room puts it off.
    deadline: Instant,
}

impl Reader<'_> {
    /// The room for so many bytes; none is needed for few.
    async fn place(&mut self, bytes: usize) -> Result<Option<Place>, Problem> {
        if bytes <= FREE_BYTES {
            return Ok(None);
        }
        let begun = Instant::now();
        let place = self.bodies.place(bytes).await?;
        self.deadline += begun.elapsed();
        Ok(Some(place))
    }

    /// Reads to the end.
    async fn rest(
        &mut self,
        whole: &mut BytesMut,
        limit: Limit,
        place: Option<&Place>,
    ) -> Result<(), Problem> {
        let (mut mark, mut come) = (Instant::now() + PACE, 0);
        loop {
            match timeout_at(mark, self.next()).await {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(chunk))) => {
                    limit.check(whole.len() + chunk.len())?;
                    come += chunk.len();
                    whole.extend_from_slice(&chunk);
                }
                Ok(Err(problem)) => return Err(problem),
                Err(_elapsed) => {}
            }
            if Instant::now() >= mark {
                if come < PACE_BYTES && place.is_some_and(Place::is_wanted) {
                    let detail = "the body came too slowly while others wait to send theirs";
                    return Err(Problem::new(Kind::BodyTimeout, detail));
                }
                (mark, come) = (Instant::now() + PACE, 0);
            }
        }
    }

    /// The next chunk; trailers are passed over. Cancelling loses nothing.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        // A body of told length ends with its last byte; asking for one more frame would cost a turn of the connection.
        while !self.body.is_end_stream() {
            let frame = timeout_at(self.deadline, self.body.frame()).await;
            let frame = frame.map_err(|_elapsed| {
                let wait = self.bodies.config.body_timeout_ms;
                Problem::new(
                    Kind::BodyTimeout,
                    format!("the body did not arrive within {wait} ms"),
                )
            })?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame =
                frame.map_err(|_| Problem::new(Kind::BadRequest, "the body is broken or cut short"))?;
            if let Ok(chunk) = frame.into_data() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}
