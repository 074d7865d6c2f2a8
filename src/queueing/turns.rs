//! Whose turn it is: the more urgent first, waiting makes urgent, and clients of one urgency take turns.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use super::ages::Ages;
use super::asker::LEVELS;
use super::{Asker, Client};

/// A place in a queue, for an item that is there or is to come. To be given back or pushed.
#[derive(Debug)]
pub struct Seat {
    /// In the order in which they were taken.
    number: u64,
    since: Instant,
    /// The step of time in which that was.
    step: u64,
    /// Index of its client.
    client: u32,
    level: u8,
}

/// Items that wait, by the rules of the module's first line; `docs/decisions/0015-turns.md` says why these.
///
/// - An item's rank is the time when it took its seat plus a step of time for each level of urgency it lacks. Of the levels,
///   that one is next whose next item has the least rank: an item of level 5 goes before every item of level 3 that comes two
///   steps later.
/// - In a level, clients take turns, an item each. One that had nothing there comes after those that have.
/// - A client's items of one level are taken in the order of their seats.
///
/// All is done in constant time, and memory is allocated only where more wait than ever before.
#[derive(Debug)]
pub struct Turns<T> {
    levels: [Level; LEVELS],
    clients: Vec<Seated>,
    /// Indexes of `clients` by their keys, of those who have a seat.
    known: HashMap<Client, u32, BuildHasherDefault<AsItIs>>,
    free_clients: Vec<u32>,
    slots: Vec<Slot<T>>,
    free_slots: Vec<u32>,
    /// Items that are there.
    ready: usize,
    /// Seats given so far.
    given: u64,
    /// Waiting so long counts as a level more urgent.
    step: Duration,
    /// From which steps are counted.
    origin: Option<Instant>,
}

/// Takes a client's number for its hash: it is one already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A number alone is hashed here.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A client that has a seat.
#[derive(Clone, Copy, Debug)]
struct Seated {
    client: Client,
    seats: usize,
    flows: [Flow; LEVELS],
}

/// A client's items of one level, the next first, linked in both directions.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Seats, those of items that are not there yet among them.
    seats: u32,
    first: u32,
    last: u32,
    /// The client whose turn is after this one's.
    next_client: u32,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    ages: Ages,
    /// Clients that have a seat in it.
    clients: usize,
    /// Those with an item that is there, by whose turn it is.
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Slot<T> {
    item: Option<T>,
    seat: Seat,
    before: u32,
    after: u32,
}

/// Bounds of a step, whatever is asked.
const SHORTEST: Duration = Duration::from_nanos(1);
const LONGEST: Duration = Duration::from_secs(86_400);

/// No index.
const NONE: u32 = u32::MAX;

const NOTHING: Flow = Flow {
    seats: 0,
    first: NONE,
    last: NONE,
    next_client: NONE,
};

impl<T> Turns<T> {
    /// Nobody waits. `step` of waiting counts as a level more urgent; at least a nanosecond, at most a day.
    pub fn new(step: Duration) -> Self {
        let level = Level {
            ages: Ages::default(),
            clients: 0,
            first: NONE,
            last: NONE,
        };
        Self {
            levels: [level; LEVELS],
            clients: Vec::new(),
            known: HashMap::default(),
            free_clients: Vec::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            ready: 0,
            given: 0,
            step: step.clamp(SHORTEST, LONGEST),
            origin: None,
        }
    }

    /// Items that are there.
    pub fn len(&self) -> usize {
        self.ready
    }

    /// Whether no item is there.
    pub fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// Seats that are taken, by items or for items that are to come.
    pub fn seats(&self) -> usize {
        self.levels.iter().map(|level| level.ages.all()).sum()
    }

    /// Seats that a client has.
    pub fn seats_of(&self, client: Client) -> usize {
        let index = self.known.get(&client);
        index.map_or(0, |&index| self.clients[index as usize].seats)
    }

    /// Of those who have a seat, at most so many go before an asker who comes now, unless others come.
    pub fn ahead(&self, asker: Asker, now: Instant) -> usize {
        let (mine, step) = (asker.urgency.level(), self.step_of(now));
        let count = |(level, at): (usize, &Level)| match level.checked_sub(mine) {
            None => at.ages.all(),
            Some(0) => self.ahead_in(level, asker.client),
            Some(less_urgent) => at.ages.older(step, less_urgent as u64),
        };
        self.levels.iter().enumerate().map(count).sum()
    }

    /// A client's own go before it, and before each of these one of each other client; the last is in its own turn.
    fn ahead_in(&self, level: usize, client: Client) -> usize {
        let Level { ages, clients, .. } = &self.levels[level];
        let index = self.known.get(&client);
        let own = index.map_or(0, |&index| {
            self.clients[index as usize].flows[level].seats as usize
        });
        let others = clients - usize::from(own > 0);
        ages.all().min(own + others.saturating_mul(own + 1))
    }

