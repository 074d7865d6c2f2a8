//! The signals that end the server: SIGTERM and SIGINT, caught from the start.

use super::{AppError, io};

/// Receives them; dropped last, with the server.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Catches both from now on.
    pub(super) fn listen() -> Result<Self, AppError> {
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |kind| signal(kind).map_err(io("the signals' handlers"));
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }

    /// The next of them; none is lost while nobody waits, though equal ones may fall together.
    pub(super) async fn next(&mut self) {
        // Either may win; both mean the same.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Only Ctrl-C exists here.
    pub(super) fn listen() -> Result<Self, AppError> {
        Ok(Self {})
    }

    /// The next Ctrl-C.
    pub(super) async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await.map_err(io("Ctrl-C")) {
            tracing::error!(%error, "signals cannot be received");
            std::future::pending::<()>().await;
        }
    }
}
