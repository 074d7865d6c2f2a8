//! The server's own threads: each named, watched while it must run, joined at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{AppError, io};

/// Owns the threads until they are joined.
pub(super) struct Threads {
    spawner: Spawner,
    /// Names of threads that ended though they should run.
    losses: mpsc::Receiver<String>,
}

/// Spawns more of them from other threads; cheap to clone.
#[derive(Clone)]
pub(super) struct Spawner {
    /// Those not yet joined. Held for a push or a look only.
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Set once the threads are meant to end.
    stopping: Arc<AtomicBool>,
    /// Every thread holds a clone, so that the channel ends with the last of them.
    lost: mpsc::Sender<String>,
}

/// Held by a thread; tells when it goes though it should run.
struct Watch {
    name: String,
    /// It may go by itself; never by a panic.
    may_end: bool,
    stopping: Arc<AtomicBool>,
    lost: mpsc::Sender<String>,
}

impl Threads {
    pub(super) fn new() -> Self {
        // One loss is enough to stop the server; further ones are only logged.
        let (lost, losses) = mpsc::channel(1);
        let spawner = Spawner {
            handles: Arc::default(),
            stopping: Arc::default(),
            lost,
        };
        Self { spawner, losses }
    }

    /// What other threads spawn by. Until each clone is dropped, the threads do not count as ended.
    pub(super) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// A thread that must run until [`Threads::stop`].
    pub(super) fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), AppError> {
        let body = move || {
            body();
            false
        };
        let spawned = self.spawner.start(name, body);
        spawned.map_err(io(&format!("thread '{name}'")))
    }

    /// As [`Spawner::spawn_ending`].
    pub(super) fn spawn_ending(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), AppError> {
        let spawned = self.spawner.spawn_ending(name, body);
        spawned.map_err(io(&format!("thread '{name}'")))
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
        self.spawner.stopping.store(true, Ordering::Release);
    }

    /// Waits until all threads have ended, at most `limit`; an error names those that still run.
    pub(super) async fn join(self, limit: Duration) -> Result<(), AppError> {
        let Self {
            spawner: Spawner { handles, lost, .. },
            mut losses,
        } = self;
        drop(lost);
        let all_ended = async { while losses.recv().await.is_some() {} };
        let in_time = tokio::time::timeout(limit, all_ended).await.is_ok();
        let mut running = Vec::new();
        let handles = std::mem::take(&mut *handles.lock().unwrap_or_else(PoisonError::into_inner));
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

impl Spawner {
    /// A thread that may end by itself; only its panic is a loss.
    pub(super) fn spawn_ending(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let body = move || {
            body();
            true
        };
        self.start(name, body)
    }

    /// A thread that may end by itself where its body says so by true; false, or its panic, is a loss.
    pub(super) fn start(
        &self,
        name: &str,
        body: impl FnOnce() -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let watch = Watch {
            name: name.to_owned(),
            may_end: false,
            stopping: Arc::clone(&self.stopping),
            lost: self.lost.clone(),
        };
        let started = Builder::new().name(name.to_owned()).spawn(move || {
            // Wholly here, so that it is dropped on return and on panic.
            let mut watch = watch;
            watch.may_end = body();
        })?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        // Versions come and go for as long as the server runs; so must the handles of their threads.
        for ended in handles.extract_if(.., |handle| handle.is_finished()) {
            // A panic was told by its hook and as a loss.
            let _ = ended.join();
        }
        handles.push(started);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.may_end || self.stopping.load(Ordering::Acquire) {
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
        let threads = Threads::new();
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
    fn what_may_end_or_ends_after_the_stop_is_no_loss() {
        let threads = Threads::new();
        threads.spawn_ending("x", || {}).unwrap();
        threads.stop();
        threads.spawn("y", || {}).unwrap();
        let Threads { spawner, mut losses } = threads;
        drop(spawner);
        assert_eq!(run(losses.recv()), None);
    }

    #[test]
    fn a_body_says_whether_it_may_end() {
        let threads = Threads::new();
        threads.spawner().start("right", || true).unwrap();
        threads.spawner().start("wrong", || false).unwrap();
        let Threads { spawner, mut losses } = threads;
        drop(spawner);
        assert_eq!(run(losses.recv()).as_deref(), Some("wrong"));
        assert_eq!(run(losses.recv()), None);
    }

    #[test]
    fn a_panic_is_a_loss_also_of_what_may_end() {
        let mut threads = Threads::new();
        threads.spawn_ending("x", || panic!("on purpose")).unwrap();
        assert_eq!(run(threads.loss()), "x");
        run(threads.join(LONG)).unwrap();
    }

    #[test]
    fn threads_that_ended_are_joined_while_others_come() {
        let threads = Threads::new();
        let spawner = threads.spawner();
        for _ in 0..100 {
            let (send, receive) = channel::<()>();
            spawner.spawn_ending("x", move || drop(send)).unwrap();
            // The sender goes with the body.
            receive.recv().unwrap_err();
        }
        // The latest of them may still be on its way out.
        let kept = || {
            spawner
                .handles
                .lock()
                .unwrap()
                .iter()
                .filter(|handle| handle.is_finished())
                .count()
        };
        while kept() < spawner.handles.lock().unwrap().len() {
            std::thread::yield_now();
        }
        spawner.spawn_ending("y", || {}).unwrap();
        assert_eq!(spawner.handles.lock().unwrap().len(), 1);
        drop(spawner);
        run(threads.join(LONG)).unwrap();
    }

    #[test]
    fn what_does_not_end_is_named() {
        let threads = Threads::new();
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
