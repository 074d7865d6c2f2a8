//! Who asks, and how urgently.

/// How urgently an answer is wanted (RFC 9218): 0 is the most urgent, 7 the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency(u8);

/// Urgencies there are.
pub(super) const LEVELS: usize = 8;

/// A client as queues know it: a hash of whatever tells clients apart, keyed so that nobody can choose two that are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client(pub u64);

/// Who wants a place in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// How urgently.
    pub urgency: Urgency,
    /// For whom.
    pub client: Client,
}

impl Urgency {
    /// As RFC 9218 has it where nothing is said.
    pub const DEFAULT: Self = Self(3);

    /// From 0 to 7.
    pub fn new(level: u8) -> Option<Self> {
        (usize::from(level) < LEVELS).then_some(Self(level))
    }

    /// From 0 to 7.
    pub fn level(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Urgency {
    fn default() -> Self {
        Self::DEFAULT
    }
}
