//! One image's way: prepared and queued on a thread of the decode pool, awaited by the caller.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::{Failure, Options, Outcome, Picture, Predictor, Room, Served};
use crate::batcher::{Answer, Ask, Item, ItemError, Place, Refusal, Reply, Timing};
use crate::postprocess;
use crate::preprocess::pool::{Full, Refused};
use crate::preprocess::{ImageError, Limits, decode, header};
use crate::queueing::Asker;
use crate::telemetry::metrics::InFlight;
use crate::telemetry::{Outcome as Ended, Refused as Why, Stage};

/// An accepted image whose outcome is not known yet.
pub(super) struct Waiting {
    /// Counts the item out; dropped unended, the caller has hung up.
    counted: InFlight,
    sent: Result<Sent, Failure>,
}

/// The caller's end of an image on its way. Dropping it tells the pool and the queue that nobody waits.
struct Sent {
    answer: oneshot::Receiver<Result<Answer, ItemError>>,
    prepared: Arc<Prepared>,
}

/// What the pool's thread came to.
#[derive(Default)]
struct Prepared {
    /// It took the image.
    begun: AtomicBool,
    /// The tensor was queued, or the image is at fault. Unset: it panicked, or is not done.
    end: OnceLock<Result<(), ImageError>>,
}

/// The pool's end of an image on its way.
struct Job {
    served: Arc<Served>,
    place: Place,
    picture: Picture,
    room: Room,
    limits: Limits,
    deadline: Instant,
    reply: Reply,
    prepared: Arc<Prepared>,
}

impl Waiting {
    /// Accepts an image and hands it to the pool.
    pub(super) fn begin(
        predictor: &Predictor,
        served: &Arc<Served>,
        (picture, room): (Picture, Room),
        options: Options,
    ) -> Self {
        let counted = served.metrics.accept();
        let sent = send(predictor, served, (picture, room), options);
        Self { counted, sent }
    }

    /// Waits for the answer until the deadline, and counts the item out.
    pub(super) async fn outcome(self, served: &Served, options: Options) -> Outcome {
        let answer = match self.sent {
            Ok(sent) => sent.answer(options.deadline).await,
            Err(failure) => Err(failure),
        };
        let outcome = explain(answer, served, options);
        count_out(self.counted, served, &outcome);
        outcome
    }
}

fn send(
    predictor: &Predictor,
    served: &Arc<Served>,
    (picture, room): (Picture, Room),
    Options { asker, deadline, .. }: Options,
) -> Result<Sent, Failure> {
    let bytes = memory_bytes(&picture, served, &predictor.limits)?;
    let place = served.batcher.admit(&ask(predictor, asker, (bytes, deadline)))?;
    let (reply, answer) = oneshot::channel();
    let prepared = Arc::new(Prepared::default());
    let job = Job {
        served: Arc::clone(served),
        place,
        picture,
        room,
        limits: predictor.limits,
        deadline,
        reply,
        prepared: Arc::clone(&prepared),
    };
    predictor
        .pool
        .submit(asker, bytes, || job.run())
        .map_err(refused)?;
    Ok(Sent { answer, prepared })
}

/// What an image whose decoding holds so many bytes asks of a version's queue now.
pub(super) fn ask(predictor: &Predictor, asker: Asker, (bytes, deadline): (u64, Instant)) -> Ask {
    let expected = predictor.pool.expected(asker, bytes);
    Ask {
        asker,
        deadline: Some(deadline),
        waits: expected.waits,
        takes: expected.takes,
    }
}

/// Counts an image that was refused before it was read.
pub(super) fn turned_away(served: &Served, error: ItemError) -> Failure {
    let failure = Failure::Item(error);
    let outcome = Outcome {
        result: Err(failure.clone()),
        timing: Timing::default(),
        postprocess: Duration::ZERO,
    };
    count_out(served.metrics.accept(), served, &outcome);
    failure
}

/// A refusal by the decode pool.
pub(super) fn refused(refused: Refused) -> ItemError {
    match refused {
        Refused::Full(Full { wait, limit }) => ItemError::Refused(Refusal::new(Why::Decode, wait, limit)),
        Refused::Closed => ItemError::Closed,
    }
}

/// What the image takes of the pool's room; an image over the limits ends here.
fn memory_bytes(picture: &Picture, served: &Served, limits: &Limits) -> Result<u64, ImageError> {
    let (width, height, bytes) = match picture {
        Picture::Encoded(bytes) => {
            let header = header(bytes, limits)?;
            (header.width, header.height, header.memory_bytes)
        }
        Picture::Pixels(pixels) => {
            limits.check(pixels.width, pixels.height)?;
            (pixels.width, pixels.height, pixels.bytes.len() as u64)
        }
        Picture::Refused(error) => return Err(error.clone()),
    };
    Ok(bytes + served.preprocessor.working_bytes(width, height))
}

