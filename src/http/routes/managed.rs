//! Who may change what is served, and what these routes have in common.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{self, Path, Request};
use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::audit::Note;
use crate::http::auth::Caller;
use crate::http::config::Management;
use crate::http::problem::{Kind, Problem};
use crate::http::{Door, Phase, State, draining, starting};
use crate::model::{ModelName, NameError, Version};

/// Stands before each managed route: refuses where the configuration does not allow it, what a page in a browser sends, and
/// everything while the server starts or stops.
pub(super) async fn allowed(
    extract::State((state, door)): extract::State<(Arc<State>, Door)>,
    request: Request,
    next: Next,
) -> Response {
    let has_key = request.extensions().get::<Caller>().is_some();
    let refused = refused(&state, door, request.headers(), has_key);
    match refused {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refused(state: &State, door: Door, headers: &HeaderMap, has_key: bool) -> Option<Problem> {
    let forbidden = |detail: &str| Some(Problem::new(Kind::Forbidden, detail));
    if state.config.management == Management::Off {
        return forbidden("http.management is \"off\"");
    }
    if !door.is_local && !state.auth.is_on() {
        return forbidden(
            "others reach this address, and no keys are configured: admin.address can name another",
        );
    }
    // A loopback address is also what every page in a browser of this machine can reach; a key it has to be given.
    if headers.contains_key(ORIGIN) && !has_key {
        return forbidden(
            "a request with an Origin header comes from a page in a browser, which may not change what serves without a key",
        );
    }
    match state.phase() {
        Phase::Ready => None,
        Phase::Starting => Some(starting()),
        Phase::Draining | Phase::Closing => Some(draining()),
    }
}

/// Where a handler notes what the line of its act shall tell.
pub(super) fn noted(request: &Request) -> Note {
    request.extensions().get().cloned().unwrap_or_default()
}

/// The model and the rest of a path of two parts.
pub(super) fn named_pair(
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(ModelName, String), Problem> {
    let Path((name, rest)) = path.map_err(|_| bad("the path is not UTF-8"))?;
    let name = name.parse().map_err(|error: NameError| bad(&error.to_string()))?;
    Ok((name, rest))
}

/// The model and the version of a path.
pub(super) fn named_version(
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(ModelName, Version), Problem> {
    let (name, version) = named_pair(path)?;
    let version = version
        .parse()
        .map_err(|error: NameError| bad(&error.to_string()))?;
    Ok((name, version))
}

fn bad(detail: &str) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use axum::body::{Body, to_bytes};
    use serde_json::Value;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;
    use crate::http::{Config, auth, router};
    use crate::service::{self, channel};
    use crate::telemetry::Metrics;

    /// Asks a server whose keeper has ended.
    async fn ask(management: Management, phase: Phase, (path, body): (&str, &'static str)) -> (u16, Value) {
        let (handle, _) = channel(&service::Config::default());
        let config = Config {
            management,
            ..Config::default()
        };
        let state = State {
            service: OnceLock::from(handle),
            ..State::new(config, &Metrics::new(&[]), watch::channel(phase).1)
        };
        let request = axum::http::Request::post(path).header("content-type", "application/json");
        let request = request.body(Body::from(body)).unwrap();
        let response = router(Arc::new(state), Door::WHOLE)
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn what_is_served_is_changed_from_this_machine_or_with_a_key() {
        let check = async |is_local: bool, keys: bool, expected: [u16; 3]| {
            for (management, expected) in [Management::Auto, Management::On, Management::Off]
                .into_iter()
                .zip(expected)
            {
                let config = Config {
                    management,
                    ..Config::default()
                };
                let metrics = Metrics::new(&[]);
                let mut auth = auth::Config::default();
                if keys {
                    let hash = auth::KeyHash::of(b"ann");
                    let key = serde_json::json!({"id": "ann", "scopes": ["admin"], "hash": hash});
                    auth.keys.push(serde_json::from_value(key).unwrap());
                }
                let state = State {
                    auth: auth::Auth::load(&auth, &metrics).unwrap(),
                    ..State::new(config, &metrics, watch::channel(Phase::Ready).1)
                };
                let door = Door {
                    manages: true,
                    is_local,
                };
                let request =
                    axum::http::Request::get("/v1/models/digits/history").header("x-api-key", "ann");
                let request = request.body(Body::empty()).unwrap();
                let response = router(Arc::new(state), door).oneshot(request).await.unwrap();
                assert_eq!(response.status(), expected, "{is_local} {keys} {management:?}");
            }
        };
        // 503: it is allowed, and nothing is loaded.
        check(true, false, [503, 503, 403]).await;
        check(false, false, [403, 403, 403]).await;
        check(true, true, [503, 503, 403]).await;
        check(false, true, [503, 503, 403]).await;
    }

    #[tokio::test]
    async fn it_is_refused_where_the_configuration_says_so_and_while_stopping() {
        let check = async |management, phase, status: u16, part: &str| {
            for path in ["/v1/models/digits/promote", "/v1/models/digits/versions/1/load"] {
                let body = r#"{"version": 2, "by": "anna"}"#;
                let (found, problem) = ask(management, phase, (path, body)).await;
                let detail = problem["detail"].as_str().unwrap();
                assert!(found == status && detail.contains(part), "{path}: {problem}");
            }
        };
        check(Management::Off, Phase::Ready, 403, "http.management").await;
        check(Management::Auto, Phase::Starting, 503, "loaded").await;
        check(Management::Auto, Phase::Draining, 503, "shutting down").await;
        // Allowed, and nobody is there to do it.
        check(Management::Auto, Phase::Ready, 503, "shutting down").await;
    }

    #[tokio::test]
    async fn a_page_in_a_browser_changes_nothing() {
        let (handle, _) = channel(&service::Config::default());
        let state = Arc::new(State {
            service: OnceLock::from(handle),
            ..State::new(
                Config::default(),
                &Metrics::new(&[]),
                watch::channel(Phase::Ready).1,
            )
        });
        for origin in ["null", "http://127.0.0.1:8080", "https://example.org"] {
            let request = axum::http::Request::post("/v1/models/digits/versions/1/unload");
            let request = request.header("origin", origin).body(Body::empty()).unwrap();
            let response = router(Arc::clone(&state), Door::WHOLE)
                .oneshot(request)
                .await
                .unwrap();
            assert_eq!(response.status(), 403, "{origin}");
        }
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused_before_anything_is_asked() {
        let check = async |path: &str, body: &'static str, status: u16, part: &str| {
            let (found, problem) = ask(Management::On, Phase::Ready, (path, body)).await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                found == status && detail.contains(part),
                "{path} {body}: {problem}"
            );
        };
        let promote = "/v1/models/digits/promote";
        check(promote, "{", 400, "JSON").await;
        check(promote, "{}", 422, "version").await;
        check(promote, r#"{"version": 0, "by": "anna"}"#, 422, "whole number").await;
        check(promote, r#"{"version": 2}"#, 422, "by").await;
        check(
            promote,
            r#"{"version": 2, "by": "anna", "froce": true}"#,
            422,
            "froce",
        )
        .await;
        check(
            "/v1/models/Digits/rollback",
            r#"{"by": "anna"}"#,
            400,
            "a model name",
        )
        .await;
        check("/v1/models/digits/versions/x/load", "", 400, "a version").await;
    }
}
