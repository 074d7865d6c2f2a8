//! `POST …/predict`: images in, predictions out.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{self, RawPathParams, Request};
use axum::response::Response;
use axum::routing::post;

use self::asked::Asked;
use crate::collect::now_ms;
use crate::http::auth;
use crate::http::client::Caller;
use crate::http::problem::{Kind, Problem};
use crate::http::{State, forms};
use crate::predict::Options;

mod answer;
mod asked;
#[cfg(test)]
mod tests;

/// The default model, a model's champion, and one version.
pub const PATHS: [&str; 3] = [
    "/v1/predict",
    "/v1/models/{name}/predict",
    "/v1/models/{name}/versions/{version}/predict",
];

/// The routes.
pub fn routes() -> Router<Arc<State>> {
    PATHS
        .iter()
        .fold(Router::new(), |router, path| router.route(path, post(predict)))
}

async fn predict(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let predictor = state.predictor()?;
    let path = path.map_err(|_| Problem::new(Kind::BadRequest, "the path is not UTF-8"))?;
    let mut asked = Asked::read(&path, &head, &state.config)?;
    let caller = head.extensions.get::<Caller>();
    asked.asker.client = match head.extensions.get::<auth::Caller>() {
        Some(key) => state.clients.of_key(key.id().as_str()),
        None => {
            let peer = caller.and_then(|caller| caller.peer);
            state.clients.of(peer, &head.headers)
        }
    };
    let served = predictor.find(asked.model.as_ref(), asked.version)?;
    predictor
        .door(&served, asked.asker, Instant::now() + asked.timeout)
        .map_err(|failure| Problem::from(&failure))?;
    let (pictures, room) = forms::pictures(&head.headers, body, &state.bodies).await?;
    let options = Options {
        detail: asked.detail,
        asker: asked.asker,
        // The body has a limit of its own: a slow upload takes nothing of the time to answer.
        deadline: Instant::now() + asked.timeout,
    };
    let id = caller
        .and_then(|caller| caller.id.as_ref())
        .map_or("", |id| &id.0);
    let chosen = state.collector.choose(&served, id, &pictures);
    let outcomes = predictor.predict_in(&room, &served, pictures, options).await;
    if !chosen.is_empty() {
        state.collector.offer(&served, chosen, &outcomes, now_ms());
    }
    answer::respond(id, &served, &outcomes)
}
