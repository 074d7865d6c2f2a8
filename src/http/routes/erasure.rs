//! `DELETE /v1/data/{sha256}`: an image and all that was said of it, gone.

use std::io;
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
use crate::registry::{Registry, RegistryError};
use crate::retrain::{Learners, bar_learners};
use crate::store::{Digest, Erased, Learner};

#[derive(Serialize)]
struct Answer {
    sha256: String,
    predictions: u64,
    labels: u64,
    image: bool,
    learnt_by: Vec<Learnt>,
    learning: Vec<Learning>,
}

/// A version that learnt from the image.
#[derive(Serialize)]
struct Learnt {
    name: ModelName,
    version: Version,
}

/// A run that learns from it and has no version yet.
#[derive(Serialize)]
struct Learning {
    name: ModelName,
    run: String,
}

/// What is left to do, and how.
const UNWRITTEN: &str =
    "the image is erased, but not every version that learnt from it could be barred: erase it once more";

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
    if let Some(predictor) = state.predictor.get() {
        predictor.erase(sha256.bytes());
    }
    let (predictions, labels, image) = (erased.predictions, erased.labels, erased.image);
    let Learners { versions, runs } = barred(&state, erased).await?;
    let learnt = |(name, version)| Learnt { name, version };
    let learning = |Learner { model: name, run }| {
        let run = run.to_string();
        Learning { name, run }
    };
    Ok(Json(Answer {
        sha256: sha256.to_string(),
        predictions,
        labels,
        image,
        learnt_by: versions.into_iter().map(learnt).collect(),
        learning: runs.into_iter().map(learning).collect(),
    }))
}

/// Whoever learnt from the image, barred from being promoted.
async fn barred(state: &State, erased: Erased) -> Result<Learners, Problem> {
    if erased.learnt.is_empty() && erased.learning.is_empty() {
        return Ok(Learners::default());
    }
    let folder = state.models.clone();
    // Files are read and written: where a slow disk holds up no other request.
    let barred = move || bar_learners(&Registry::open(folder)?, erased);
    let barred = tokio::task::spawn_blocking(barred).await;
    let unwritten = || Problem::new(Kind::Internal, UNWRITTEN);
    barred.map_err(|_| unwritten())?.map_err(|error| {
        tracing::error!(%error, "versions that learnt from an erased image are not barred");
        match error {
            RegistryError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Problem::new(Kind::InsufficientStorage, UNWRITTEN)
            }
            _ => unwritten(),
        }
    })
}
