//! `POST /v1/samples`: images that come with their labels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{self, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::collect::now_ms;
use crate::http::problem::{Kind, Problem};
use crate::http::{State, forms, keeping};
use crate::model::ModelName;
use crate::predict::Predictor;
use crate::store::{Classes, Digest, Key, Outcome, Sample, Store};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    model: Option<String>,
    source: Option<String>,
}

#[derive(Serialize)]
struct Answers {
    model: ModelName,
    samples: Vec<Entry>,
}

/// One entry per image, in order.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Taken { outcome: String, sha256: String },
    Failure { error: Problem },
}

/// What became of one image.
type Attempt = Result<(Outcome, Digest), Problem>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/samples", post(give))
}

async fn give(
    extract::State(state): extract::State<Arc<State>>,
    request: Request,
) -> Result<Response, Problem> {
    let store = keeping::store(&state)?;
    let predictor = state.predictor()?;
    let (head, body) = request.into_parts();
    let asked: Asked = keeping::query(&head.uri)?;
    let form = forms::samples(&head.headers, body, &state.bodies).await?;
    let model = keeping::model(predictor, either("model", asked.model, form.model)?.as_deref())?;
    let key = keeping::caller(&head.extensions);
    let source = either("source", asked.source, form.source)?;
    let taker = Taker {
        store,
        predictor,
        classes: keeping::classes(predictor),
        names: keeping::labels(predictor, &model),
        source: keeping::source(source.as_deref(), key.as_ref())?,
        key,
        model,
        now_ms: now_ms(),
        deadline: Instant::now() + Duration::from_millis(state.config.max_request_timeout_ms),
    };
    // Held until the last image is written.
    let _room = form.room;
    let mut results = Vec::with_capacity(form.samples.len());
    for (image, label) in form.samples {
        let result = taker.take(image, &label).await;
        state.metrics.collecting.sample(&counted(&result));
        results.push(result);
    }
    taker.answer(results)
}

/// The query's or the form's, not both.
fn either(key: &str, query: Option<String>, form: Option<String>) -> Result<Option<String>, Problem> {
    match (query, form) {
        (Some(_), Some(_)) => Err(invalid(&format!("{key} stands in the query and in the form"))),
        (query, form) => Ok(query.or(form)),
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(Kind::InvalidInput, detail)
}

/// The series in which a result counts.
fn counted(result: &Attempt) -> String {
    match result {
        Ok((outcome, _)) => outcome.to_string(),
        Err(problem) => match problem.kind {
            Kind::UnsupportedMediaType | Kind::ImageTooLarge | Kind::ImageBroken => "undecodable".to_owned(),
            _ => "failed".to_owned(),
        },
    }
}

/// What all samples of a request share.
struct Taker<'a> {
    store: &'a Store,
    predictor: &'a Predictor,
    classes: Classes,
    names: Vec<String>,
    source: Key,
    key: Option<Key>,
    model: ModelName,
    now_ms: i64,
    deadline: Instant,
}

impl Taker<'_> {
    /// Takes one image if it can be decoded; what is taken is on the disk.
    async fn take(&self, image: bytes::Bytes, label: &str) -> Attempt {
        let decoded = self.predictor.verify(image.clone(), self.deadline).await;
        decoded.map_err(|failure| Problem::from(&failure))?;
        let sample = Sample {
            model: self.model.clone(),
            image,
            label: keeping::class_of(label, &self.names),
            source: self.source.clone(),
            key: self.key.clone(),
        };
        let outcome = self.store.sample(&sample, &self.classes, self.now_ms).await?;
        Ok((outcome, Digest::of(&sample.image)))
    }

    /// An entry for each image. Where there is one and it was refused, or none has an outcome, that is the request's
    /// problem.
    fn answer(self, results: Vec<Attempt>) -> Result<Response, Problem> {
        if let [Ok((outcome, _))] = results[..]
            && let Some(problem) = keeping::refusal(outcome, self.now_ms)
        {
            return Err(problem);
        }
        if results.iter().all(Result::is_err)
            && let Some(Err(first)) = results.first()
        {
            return Err(first.clone());
        }
        let is_new = |result: &Attempt| matches!(result, Ok((outcome, _)) if outcome.is_kept() && *outcome != Outcome::Duplicate);
        let status = match results.iter().all(is_new) {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        let entry = |result: Attempt| match result {
            Ok((outcome, sha256)) => Entry::Taken {
                outcome: outcome.to_string(),
                sha256: sha256.to_string(),
            },
            Err(error) => Entry::Failure { error },
        };
        let answers = Answers {
            model: self.model,
            samples: results.into_iter().map(entry).collect(),
        };
        Ok((status, Json(answers)).into_response())
    }
}
