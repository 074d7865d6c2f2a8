//! `GET /health/…`: whether the process lives, has started, and takes requests.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::models::named;
use crate::batcher::ItemError;
use crate::http::problem::Problem;
use crate::http::{Phase, State, draining, starting};
use crate::model::{ModelName, Version};

type Shared = extract::State<Arc<State>>;

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

#[derive(Serialize)]
struct ModelStatus<'a> {
    status: &'static str,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a ModelName,
    version: Version,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
        .route("/v1/models/{name}/ready", get(model_ready))
}

async fn live() -> Json<Status> {
    Json(Status { status: "live" })
}

async fn startup(extract::State(state): Shared) -> Result<Json<Status>, Problem> {
    match state.phase() {
        Phase::Starting => Err(starting()),
        Phase::Ready | Phase::Draining | Phase::Closing => Ok(Json(Status { status: "started" })),
    }
}

async fn ready(extract::State(state): Shared) -> Result<Json<Status>, Problem> {
    is_ready(&state)?;
    Ok(Json(Status { status: "ready" }))
}

async fn model_ready(
    extract::State(state): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let name = named(path)?;
    takes_requests(&state)?;
    let served = state.predictor()?.find(Some(&name), None)?;
    if served.batcher.is_lost() {
        return Err((&ItemError::Lost).into());
    }
    let model = Model {
        name: &served.name,
        version: served.version,
    };
    let status = "ready";
    Ok(Json(ModelStatus { status, model }).into_response())
}

/// Requests are taken, and each model's champion can answer them.
pub(super) fn is_ready(state: &State) -> Result<(), Problem> {
    takes_requests(state)?;
    match state.predictor.get() {
        Some(predictor) if !predictor.is_well() => Err((&ItemError::Lost).into()),
        _ => Ok(()),
    }
}

fn takes_requests(state: &State) -> Result<(), Problem> {
    match state.phase() {
        Phase::Starting => Err(starting()),
        Phase::Ready => Ok(()),
        Phase::Draining | Phase::Closing => Err(draining()),
    }
}
