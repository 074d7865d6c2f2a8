//! The two ends of the keeper's queue: commands in, one answer to each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Ask, Change, Changed, Config, InService, ServiceError};
use crate::model::{ModelName, Version};

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, ServiceError>>;

/// What the keeper can be told.
#[derive(Debug)]
pub(super) enum Command {
    /// Change the aliases, and serve what they name then.
    Change(ModelName, Ask, Answer<Changed>),
    /// Serve a version besides those that aliases name.
    Load(ModelName, Version, Answer<InService>),
    /// Serve it no longer.
    Unload(ModelName, Version, Answer<InService>),
    /// Tell every change there was.
    History(ModelName, Answer<Vec<Change>>),
    /// Look at the folder now.
    Refresh(Answer<()>),
    /// Look whether to stop.
    Wake,
}

/// Gives the keeper its commands; cheap to clone. What is not carried out any more is answered
/// [`ServiceError::Stopping`].
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
    stopping: Arc<AtomicBool>,
}

/// The keeper's end.
#[derive(Debug)]
pub struct Orders {
    commands: Receiver<Command>,
    stopping: Arc<AtomicBool>,
    /// None: never looked at unless told.
    poll: Option<Duration>,
    /// When the folder is to be looked at next.
    due: Instant,
}

/// What the keeper does next.
#[derive(Debug)]
pub(super) enum Turn {
    Command(Command),
    Refresh,
    Stop,
}

/// Both ends, with room for `config.max_queue` commands.
pub fn channel(config: &Config) -> (Handle, Orders) {
    let (sender, receiver) = sync_channel(config.max_queue.max(1));
    let stopping = Arc::new(AtomicBool::new(false));
    let handle = Handle {
        commands: sender,
        stopping: Arc::clone(&stopping),
    };
    let poll = (config.poll_ms > 0).then(|| Duration::from_millis(config.poll_ms));
    let orders = Orders {
        commands: receiver,
        stopping,
        poll,
        due: Instant::now() + poll.unwrap_or_default(),
    };
    (handle, orders)
}

impl Handle {
    /// Makes a change of the aliases: the version that it brings into service is ready before anything is changed, and
    /// serves when this returns. Where the caller gives up waiting, the change is made all the same.
    pub async fn change(&self, name: ModelName, ask: Ask) -> Result<Changed, ServiceError> {
        self.tell(|answer| Command::Change(name, ask, answer)).await
    }

    /// Takes a version into service whatever the aliases say, until [`Handle::unload`] or the end of the process.
    pub async fn load(&self, name: ModelName, version: Version) -> Result<InService, ServiceError> {
        self.tell(|answer| Command::Load(name, version, answer)).await
    }

    /// Takes a version without alias out of service. Requests that have found it are still answered by it.
    pub async fn unload(&self, name: ModelName, version: Version) -> Result<InService, ServiceError> {
        self.tell(|answer| Command::Unload(name, version, answer)).await
    }

    /// Every change of a model's aliases, oldest first.
    pub async fn history(&self, name: ModelName) -> Result<Vec<Change>, ServiceError> {
        self.tell(|answer| Command::History(name, answer)).await
    }

    /// Serves what the folder of models says now, without waiting for the next look at it.
    pub async fn refresh(&self) -> Result<(), ServiceError> {
        self.tell(Command::Refresh).await
    }

    /// The keeper finishes what it is at, carries out nothing more, closes every queue and ends.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    /// A full queue means that the keeper is awake and will look.
    pub(super) fn wake(&self) {
        let _ = self.commands.try_send(Command::Wake);
    }

    async fn tell<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ServiceError> {
        let (sender, receiver) = oneshot::channel();
        self.commands
            .try_send(command(sender))
            .map_err(|error| match error {
                TrySendError::Full(_) => ServiceError::Busy,
                TrySendError::Disconnected(_) => ServiceError::Stopping,
            })?;
        receiver.await.unwrap_or(Err(ServiceError::Stopping))
    }
}

impl Orders {
    /// Whether the server stops: nothing more is begun.
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Waits for a command or for the time to look at the folder, which comes round however many commands there are.
    pub(super) fn next(&mut self) -> Turn {
        let received = match self.poll {
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(poll) => {
                let now = Instant::now();
                if now >= self.due {
                    self.due = now + poll;
                    return if self.stopping() {
                        Turn::Stop
                    } else {
                        Turn::Refresh
                    };
                }
                self.commands.recv_timeout(self.due - now)
            }
        };
        match received {
            _ if self.stopping() => Turn::Stop,
            Ok(command) => Turn::Command(command),
            Err(RecvTimeoutError::Timeout) => {
                self.due = Instant::now() + self.poll.unwrap_or_default();
                Turn::Refresh
            }
            // Nobody is left who could ask.
            Err(RecvTimeoutError::Disconnected) => Turn::Stop,
        }
    }
}
