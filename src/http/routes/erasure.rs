//! `DELETE /v1/data/{sha256}`: an image and all that was said of it, gone.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path};
use axum::routing::delete;
use axum::{Json, Router};
use serde::Serialize;

use crate::collect::now_ms;
use crate::http::problem::{Kind, Problem};
use crate::http::{State, keeping};
use crate::model::{ModelName, Version};
use crate::store::Digest;

#[derive(Serialize)]
struct Answer {
    sha256: String,
    predictions: u64,
    labels: u64,
    image: bool,
    learnt_by: Vec<Learner>,
}

/// A version that learnt from the image.
#[derive(Serialize)]
struct Learner {
    name: ModelName,
    version: Version,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/data/{sha256}", delete(erase))
}

async fn erase(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Answer>, Problem> {
    let store = keeping::store(&state)?;
    let Path(sha256) = path.map_err(|_| Problem::new(Kind::BadRequest, "the path is not UTF-8"))?;
    let sha256: Digest = keeping::value("sha256", &sha256)?;
    // What waits to be kept is kept and erased, or meets the note that it is erased.
    let erased = store.erase(&sha256, now_ms()).await?;
    state.metrics.collecting.erasures.inc();
    let learner = |(name, version)| Learner { name, version };
    Ok(Json(Answer {
        sha256: sha256.to_string(),
        predictions: erased.predictions,
        labels: erased.labels,
        image: erased.image,
        learnt_by: erased.learnt.into_iter().map(learner).collect(),
    }))
}
