//! One inference for items that are the same image: each has its own place and its own deadline, and the first whose turn comes is
//! computed for all.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Answer, ItemError, Reply, Timing};

/// Those who wait for the same answer. Whoever has joined gets it, also where the one that was computed has hung up.
#[derive(Default)]
pub struct Share {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// By the members' numbers; none of one that has its answer or has left.
    members: Vec<Option<(Reply, Instant)>>,
    /// One member's turn has come: the others are passed over and get its answer.
    is_claimed: bool,
    is_answered: bool,
}

/// One asker among those who wait. Dropped, it has left and nobody answers it, unless one is computed for it already.
pub struct Member {
    share: Arc<Share>,
    number: usize,
    /// It is computed for all.
    has_claimed: bool,
}

impl Share {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its answer was given; who comes now needs another.
    pub fn is_answered(&self) -> bool {
        self.lock().is_answered
    }

    /// Waits with the others, unless they have their answer already.
    ///
    /// # Errors
    ///
    /// The reply, where it comes too late.
    pub fn join(self: &Arc<Self>, reply: Reply, now: Instant) -> Result<Member, Reply> {
        let mut waiting = self.lock();
        if waiting.is_answered {
            return Err(reply);
        }
        waiting.members.push(Some((reply, now)));
        Ok(Member {
            number: waiting.members.len() - 1,
            share: Arc::clone(self),
            has_claimed: false,
        })
    }
}

impl Member {
    /// Whether its caller still listens and has no answer.
    pub fn is_waiting(&self) -> bool {
        let waiting = self.share.lock();
        let own = waiting.members.get(self.number).and_then(Option::as_ref);
        own.is_some_and(|(reply, _)| !reply.is_closed())
    }

    /// Whether it may be computed: it waits, and no other is computed for it. Once it is claimed, whether anybody listens.
    pub(super) fn is_wanted(&self) -> bool {
        let waiting = self.share.lock();
        let listens =
            |member: &Option<(Reply, Instant)>| member.as_ref().is_some_and(|(reply, _)| !reply.is_closed());
        if self.has_claimed {
            return waiting.members.iter().any(listens);
        }
        !waiting.is_claimed && waiting.members.get(self.number).is_some_and(listens)
    }

    pub(super) fn has_claimed(&self) -> bool {
        self.has_claimed
    }

    /// It is computed for all; not where another is.
    pub(super) fn claim(&mut self) {
        let mut waiting = self.share.lock();
        self.has_claimed = !waiting.is_claimed;
        waiting.is_claimed = true;
    }

    /// Answers itself alone. One that another is computed for waits for that one's answer, unless it is late.
    pub fn refuse(self, error: ItemError) {
        let own = if error == ItemError::DeadlinePassed {
            self.share.lock().take(self.number)
        } else {
            self.leave()
        };
        if let Some((reply, _)) = own {
            // A caller who hung up wants no answer.
            let _ = reply.send(Err(error));
        }
    }

    /// Answers all, as the one that was claimed; how many others there were. The time of the others is what they waited, and the
    /// inference.
    pub(super) fn answer(self, answer: &Result<Answer, ItemError>, now: Instant) -> usize {
        let members = {
            let mut waiting = self.share.lock();
            waiting.is_answered = true;
            std::mem::take(&mut waiting.members)
        };
        let mut others = 0;
        for (number, member) in members.into_iter().enumerate() {
            let Some((reply, joined)) = member else { continue };
            let mut answer = answer.clone();
            if number != self.number {
                others += usize::from(!reply.is_closed());
                if let Ok(answer) = &mut answer {
                    let inference = answer.timing.inference;
                    answer.timing = Timing {
                        queue: now.saturating_duration_since(joined).saturating_sub(inference),
                        inference,
                        ..Timing::default()
                    };
                }
            }
            let _ = reply.send(answer);
        }
        others
    }

    fn leave(&self) -> Option<(Reply, Instant)> {
        let mut waiting = self.share.lock();
        let is_left_to_another = waiting.is_claimed && !self.has_claimed;
        if is_left_to_another {
            None
        } else {
            waiting.take(self.number)
        }
    }
}

impl Waiting {
    fn take(&mut self, number: usize) -> Option<(Reply, Instant)> {
        self.members.get_mut(number).and_then(Option::take)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The caller's end wakes without the lock.
        drop(self.leave());
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
