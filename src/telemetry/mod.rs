//! What the server tells of itself: logs, spans and every Prometheus series.

pub mod access;
pub mod admission;
#[cfg(test)]
pub(crate) mod captured;
pub mod collecting;
mod jobs;
pub mod logging;
pub mod metrics;
mod service;
mod sharing;

pub use admission::Refused;
pub use collecting::Live;
pub use jobs::{CHECKS, JOB_STATES, JobMetrics};
pub use metrics::{CloseReason, Metrics, ModelMetrics, Outcome, Stage};
pub use service::{NameMetrics, ServiceMetrics};
pub use sharing::Sharing;