impl Sent {
    async fn answer(self, deadline: Instant) -> Result<Answer, Failure> {
        match timeout_at(deadline.into(), self.answer).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_closed)) => Err(unanswered(&self.prepared)),
            Err(_elapsed) => Err(ItemError::DeadlinePassed.into()),
        }
    }
}

/// Why the other end was dropped without an answer.
fn unanswered(prepared: &Prepared) -> Failure {
    match prepared.end.get() {
        Some(Err(error)) => error.clone().into(),
        Some(Ok(())) => ItemError::Inference.into(),
        None if prepared.begun.load(Ordering::Acquire) => ImageError::Panicked.into(),
        // Its thread is gone: the server ends.
        None => ItemError::Closed.into(),
    }
}

impl Job {
    /// Prepares the image and queues it at once, unless nobody waits for it any more.
    fn run(self) {
        self.prepared.begun.store(true, Ordering::Release);
        // Whatever ends it here frees its place.
        if self.reply.is_closed() {
            return;
        }
        if Instant::now() >= self.deadline {
            // The receiver may have gone meanwhile; then nobody is to be told.
            let _ = self.reply.send(Err(ItemError::DeadlinePassed));
            return;
        }
        let (served, reply, prepared) = (self.served, self.reply, self.prepared);
        let tensor = tensor(&served, self.picture, &self.limits);
        // The file is done with.
        drop(self.room);
        match tensor {
            Ok((tensor, timing)) => {
                let _ = prepared.end.set(Ok(()));
                self.place.submit(Item {
                    tensor,
                    deadline: Some(self.deadline),
                    timing,
                    reply,
                });
            }
            // Goes on as the panic it was: the pool counts it, and the caller's end finds nothing set.
            Err(ImageError::Panicked) => resume_unwind(Box::new("a decoder panicked")),
            Err(error) => {
                // Set before the reply is dropped, which wakes the caller's end to read it.
                let _ = prepared.end.set(Err(error));
            }
        }
    }
}

fn tensor(served: &Served, picture: Picture, limits: &Limits) -> Result<(Vec<f32>, Timing), ImageError> {
    let mut timing = Timing::default();
    let pixels = match picture {
        Picture::Encoded(bytes) => timed(served, Stage::Decode, &mut timing.decode, || {
            decode(&bytes, limits)
        })?,
        Picture::Pixels(pixels) => pixels,
        Picture::Refused(error) => return Err(error),
    };
    let tensor = timed(served, Stage::Preprocess, &mut timing.preprocess, || {
        served.preprocessor.tensor(pixels)
    });
    Ok((tensor?, timing))
}

fn timed<T>(served: &Served, stage: Stage, spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    *spent = begun.elapsed();
    served.metrics.observe(stage, spent.as_secs_f64());
    result
}

/// Logits to what the caller reads.
fn explain(answer: Result<Answer, Failure>, served: &Served, options: Options) -> Outcome {
    let begun = Instant::now();
    let explained = answer.and_then(|answer| {
        let prediction = postprocess::predict(&answer.logits, &served.labels, options.detail);
        Ok((prediction.map_err(|_| ItemError::NonFinite)?, answer.timing))
    });
    match explained {
        Ok((prediction, timing)) => {
            let postprocess = begun.elapsed();
            served
                .metrics
                .observe(Stage::Postprocess, postprocess.as_secs_f64());
            Outcome {
                result: Ok(prediction),
                timing,
                postprocess,
            }
        }
        Err(failure) => Outcome {
            result: Err(failure),
            timing: Timing::default(),
            postprocess: Duration::ZERO,
        },
    }
}

fn count_out(counted: InFlight, served: &Served, outcome: &Outcome) {
    if let Err(Failure::Item(ItemError::Refused(refusal))) = &outcome.result {
        served.metrics.admission.refused(refusal.why);
    }
    counted.end(ended(outcome));
}

fn ended(outcome: &Outcome) -> Ended {
    match &outcome.result {
        Ok(_) => Ended::Ok,
        Err(Failure::Item(ItemError::Refused(_) | ItemError::Closed | ItemError::Lost)) => Ended::Rejected,
        Err(Failure::Item(_) | Failure::Image(_)) => Ended::Failed,
    }
}
