//! A job as the interface shows it.

use serde::Serialize;
use serde_json::Value;

use crate::model::{ModelName, Version};
use crate::store::{Job, Wish};

#[derive(Serialize)]
pub(super) struct JobView<'a> {
    id: i64,
    model: &'a ModelName,
    state: &'static str,
    trigger: &'static str,
    request: Value,
    created_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<i64>,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    wish: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promoted: Option<bool>,
    progress: Progress<'a>,
}

#[derive(Serialize)]
struct Progress<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<f64>,
}

impl<'a> JobView<'a> {
    pub(super) fn of(job: &'a Job) -> Self {
        let progress = &job.progress;
        Self {
            id: job.id.number(),
            model: &job.model,
            state: job.state.text(),
            trigger: job.cause.text(),
            request: serde_json::from_str(&job.request).unwrap_or_default(),
            created_ms: job.created_ms,
            started_ms: job.started_ms,
            ended_ms: job.ended_ms,
            attempt: job.attempt,
            wish: job.wish.map(Wish::text),
            reason: job.reason.as_deref(),
            version: job.version,
            promoted: job.promoted,
            progress: Progress {
                phase: progress.phase.as_deref(),
                epoch: progress.epoch,
                epochs: progress.epochs,
                loss: progress.loss,
                accuracy: progress.accuracy,
                eta_seconds: progress.eta_seconds,
            },
        }
    }
}
