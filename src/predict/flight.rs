//! Images that are on their way: who asks for the same image meanwhile shares its decoding and its inference.
//!
//! Everybody keeps his own place in both queues and his own deadline. So the image is decoded and computed when the first of their
//! turns comes, nobody is later than he would be alone, and whoever hangs up leaves the others as they are.

use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::Served;
use super::item::Prepared;
use crate::batcher::{Member, Place, Share, SharedItem, Timing};
use crate::preprocess::ImageError;

/// A version's images on their way, by what tells most of them apart.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// With a secret of its own, so that nobody can choose images that are told apart by all their bytes alone.
    hasher: DefaultHashBuilder,
    flights: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    flight: Arc<Flight>,
    /// Who has boarded and not left.
    aboard: usize,
}

/// One image on its way for everybody who asks for it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) share: Arc<Share>,
    /// To be compared with; none once it is large and decoded, so that no large one is in memory for this alone.
    image: Mutex<Option<Bytes>>,
    decode: Mutex<Decode>,
}

#[derive(Debug)]
enum Decode {
    NotBegun,
    /// Those who came to it meanwhile.
    Begun(Vec<Ready>),
    Done(Arc<Vec<f32>>),
    Broken(ImageError),
}

/// A caller's place in a flight; dropped, the caller has his answer or has hung up.
#[derive(Debug)]
pub(super) struct Boarded {
    served: Arc<Served>,
    key: u64,
    pub(super) flight: Arc<Flight>,
}

/// What one asker gives to the queue once the image is decoded.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) place: Place,
    pub(super) member: Member,
    pub(super) deadline: Instant,
    pub(super) prepared: Arc<Prepared>,
}

/// An image up to so many bytes is kept until it is answered; as many as may wait for a batch are on their way.
const KEPT_BYTES: usize = 16 << 10;
/// Of a longer image, so many bytes at its begin, its middle and its end are hashed.
const HASHED_BYTES: usize = 1024;

impl Boarded {
    /// The flight of this image; a new one where there is none. `None` where another image is taken for it: it goes alone.
    pub(super) fn board(served: &Arc<Served>, image: &Bytes) -> Option<Self> {
        let flights = served.flights.as_ref()?;
        let key = flights.key(image);
        let flight = flights.board(key, image);
        // Left again when dropped.
        let boarded = Self {
            served: Arc::clone(served),
            key,
            flight,
        };
        boarded.flight.is_of(image).then_some(boarded)
    }
}

impl Drop for Boarded {
    fn drop(&mut self) {
        if let Some(flights) = &self.served.flights {
            flights.leave(self.key, &self.flight);
        }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, image: &[u8]) -> u64 {
        if image.len() <= 3 * HASHED_BYTES {
            return self.hasher.hash_one(image);
        }
        let middle = (image.len() - HASHED_BYTES) / 2;
        let part = |from: usize| &image[from..from + HASHED_BYTES];
        let parts = [part(0), part(middle), part(image.len() - HASHED_BYTES)];
        self.hasher.hash_one((image.len(), parts))
    }

    fn board(&self, key: u64, image: &Bytes) -> Arc<Flight> {
        let mut flights = self.lock();
        if let Some(entry) = flights.get_mut(&key)
            && entry.flight.is_open()
        {
            entry.aboard += 1;
            return Arc::clone(&entry.flight);
        }
        let flight = Arc::new(Flight::new(image.clone()));
        let entry = Entry {
            flight: Arc::clone(&flight),
            aboard: 1,
        };
        // One that is not open any more is in the hands of those who are aboard.
        flights.insert(key, entry);
        flight
    }

    fn leave(&self, key: u64, flight: &Arc<Flight>) {
        let mut flights = self.lock();
        let Some(entry) = flights
            .get_mut(&key)
            .filter(|entry| Arc::ptr_eq(&entry.flight, flight))
        else {
            return;
        };
        entry.aboard -= 1;
        if entry.aboard == 0 {
            flights.remove(&key);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Flight {
    fn new(image: Bytes) -> Self {
        Self {
            share: Arc::default(),
            image: Mutex::new(Some(image)),
            decode: Mutex::new(Decode::NotBegun),
        }
    }

    fn image(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self) -> MutexGuard<'_, Decode> {
        self.decode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more may come.
    fn is_open(&self) -> bool {
        !self.share.is_answered() && self.image().is_some()
    }

    fn is_of(&self, image: &Bytes) -> bool {
        // Compared without the lock.
        let own = self.image().clone();
        own.is_some_and(|own| own == image)
    }

    /// One asker's turn to decode has come: he does it for all, or takes what is done.
    ///
    /// # Panics
    ///
    /// Where `tensor` does, or says that a decoder did; each asker's end finds nothing prepared.
    pub(super) fn come(&self, ready: Ready, tensor: impl FnOnce() -> Result<(Vec<f32>, Timing), ImageError>) {
        {
            let mut decode = self.decode();
            match &mut *decode {
                Decode::NotBegun => *decode = Decode::Begun(Vec::new()),
                Decode::Begun(others) => return others.push(ready),
                Decode::Done(tensor) => {
                    let tensor = Arc::clone(tensor);
                    drop(decode);
                    return ready.submit(tensor, Timing::default());
                }
                Decode::Broken(error) => {
                    let error = error.clone();
                    drop(decode);
                    return ready.fail(error);
                }
            }
        }
        match catch_unwind(AssertUnwindSafe(tensor)) {
            Ok(Ok((tensor, timing))) => {
                let tensor = Arc::new(tensor);
                let others = self.end(Decode::Done(Arc::clone(&tensor)));
                ready.submit(Arc::clone(&tensor), timing);
                for other in others {
                    other.submit(Arc::clone(&tensor), Timing::default());
                }
            }
            Ok(Err(ImageError::Panicked)) => {
                drop((ready, self.end(Decode::Broken(ImageError::Panicked))));
                // Goes on as the panic it was: the pool counts it.
                resume_unwind(Box::new("a decoder panicked"));
            }
            Ok(Err(error)) => {
                let others = self.end(Decode::Broken(error.clone()));
                for asker in others.into_iter().chain([ready]) {
                    asker.fail(error.clone());
                }
            }
            Err(panic) => {
                drop((ready, self.end(Decode::Broken(ImageError::Panicked))));
                resume_unwind(panic);
            }
        }
    }

    /// Decoding has ended so; who came to it meanwhile.
    fn end(&self, with: Decode) -> Vec<Ready> {
        {
            let mut image = self.image();
            if image.as_ref().is_some_and(|image| image.len() > KEPT_BYTES) {
                *image = None;
            }
        }
        match std::mem::replace(&mut *self.decode(), with) {
            Decode::Begun(others) => others,
            Decode::NotBegun | Decode::Done(_) | Decode::Broken(_) => Vec::new(),
        }
    }
}

impl Ready {
    fn submit(self, tensor: Arc<Vec<f32>>, timing: Timing) {
        let _ = self.prepared.end.set(Ok(()));
        self.place.submit_shared(SharedItem {
            tensor,
            deadline: Some(self.deadline),
            timing,
            member: self.member,
        });
    }

    /// The image is at fault. Told before the reply is dropped, which wakes the caller's end to read it.
    fn fail(self, error: ImageError) {
        if error != ImageError::Panicked {
            let _ = self.prepared.end.set(Err(error));
        }
    }
}
