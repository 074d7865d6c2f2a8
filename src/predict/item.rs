//! One image's way: prepared and queued on a thread of the decode pool, awaited by the caller.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::cache::Missed;
use super::flight::{Boarded, Flight, Ready};
use super::{Failure, Options, Outcome, Picture, Predictor, Room, Served};
use crate::batcher::{Answer, Ask, Item, ItemError, Member, Place, Refusal, Reply, Timing};
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

/// The caller's end of an image.
enum Sent {
    /// It was answered before.
    Known(Answer),
    OnItsWay(OnItsWay),
}

/// The caller's end of an image on its way. Dropping it tells the pool and the queue that nobody waits.
struct OnItsWay {
    answer: oneshot::Receiver<Result<Answer, ItemError>>,
    prepared: Arc<Prepared>,
    /// Among those who asked for the same image; left when it is dropped.
    _boarded: Option<Boarded>,
    /// Where its answer is to be kept.
    missed: Option<Missed>,
}

/// What the pool's thread came to.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// It took the image.
    begun: AtomicBool,
    /// The tensor was queued, or the image is at fault. Unset: it panicked, or is not done.
    pub(super) end: OnceLock<Result<(), ImageError>>,
}

/// The pool's end of an image on its way.
struct Job {
    work: Work,
    place: Place,
    deadline: Instant,
    to: To,
    prepared: Arc<Prepared>,
}

/// What turns an image into its tensor.
struct Work {
    served: Arc<Served>,
    picture: Picture,
    room: Room,
    limits: Limits,
}

/// Whom a job works for.
enum To {
    One(Reply),
    /// Whoever asks for the image; with whom this one waits.
    All(Arc<Flight>, Member),
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
            Ok(Sent::Known(answer)) => Ok(answer),
            Ok(Sent::OnItsWay(sent)) => sent.answer(served, options.deadline).await,
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
    let missed = match kept(served, &picture) {
        Some(Ok(answer)) => return Ok(Sent::Known(answer)),
        Some(Err(missed)) => Some(missed),
        None => None,
    };
    let bytes = memory_bytes(&picture, served, &predictor.limits)?;
    let place = served.batcher.admit(&ask(predictor, asker, (bytes, deadline)))?;
    let (reply, answer) = oneshot::channel();
    let prepared = Arc::new(Prepared::default());
    let boarded = match &picture {
        Picture::Encoded(image) => Boarded::board(served, image),
        Picture::Pixels(_) | Picture::Refused(_) => None,
    };
    let job = Job {
        place,
        deadline,
        to: To::of(boarded.as_ref(), reply),
        prepared: Arc::clone(&prepared),
        work: Work {
            served: Arc::clone(served),
            picture,
            room,
            limits: predictor.limits,
        },
    };
    predictor
        .pool
        .submit(asker, bytes, || job.run())
        .map_err(refused)?;
    Ok(Sent::OnItsWay(OnItsWay {
        answer,
        prepared,
        _boarded: boarded,
        missed,
    }))
}

/// The answer that is kept for the image, or where it is to be; `None` where none are kept.
fn kept(served: &Served, picture: &Picture) -> Option<Result<Answer, Missed>> {
    let (Some(cache), Picture::Encoded(image)) = (&served.cache, picture) else {
        return None;
    };
    let sharing = &served.metrics.sharing;
    Some(match cache.get(image) {
        Ok(logits) => {
            sharing.hits.inc();
            Ok(Answer {
                logits,
                version: served.version,
                timing: Timing::default(),
            })
        }
        Err(missed) => {
            sharing.misses.inc();
            Err(missed)
        }
    })
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

impl OnItsWay {
    async fn answer(self, served: &Served, deadline: Instant) -> Result<Answer, Failure> {
        match timeout_at(deadline.into(), self.answer).await {
            Ok(Ok(answer)) => {
                let answer = answer?;
                if let (Some(cache), Some(missed)) = (&served.cache, self.missed) {
                    cache.put(missed, &answer.logits);
                    served.metrics.sharing.entries.set(cache.len() as i64);
                }
                Ok(answer)
            }
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

impl To {
    fn of(boarded: Option<&Boarded>, reply: Reply) -> Self {
        let Some(boarded) = boarded else {
            return Self::One(reply);
        };
        match boarded.flight.share.join(reply, Instant::now()) {
            Ok(member) => Self::All(Arc::clone(&boarded.flight), member),
            // Answered meanwhile.
            Err(reply) => Self::One(reply),
        }
    }

    fn is_waiting(&self) -> bool {
        match self {
            Self::One(reply) => !reply.is_closed(),
            Self::All(_, member) => member.is_waiting(),
        }
    }

    fn refuse(self, error: ItemError) {
        match self {
            // The receiver may have gone meanwhile; then nobody is to be told.
            Self::One(reply) => drop(reply.send(Err(error))),
            Self::All(_, member) => member.refuse(error),
        }
    }
}

impl Job {
    /// Prepares the image and queues it at once, unless nobody waits for it any more.
    fn run(self) {
        self.prepared.begun.store(true, Ordering::Release);
        // Whatever ends it here frees its place.
        if !self.to.is_waiting() {
            return;
        }
        if Instant::now() >= self.deadline {
            return self.to.refuse(ItemError::DeadlinePassed);
        }
        let Self {
            work,
            place,
            deadline,
            to,
            prepared,
        } = self;
        let reply = match to {
            To::One(reply) => reply,
            To::All(flight, member) => {
                let ready = Ready {
                    place,
                    member,
                    deadline,
                    prepared,
                };
                return flight.come(ready, || work.tensor());
            }
        };
        match work.tensor() {
            Ok((tensor, timing)) => {
                let _ = prepared.end.set(Ok(()));
                place.submit(Item {
                    tensor,
                    deadline: Some(deadline),
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

impl Work {
    fn tensor(self) -> Result<(Vec<f32>, Timing), ImageError> {
        let Self {
            served,
            picture,
            room,
            limits,
        } = self;
        let tensor = tensor(&served, picture, &limits);
        // The file is done with.
        drop(room);
        tensor
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
