//! Where jobs are asked for: everything that can be known to be wrong is said before one is made.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::worker::unix_ms;
use super::{Config, JobsError};
use crate::retrain::Request;
use crate::store::{Cause, Job, JobError, JobId, Key, NewJob, Store, Submitted};

/// Holds a request against what there is: the model, the version, the dataset. It may read the disk.
pub type Known = Box<dyn Fn(&Request) -> Result<(), JobsError> + Send + Sync>;

/// A request and its idempotency key.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked.
    pub request: Request,
    /// Asking again under the same key is asking once.
    pub key: Option<Key>,
}

/// Takes requests for jobs.
pub struct Desk {
    /// The jobs' rows.
    pub store: Arc<Store>,
    known: Arc<Known>,
    /// A permit for each caller that may follow a job.
    listeners: Arc<Semaphore>,
}

impl Desk {
    /// One that refuses what `known` does not find.
    pub fn new(store: Arc<Store>, config: &Config, known: Known) -> Self {
        Self {
            store,
            known: Arc::new(known),
            listeners: Arc::new(Semaphore::new(config.max_listeners)),
        }
    }

    /// Queues a job.
    ///
    /// # Errors
    ///
    /// What is wrong with the request; a job of the model that waits or runs; the store.
    pub async fn submit(&self, ask: Ask) -> Result<Submitted, JobsError> {
        ask.request.check()?;
        let (known, request) = (Arc::clone(&self.known), ask.request.clone());
        let looked_up = tokio::task::spawn_blocking(move || known(&request)).await;
        looked_up.map_err(|error| super::failed(&"the models")(error.into()))??;
        let job = NewJob {
            model: ask.request.model.clone(),
            request: text(&ask.request),
            cause: Cause::Manual,
            key: ask.key,
        };
        Ok(self.store.submit_job(&job, unix_ms()).await?)
    }

    /// Ends a job; one that runs is asked to end. The job as it stands then.
    pub async fn cancel(&self, id: JobId) -> Result<Job, JobsError> {
        self.store.cancel_job(id, unix_ms()).await?;
        self.job(id).await
    }

    /// Lets a job stand still; one that runs is asked to stop. The job as it stands then.
    pub async fn pause(&self, id: JobId) -> Result<Job, JobsError> {
        self.store.pause_job(id, unix_ms()).await?;
        self.job(id).await
    }

    /// Queues a job again that was paused, failed or interrupted. The job as it stands then.
    pub async fn resume(&self, id: JobId) -> Result<Job, JobsError> {
        self.store.resume_job(id, unix_ms()).await?;
        self.job(id).await
    }

    /// The job.
    pub async fn job(&self, id: JobId) -> Result<Job, JobsError> {
        let found = self.store.job(id).await?;
        found.ok_or(JobsError::Job(JobError::Unknown(id)))
    }

    /// A place among those who follow jobs, given back when it is dropped; `None` where all are taken.
    pub fn listen(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.listeners).try_acquire_owned().ok()
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// As rows hold it; equal requests have equal texts.
pub(super) fn text(request: &Request) -> String {
    serde_json::to_string(request).expect("a request has string keys and plain values")
}
