//! The open store of a running server, and the tasks that write to it and tend it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::AppError;
use crate::collect::{self, Collector, Tender, Worker};
use crate::config::Config;
use crate::predict::ServedModel;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// Owns the tasks until they are joined.
pub(super) struct Keeping {
    store: Arc<Store>,
    /// True once the tasks are meant to end.
    stopping: watch::Sender<bool>,
    tasks: [(&'static str, JoinHandle<()>); 2],
}

/// Opens the store, if there is to be one. One that cannot be used, as on a read-only file system, is an error only where
/// the configuration or a model asks for predictions to be kept: without it the server still predicts.
pub(super) async fn open<'a>(
    config: &Config,
    mut models: impl Iterator<Item = &'a ServedModel>,
) -> Result<Option<Arc<Store>>, AppError> {
    let rate = config.store.sampling_rate;
    let asks = |model: &ServedModel| {
        let mut specs = model.versions.iter().map(|served| &served.spec);
        specs.any(|spec| spec.collect.rate.unwrap_or(rate) > 0.0)
    };
    let asked = models.any(asks);
    match collect::open(&config.store).await {
        Err(error) if !asked && is_of_the_machine(&error) => {
            tracing::warn!(%error, "nothing is kept: neither feedback nor samples are taken");
            Ok(None)
        }
        opened => Ok(opened?),
    }
}

/// Whether another disk, or another time, might do.
fn is_of_the_machine(error: &StoreError) -> bool {
    use StoreError::{Busy, Disk, Files, Full};
    matches!(error, Files { .. } | Disk(_) | Full | Busy)
}

impl Keeping {
    /// Lets the collector choose, and starts the tasks.
    pub(super) fn start(
        store: Arc<Store>,
        collector: &Collector,
        worker: Worker,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (stopping, watched) = watch::channel(false);
        collector.opened(&store);
        let tender = Tender::new(&store, metrics);
        let tasks = [
            (
                "collect",
                tokio::spawn(worker.run(Arc::clone(&store), watched.clone())),
            ),
            ("tend", tokio::spawn(tender.run(watched))),
        ];
        Self {
            store,
            stopping,
            tasks,
        }
    }

    /// Lets the tasks write what is queued and end, at most for `limit`, and closes the store.
    pub(super) async fn end(self, limit: Duration) {
        self.stopping.send_replace(true);
        let ended = async {
            for (name, task) in self.tasks {
                if let Err(error) = task.await {
                    tracing::error!(name, %error, "a task ended against the plan");
                }
            }
            self.store.close().await;
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::error!(?limit, "the store did not close in time");
        }
    }
}
