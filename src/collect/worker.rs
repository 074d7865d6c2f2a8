//! The task that writes what was queued.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::Offer;
use crate::predict::Picture;
use crate::preprocess::Pixels;
use crate::store::{Digest, Keeping as Became, Kept, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::collecting::Keeping;

/// Writes queued predictions in batches; made by [`super::Collector::new`].
#[derive(Debug)]
pub struct Worker {
    offers: mpsc::Receiver<Offer>,
    /// How many predictions it is done with, written or not.
    done: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    /// The last batch failed, so that this was told.
    fails: bool,
}

/// Most predictions in one transaction: other writers wait for so many.
const BATCH: usize = 64;

impl Worker {
    pub(super) fn new(
        offers: mpsc::Receiver<Offer>,
        done: watch::Sender<u64>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            offers,
            done,
            metrics,
            fails: false,
        }
    }

    /// Writes to `store` until `stopping` is true, then what is queued still, and ends.
    pub async fn run(mut self, store: Arc<Store>, mut stopping: watch::Receiver<bool>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut open = true;
        loop {
            // The stop wins, and loses nothing: what was queued is received after the queue is closed.
            let received = tokio::select! {
                biased;
                _ = stopping.wait_for(|&stopping| stopping), if open => {
                    open = false;
                    self.offers.close();
                    continue;
                }
                received = self.offers.recv_many(&mut batch, BATCH) => received,
            };
            if received == 0 {
                return;
            }
            self.write(&store, std::mem::take(&mut batch)).await;
        }
    }

    async fn write(&mut self, store: &Store, offers: Vec<Offer>) {
        let count = offers.len();
        // Hashing takes milliseconds of a large image.
        let kept = spawn_blocking(move || offers.into_iter().map(kept).collect()).await;
        let (kept, rooms): (Vec<Kept>, Vec<_>) = kept.unwrap_or_default();
        let result = match kept.len() == count {
            true => store.keep_all(kept).await,
            // The runtime ends, or hashing panicked.
            false => Err(StoreError::Busy),
        };
        self.tell(result, count as u64);
        drop(rooms);
        self.metrics.collecting.waiting.sub(count as i64);
        self.done.send_modify(|done| *done += count as u64);
    }

    /// Counts what became of a batch; the first failure of a row is logged, and its end.
    fn tell(&mut self, result: Result<Vec<Became>, StoreError>, count: u64) {
        let series = &self.metrics.collecting;
        match result {
            Ok(became) => {
                for became in became {
                    let keeping = match became {
                        Became::Kept => Keeping::Kept,
                        Became::IdTaken => Keeping::IdTaken,
                        Became::Erased => Keeping::Erased,
                    };
                    series.predictions(keeping, 1);
                }
                if std::mem::take(&mut self.fails) {
                    tracing::info!("predictions are kept again");
                }
            }
            Err(error) => {
                series.predictions(Keeping::Failed, count);
                if !std::mem::replace(&mut self.fails, true) {
                    tracing::warn!(%error, "predictions are not kept");
                }
            }
        }
    }
}

/// A prediction as the store takes it, and its room in the queue.
fn kept(offer: Offer) -> (Kept, tokio::sync::OwnedSemaphorePermit) {
    let (sha256, image) = match offer.picture {
        Picture::Encoded(bytes) => (Digest::of(&bytes), Some(bytes)),
        Picture::Pixels(pixels) => (digest(&pixels), None),
        Picture::Refused(_) => (Digest::of(b""), None),
    };
    let kept = Kept {
        id: offer.id,
        model: offer.model,
        version: offer.version,
        sha256,
        class: offer.class,
        probability: offer.probability,
        at_ms: offer.at_ms,
        image: image.filter(|_| offer.keeps_image),
    };
    (kept, offer.room)
}

/// The name of an image that came as pixel levels and so has no bytes of a file: the sha256 of the line `pixels
/// WIDTHxHEIGHTxCHANNELS`, with its end, and the levels, row by row.
pub(super) fn digest(pixels: &Pixels) -> Digest {
    let Pixels {
        width,
        height,
        channels,
        bytes,
    } = pixels;
    let mut named = format!("pixels {width}x{height}x{channels}\n").into_bytes();
    named.extend_from_slice(bytes);
    Digest::of(&named)
}
