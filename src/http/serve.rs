//! The accept loop.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::connection::{Manner, reached};
use super::{Entrance, Phase, State, router};

/// Answers connections of all listeners until the phase is [`Phase::Closing`] and the last of them has finished. Dropping the
/// future cuts those that are left.
pub async fn serve(listeners: Vec<(TcpListener, Entrance)>, state: Arc<State>) -> io::Result<()> {
    let mut edges = JoinSet::new();
    for (listener, entrance) in listeners {
        let router = router(Arc::clone(&state), entrance.door);
        edges.spawn(Connections::new(&state, router, &entrance).serve(listener));
    }
    while let Some(ended) = edges.join_next().await {
        ended??;
    }
    Ok(())
}

type Accepted = io::Result<(TcpStream, SocketAddr)>;

/// Every open connection, each a task.
struct Connections {
    manner: Manner,
    phase: watch::Receiver<Phase>,
    /// One permit per connection that may be open.
    free: Arc<Semaphore>,
    open: IntGauge,
    backoff: Backoff,
    tasks: JoinSet<()>,
}

/// A connection's place among the open ones, given back when it ends.
struct Place {
    open: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    fn new(state: &State, router: Router, entrance: &Entrance) -> Self {
        let tls = state.tls.as_ref().filter(|_| entrance.has_tls).map(Arc::clone);
        Self {
            free: Arc::new(Semaphore::new(entrance.max_connections)),
            open: state.metrics.http_connections.clone(),
            phase: state.phase.clone(),
            manner: Manner::new(state, router, tls),
            backoff: Backoff::default(),
            tasks: JoinSet::new(),
        }
    }

    async fn serve(mut self, listener: TcpListener) -> io::Result<()> {
        self.accept(|cx| listener.poll_accept(cx)).await;
        let listener = listener.into_std();
        let rest = listener.and_then(|listener| self.accept_rest(&listener));
        while let Some(ended) = self.tasks.join_next().await {
            tell(ended);
        }
        rest
    }

    /// Serves what `next` gives until the server closes.
    async fn accept(&mut self, next: impl Fn(&mut Context<'_>) -> Poll<Accepted>) {
        loop {
            let arrival = arrival((&self.free, &self.open), &mut self.backoff, &next);
            // Closing wins over arrivals, so that a flood of them cannot hold it up; a cancelled wait for an arrival
            // loses nothing. A connection that ends cuts a rest short: it may have freed what was lacking.
            tokio::select! {
                biased;
                () = reached(&mut self.phase, Phase::Closing) => return,
                Some(ended) = self.tasks.join_next() => tell(ended),
                (place, stream) = arrival => self.begin(place, stream),
            }
        }
    }

    /// Serves those whom the kernel has let in before the listener closes: it would reset them.
    fn accept_rest(&mut self, listener: &std::net::TcpListener) -> io::Result<()> {
        while let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if is_the_peers(&error) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            self.begin(Place::take(&self.open, permit), TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, stream: TcpStream) {
        let conversation = self.manner.clone().serve(stream);
        self.tasks.spawn(async move {
            conversation.await;
            drop(place);
        });
    }
}

impl Place {
    fn take(open: &IntGauge, permit: OwnedSemaphorePermit) -> Self {
        open.inc();
        Self {
            open: open.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The next connection, once there is a place for it.
async fn arrival(
    (free, open): (&Arc<Semaphore>, &IntGauge),
    backoff: &mut Backoff,
    next: &impl Fn(&mut Context<'_>) -> Poll<Accepted>,
) -> (Place, TcpStream) {
    let permit = Arc::clone(free).acquire_owned().await;
    let permit = permit.expect("nobody closes the semaphore");
    loop {
        match poll_fn(next).await {
            Ok((stream, _)) => {
                backoff.rest = Duration::ZERO;
                return (Place::take(open, permit), stream);
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => tokio::time::sleep(backoff.after(&error, Instant::now())).await,
        }
    }
}

/// How long accepting rests after a failure: out of file descriptors or memory the next accept would fail as fast as it is
/// tried.
#[derive(Default)]
struct Backoff {
    /// The latest, since a connection was last accepted.
    rest: Duration,
    /// When the log was last told.
    told: Option<Instant>,
}

/// Between two lines in the log: where connections come and go, accepting fails again after each that went well.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Backoff {
    fn after(&mut self, error: &io::Error, now: Instant) -> Duration {
        let is_due = |told: Instant| now.saturating_duration_since(told) >= TELL_EVERY;
        if self.told.is_none_or(is_due) {
            self.told = Some(now);
            tracing::warn!(%error, "no connection can be accepted; trying again until one can");
        }
        self.rest = (self.rest * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        self.rest
    }
}

/// A peer that left early costs nothing.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Handlers' panics are caught before they come here, so this is a bug of the edge itself.
fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

#[cfg(test)]
mod tests;
