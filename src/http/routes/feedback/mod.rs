//! `POST /v1/feedback`: what sources say of predictions and images.

use std::sync::Arc;

use axum::extract::{self, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;

use self::given::{Entry, Given};
use crate::collect::now_ms;
use crate::http::problem::Problem;
use crate::http::{State, forms, keeping};
use crate::predict::Predictor;
use crate::store::{Feedback, Key, Outcome, Store, StoreError, Subject};

mod given;

#[derive(Serialize)]
struct Answer {
    outcome: String,
}

#[derive(Serialize)]
struct Answers {
    outcomes: Vec<Answer>,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/feedback", post(give))
}

async fn give(
    extract::State(state): extract::State<Arc<State>>,
    request: Request,
) -> Result<Response, Problem> {
    let store = keeping::store(&state)?;
    let predictor = state.predictor()?;
    let (head, body) = request.into_parts();
    let body = forms::json_body(&head.headers, body, &state.bodies).await?;
    let key = keeping::caller(&head.extensions);
    let (entries, alone) = match Given::read(&body.bytes, state.config.max_feedback, key.as_ref())? {
        Given::One(entry) => (vec![entry], true),
        Given::Many(entries) => (entries, false),
    };
    if entries.iter().any(Entry::names_prediction) {
        state.collector.settled().await;
    }
    let now_ms = now_ms();
    let outcomes = take((store, predictor), &entries, key.as_ref(), now_ms).await;
    let series = &state.metrics.collecting;
    if outcomes.is_err() {
        entries.iter().for_each(|_| series.feedback("failed"));
    }
    let outcomes = outcomes?;
    for outcome in &outcomes {
        series.feedback(&outcome.to_string());
    }
    match (&outcomes[..], alone) {
        (&[outcome], true) => answer_one(outcome, now_ms),
        (outcomes, _) => {
            let outcomes = outcomes.iter().copied().map(answer).collect();
            Ok(Json(Answers { outcomes }).into_response())
        }
    }
}

fn answer(outcome: Outcome) -> Answer {
    let outcome = outcome.to_string();
    Answer { outcome }
}

/// What is new is created; what stood already, or stands beside another label, is only answered.
fn answer_one(outcome: Outcome, now_ms: i64) -> Result<Response, Problem> {
    if let Some(problem) = keeping::refusal(outcome, now_ms) {
        return Err(problem);
    }
    let status = match outcome {
        Outcome::Duplicate => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    Ok((status, Json(answer(outcome))).into_response())
}

/// One outcome for each entry, in order; all that are taken in one transaction.
async fn take(
    (store, predictor): (&Store, &Predictor),
    entries: &[Entry],
    key: Option<&Key>,
    now_ms: i64,
) -> Result<Vec<Outcome>, StoreError> {
    let mut batch = Vec::with_capacity(entries.len());
    // Places of entries whose prediction is not kept, so that their label's name has no model.
    let mut unknown = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        match resolved(store, predictor, entry).await? {
            Some(feedback) => batch.push(Feedback {
                key: key.cloned(),
                ..feedback
            }),
            None => unknown.push(place),
        }
    }
    let mut outcomes = store
        .feedback(&batch, &keeping::classes(predictor), now_ms)
        .await?;
    for place in unknown {
        outcomes.insert(place, Outcome::Unknown);
    }
    Ok(outcomes)
}

/// The entry with its class's number; `None` where only the prediction could tell it, and is not kept.
async fn resolved(
    store: &Store,
    predictor: &Predictor,
    entry: &Entry,
) -> Result<Option<Feedback>, StoreError> {
    let names = match (&entry.label, &entry.subject) {
        (keeping::Label::Number(_), _) => Vec::new(),
        (keeping::Label::Name(_), Subject::Image { model, .. }) => keeping::labels(predictor, model),
        (keeping::Label::Name(_), Subject::Prediction(id)) => match store.prediction(id).await? {
            Some(kept) => keeping::labels(predictor, &kept.model),
            None => return Ok(None),
        },
    };
    Ok(Some(Feedback {
        subject: entry.subject.clone(),
        label: entry.label.number(&names),
        source: entry.source.clone(),
        key: None,
        confidence: entry.confidence,
    }))
}
