//! The predict routes, from request to answer.

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::batcher::Ask;
use crate::http::{Config, Phase, RequestId};
use crate::predict::fixture::{FAILS, Running, Workbench, png};
use crate::queueing::Asker;
use crate::telemetry::{Metrics, Refused};

/// The routes over a predictor whose threads run; two images to a request.
struct Server {
    router: Router,
    _running: Running,
}

fn router(predictor: Option<Arc<crate::predict::Predictor>>) -> Router {
    let config = Config {
        max_images: 2,
        max_body_bytes: 1000,
        ..Config::default()
    };
    let (_, phase) = watch::channel(Phase::Ready);
    let metrics = Metrics::new(&[]);
    let state = State {
        predictor: predictor.map_or_else(OnceLock::new, OnceLock::from),
        ..State::new(config, &metrics, phase)
    };
    routes().with_state(Arc::new(state))
}

impl Server {
    fn new() -> Self {
        let mut bench = Workbench::new(100, 100);
        Self {
            router: router(Some(Arc::clone(&bench.predictor))),
            _running: bench.run(),
        }
    }

    async fn post(&self, uri: &str, content_type: &str, body: impl Into<Body>) -> Answered {
        let request = Request::post(uri).header("content-type", content_type);
        ask(&self.router, request.body(body.into()).unwrap()).await
    }
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn ask(router: &Router, mut request: Request) -> Answered {
    request.extensions_mut().insert(Caller {
        id: Some(RequestId("req-7".into())),
        ..Caller::default()
    });
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answered {
        status: head.status,
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap(),
    }
}

fn base64(level: u8) -> String {
    BASE64_STANDARD.encode(png(level))
}

fn multipart(level: u8) -> Vec<u8> {
    let head = b"--XX\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n";
    [&head[..], &png(level), b"\r\n--XX--\r\n"].concat()
}

#[tokio::test]
async fn every_form_and_every_route_gives_the_same_answer() {
    let server = Server::new();
    let forms = [
        ("image/png", png(1)),
        ("application/octet-stream", png(1)),
        ("image/jpeg", png(1)),
        ("multipart/form-data; boundary=XX", multipart(1)),
        (
            "application/json",
            json!({ "image": base64(1) }).to_string().into(),
        ),
        (
            "application/json",
            json!({ "images": [base64(1)] }).to_string().into(),
        ),
        (
            "application/json",
            json!({ "instances": [{ "b64": base64(1) }] }).to_string().into(),
        ),
        (
            "application/json",
            json!({ "instances": [[[1, 0], [0, 0]]] }).to_string().into(),
        ),
    ];
    let (on, off) = (2f64.exp() / (2f64.exp() + 2.0), 1.0 / (2f64.exp() + 2.0));
    let ranked = |label: &str, index: usize, probability: f64| json!({ "label": label, "index": index, "probability": probability });
    let expected = json!({
        "id": "req-7",
        "model": { "name": "digits", "version": 1 },
        "predictions": [{
            "label": "one",
            "index": 1,
            "probability": on,
            "margin": on - off,
            "top_k": [ranked("one", 1, on), ranked("zero", 0, off), ranked("two", 2, off)],
        }],
    });
    for uri in [
        "/v1/predict",
        "/v1/predict?model=digits",
        "/v1/models/digits/predict",
        "/v1/models/digits/versions/1/predict",
    ] {
        for (content_type, body) in forms.clone() {
            let answered = server.post(uri, content_type, body).await;
            assert_eq!(answered.status, 200, "{uri} {content_type}");
            assert_eq!(answered.headers["content-type"], "application/json");
            assert!(
                alike(&answered.body, &expected),
                "{uri} {content_type}: {}",
                answered.body
            );
        }
    }
}

/// Equal, numbers to 1e-12.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-12,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && alike(a, b))
        }
        (a, b) => a == b,
    }
}

#[tokio::test]
async fn the_query_tells_how_much_of_a_prediction() {
    let server = Server::new();
    let check = async |query: &str, top_k: usize, probabilities: Option<usize>| {
        let answered = server
            .post(&format!("/v1/predict?{query}"), "image/png", png(2))
            .await;
        let prediction = &answered.body["predictions"][0];
        let length = |key: &str| prediction.get(key).map(|list| list.as_array().unwrap().len());
        assert_eq!(
            (length("top_k"), length("probabilities")),
            (Some(top_k), probabilities),
            "{query}"
        );
        assert_eq!(prediction["label"], "two");
    };
    check("", 3, None).await;
    check("top_k=1", 1, None).await;
    check("top_k=2&probabilities=false", 2, None).await;
    check("top_k=99&probabilities=true", 3, Some(3)).await;
}

