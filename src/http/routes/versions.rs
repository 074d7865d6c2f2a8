//! `POST /v1/models/{name}/versions/{version}/load` and `unload`: versions that serve without an alias.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path};
use axum::routing::post;
use axum::{Json, Router};

use super::managed::named_version;
use crate::http::State;
use crate::http::problem::Problem;
use crate::service::InService;

type Shared = extract::State<Arc<State>>;
type Parts = Result<Path<(String, String)>, PathRejection>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/models/{name}/versions/{version}/load", post(load))
        .route("/v1/models/{name}/versions/{version}/unload", post(unload))
}

async fn load(extract::State(state): Shared, path: Parts) -> Result<Json<InService>, Problem> {
    let (name, version) = named_version(path)?;
    Ok(Json(state.service()?.load(name, version).await?))
}

async fn unload(extract::State(state): Shared, path: Parts) -> Result<Json<InService>, Problem> {
    let (name, version) = named_version(path)?;
    Ok(Json(state.service()?.unload(name, version).await?))
}
