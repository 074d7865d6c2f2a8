//! The learning pipeline: from what came in to a version that the gate blesses, or does not.
//!
//! Data → train → stage → gate → promote, each step safe to be killed in and begun again (docs/retraining.md).

mod comparison;
mod config;
mod error;
mod incoming;
mod learners;
mod library;
mod material;
mod parent;
mod progress;
mod publication;
mod replay;
mod request;
mod run;
mod screen;
mod shelf;
mod stage;
#[cfg(test)]
mod tests;
mod work;

pub use comparison::{Common, Compared, Comparison, compare};
pub use config::Config;
pub use error::{Fault, RetrainError};
pub use incoming::Incoming;
pub use learners::{Learners, bar_learners};
pub use library::{check_replay, has_dataset};
pub use parent::{Beginning, Parent, beginning};
pub use progress::{EpochDone, Finished, MAX_SUSPECTS, Phase, Progress};
pub use publication::{Judged, Trained, reports};
pub use request::{DatasetName, Request, RequestError};
pub use run::{Listener, Outcome, Place, run};
