//! The table of routes, one file per resource.

use std::sync::Arc;

use axum::{Router, middleware};

use super::auth::{Need, Scope};
use super::observe::{Observer, observe};
use super::problem::{Kind, Problem};
use super::{Door, State};

mod about;
mod cards;
mod erasure;
mod feedback;
mod health;
#[cfg(test)]
mod kept;
mod managed;
mod models;
pub mod predict;
mod promotions;
mod review;
mod samples;
mod versions;
mod retrain;

pub use about::OPENAPI;

/// Every method and path, as `openapi.yaml` has them; tests hold that the router has these and no others. `HEAD` goes
/// with each `GET`.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/predict"),
    ("POST", "/v1/models/{name}/predict"),
    ("POST", "/v1/models/{name}/versions/{version}/predict"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/models/{name}/ready"),
    ("GET", "/v1/models/{name}/versions/{version}/card"),
    ("POST", "/v1/models/{name}/promote"),
    ("POST", "/v1/models/{name}/rollback"),
    ("PUT", "/v1/models/{name}/aliases/{alias}"),
    ("GET", "/v1/models/{name}/history"),
    ("POST", "/v1/models/{name}/versions/{version}/load"),
    ("POST", "/v1/models/{name}/versions/{version}/unload"),
    ("POST", "/v1/feedback"),
    ("GET", "/v1/feedback/quarantine"),
    ("POST", "/v1/feedback/decisions"),
    ("GET", "/v1/feedback/summary"),
    ("POST", "/v1/samples"),
    ("DELETE", "/v1/data/{sha256}"),
    ("GET", "/v1/retrain"),
    ("POST", "/v1/retrain"),
    ("GET", "/v1/retrain/{id}"),
    ("DELETE", "/v1/retrain/{id}"),
    ("GET", "/v1/retrain/{id}/events"),
    ("POST", "/v1/retrain/{id}/pause"),
    ("POST", "/v1/retrain/{id}/resume"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/startup"),
    ("GET", "/metrics"),
    ("GET", "/openapi.yaml"),
    ("GET", "/docs"),
    ("GET", "/"),
];

/// What a path of [`ROUTES`] asks of its callers where there are keys. A path that is not thought of here is the admin's.
pub(super) fn need(path: &str, door: Door) -> Need {
    match path {
        "/v1/predict" | "/v1/models/{name}/predict" | "/v1/models/{name}/versions/{version}/predict" => {
            Need::Key(Scope::Predict)
        }
        "/v1/feedback" | "/v1/samples" => Need::Key(Scope::Feedback),
        "/v1/models" | "/v1/models/{name}" | "/v1/models/{name}/versions/{version}/card" => Need::AnyKey,
        // What collects series on this machine needs no secret.
        "/metrics" if door.is_local => Need::Nothing,
        "/metrics" => Need::Key(Scope::Metrics),
        "/health/live" | "/health/ready" | "/health/startup" | "/v1/models/{name}/ready" => Need::Nothing,
        "/openapi.yaml" | "/docs" | "/" => Need::Nothing,
        _ => Need::Key(Scope::Admin),
    }
}

/// What a route does for an administrator; `None` of one that only tells or is for others.
pub(super) fn act(method: &str, path: &str) -> Option<&'static str> {
    Some(match (method, path) {
        ("POST", "/v1/models/{name}/promote") => "promote",
        ("POST", "/v1/models/{name}/rollback") => "rollback",
        ("PUT", "/v1/models/{name}/aliases/{alias}") => "alias",
        ("POST", "/v1/models/{name}/versions/{version}/load") => "load",
        ("POST", "/v1/models/{name}/versions/{version}/unload") => "unload",
        ("POST", "/v1/feedback/decisions") => "decide",
        ("DELETE", "/v1/data/{sha256}") => "erase",
        ("POST", "/v1/retrain") => "retrain",
        ("DELETE", "/v1/retrain/{id}") => "cancel",
        ("POST", "/v1/retrain/{id}/pause") => "pause",
        ("POST", "/v1/retrain/{id}/resume") => "resume",
        _ => return None,
    })
}

/// Answers the requests of a listener.
pub fn router(state: Arc<State>, door: Door) -> Router {
    let observer = Observer::new(Arc::clone(&state), door);
    let guard = middleware::from_fn_with_state((Arc::clone(&state), door), managed::allowed);
    let routes = match door.manages {
        true => routes()
            .merge(about::series())
            .merge(managed().route_layer(guard)),
        false => routes(),
    };
    routes
        .fallback(async move || nothing_here(door))
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(observer, observe))
        .with_state(state)
}

fn routes() -> Router<Arc<State>> {
    Router::new()
        .merge(predict::routes())
        .merge(models::routes())
        .merge(cards::routes())
        .merge(feedback::routes())
        .merge(samples::routes())
        .merge(health::routes())
        .merge(about::routes())
}

/// The routes that change what is served and decide what is kept; only where the configuration allows it.
fn managed() -> Router<Arc<State>> {
    Router::new()
        .merge(promotions::routes())
        .merge(versions::routes())
        .merge(review::routes())
        .merge(erasure::routes())
        .merge(retrain::routes())
}

fn nothing_here(door: Door) -> Problem {
    let detail = match door.manages {
        true => "/docs lists the paths",
        false => "/docs lists the paths; those that manage and measure are answered at admin.address alone",
    };
    Problem::new(Kind::NotFound, detail)
}

/// axum adds the `Allow` header.
async fn other_method() -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        "the Allow header lists the methods that it takes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_administrator_changes_is_an_act_and_nothing_else_is() {
        for (method, path) in ROUTES {
            let changes = need(path, Door::WHOLE) == Need::Key(Scope::Admin) && *method != "GET";
            assert_eq!(act(method, path).is_some(), changes, "{method} {path}");
        }
    }

    /// axum tells its paths only by its `Debug` text, where each stands in quotes, one of its own among them.
    #[test]
    fn the_table_is_the_router() {
        let text = format!("{:?}", routes().merge(about::series()).merge(managed()));
        let is_ours = |part: &&str| part.starts_with('/') && !part.contains("__private__axum");
        let mut built: Vec<&str> = text.split('"').filter(is_ours).collect();
        let mut listed: Vec<&str> = ROUTES.iter().map(|&(_, path)| path).collect();
        for paths in [&mut built, &mut listed] {
            paths.sort_unstable();
            paths.dedup();
        }
        assert_eq!(built, listed);
    }
}
