//! What bounded queues share: how long their work takes.

mod fit;

pub use fit::Fit;
