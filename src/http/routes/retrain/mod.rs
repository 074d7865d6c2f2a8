//! `/v1/retrain…`: retraining jobs, asked for, looked at, followed, ended.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{self, Path, Query};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use self::view::JobView;
use super::managed::noted;
use crate::http::forms::{Use, read_body};
use crate::http::problem::{Kind, Problem, excerpt};
use crate::http::{Phase, State, draining};
use crate::jobs::{Ask, Desk, JobsError};
use crate::model::{ModelName, NameError};
use crate::retrain::Request;
use crate::store::{Job, JobError, JobFilter, JobId, Key, StoreError};

mod events;
#[cfg(test)]
mod tests;
mod view;

type Shared = extract::State<Arc<State>>;
type JobPath = Result<Path<String>, PathRejection>;

/// What a listing may be asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    model: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct List<'a> {
    jobs: Vec<JobView<'a>>,
}

/// Jobs in a listing that names no limit, and the most that one holds.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1_000;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/retrain", get(list).post(submit))
        .route("/v1/retrain/{id}", get(show).delete(cancel))
        .route("/v1/retrain/{id}/events", get(events::follow))
        .route("/v1/retrain/{id}/pause", post(pause))
        .route("/v1/retrain/{id}/resume", post(resume))
}

async fn submit(extract::State(state): Shared, asked: extract::Request) -> Result<Response, Problem> {
    let desk = open(&state)?;
    let note = noted(&asked);
    let (head, body) = asked.into_parts();
    let key = key(&head.headers)?;
    is_json(&head.headers)?;
    let request = request(&read_body(body, &state.bodies, Use::Json).await?.bytes)?;
    note.model(request.model.as_str());
    let submitted = desk.submit(Ask { request, key }).await.map_err(refused)?;
    note.job(&submitted.id);
    let job = desk.job(submitted.id).await.map_err(refused)?;
    let location = [(header::LOCATION, format!("/v1/retrain/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(JobView::of(&job))).into_response())
}

async fn list(
    extract::State(state): Shared,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let desk = desk(&state)?;
    let Query(wanted) = query.map_err(|error| bad(error.body_text()))?;
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(impossible(format!("limit is 1 to {MAX_LIMIT}")));
    }
    let model = wanted.model.as_deref().map(str::parse::<ModelName>).transpose();
    let filter = JobFilter {
        model: model.map_err(|error: NameError| bad(error.to_string()))?,
        state: wanted
            .state
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error: StoreError| impossible(excerpt(&error.to_string())))?,
    };
    let jobs = desk.store.jobs(&filter, limit).await;
    let jobs = jobs.map_err(|error| refused(error.into()))?;
    let jobs = jobs.iter().map(JobView::of).collect();
    Ok(Json(List { jobs }).into_response())
}

async fn show(extract::State(state): Shared, path: JobPath) -> Result<Response, Problem> {
    let (desk, id) = (desk(&state)?, id(path)?);
    let job = desk.job(id).await.map_err(refused)?;
    Ok(Json(JobView::of(&job)).into_response())
}

async fn cancel(extract::State(state): Shared, path: JobPath) -> Result<Response, Problem> {
    let (desk, id) = (desk(&state)?, id(path)?);
    asked(desk.cancel(id).await)
}

async fn pause(extract::State(state): Shared, path: JobPath) -> Result<Response, Problem> {
    let (desk, id) = (desk(&state)?, id(path)?);
    asked(desk.pause(id).await)
}

async fn resume(extract::State(state): Shared, path: JobPath) -> Result<Response, Problem> {
    let (desk, id) = (open(&state)?, id(path)?);
    asked(desk.resume(id).await)
}

/// 202 where it still has to happen.
fn asked(job: Result<Job, JobsError>) -> Result<Response, Problem> {
    let job = job.map_err(refused)?;
    let status = if job.state.is_active() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(JobView::of(&job))).into_response())
}

/// The desk, or why there is none.
fn desk(state: &State) -> Result<&Desk, Problem> {
    // Before readiness the store may yet be opened.
    let none = || match state.phase() {
        Phase::Starting => crate::http::starting(),
        _ => Problem::new(
            Kind::StoreUnavailable,
            "there is no store that jobs could be kept in",
        ),
    };
    state.jobs.get().ok_or_else(none)
}

/// The desk, while new work is welcome.
fn open(state: &State) -> Result<&Desk, Problem> {
    if state.phase() >= Phase::Draining {
        return Err(draining());
    }
    desk(state)
}

fn id(path: JobPath) -> Result<JobId, Problem> {
    let Path(id) = path.map_err(|_| bad("the path is not UTF-8"))?;
    id.parse().map_err(|error: StoreError| bad(error.to_string()))
}

/// The `Idempotency-Key`, where there is one.
fn key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    let rule = "Idempotency-Key is 1 to 128 visible ASCII characters";
    key.map(Some).ok_or_else(|| bad(rule))
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let essence = value.and_then(|value| value.split(|&b| b == b';').next());
    match essence {
        Some(essence) if essence.trim_ascii().eq_ignore_ascii_case(b"application/json") => Ok(()),
        _ => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "the content type is application/json",
        )),
    }
}

fn request(body: &[u8]) -> Result<Request, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let text = excerpt(&text);
        match error.classify() {
            serde_json::error::Category::Data => impossible(text),
            _ => bad(format!("the body is not JSON: {text}")),
        }
    })
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

fn impossible(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidInput, detail)
}

/// What the caller is told; what is the server's own trouble goes to the log.
fn refused(error: JobsError) -> Problem {
    let text = error.to_string();
    match error {
        JobsError::Model(_) => Problem::new(Kind::ModelNotFound, text),
        JobsError::Request(_) => impossible(text),
        JobsError::Job(JobError::Active(id)) => Problem::new(Kind::JobActive, text).job(id),
        JobsError::Job(JobError::KeyTaken(id)) => Problem::new(Kind::KeyTaken, text).job(id),
        JobsError::Job(JobError::Unknown(_)) => Problem::new(Kind::JobNotFound, text),
        JobsError::Job(JobError::NotFrom { id, .. }) => Problem::new(Kind::JobState, text).job(id),
        JobsError::Job(JobError::Store(error)) | JobsError::Store(error) => stored(&error),
        JobsError::Io { .. } => {
            tracing::error!(error = text, "a retraining job could not be asked for");
            Problem::new(Kind::Internal, "the log says more under this request's id")
        }
    }
}

fn stored(error: &StoreError) -> Problem {
    match error {
        StoreError::Full => Problem::new(Kind::InsufficientStorage, error.to_string()),
        StoreError::Busy => {
            let problem = Problem::new(Kind::StoreUnavailable, error.to_string());
            problem.retry_after(crate::http::RETRY_AFTER)
        }
        _ => crate::http::keeping::failed(error),
    }
}