    /// Takes a seat.
    pub fn take(&mut self, asker: Asker, now: Instant) -> Seat {
        let (client, level) = (self.meet(asker.client), asker.urgency.level());
        self.origin.get_or_insert(now);
        let step = self.step_of(now);
        let seated = &mut self.clients[client as usize];
        seated.seats += 1;
        let flow = &mut seated.flows[level];
        flow.seats += 1;
        self.levels[level].clients += usize::from(flow.seats == 1);
        self.levels[level].ages.add(step);
        self.given += 1;
        Seat {
            number: self.given,
            since: now,
            step,
            client,
            level: level as u8,
        }
    }

    /// Gives a seat back whose item will not come.
    pub fn give_back(&mut self, seat: &Seat) {
        let (client, level) = (seat.client, usize::from(seat.level));
        self.levels[level].ages.remove(seat.step);
        let seated = &mut self.clients[client as usize];
        seated.seats -= 1;
        let flow = &mut seated.flows[level];
        flow.seats -= 1;
        self.levels[level].clients -= usize::from(flow.seats == 0);
        if seated.seats == 0 {
            self.known.remove(&seated.client);
            self.free_clients.push(client);
        }
    }

    /// The item of a seat is there.
    pub fn push(&mut self, seat: Seat, item: T) {
        let (client, level) = (seat.client, usize::from(seat.level));
        let flow = self.clients[client as usize].flows[level];
        // Mostly the last: those that took longer to come go before those that sat down after them.
        let (mut before, mut after) = (flow.last, NONE);
        while before != NONE && self.slots[before as usize].seat.number > seat.number {
            after = before;
            before = self.slots[before as usize].before;
        }
        let slot = self.put(Slot {
            item: Some(item),
            seat,
            before,
            after,
        });
        let flow = &mut self.clients[client as usize].flows[level];
        match before {
            NONE => flow.first = slot,
            before => self.slots[before as usize].after = slot,
        }
        match after {
            NONE => flow.last = slot,
            after => self.slots[after as usize].before = slot,
        }
        if before == NONE && after == NONE {
            self.line_up(client, level);
        }
        self.ready += 1;
    }

    /// The next item.
    pub fn peek(&self) -> Option<&T> {
        self.slots[self.next()?.1 as usize].item.as_ref()
    }

    /// Takes the next item, and its seat is free.
    pub fn pop(&mut self) -> Option<T> {
        let (level, slot) = self.next()?;
        let client = self.levels[level].first;
        let after = self.slots[slot as usize].after;
        let flow = &mut self.clients[client as usize].flows[level];
        self.levels[level].first = std::mem::replace(&mut flow.next_client, NONE);
        if self.levels[level].first == NONE {
            self.levels[level].last = NONE;
        }
        flow.first = after;
        match after {
            NONE => flow.last = NONE,
            after => {
                self.slots[after as usize].before = NONE;
                self.line_up(client, level);
            }
        }
        self.ready -= 1;
        self.free_slots.push(slot);
        let Slot { item, seat, .. } = &mut self.slots[slot as usize];
        let item = item.take();
        let seat = Seat { ..*seat };
        self.give_back(&seat);
        item
    }

    /// Every item that is there, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.item.as_ref())
    }

    /// The next item's level and slot: of the least rank, and of equal ranks the more urgent.
    fn next(&self) -> Option<(usize, u32)> {
        let mut best: Option<(Instant, usize, u32)> = None;
        for (level, at) in self.levels.iter().enumerate().filter(|(_, at)| at.first != NONE) {
            let slot = self.clients[at.first as usize].flows[level].first;
            let rank = self.slots[slot as usize].seat.since + self.step * level as u32;
            if best.is_none_or(|(least, ..)| rank < least) {
                best = Some((rank, level, slot));
            }
        }
        best.map(|(_, level, slot)| (level, slot))
    }

    /// A client's turn in a level comes after everybody's who is there.
    fn line_up(&mut self, client: u32, level: usize) {
        let at = &mut self.levels[level];
        match at.last {
            NONE => at.first = client,
            last => self.clients[last as usize].flows[level].next_client = client,
        }
        at.last = client;
    }

    fn put(&mut self, slot: Slot<T>) -> u32 {
        if let Some(free) = self.free_slots.pop() {
            self.slots[free as usize] = slot;
            return free;
        }
        self.slots.push(slot);
        index_of_last(self.slots.len())
    }

    /// The index of a client, who may be new.
    fn meet(&mut self, client: Client) -> u32 {
        if let Some(&index) = self.known.get(&client) {
            return index;
        }
        let seated = Seated {
            client,
            seats: 0,
            flows: [NOTHING; LEVELS],
        };
        let index = match self.free_clients.pop() {
            Some(free) => {
                self.clients[free as usize] = seated;
                free
            }
            None => {
                self.clients.push(seated);
                index_of_last(self.clients.len())
            }
        };
        self.known.insert(client, index);
        index
    }

    fn step_of(&self, time: Instant) -> u64 {
        let passed = self
            .origin
            .map_or(Duration::ZERO, |origin| time.saturating_duration_since(origin));
        // In 64 bits, which last for centuries.
        passed.as_nanos() as u64 / self.step.as_nanos() as u64
    }
}

fn index_of_last(count: usize) -> u32 {
    u32::try_from(count - 1).expect("a queue's limit is a million")
}

#[cfg(test)]
mod tests;
