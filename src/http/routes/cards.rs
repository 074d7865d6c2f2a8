//! `GET /v1/models/{name}/versions/{version}/card`: what a version's card says.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::card::Card;
use crate::http::State;
use crate::http::problem::{Kind, Problem};
use crate::registry::{Registry, RegistryError};

use super::managed::named_version;

const MARKDOWN: &str = "text/markdown";

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/models/{name}/versions/{version}/card", get(card))
}

/// Markdown where `Accept` names it, else JSON.
async fn card(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, version) = named_version(path)?;
    state.predictor()?;
    let folder = state.models.clone();
    // Some small files: read where a slow disk holds up no other request.
    let read = move || Card::of(&Registry::open(folder)?, &name, version);
    let read = tokio::task::spawn_blocking(read).await;
    let card = read.map_err(|_| unreadable())?.map_err(|error| problem(&error))?;
    let (form, text) = if wants_markdown(&headers) {
        ("text/markdown; charset=utf-8", card.markdown())
    } else {
        ("application/json", card.json())
    };
    Ok(([(header::CONTENT_TYPE, form), (header::VARY, "accept")], text).into_response())
}

fn wants_markdown(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MARKDOWN))
        })
}

fn problem(error: &RegistryError) -> Problem {
    match error {
        RegistryError::NoModel(_) => Problem::new(Kind::ModelNotFound, error.to_string()),
        RegistryError::NoVersion(..) => Problem::new(Kind::VersionNotFound, error.to_string()),
        other => {
            tracing::error!(error = %other, "a card cannot be made");
            unreadable()
        }
    }
}

fn unreadable() -> Problem {
    Problem::new(Kind::Internal, "the version's files cannot be read")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::OnceLock;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;
    use crate::http::{Config, Door, Phase, router};
    use crate::predict::fixture::Workbench;

    /// Asks a server over the models of this repository; the answer's status, content type and text.
    async fn ask(path: &str, accept: &str) -> (u16, String, String) {
        let bench = Workbench::new(1, 1);
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let state = State {
            models,
            predictor: OnceLock::from(Arc::clone(&bench.predictor)),
            ..State::new(Config::default(), &bench.metrics, watch::channel(Phase::Ready).1)
        };
        let request = Request::get(path).header("accept", accept);
        let request = request.body(Body::empty()).unwrap();
        let response = router(Arc::new(state), Door::WHOLE)
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let form = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, form, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_card_is_json_or_markdown() {
        let path = "/v1/models/mnist/versions/1/card";
        let (status, form, text) = ask(path, "*/*").await;
        let card: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, &*form, &card["model"]),
            (200, "application/json", &"mnist".into())
        );
        let (status, form, text) = ask(path, "text/html;q=0.5, text/markdown;q=0.9").await;
        assert_eq!((status, &*form), (200, "text/markdown; charset=utf-8"));
        assert!(text.starts_with("# mnist version 1 (champion)\n"), "{text}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_problem() {
        let check = async |path: &str, expected: u16| {
            let (status, form, text) = ask(path, "text/markdown").await;
            assert_eq!(
                (status, &*form),
                (expected, "application/problem+json"),
                "{path}: {text}"
            );
        };
        check("/v1/models/mnist/versions/7/card", 404).await;
        check("/v1/models/pets/versions/1/card", 404).await;
        check("/v1/models/mnist/versions/none/card", 400).await;
        check("/v1/models/..%2Fmnist/versions/1/card", 400).await;
    }
}
