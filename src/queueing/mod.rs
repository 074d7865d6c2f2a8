//! What bounded queues share: how long their work takes, who has a place, and whose turn it is.

mod ages;
mod asker;
mod fit;
mod room;
mod turns;

pub use asker::{Asker, Client, Urgency};
pub use fit::Fit;
pub use room::Room;
pub use turns::{Seat, Turns};
