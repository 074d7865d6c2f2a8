//! A job's events as a stream of server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout};

use super::{JobPath, Shared, bad, desk, id, refused};
use crate::http::connection::reached;
use crate::http::problem::{Kind, Problem};
use crate::http::{Phase, RETRY_AFTER, State};
use crate::store::{Event, JobId, StoreError};

/// How often new events are looked for. Whoever runs the job may be another process, so nobody can call.
const LOOK: Duration = Duration::from_millis(500);
/// A stream that is silent for so long says that it lives, so that nobody in between closes it.
const SILENCE: Duration = Duration::from_secs(15);
/// Events in one piece of the stream.
const PIECE: usize = 200;

/// Every event after the `Last-Event-ID`, then each as it comes, until the job neither waits nor runs.
pub(super) async fn follow(
    extract::State(state): Shared,
    path: JobPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (desk, id) = (desk(&state)?, id(path)?);
    let after = last_event_id(&headers)?;
    let job = desk.job(id).await.map_err(refused)?;
    let next = desk.store.job_events(id, after, 1).await;
    if !job.state.is_active() && next.map_err(|error| refused(error.into()))?.is_empty() {
        // To a browser's EventSource this says: do not ask again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = desk.listen().ok_or_else(|| {
        let problem = Problem::new(Kind::QueueFull, "as many follow jobs as jobs.max_listeners lets");
        problem.retry_after(RETRY_AFTER)
    })?;
    let phase = state.phase.clone();
    let follower = Follower {
        state,
        id,
        after,
        phase,
        silence: SILENCE,
        spoken: Instant::now(),
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(Stream(Box::pin(follower.next())))).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<i64, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    let number = number.filter(|&number: &i64| number >= 0);
    number.ok_or_else(|| bad("Last-Event-ID is the id of an event"))
}

/// Where a caller is in a job's events.
pub(super) struct Follower {
    pub(super) state: Arc<State>,
    pub(super) id: JobId,
    /// The last event that was sent.
    pub(super) after: i64,
    pub(super) phase: watch::Receiver<Phase>,
    /// After how long without an event it says that it lives.
    pub(super) silence: Duration,
    /// When something was last sent.
    pub(super) spoken: Instant,
    /// Given back with the stream.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next piece of the stream; `None` at its end. A store that fails ends it too: the caller asks again and misses
    /// nothing.
    pub(super) async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if self.state.phase() >= Phase::Draining {
                return None;
            }
            let (events, goes_on) = match self.look().await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "a job's events could not be read");
                    return None;
                }
            };
            if let Some(last) = events.last() {
                self.after = last.number;
                return Some(self.says(written(&events)));
            }
            if !goes_on {
                return None;
            }
            if self.spoken.elapsed() >= self.silence {
                return Some(self.says(":\n\n".to_owned()));
            }
            // Whether the time or the drain ends the wait, the next turn sees.
            let _ = timeout(LOOK, reached(&mut self.phase, Phase::Draining)).await;
        }
    }

    /// New events, and whether more may come.
    async fn look(&self) -> Result<(Vec<Event>, bool), StoreError> {
        let Some(desk) = self.state.jobs.get() else {
            return Ok((Vec::new(), false));
        };
        // First the state: an end that comes between the two is seen with its event in the next turn.
        let job = desk.store.job(self.id).await?;
        let events = desk.store.job_events(self.id, self.after, PIECE).await?;
        Ok((events, job.is_some_and(|job| job.state.is_active())))
    }

    fn says(mut self, text: String) -> (Bytes, Self) {
        self.spoken = Instant::now();
        (text.into(), self)
    }
}

fn written(events: &[Event]) -> String {
    let mut text = String::new();
    for Event { number, line, .. } in events {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let name = event["event"].as_str().unwrap_or("message");
        // Writing to a text cannot fail.
        let _ = write!(text, "id: {number}\nevent: {name}\ndata: {line}\n\n");
    }
    text
}

type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Follower)>> + Send>>;

/// The body, which makes its next piece when it is asked for one.
struct Stream(Next);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = ready!(self.0.as_mut().poll(cx));
        Poll::Ready(next.map(|(piece, follower)| {
            self.0 = Box::pin(follower.next());
            Ok(Frame::data(piece))
        }))
    }
}
