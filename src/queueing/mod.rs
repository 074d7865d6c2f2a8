//! What bounded queues share: how long their work takes, and whose turn it is.

mod ages;
mod asker;
mod fit;
mod turns;

pub use asker::{Asker, Client, Urgency};
pub use fit::Fit;
pub use turns::{Seat, Turns};
