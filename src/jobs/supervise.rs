//! One job from its lease to its end: the child is started, heard, watched and reaped.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::child::{Launch, Running};
use super::ending::{Cut, Remains, cut_short, ended};
use super::folder::{Folder, Papers};
use super::lines::{Line, Tail};
use super::worker::unix_ms;
use super::{Config, JobsError, failed};
use crate::retrain::{Finished, Progress};
use crate::store::{JobEnd, JobProgress, JobState, Lease, Standing, Store};
use crate::telemetry::JobMetrics;

/// What every job of this process is run with.
#[derive(Clone, Copy)]
pub(super) struct Supervisor<'a> {
    pub(super) store: &'a Store,
    /// The store's folder.
    pub(super) folder: &'a Path,
    pub(super) config: &'a Config,
    pub(super) launch: &'a Launch,
    pub(super) metrics: &'a JobMetrics,
}

/// How long a lease holds without a heartbeat.
pub(super) const TTL_MS: i64 = 30_000;
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often lines are kept, and what was asked is looked up.
const LOOK: Duration = Duration::from_millis(250);
/// Lines that are kept in one transaction.
const MAX_PENDING: usize = 256;
/// Lines that are read of one run: a thousand epochs are a few thousand.
const MAX_LINES: usize = 100_000;
/// A killed process ends at once, unless the disk hangs.
const KILLED: Duration = Duration::from_secs(5);
/// For what is still in the pipes when the child has ended; a process that it left behind may hold them open.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Runs the job; gives the lease back with what came of it.
    pub(super) async fn run(&self, lease: &Lease, stop: &mut watch::Receiver<bool>) {
        tracing::info!(job = %lease.job, model = %lease.model, attempt = lease.attempt, "a job begins");
        let folder = Folder::of(self.folder, lease.job);
        let (end, failed_checks) = match self.work(lease, &folder, stop).await {
            Ok(end) => end,
            Err(error) => (ended((JobState::Failed, Some(error.to_string()))), Vec::new()),
        };
        self.metrics.end(end.state.text());
        if end.state == JobState::Refused {
            failed_checks.iter().for_each(|check| self.metrics.refuse(check));
        }
        let reason = end.reason.as_deref().unwrap_or_default();
        tracing::info!(job = %lease.job, model = %lease.model, state = %end.state, reason, "a job stops running");
        match self.store.end_job(lease, &end, unix_ms()).await {
            Ok(true) if is_settled(end.state) => {
                if let Err(error) = folder.remove() {
                    tracing::warn!(job = %lease.job, %error, "a job's folder is left");
                }
            }
            Ok(true) => {}
            Ok(false) => tracing::warn!(job = %lease.job, "the job is another's by now"),
            // Its lease runs out, and it is taken again.
            Err(error) => tracing::error!(job = %lease.job, %error, "a job's end could not be kept"),
        }
    }

    async fn work(
        &self,
        lease: &Lease,
        folder: &Folder,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(JobEnd, Vec<String>), JobsError> {
        folder.prepare(&Papers {
            request: &lease.request,
            configuration: &self.launch.configuration,
        })?;
        let mut watch = Watch::new(self.store, lease, stop);
        // Somebody else in the folder is a child whose own supervisor has died; it ends when it next has something to tell.
        let lock = loop {
            if let Some(lock) = folder.lock()? {
                break lock;
            }
            if let Some(cut) = watch.next().await {
                return Ok((ended(cut_short(cut)), Vec::new()));
            }
        };
        let child = self.launch.start(folder, lock, self.config);
        let child = child.map_err(failed(&self.launch.program.display()))?;
        let run = Run {
            supervisor: *self,
            lease,
            child,
            heard: Heard::default(),
        };
        Ok(run.follow(&mut watch).await)
    }
}

/// Whether nobody will ever want the job's checkpoint.
pub(super) fn is_settled(state: JobState) -> bool {
    matches!(
        state,
        JobState::Succeeded | JobState::Refused | JobState::Cancelled
    )
}

/// Looks at regular times whether the job may go on, and keeps its lease alive.
struct Watch<'a> {
    store: &'a Store,
    lease: &'a Lease,
    stop: &'a mut watch::Receiver<bool>,
    look: Interval,
    beaten: Instant,
}

impl<'a> Watch<'a> {
    fn new(store: &'a Store, lease: &'a Lease, stop: &'a mut watch::Receiver<bool>) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            store,
            lease,
            stop,
            look,
            beaten: Instant::now(),
        }
    }

    /// The time of the next look, or the stop. Cancelling loses nothing.
    async fn due(&mut self) -> bool {
        tokio::select! {
            biased;
            () = stopped(self.stop) => true,
            _ = self.look.tick() => false,
        }
    }

    /// Why the job may not go on, if so. A store that does not answer is no reason: the lease tells who is right later.
    async fn check(&mut self, stops: bool) -> Option<Cut> {
        if stops {
            return Some(Cut::Stop);
        }
        let standing = if self.beaten.elapsed() >= HEARTBEAT {
            self.beaten = Instant::now();
            self.store.heartbeat(self.lease, unix_ms(), TTL_MS).await
        } else {
            self.store.standing(self.lease).await
        };
        match standing {
            Ok(Standing::Held(wish)) => wish.map(Cut::Wish),
            Ok(Standing::Lost) => Some(Cut::Lost),
            Err(error) => {
                tracing::warn!(job = %self.lease.job, %error, "a job's lease could not be looked up");
                None
            }
        }
    }

    async fn next(&mut self) -> Option<Cut> {
        let stops = self.due().await;
        self.check(stops).await
    }
}

