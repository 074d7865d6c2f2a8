//! `GET /v1/models…`: what is served.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::http::State;
use crate::http::problem::{Kind, Problem};
use crate::model::spec::{Input, Preprocess};
use crate::model::{ModelName, NameError, Spec, Version};
use crate::predict::{NotServed, ServedModel, Table};

type Shared = extract::State<Arc<State>>;

#[derive(Serialize)]
struct List<'a> {
    models: Vec<Summary<'a>>,
}

/// One model in the list.
#[derive(Serialize)]
struct Summary<'a> {
    name: &'a ModelName,
    description: &'a str,
    architecture: &'a str,
    classes: usize,
    champion: Version,
    versions: Vec<Version>,
    default: bool,
}

/// One model on its own.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    labels: &'a [String],
    input: Input,
    preprocess: &'a Preprocess,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{name}", get(show))
}

async fn list(extract::State(state): Shared) -> Result<Response, Problem> {
    let table = state.predictor()?.table();
    let models = table
        .models
        .iter()
        .filter_map(|(name, model)| summary(&table, name, model));
    let models = models.map(|(summary, _)| summary).collect();
    Ok(Json(List { models }).into_response())
}

async fn show(
    extract::State(state): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let wanted = named(path)?;
    let table = state.predictor()?.table();
    let found = table.models.get_key_value(&wanted);
    let (summary, spec) = found
        .and_then(|(name, model)| summary(&table, name, model))
        .ok_or(NotServed::Model(wanted))?;
    Ok(Json(Whole::new(summary, spec)).into_response())
}

/// The model's name in the path.
pub(super) fn named(path: Result<Path<String>, PathRejection>) -> Result<ModelName, Problem> {
    let bad = |detail: String| Problem::new(Kind::BadRequest, detail);
    let Path(name) = path.map_err(|_| bad("the path is not UTF-8".to_owned()))?;
    name.parse().map_err(|error: NameError| bad(error.to_string()))
}

/// What a model says of itself: its champion's spec stands for all versions.
fn summary<'a>(
    table: &Table,
    name: &'a ModelName,
    model: &'a ServedModel,
) -> Option<(Summary<'a>, &'a Spec)> {
    let champion = model.get(model.champion)?;
    let versions = model.versions.iter().map(|served| served.version).collect();
    let mut summary = Summary::new(name, &champion.spec, model.champion, versions);
    summary.default = *name == table.default;
    Some((summary, &champion.spec))
}

impl<'a> Summary<'a> {
    fn new(name: &'a ModelName, spec: &'a Spec, champion: Version, versions: Vec<Version>) -> Self {
        Self {
            name,
            description: &spec.description,
            architecture: &spec.architecture,
            classes: spec.labels.len(),
            champion,
            versions,
            default: false,
        }
    }
}

impl<'a> Whole<'a> {
    fn new(summary: Summary<'a>, spec: &'a Spec) -> Self {
        Self {
            summary,
            labels: &spec.labels,
            input: spec.input,
            preprocess: &spec.preprocess,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;

    use crate::http::{Config, Door, Phase, router};
    use crate::predict::fixture::Workbench;

    /// Asks a server whose only model is `digits`, version 1.
    async fn ask(phase: Phase, path: &str) -> (u16, Value) {
        let bench = Workbench::new(1, 1);
        let state = State {
            predictor: OnceLock::from(Arc::clone(&bench.predictor)),
            ..State::new(Config::default(), &bench.metrics, watch::channel(phase).1)
        };
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(Arc::new(state), Door::WHOLE)
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn models_are_listed_and_shown() {
        let (status, list) = ask(Phase::Ready, "/v1/models").await;
        let digits = json!({
            "name": "digits", "description": "", "architecture": "seed-cnn", "classes": 3,
            "champion": 1, "versions": [1], "default": true,
        });
        assert_eq!((status, list), (200, json!({"models": [digits]})));
        let (status, model) = ask(Phase::Ready, "/v1/models/digits").await;
        assert_eq!((status, &model["labels"]), (200, &json!(["zero", "one", "two"])));
        let (status, problem) = ask(Phase::Ready, "/v1/models/pets").await;
        assert_eq!(status, 404);
        assert_eq!(problem["type"], "urn:sconce:problem:model-not-found");
    }

    #[tokio::test]
    async fn a_model_is_ready_while_the_server_is() {
        let ready = json!({"status": "ready", "model": {"name": "digits", "version": 1}});
        assert_eq!(ask(Phase::Ready, "/v1/models/digits/ready").await, (200, ready));
        assert_eq!(ask(Phase::Ready, "/v1/models/pets/ready").await.0, 404);
        for phase in [Phase::Starting, Phase::Draining] {
            assert_eq!(ask(phase, "/v1/models/digits/ready").await.0, 503);
        }
    }

    #[test]
    fn a_model_tells_its_spec() {
        let name: ModelName = "pets".parse().unwrap();
        let text = r#"
            description = "Cats and dogs."
            architecture = "small-cnn"
            labels = ["cat", "dog"]
            input = { channels = 3, height = 32, width = 48 }
            preprocess = { mean = [0.5], std = [0.25], resize = "crop" }
        "#;
        let spec = Spec::parse(text).unwrap();
        let versions = vec![Version::FIRST, 3.try_into().unwrap()];
        let summary = Summary::new(&name, &spec, Version::FIRST, versions);
        let expected = json!({
            "name": "pets",
            "description": "Cats and dogs.",
            "architecture": "small-cnn",
            "classes": 2,
            "champion": 1,
            "versions": [1, 3],
            "default": false,
            "labels": ["cat", "dog"],
            "input": {"channels": 3, "height": 32, "width": 48},
            "preprocess": {
                "mean": [0.5], "std": [0.25], "resize": "crop", "filter": "bilinear",
                "invert": "never", "center": "never", "alpha": "blend", "background": 0,
            },
        });
        assert_eq!(
            serde_json::to_value(Whole::new(summary, &spec)).unwrap(),
            expected
        );
    }
}
