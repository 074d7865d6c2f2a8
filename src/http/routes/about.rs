//! What the server tells of itself: its series, its contract, its page for people.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::health;
use crate::http::State;

/// The contract: `openapi.yaml`.
pub const OPENAPI: &str = include_str!("../../../openapi.yaml");

const PAGE: &str = include_str!("../docs.html");

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/openapi.yaml", get(openapi))
        .route("/docs", get(docs))
        .route("/", get(async || Redirect::temporary("/docs")))
}

/// Apart, since they are not for everybody.
pub(super) fn series() -> Router<Arc<State>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response {
    let text_format = "text/plain; version=0.0.4; charset=utf-8";
    // Also of models whose engine is lost.
    state
        .metrics
        .ready
        .set(i64::from(health::is_ready(&state).is_ok()));
    ([(header::CONTENT_TYPE, text_format)], state.metrics.render()).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}

async fn docs() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY.clone())];
    (policy, Html(PAGE)).into_response()
}

/// The page runs its own script and style, told by their hashes, asks this server alone, and is framed by nobody.
static PAGE_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let [style, script] = ["style", "script"].map(|tag| hash(inline(PAGE, tag)));
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("words and base64 make a header")
});

/// The text of the page's only element of this kind.
fn inline<'a>(page: &'a str, tag: &str) -> &'a str {
    let inner = page
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    inner.expect("the page is a constant that has one of each").0
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ROUTES;

    #[test]
    fn the_page_has_one_style_and_one_script_and_asks_nobody_else() {
        for tag in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        for elsewhere in ["http://", "https://", "src=\"//", "@import", "url("] {
            let found = PAGE.match_indices(elsewhere).map(|(at, _)| &PAGE[at..]);
            let strange = found.filter(|rest| !rest.starts_with("http://127.0.0.1:8080"));
            assert_eq!(strange.count(), 0, "{elsewhere}");
        }
        // A policy by hash forbids them.
        for inline in ["style=\"", "onclick=", "onload=", "javascript:"] {
            assert!(!PAGE.contains(inline), "{inline}");
        }
    }

    #[test]
    fn the_page_lists_every_route() {
        for (method, path) in ROUTES.iter().filter(|(_, path)| *path != "/") {
            let row = format!("<code>{method} {path}</code>");
            assert!(PAGE.contains(&row), "{row}");
        }
    }

    #[test]
    fn the_policy_names_what_the_page_holds() {
        let policy = PAGE_POLICY.to_str().unwrap();
        assert!(policy.contains(&hash(inline(PAGE, "script"))), "{policy}");
        // `printf 'a' | openssl dgst -sha256 -binary | base64`
        assert_eq!(hash("a"), "'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='");
    }
}