/// Returns once the worker is to stop, or nobody can say so any more.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A running child and what it has told.
struct Run<'a> {
    supervisor: Supervisor<'a>,
    lease: &'a Lease,
    child: Running,
    heard: Heard,
}

#[derive(Default)]
struct Heard {
    /// Not kept yet.
    pending: Vec<String>,
    progress: JobProgress,
    finished: Option<Finished>,
    failed_checks: Vec<String>,
    lines: usize,
    log: Tail,
}

impl Run<'_> {
    /// Until the child has ended, by itself or from here.
    async fn follow(mut self, watch: &mut Watch<'_>) -> (JobEnd, Vec<String>) {
        let (cut, status) = self.listen(watch).await;
        // What it has started would hold its pipes and its folder.
        self.child.kill();
        let last = async {
            while let Some(line) = self.child.told.next().await
                && self.heard.lines < MAX_LINES
            {
                self.heard.told(line);
            }
            while let Some(line) = self.child.log.next().await {
                self.heard.logged(line);
            }
        };
        // What the pipes still hold after that is nobody's word any more.
        let _ = timeout(LAST_LINES, last).await;
        self.keep().await;
        let remains = Remains {
            cut,
            status,
            finished: self.heard.finished,
            log: &self.heard.log,
        };
        (remains.end(), self.heard.failed_checks)
    }

    async fn listen(&mut self, watch: &mut Watch<'_>) -> (Option<Cut>, io::Result<ExitStatus>) {
        loop {
            // The look wins over lines, so that a child that never stops talking cannot hold it up. Every branch keeps its
            // place when it is cancelled.
            let cut = tokio::select! {
                biased;
                stops = watch.due() => {
                    self.keep().await;
                    watch.check(stops).await
                }
                status = self.child.process.wait() => return (None, status),
                Some(line) = self.child.told.next() => self.hear(line).await,
                Some(line) = self.child.log.next() => {
                    self.heard.logged(line);
                    None
                }
            };
            if let Some(cut) = cut {
                self.child.kill();
                let ended = timeout(KILLED, self.child.process.wait()).await;
                let hangs = |_| Err(io::Error::other("it does not end though it was killed"));
                return (Some(cut), ended.unwrap_or_else(hangs));
            }
        }
    }

    async fn hear(&mut self, line: Line) -> Option<Cut> {
        self.heard.told(line);
        if self.heard.pending.len() >= MAX_PENDING {
            self.keep().await;
        }
        (self.heard.lines >= MAX_LINES).then_some(Cut::Talks)
    }

    /// Puts what was told in the store; what the store does not take is lost, which costs the job nothing.
    async fn keep(&mut self) {
        if self.heard.pending.is_empty() {
            return;
        }
        let (store, metrics) = (self.supervisor.store, self.supervisor.metrics);
        let lines = std::mem::take(&mut self.heard.pending);
        let progress = &self.heard.progress;
        metrics.epoch.set(progress.epoch.map_or(0, i64::from));
        metrics.loss.set(progress.loss.unwrap_or_default());
        if let Err(error) = store.record_job(self.lease, &lines, progress, unix_ms()).await {
            tracing::warn!(job = %self.lease.job, %error, "what a job told could not be kept");
        }
    }
}

impl Heard {
    fn told(&mut self, line: Line) {
        self.lines += 1;
        let Line::Text(text) = line else {
            tracing::debug!("a job's line was too long");
            return;
        };
        match serde_json::from_str::<Progress>(&text) {
            Ok(event) => {
                // Written anew: on one line, and no longer than it must be.
                self.pending.extend(serde_json::to_string(&event));
                self.advance(event);
            }
            Err(error) => tracing::debug!(%error, "a job told what is no event"),
        }
    }

    fn logged(&mut self, line: Line) {
        if let Line::Text(text) = line {
            tracing::debug!(text, "a job's log");
            self.log.push(&text);
        }
    }

    fn advance(&mut self, event: Progress) {
        let count = |count: usize| u32::try_from(count).ok();
        match event {
            Progress::Phase { phase } => {
                let name = serde_json::to_value(phase).ok();
                self.progress.phase = name.and_then(|name| name.as_str().map(str::to_owned));
            }
            Progress::Epoch(done) => {
                self.progress.epoch = count(done.epoch);
                self.progress.epochs = count(done.epochs);
                self.progress.loss = Some(done.loss);
                self.progress.accuracy = Some(done.hold_out_accuracy.unwrap_or(done.accuracy));
                self.progress.eta_seconds = Some(done.eta_seconds);
            }
            Progress::Check { check, passed, .. } => {
                if !passed {
                    self.failed_checks.push(check);
                }
            }
            Progress::Suspects { .. } | Progress::Note { .. } => {}
            Progress::Finished(finished) => self.finished = Some(finished),
        }
    }
}
