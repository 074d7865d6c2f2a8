//! What a connection waits for, and how long it may.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Config;

/// How long a connection may make its server wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a whole head, from the accept or the head's first byte.
    pub(super) head: Duration,
    /// Between two requests, and between two bytes of an answer.
    pub(super) idle: Duration,
}

/// One connection's state as its bytes and its handler tell it. Shared by the stream, the service and the watch of one
/// connection, which are all one task: the lock is never waited for.
///
/// hyper's own header timeout also runs between two requests, so that it cannot be shorter than the idle timeout, and
/// it knows nothing of a peer that takes no answer.
#[derive(Debug)]
pub(super) struct Activity(Mutex<(Waiting, Instant)>);

/// For what, since the instant beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Nothing came yet; since the accept.
    First,
    /// The rest of a head; since its first byte.
    Head,
    /// A handler, which has deadlines of its own.
    Handler,
    /// The peer: to take the answer, then to ask again; since the last byte.
    Peer,
}

impl Limits {
    /// As configured.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            head: Duration::from_millis(config.header_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
        }
    }

    /// Neither is over `most`.
    pub(super) fn at_most(self, most: Duration) -> Self {
        Self {
            head: self.head.min(most),
            idle: self.idle.min(most),
        }
    }

    /// No deadline that begins after a look at [`Activity::deadline`] is nearer than this, so looking this often is
    /// never late.
    pub(super) fn shorter(self) -> Duration {
        self.head.min(self.idle)
    }
}

impl Activity {
    /// Of a connection accepted now.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new((Waiting::First, now)))
    }

    /// Whether nothing has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.lock().0 == Waiting::First
    }

    /// When the connection has made its server wait for too long; `None` while a handler runs.
    pub(super) fn deadline(&self, limits: Limits) -> Option<Instant> {
        let (waiting, since) = *self.lock();
        match waiting {
            Waiting::First | Waiting::Head => Some(since + limits.head),
            Waiting::Peer => Some(since + limits.idle),
            Waiting::Handler => None,
        }
    }

    /// A handler runs until the guard is dropped.
    pub(super) fn handle(self: &Arc<Self>) -> Handling {
        *self.lock() = (Waiting::Handler, Instant::now());
        Handling(Arc::clone(self))
    }

    fn came(&self, now: Instant) {
        let mut state = self.lock();
        if matches!(state.0, Waiting::First | Waiting::Peer) {
            *state = (Waiting::Head, now);
        }
    }

    fn went(&self, now: Instant) {
        let mut state = self.lock();
        if state.0 == Waiting::Peer {
            state.1 = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Waiting, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running handler.
#[derive(Debug)]
pub(super) struct Handling(Arc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        *self.0.lock() = (Waiting::Peer, Instant::now());
    }
}

/// A stream that tells its [`Activity`] what comes and goes.
#[derive(Debug)]
pub(super) struct Watched<S> {
    /// The peer.
    pub(super) stream: S,
    /// Told of each byte.
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.came(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.activity.went(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte_whatever_follows() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert!(activity.is_fresh());
        assert_eq!(activity.deadline(LIMITS), Some(after(start, 10)));
        activity.came(after(start, 5));
        assert!(!activity.is_fresh());
        activity.came(after(start, 9));
        activity.went(after(start, 9));
        assert_eq!(activity.deadline(LIMITS), Some(after(start, 15)));
    }

    #[test]
    fn a_handler_has_no_deadline_here() {
        let activity = Arc::new(Activity::new(Instant::now()));
        let handling = activity.handle();
        activity.came(Instant::now());
        activity.went(Instant::now());
        assert_eq!(activity.deadline(LIMITS), None);
        drop(handling);
        assert!(activity.deadline(LIMITS).is_some());
    }

    #[test]
    fn a_peer_is_waited_for_from_its_last_byte() {
        let start = Instant::now();
        let activity = Arc::new(Activity::new(start));
        drop(activity.handle());
        activity.went(after(start, 20));
        assert_eq!(activity.deadline(LIMITS), Some(after(start, 95)));
        let closing = LIMITS.at_most(Duration::from_secs(2));
        assert_eq!(activity.deadline(closing), Some(after(start, 22)));
        activity.came(after(start, 30));
        assert_eq!(activity.deadline(LIMITS), Some(after(start, 40)));
    }

    #[test]
    fn the_shorter_limit_is_the_time_between_two_looks() {
        assert_eq!(LIMITS.shorter(), Duration::from_secs(10));
        assert_eq!(
            LIMITS.at_most(Duration::from_secs(2)).shorter(),
            Duration::from_secs(2)
        );
    }
}
