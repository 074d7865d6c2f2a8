//! `/v1/models/{name}/promote`, `rollback`, `aliases` and `history`: which versions stand for the model.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path, Request};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize};

use super::managed::{named_pair, noted};
use super::models::named;
use crate::http::problem::{Kind, Problem, excerpt};
use crate::http::{State, forms};
use crate::model::{ModelName, Version};
use crate::service::{Alias, Ask, Change, Changed, Step};

type Shared = extract::State<Arc<State>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    version: Version,
    by: String,
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    by: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAlias {
    /// Must be said: an alias is not taken away by a slip.
    #[serde(deserialize_with = "said")]
    version: Option<Version>,
    by: String,
    reason: Option<String>,
}

#[derive(Serialize)]
struct History {
    changes: Vec<Change>,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/models/{name}/promote", post(promote))
        .route("/v1/models/{name}/rollback", post(rollback))
        .route("/v1/models/{name}/aliases/{alias}", put(set_alias))
        .route("/v1/models/{name}/history", get(history))
}

async fn promote(
    extract::State(state): Shared,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Changed>, Problem> {
    let note = noted(&request);
    let (name, asked) = (named(path)?, document::<Promote>(&state, request).await?);
    note.version(&asked.version);
    note.by(&asked.by);
    let step = Step::Promote {
        version: asked.version,
        force: asked.force,
    };
    change(&state, name, (asked.by, asked.reason), step).await
}

async fn rollback(
    extract::State(state): Shared,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Changed>, Problem> {
    let note = noted(&request);
    let (name, asked) = (named(path)?, document::<Rollback>(&state, request).await?);
    note.by(&asked.by);
    change(&state, name, (asked.by, asked.reason), Step::Rollback).await
}

async fn set_alias(
    extract::State(state): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<Changed>, Problem> {
    let (name, alias) = named_pair(path)?;
    let alias = alias_of(&alias)?;
    let note = noted(&request);
    let asked = document::<SetAlias>(&state, request).await?;
    match &asked.version {
        Some(version) => note.version(version),
        None => note.version(&"none"),
    }
    note.by(&asked.by);
    let step = Step::Alias(alias, asked.version);
    change(&state, name, (asked.by, asked.reason), step).await
}

async fn history(
    extract::State(state): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<History>, Problem> {
    let changes = state.service()?.history(named(path)?).await?;
    Ok(Json(History { changes }))
}

async fn change(
    state: &State,
    name: ModelName,
    (by, reason): (String, Option<String>),
    step: Step,
) -> Result<Json<Changed>, Problem> {
    let changed = state.service()?.change(name, Ask { by, reason, step });
    Ok(Json(changed.await?))
}

async fn document<T: serde::de::DeserializeOwned>(state: &State, request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    forms::document(&head.headers, body, &state.bodies).await
}

fn alias_of(text: &str) -> Result<Alias, Problem> {
    let all = [Alias::Champion, Alias::Challenger, Alias::Previous];
    let alias = all.into_iter().find(|alias| alias.name() == text);
    alias.ok_or_else(|| {
        let detail = format!(
            "'{}' is no alias: champion, challenger and previous are",
            excerpt(text)
        );
        Problem::new(Kind::NotFound, detail)
    })
}

/// A value that may be null but not left out.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Version>, D::Error> {
    Option::deserialize(deserializer)
}
