//! The thread that reads files anew while the server runs: `reload`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::http::auth::Auth;
use crate::http::tls::Tls;

use super::threads::Threads;
use super::{AppError, io};

/// What guards the server's doors.
pub(super) struct Guards {
    pub(super) auth: Arc<Auth>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Owns what wakes the thread; dropping it ends both.
pub(super) struct Reload {
    _wake: Sender<()>,
    signals: JoinHandle<()>,
}

/// Looks at the files of `guards` every `poll` (never by itself where that is zero) and on SIGHUP, on a thread of its own: a
/// file system that hangs holds up nobody. Where nothing can change, there is no thread, and SIGHUP ends the process as ever.
pub(super) fn start(
    Guards { auth, tls }: &Guards,
    poll: Duration,
    threads: &Threads,
) -> Result<Option<Reload>, AppError> {
    if !auth.may_change() && tls.is_none() {
        return Ok(None);
    }
    let (wake, woken) = channel();
    let signals = hangups(wake.clone())?;
    let (auth, tls) = (Arc::clone(auth), tls.clone());
    let refresh = move |asked| {
        auth.refresh(asked);
        tls.iter().for_each(|tls| tls.refresh(asked));
    };
    threads.spawn_ending("reload", move || look(&woken, poll, refresh))?;
    Ok(Some(Reload { _wake: wake, signals }))
}

impl Drop for Reload {
    fn drop(&mut self) {
        // Its sender goes with it.
        self.signals.abort();
    }
}

/// Calls `refresh` until all senders are gone; with true where somebody asked for it.
fn look(woken: &Receiver<()>, poll: Duration, refresh: impl Fn(bool)) {
    loop {
        let asked = match poll.is_zero() {
            true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => woken.recv_timeout(poll),
        };
        match asked {
            Ok(()) => refresh(true),
            Err(RecvTimeoutError::Timeout) => refresh(false),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Sends on each SIGHUP, which from now on does not end the process.
fn hangups(wake: Sender<()>) -> Result<JoinHandle<()>, AppError> {
    let mut signals = signal(SignalKind::hangup()).map_err(io("the handler of SIGHUP"))?;
    Ok(tokio::spawn(async move {
        // The thread may be gone first.
        while signals.recv().await.is_some() && wake.send(()).is_ok() {}
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn it_looks_when_it_is_asked_or_the_time_has_come_and_ends_with_its_senders() {
        let seen = Mutex::new(Vec::new());
        let (wake, woken) = channel();
        wake.send(()).unwrap();
        wake.send(()).unwrap();
        drop(wake);
        look(&woken, Duration::ZERO, |asked| seen.lock().unwrap().push(asked));
        assert_eq!(*seen.lock().unwrap(), [true, true]);

        let (wake, woken) = channel();
        let wake = Mutex::new(Some(wake));
        look(&woken, Duration::from_nanos(1), |asked| {
            assert!(!asked);
            wake.lock().unwrap().take();
        });
        assert!(wake.lock().unwrap().is_none());
    }
}
