//! What is kept of predictions while they are served, and what it says of the versions that made them.
//!
//! A request hands what it chose into a bounded queue and goes on; one task writes it. Nothing here delays an answer or can
//! fail it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Serialize, Serializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::model::{ModelName, Version};
use crate::predict::{Outcome, Picture, Served};
use crate::store::{self, Key, Store, StoreError, sampled};
use crate::telemetry::Metrics;
use crate::telemetry::collecting::Keeping;

mod quality;
mod tender;
#[cfg(test)]
mod tests;
mod worker;

pub use tender::Tender;
pub use worker::Worker;

/// The id of one prediction, by which feedback names it: the request's id, and in a request of several images also the
/// image's place, from 0: `3f9c2a7b:4`. No request's id holds a colon.
#[derive(Clone, Copy, Debug)]
pub struct PredictionId<'a> {
    request: &'a str,
    place: Option<usize>,
}

/// Chooses predictions and queues them. Owned by the server's state.
#[derive(Debug)]
pub struct Collector {
    rate: f64,
    keep_images: bool,
    /// Set once it is open; while it is not, nothing is chosen.
    store: OnceLock<Arc<Store>>,
    queue: mpsc::Sender<Offer>,
    /// Bytes of images that may still be queued.
    room: Arc<Semaphore>,
    /// Predictions queued so far.
    offered: AtomicU64,
    /// Of these, how many the worker is done with.
    done: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
}

/// A picture that was chosen before its prediction is there.
#[derive(Debug)]
pub struct Chosen {
    place: usize,
    id: Key,
    picture: Picture,
}

/// A prediction on its way to the store.
#[derive(Debug)]
struct Offer {
    id: Key,
    model: ModelName,
    version: Version,
    picture: Picture,
    keeps_image: bool,
    class: u32,
    probability: f64,
    at_ms: i64,
    /// Given back when it is written or dropped.
    room: OwnedSemaphorePermit,
}

/// How long [`Collector::settled`] waits at most: longer than many commits take, shorter than a caller's patience.
const SETTLE: Duration = Duration::from_secs(5);

/// Opens the configured store; `None` where none is configured.
pub async fn open(config: &store::Config) -> Result<Option<Arc<Store>>, StoreError> {
    if config.folder.as_os_str().is_empty() {
        return Ok(None);
    }
    let store = Store::open(config).await?;
    if config.trust_clock {
        store.trust_clock(now_ms()).await?;
    }
    Ok(Some(Arc::new(store)))
}

/// The time, in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl<'a> PredictionId<'a> {
    /// Of the image at `place` among `images` of the request.
    pub fn new(request: &'a str, place: usize, images: usize) -> Self {
        let place = (images > 1).then_some(place);
        Self { request, place }
    }
}

impl fmt::Display for PredictionId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.request)?;
        self.place.map_or(Ok(()), |place| write!(f, ":{place}"))
    }
}

impl Serialize for PredictionId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Collector {
    /// A collector without a store yet, and the worker that will write for it.
    pub fn new(config: &store::Config, metrics: &Arc<Metrics>) -> (Arc<Self>, Worker) {
        let (queue, offers) = mpsc::channel(config.max_queue.max(1));
        let (done, watched) = watch::channel(0);
        let collector = Arc::new(Self {
            rate: config.sampling_rate,
            keep_images: config.keep_images,
            store: OnceLock::new(),
            queue,
            room: Arc::new(Semaphore::new(config.max_queue_bytes.min(Semaphore::MAX_PERMITS))),
            offered: AtomicU64::new(0),
            done: watched,
            metrics: Arc::clone(metrics),
        });
        let worker = Worker::new(offers, done, Arc::clone(metrics));
        (collector, worker)
    }

    /// From now on predictions are chosen and the store answers. A second store is not taken.
    pub fn opened(&self, store: &Arc<Store>) {
        self.store.get_or_init(|| Arc::clone(store));
        self.metrics.collecting.store_open.set(1);
    }

    /// The store, while it is open.
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.get()
    }

    /// The pictures of a request whose predictions are to be kept. Where the model's rate is 0, no work is done.
    pub fn choose(&self, served: &Served, request: &str, pictures: &[Picture]) -> Vec<Chosen> {
        let rate = served.spec.collect.rate.unwrap_or(self.rate);
        if rate <= 0.0 || self.store.get().is_none() {
            return Vec::new();
        }
        let among = pictures.len();
        let choose = |(place, picture): (usize, &Picture)| {
            let id = PredictionId::new(request, place, among);
            let id = id.to_string().parse().ok().filter(|id| sampled(id, rate))?;
            let picture = own(picture, among)?;
            Some(Chosen { place, id, picture })
        };
        pictures.iter().enumerate().filter_map(choose).collect()
    }

    /// Queues those of the chosen that have a prediction. Never waits: what does not fit is counted and not kept.
    pub fn offer(&self, served: &Served, chosen: Vec<Chosen>, outcomes: &[Outcome], at_ms: i64) {
        for Chosen { place, id, picture } in chosen {
            let Some(Ok(prediction)) = outcomes.get(place).map(|outcome| &outcome.result) else {
                continue;
            };
            let keeping = self.queue(bytes(&picture), |room| Offer {
                id,
                model: served.name.clone(),
                version: served.version,
                picture,
                keeps_image: served.spec.collect.images.unwrap_or(self.keep_images),
                class: u32::try_from(prediction.index).unwrap_or(u32::MAX),
                probability: prediction.probability,
                at_ms,
                room,
            });
            if let Err(keeping) = keeping {
                self.metrics.collecting.predictions(keeping, 1);
            }
        }
    }

    fn queue(&self, bytes: usize, offer: impl FnOnce(OwnedSemaphorePermit) -> Offer) -> Result<(), Keeping> {
        let bytes = u32::try_from(bytes).map_err(|_| Keeping::QueueFull)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| Keeping::QueueFull)?;
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Keeping::QueueFull,
            mpsc::error::TrySendError::Closed(()) => Keeping::Failed,
        })?;
        // Counted first, so that the worker is never done with more than were offered.
        self.offered.fetch_add(1, Ordering::SeqCst);
        self.metrics.collecting.waiting.inc();
        place.send(offer(room));
        Ok(())
    }

    /// Waits until everything queued before this call is written, or given up, or five seconds have passed: whoever has the
    /// answer to a prediction can give feedback on it at once.
    pub async fn settled(&self) {
        let offered = self.offered.load(Ordering::SeqCst);
        let mut done = self.done.clone();
        // Neither the time's nor the worker's end changes what the caller does next.
        let _ = timeout(SETTLE, done.wait_for(|&done| done >= offered)).await;
    }
}

/// A copy of the picture that holds no more than it. One of several may be a slice of the whole body.
fn own(picture: &Picture, among: usize) -> Option<Picture> {
    match picture {
        Picture::Encoded(bytes) if among > 1 => Some(Picture::Encoded(Bytes::copy_from_slice(bytes))),
        Picture::Encoded(_) | Picture::Pixels(_) => Some(picture.clone()),
        Picture::Refused(_) => None,
    }
}

fn bytes(picture: &Picture) -> usize {
    match picture {
        Picture::Encoded(bytes) => bytes.len(),
        Picture::Pixels(pixels) => pixels.bytes.len(),
        Picture::Refused(_) => 0,
    }
}
