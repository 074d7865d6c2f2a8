//! `/v1/feedback/…`: what a person sees of the labels, and decides.

use std::sync::Arc;

use axum::extract::{self, Request};
use axum::http::Uri;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize};

use super::managed::noted;
use crate::collect::now_ms;
use crate::http::keeping::{self, Label};
use crate::http::problem::{Kind, Problem};
use crate::http::{State, forms};
use crate::model::ModelName;
use crate::store::{self, Conflict, Count, Decision, Judged};

type Shared = extract::State<Arc<State>>;

/// Conflicts on a page where the request does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    model: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

#[derive(Serialize)]
struct Quarantine {
    model: ModelName,
    conflicts: Vec<Disputed>,
    /// Where the next page follows; none after the last.
    next: Option<String>,
}

/// An image whose labels disagree.
#[derive(Serialize)]
struct Disputed {
    sha256: String,
    labels: Vec<Said>,
}

#[derive(Serialize)]
struct Said {
    label: u32,
    name: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    at_ms: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    model: ModelName,
    sha256: String,
    /// `null` is said, not left out.
    #[serde(deserialize_with = "said")]
    label: Option<Label>,
    source: Option<String>,
}

#[derive(Serialize)]
struct Resolved {
    sha256: String,
    label: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfModel {
    model: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    model: ModelName,
    accepted: u64,
    quarantined: u64,
    overruled: u64,
    counts: Vec<Counted>,
}

#[derive(Serialize)]
struct Counted {
    label: u32,
    name: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    state: String,
    labels: u64,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/feedback/quarantine", get(quarantine))
        .route("/v1/feedback/decisions", post(decide))
        .route("/v1/feedback/summary", get(summary))
}

async fn quarantine(extract::State(state): Shared, uri: Uri) -> Result<Json<Quarantine>, Problem> {
    let (store, predictor) = (keeping::store(&state)?, state.predictor()?);
    let asked: Listing = keeping::query(&uri)?;
    let model = keeping::model(predictor, asked.model.as_deref())?;
    let after = asked.after.map(|after| keeping::value("after", &after));
    let limit = asked.limit.map_or(Ok(PAGE), |limit| page(&limit))?;
    let conflicts = store
        .quarantine(&model, after.transpose()?.as_ref(), limit)
        .await?;
    let is_full = conflicts.len() == limit;
    let last = conflicts.last().filter(|_| is_full);
    let next = last.map(|conflict| conflict.sha256.to_string());
    let names = keeping::labels(predictor, &model);
    Ok(Json(Quarantine {
        model,
        conflicts: conflicts.into_iter().map(|c| disputed(c, &names)).collect(),
        next,
    }))
}

fn page(limit: &str) -> Result<usize, Problem> {
    let limit = limit.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| {
        let detail = format!("limit is a whole number from 1 to {MAX_PAGE}");
        Problem::new(Kind::InvalidInput, detail)
    })
}

fn disputed(conflict: Conflict, names: &[String]) -> Disputed {
    let said = |judged: Judged| Said {
        label: judged.label,
        name: name(names, judged.label),
        source: judged.source.to_string(),
        key: judged.key.as_ref().map(ToString::to_string),
        confidence: judged.confidence,
        at_ms: judged.at_ms,
    };
    Disputed {
        sha256: conflict.sha256.to_string(),
        labels: conflict.labels.into_iter().map(said).collect(),
    }
}

/// Empty where the model once had more classes.
fn name(names: &[String], label: u32) -> String {
    names.get(label as usize).cloned().unwrap_or_default()
}

async fn decide(extract::State(state): Shared, request: Request) -> Result<Json<Resolved>, Problem> {
    let (store, predictor) = (keeping::store(&state)?, state.predictor()?);
    let note = noted(&request);
    let (head, body) = request.into_parts();
    let body = forms::json_body(&head.headers, body, &state.bodies).await?;
    let decided: Decided = keeping::json(&body.bytes)?;
    let key = keeping::caller(&head.extensions);
    note.model(decided.model.as_str());
    note.image(&decided.sha256);
    decided.source.iter().for_each(|source| note.by(source));
    let names = keeping::labels(predictor, &predictor.find(Some(&decided.model), None)?.name);
    let decision = Decision {
        model: decided.model,
        sha256: keeping::value("sha256", &decided.sha256)?,
        label: decided.label.map(|label| label.number(&names)),
        source: keeping::source(decided.source.as_deref(), key.as_ref())?,
        key,
    };
    let classes = u32::try_from(names.len()).unwrap_or(u32::MAX);
    if decision.label.is_some_and(|label| label >= classes) {
        return Err(Problem::new(
            Kind::InvalidInput,
            "label: the model has no such class",
        ));
    }
    if !store.resolve(&decision, classes, now_ms()).await? {
        return Err(Problem::new(Kind::NotKept, "no label of this image is kept"));
    }
    Ok(Json(Resolved {
        sha256: decision.sha256.to_string(),
        label: decision.label,
    }))
}

fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Label>, D::Error> {
    Option::deserialize(deserializer)
}

async fn summary(extract::State(state): Shared, uri: Uri) -> Result<Json<Summary>, Problem> {
    let (store, predictor) = (keeping::store(&state)?, state.predictor()?);
    let asked: OfModel = keeping::query(&uri)?;
    let model = keeping::model(predictor, asked.model.as_deref())?;
    let counts = store.counts(&model).await?;
    let names = keeping::labels(predictor, &model);
    let total = |state: store::State| {
        let of_state = counts.iter().filter(|count| count.state == state);
        of_state.map(|count| count.labels).sum()
    };
    Ok(Json(Summary {
        accepted: total(store::State::Accepted),
        quarantined: total(store::State::Quarantined),
        overruled: total(store::State::Overruled),
        counts: counts.iter().map(|count| counted(count, &names)).collect(),
        model,
    }))
}

fn counted(count: &Count, names: &[String]) -> Counted {
    Counted {
        label: count.label,
        name: name(names, count.label),
        source: count.source.to_string(),
        key: count.key.as_ref().map(ToString::to_string),
        state: count.state.to_string(),
        labels: count.labels,
    }
}
