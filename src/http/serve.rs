//! The accept loop.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
            let arrival = arrival(&self.free, &self.open, &next);
            // Closing wins over arrivals, so that a flood of them cannot hold it up; a cancelled wait for an arrival
            // loses nothing.
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
    free: &Arc<Semaphore>,
    open: &IntGauge,
    next: &impl Fn(&mut Context<'_>) -> Poll<Accepted>,
) -> (Place, TcpStream) {
    let permit = Arc::clone(free).acquire_owned().await;
    let permit = permit.expect("nobody closes the semaphore");
    let mut wait = Backoff::default();
    loop {
        match poll_fn(next).await {
            Ok((stream, _)) => return (Place::take(open, permit), stream),
            Err(error) => wait.after(&error).await,
        }
    }
}

/// How long accepting rests after a failure: a peer that left early costs nothing, but out of file descriptors or
/// memory the next accept would fail as fast as it is tried.
#[derive(Default)]
struct Backoff(Duration);

impl Backoff {
    async fn after(&mut self, error: &io::Error) {
        if is_the_peers(error) {
            return;
        }
        if self.0.is_zero() {
            tracing::warn!(%error, "no connection can be accepted; trying again until one can");
        }
        self.0 = (self.0 * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        tokio::time::sleep(self.0).await;
    }
}

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
