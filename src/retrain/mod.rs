//! The learning pipeline: what may be asked of it, and what it tells while it runs.

mod progress;
mod request;

pub use progress::{EpochDone, Finished, Phase, Progress};
pub use request::{DatasetName, Request, RequestError};