#[tokio::test]
async fn the_answer_tells_where_the_time_went() {
    let server = Server::new();
    let answered = server.post("/v1/predict", "image/png", png(0)).await;
    let text = answered.headers["server-timing"].to_str().unwrap();
    let entries = text.split(", ").map(|entry| entry.split_once(";dur=").unwrap());
    let (names, spent): (Vec<_>, Vec<_>) = entries
        .map(|(name, ms)| (name, ms.parse::<f64>().unwrap()))
        .unzip();
    assert_eq!(
        names,
        [
            "decode",
            "preprocess",
            "queue",
            "batch",
            "inference",
            "postprocess"
        ]
    );
    assert!(spent[0] > 0.0, "a decode takes microseconds: {text}");
}

#[tokio::test]
async fn an_image_that_fails_is_an_entry_beside_those_that_do_not() {
    let server = Server::new();
    let images = |images: [String; 2]| json!({ "images": images }).to_string();
    let mixed = images([base64(FAILS), base64(1)]);
    let answered = server.post("/v1/predict", "application/json", mixed).await;
    assert_eq!(answered.status, 200);
    let predictions = &answered.body["predictions"];
    let error = json!({
        "type": "urn:sconce:problem:inference-failed",
        "title": "The model gave no answer",
        "status": 500,
        "detail": "inference failed",
    });
    assert_eq!(predictions[0], json!({ "error": error }));
    assert_eq!(predictions[1]["label"], "one");
    // Nothing to answer: the first failure is the request's.
    let none = images(["*".to_owned(), base64(FAILS)]);
    let answered = server.post("/v1/predict", "application/json", none).await;
    assert_eq!(
        (answered.status.as_u16(), &answered.body["type"]),
        (422, &json!("urn:sconce:problem:invalid-input"))
    );
    assert_eq!(answered.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn what_is_not_possible_is_refused_by_its_kind() {
    let server = Server::new();
    let check = async |uri: &str, (content_type, body): (&str, Vec<u8>), expected: Kind, detail: &str| {
        let answered = server.post(uri, content_type, body).await;
        let urn = format!("urn:sconce:problem:{}", expected.name());
        assert_eq!(
            (answered.status, &answered.body["type"]),
            (expected.status(), &json!(urn)),
            "{uri}"
        );
        let found = answered.body["detail"].as_str().unwrap();
        assert!(found.contains(detail), "{uri}: {found}");
    };
    let png = || ("image/png", png(1));
    let short = "/v1/predict";
    check(
        "/v1/models/other/predict",
        png(),
        Kind::ModelNotFound,
        "no model 'other' is served",
    )
    .await;
    check("/v1/predict?model=other", png(), Kind::ModelNotFound, "'other'").await;
    check(
        "/v1/models/digits/versions/2/predict",
        png(),
        Kind::VersionNotFound,
        "no version 2",
    )
    .await;
    check(
        "/v1/models/digits/versions/0/predict",
        png(),
        Kind::BadRequest,
        "a version is",
    )
    .await;
    check(
        "/v1/models/%2e%2e/predict",
        png(),
        Kind::BadRequest,
        "a model name is",
    )
    .await;
    check("/v1/models/%ff/predict", png(), Kind::BadRequest, "not UTF-8").await;
    check("/v1/predict?model=A", png(), Kind::BadRequest, "a model name is").await;
    check(
        "/v1/models/digits/predict?model=digits",
        png(),
        Kind::BadRequest,
        "the path names the model",
    )
    .await;
    check(
        "/v1/predict?topk=3",
        png(),
        Kind::BadRequest,
        "unknown query key 'topk'",
    )
    .await;
    for top_k in ["0", "-1", "", "many", "1.5"] {
        check(
            &format!("/v1/predict?top_k={top_k}"),
            png(),
            Kind::InvalidInput,
            "top_k is",
        )
        .await;
    }
    check(
        "/v1/predict?probabilities=1",
        png(),
        Kind::InvalidInput,
        "true or false",
    )
    .await;
    check(
        short,
        ("text/plain", vec![]),
        Kind::UnsupportedMediaType,
        "content type",
    )
    .await;
    check(
        short,
        ("image/png", b"hello".to_vec()),
        Kind::UnsupportedMediaType,
        "none of PNG",
    )
    .await;
    check(short, ("image/png", vec![]), Kind::ImageBroken, "empty").await;
    check(
        short,
        ("image/png", vec![0; 1001]),
        Kind::BodyTooLarge,
        "over 1000 bytes",
    )
    .await;
    check(
        short,
        ("application/json", b"{".to_vec()),
        Kind::BadRequest,
        "JSON",
    )
    .await;
    let wide = json!({ "image": [vec![0; 65]] }).to_string();
    check(
        short,
        ("application/json", wide.into()),
        Kind::ImageTooLarge,
        "65×1",
    )
    .await;
    let three = json!({ "images": ["", "", ""] }).to_string();
    check(
        short,
        ("application/json", three.into()),
        Kind::InvalidInput,
        "more than 2 images",
    )
    .await;
}

#[tokio::test]
async fn the_deadline_header_is_a_number_within_its_limit() {
    // Nothing is ever decoded, so each accepted request ends by its deadline.
    let bench = Workbench::new(100, 100);
    let router = router(Some(Arc::clone(&bench.predictor)));
    for (value, expected) in [
        ("1", Kind::DeadlinePassed),
        ("0", Kind::BadRequest),
        ("60001", Kind::BadRequest),
        ("-5", Kind::BadRequest),
        ("soon", Kind::BadRequest),
        ("99999999999999999999999", Kind::BadRequest),
    ] {
        let request = Request::post("/v1/predict").header("X-Request-Timeout-Ms", value);
        let answered = ask(&router, request.body(png(1).into()).unwrap()).await;
        assert_eq!(answered.status, expected.status(), "{value}");
    }
}

#[tokio::test]
async fn load_and_start_tell_when_to_ask_again() {
    let check = async |router: Router, expected: Kind| {
        let answered = ask(&router, Request::post("/v1/predict").body(png(1).into()).unwrap()).await;
        assert_eq!(answered.status, expected.status());
        assert_eq!(answered.headers["retry-after"], "1");
    };
    check(router(None), Kind::Starting).await;
    let no_room = Workbench::new(0, 0);
    check(router(Some(Arc::clone(&no_room.predictor))), Kind::QueueFull).await;
    let closed = Workbench::new(9, 9);
    closed.pool.close();
    check(router(Some(Arc::clone(&closed.predictor))), Kind::Draining).await;
}

#[tokio::test]
async fn who_would_be_answered_too_late_is_told_at_once() {
    let bench = Workbench::new(100, 100);
    let served = bench.served();
    served.batcher.seed(&[(1, Duration::from_secs(5))]);
    let router = router(Some(Arc::clone(&bench.predictor)));
    let ask_for = async |priority: &'static str, body: Body| {
        let request = Request::post("/v1/predict")
            .header("X-Request-Timeout-Ms", "6000")
            .header("Priority", priority);
        ask(&router, request.body(body).unwrap()).await
    };
    // Idle, it takes whatever comes; with one ahead it does not.
    let waiting = Ask {
        asker: Asker::default(),
        deadline: None,
        waits: Duration::ZERO,
        takes: Duration::ZERO,
    };
    let place = served.batcher.admit(&waiting).unwrap();
    // Its body is not read: it is no image.
    let refused = ask_for("u=3", Body::from("nothing")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.body["type"], "urn:sconce:problem:deadline-too-near");
    assert_eq!(refused.headers["retry-after"], "5");
    let limit = "\"deadline\";q=0;qu=\"concurrent-requests\"";
    assert_eq!(refused.headers["ratelimit-policy"], limit);
    assert_eq!(refused.headers["ratelimit"], "\"deadline\";r=0;t=5");
    // More urgent, it goes before what waits.
    let broken = ask_for("u=2", Body::from("nothing")).await;
    assert_eq!(broken.status, 415);
    drop(place);
    assert_eq!(ask_for("u=3", Body::from("nothing")).await.status, 415);
    let admission = &served.metrics.admission;
    assert_eq!(
        (
            admission.refusals(Refused::Deadline),
            served.metrics.in_flight.get()
        ),
        (1, 0)
    );
    assert_eq!(served.metrics.ended(crate::telemetry::Outcome::Rejected), 1);
}
