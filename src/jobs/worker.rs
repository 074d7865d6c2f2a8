//! Takes jobs from the store, one at a time, and looks after those that nobody holds.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;

use super::child::Launch;
use super::clock::Clock;
use super::folder;
use super::supervise::{Supervisor, TTL_MS, is_settled, stopped};
use super::triggers::{self, Rules};
use super::{Config, JobsError, failed};
use crate::model::ModelName;
use crate::store::{self, Key, Store};
use crate::telemetry::Metrics;

/// What a worker needs.
pub struct Setup {
    /// The store, which the worker opens for itself: as any other process.
    pub store: store::Config,
    /// How jobs run.
    pub config: Config,
    /// How a child is started.
    pub launch: Launch,
    /// Its series.
    pub metrics: Arc<Metrics>,
    /// The models that triggers watch.
    pub models: Box<dyn Fn() -> Vec<ModelName> + Send>,
}

/// Runs jobs until it is told to stop.
pub struct Worker {
    setup: Setup,
    rules: Rules,
    holder: Key,
    stop: watch::Receiver<bool>,
}

/// How often the queue is looked at.
const POLL: Duration = Duration::from_secs(1);
/// Looks between two searches for jobs whose holder died, and between two looks at triggers and old folders.
const RECLAIM_EVERY: u64 = 5;
const MINUTE: u64 = 60;
/// A job whose holder died so often waits for a person: it may be what kills them.
const MAX_LOSSES: u32 = 3;
/// A store that cannot be opened is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

impl Worker {
    /// One that stops when the value becomes true, or its sender is gone.
    pub fn new(setup: Setup, stop: watch::Receiver<bool>) -> Result<Self, JobsError> {
        let rules = Rules::new(&setup.config).map_err(|problem| {
            failed(&"jobs.schedule")(io::Error::new(io::ErrorKind::InvalidInput, problem))
        })?;
        let holder = format!("{}-{}", std::process::id(), unix_ms()).parse()?;
        Ok(Self {
            setup,
            rules,
            holder,
            stop,
        })
    }

    /// Blocks its thread, which is all that it uses; a job runs in a process of its own. On the stop the job that runs is killed
    /// and queued again: it goes on from its checkpoint.
    pub fn run(self) {
        let mut told = false;
        while !is_stopped(&self.stop) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .thread_name("jobs-files")
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => return runtime.block_on(self.work()),
                // Out of file descriptors: others may give theirs back.
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::error!(%error, "no job can run yet; trying again until one can");
                }
                Err(_) => {}
            }
            // May end early, which does no harm.
            std::thread::park_timeout(POLL);
        }
    }

    async fn work(self) {
        let Some(store) = self.open().await else {
            return;
        };
        tokio::join!(self.jobs(&store), self.chores(&store));
        store.close().await;
    }

    /// The store, as soon as it can be opened; `None` where the stop comes first.
    async fn open(&self) -> Option<Store> {
        let mut stop = self.stop.clone();
        loop {
            match Store::open(&self.setup.store).await {
                Ok(store) => return Some(store),
                Err(error) => tracing::error!(%error, "no job can run: the store cannot be opened"),
            }
            if rest(&mut stop, OPEN_AGAIN).await {
                return None;
            }
        }
    }

    async fn jobs(&self, store: &Store) {
        let mut stop = self.stop.clone();
        let supervisor = Supervisor {
            store,
            folder: &self.setup.store.folder,
            config: &self.setup.config,
            launch: &self.setup.launch,
            metrics: &self.setup.metrics.jobs,
        };
        while !is_stopped(&stop) {
            match store.take_job(&self.holder, unix_ms(), TTL_MS).await {
                Ok(Some(lease)) => {
                    supervisor.run(&lease, &mut stop).await;
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no job could be taken"),
            }
            if rest(&mut stop, POLL).await {
                return;
            }
        }
    }

    /// What has its time, whether or not a job runs here.
    async fn chores(&self, store: &Store) {
        let mut stop = self.stop.clone();
        let watched_ms = unix_ms();
        let mut clock = Clock::default();
        for look in 0_u64.. {
            let now_ms = unix_ms();
            let reclaims = look.is_multiple_of(RECLAIM_EVERY);
            let reclaims = clock.is_settled(now_ms, Instant::now()) && reclaims;
            if let Err(error) = self
                .look_after(store, (look, reclaims), (watched_ms, now_ms))
                .await
            {
                tracing::warn!(%error, "the jobs could not be looked after");
            }
            if rest(&mut stop, POLL).await {
                return;
            }
        }
    }

    async fn look_after(
        &self,
        store: &Store,
        (look, reclaims): (u64, bool),
        (watched_ms, now_ms): (i64, i64),
    ) -> Result<(), JobsError> {
        if reclaims {
            for lost in store.reclaim_jobs(now_ms, MAX_LOSSES).await? {
                tracing::warn!(job = %lost.job, waits = lost.is_queued, "whoever ran the job is gone");
            }
        }
        if look.is_multiple_of(MINUTE) {
            if !self.rules.are_off() {
                let models = (self.setup.models)();
                triggers::pull(store, &self.rules, &models, (watched_ms, now_ms)).await?;
            }
            self.sweep(store, now_ms).await?;
        }
        self.setup.metrics.jobs.count(&store.job_counts().await?);
        Ok(())
    }

    /// Removes folders of jobs that will never go on.
    async fn sweep(&self, store: &Store, now_ms: i64) -> Result<(), JobsError> {
        let root = &self.setup.store.folder;
        let keep_ms = i64::from(self.setup.config.keep_days) * DAY_MS;
        for (id, folder) in folder::all(root).map_err(failed(&root.display()))? {
            let job = store.job(id).await?;
            let is_old = |ended: Option<i64>| ended.is_some_and(|at| now_ms - at > keep_ms);
            let goes = job.is_none_or(|job| is_settled(job.state) || is_old(job.ended_ms));
            // A child that outlived its supervisor still works there.
            if goes && folder.lock()?.is_some() {
                folder.remove().map_err(failed(&root.display()))?;
            }
        }
        Ok(())
    }
}

/// Whether the worker is to stop; a sender that is gone says so too.
fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

/// Whether the stop came within this time.
async fn rest(stop: &mut watch::Receiver<bool>, time: Duration) -> bool {
    timeout(time, stopped(stop)).await.is_ok()
}

/// The time, in Unix milliseconds.
pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
