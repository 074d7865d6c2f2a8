//! The server's own threads: each named, watched while it must run, joined at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{AppError, io};

/// Owns the threads until they are joined.
pub(super) struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Set once the threads are meant to end.
    stopping: Arc<AtomicBool>,
    /// Every thread holds a clone, so that the channel ends with the last of them.
    lost: mpsc::Sender<String>,
    /// Names of threads that ended though they should run.
    losses: mpsc::Receiver<String>,
}

/// Held by a thread that must run until it is stopped; tells when it goes before.
struct Watch {
    name: String,
    stopping: Arc<AtomicBool>,
    lost: mpsc::Sender<String>,
}

impl Threads {
    pub(super) fn new() -> Self {
        // One loss is enough to stop the server; further ones are only logged.
        let (lost, losses) = mpsc::channel(1);
        Self {
            handles: Vec::new(),
            stopping: Arc::default(),
            lost,
            losses,
        }
    }

    /// A thread that must run until [`Threads::stop`].
    pub(super) fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), AppError> {
        let watch = Watch {
            name: name.to_owned(),
            stopping: Arc::clone(&self.stopping),
            lost: self.lost.clone(),
        };
        self.start(name, move || {
            // Dropped on return and on panic.
            let _watch = watch;
            body();
        })
    }

    /// A thread that ends by itself.
    pub(super) fn spawn_once(
        &mut self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), AppError> {
        let alive = self.lost.clone();
        self.start(name, move || {
            body();
            drop(alive);
        })
    }

    fn start(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), AppError> {
        let started = Builder::new().name(name.to_owned()).spawn(body);
        self.handles
            .push(started.map_err(io(&format!("thread '{name}'")))?);
        Ok(())
    }

    /// The name of the next thread that ended though it should run. Cancelling loses nothing.
    pub(super) async fn loss(&mut self) -> String {
        match self.losses.recv().await {
            Some(name) => name,
            // Cannot happen while `lost` is held here.
            None => std::future::pending().await,
        }
    }

    /// From now on threads are meant to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Waits until all threads have ended, at most `limit`; an error names those that still run.
    pub(super) async fn join(self, limit: Duration) -> Result<(), AppError> {
        let Self {
            handles,
            lost,
            mut losses,
            ..
        } = self;
        drop(lost);
        let all_ended = async { while losses.recv().await.is_some() {} };
        let in_time = tokio::time::timeout(limit, all_ended).await.is_ok();
        let mut running = Vec::new();
        for handle in handles {
            // In time, a thread is at most dropping its last variables.
            if in_time || handle.is_finished() {
                // A panic was told by its hook and, where it mattered, as a loss.
                let _ = handle.join();
            } else {
                running.push(handle.thread().name().unwrap_or_default().to_owned());
            }
        }
        if running.is_empty() {
            return Ok(());
        }
        let names = running.join("', '");
        Err(AppError::Thread(format!(
            "'{names}' did not end within {limit:?}"
        )))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(thread = self.name, "a thread ended though the server runs");
        // Full means that an earlier loss already stops the server.
        let _ = self.lost.try_send(self.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(test)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn threads_have_names_and_are_joined() {
        let mut threads = Threads::new();
        let (send, receive) = channel();
        threads
            .spawn("infer-a-0", move || {
                let name = std::thread::current().name().map(str::to_owned);
                send.send(name).unwrap();
            })
            .unwrap();
        assert_eq!(receive.recv().unwrap().as_deref(), Some("infer-a-0"));
        run(threads.join(LONG)).unwrap();
    }

    #[test]
    fn an_end_and_a_panic_are_losses_until_the_stop() {
        for panics in [false, true] {
            let mut threads = Threads::new();
            threads
                .spawn("x", move || assert!(!panics, "on purpose"))
                .unwrap();
            assert_eq!(run(threads.loss()), "x");
            run(threads.join(LONG)).unwrap();
        }
    }

    #[test]
    fn what_ends_by_itself_or_after_the_stop_is_no_loss() {
        let mut threads = Threads::new();
        threads.stop();
        threads.spawn("x", || {}).unwrap();
        threads.spawn_once("y", || {}).unwrap();
        let Threads { lost, mut losses, .. } = threads;
        drop(lost);
        assert_eq!(run(losses.recv()), None);
    }

    #[test]
    fn what_does_not_end_is_named() {
        let mut threads = Threads::new();
        let (send, receive) = channel::<()>();
        threads
            .spawn("stuck", move || {
                let _ = receive.recv();
            })
            .unwrap();
        let error = run(threads.join(Duration::ZERO)).unwrap_err().to_string();
        assert!(error.contains("thread 'stuck' did not end"), "{error}");
        drop(send);
    }
}
