//! The edge without a socket: what the router answers in each phase, whatever is served.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use sconce::http::{Config, Door, Phase, ROUTES, State, router};
use sconce::telemetry::Metrics;
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::contract;

/// A router without models, in a phase.
struct Edge {
    router: Router,
    state: Arc<State>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Edge {
    fn new(phase: Phase) -> Self {
        Self::at(Door::WHOLE, phase)
    }

    fn at(door: Door, phase: Phase) -> Self {
        Self::of(Config::default(), door, phase)
    }

    fn of(config: Config, door: Door, phase: Phase) -> Self {
        let metrics = Metrics::new(&[("version", "test")]);
        let state = State::new(config, &metrics, watch::channel(phase).1);
        let state = Arc::new(state);
        Self {
            router: router(Arc::clone(&state), door),
            state,
        }
    }

    /// The answer, held against the contract.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Body::empty())
            .expect("a method, path and headers that fit");
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("a body in memory")
            .to_bytes()
            .to_vec();
        contract::check(method, path, head.status.as_u16(), &body);
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// Status and body, not held against the contract, which is of both listeners.
    async fn asked(&self, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        let Ok(response) = self.router.clone().oneshot(request.unwrap()).await;
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap());
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a header of ASCII"))
    }

    fn kind(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        self.json()["type"]
            .as_str()
            .unwrap()
            .replace("urn:sconce:problem:", "")
    }
}

/// A path that fits the template.
pub(crate) fn filled(template: &str) -> String {
    let sha256 = "0".repeat(64);
    template
        .replace("{name}", "mnist")
        .replace("{version}", "1")
        .replace("{alias}", "challenger")
        .replace("{id}", "1")
        .replace("{sha256}", &sha256)
}

const PHASES: [Phase; 4] = [Phase::Starting, Phase::Ready, Phase::Draining, Phase::Closing];

#[tokio::test]
async fn every_route_answers_by_the_contract_in_every_phase() {
    for phase in PHASES {
        let edge = Edge::new(phase);
        for (method, template) in ROUTES {
            let answer = edge.ask(method, &filled(template), &[]).await;
            assert!(
                answer.status != 404 && answer.status != 405,
                "{method} {template}: {}",
                answer.status
            );
            assert!(!answer.header("x-request-id").is_empty(), "{template}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{template}");
            assert_eq!(answer.header("cache-control"), "no-store", "{template}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{template}");
            assert_eq!(
                answer.header("cross-origin-resource-policy"),
                "same-origin",
                "{template}"
            );
            let policy = answer.header("content-security-policy");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{policy}"
            );
            assert_eq!(answer.header("access-control-allow-origin"), "", "{template}");
        }
    }
}

#[tokio::test]
async fn a_listener_of_clients_answers_all_but_what_the_contract_keeps_apart() {
    let door = Door {
        manages: false,
        is_local: true,
    };
    let edge = Edge::at(door, Phase::Ready);
    let mut apart = 0;
    for (method, template) in ROUTES {
        let operation = &contract::DOCUMENT["paths"][*template][method.to_lowercase()];
        let is_apart = operation.get("servers").is_some();
        let (status, _) = edge.asked(method, &filled(template)).await;
        assert_eq!(status == 404, is_apart, "{method} {template}: {status}");
        apart += usize::from(is_apart);
    }
    assert!(apart > 15, "{apart}");
    let (_, body) = edge.asked("GET", "/metrics").await;
    assert!(body.contains("admin.address"), "{body}");
}

#[tokio::test]
async fn health_tells_the_phase() {
    let check = async |path: &str, expected: [u16; 4]| {
        for (phase, status) in PHASES.into_iter().zip(expected) {
            let answer = Edge::new(phase).get(path).await;
            assert_eq!(answer.status, status, "{path} in {phase:?}");
            if status == 503 {
                let kind = if phase == Phase::Starting {
                    "starting"
                } else {
                    "draining"
                };
                assert_eq!(answer.kind(), kind, "{path} in {phase:?}");
                assert_eq!(answer.header("retry-after"), "1");
            }
        }
    };
    check("/health/live", [200; 4]).await;
    check("/health/startup", [503, 200, 200, 200]).await;
    check("/health/ready", [503, 200, 503, 503]).await;
    check("/metrics", [200; 4]).await;
}

#[tokio::test]
async fn a_draining_server_closes_its_connections() {
    for phase in PHASES {
        let answer = Edge::new(phase).get("/health/live").await;
        let expected = if phase >= Phase::Draining { "close" } else { "" };
        assert_eq!(answer.header("connection"), expected, "{phase:?}");
    }
}

#[tokio::test]
async fn another_method_is_told_the_right_ones() {
    let edge = Edge::new(Phase::Ready);
    for (_, template) in ROUTES {
        let routes = ROUTES.iter().filter(|(_, path)| path == template);
        let methods: Vec<&str> = routes.map(|&(method, _)| method).collect();
        let expected = methods.join(",").replace("GET", "GET,HEAD");
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            if !methods.contains(&other) {
                let answer = edge.ask(other, &filled(template), &[]).await;
                assert_eq!(answer.status, 405, "{other} {template}");
                assert_eq!(answer.kind(), "method-not-allowed");
                assert_eq!(answer.header("allow"), expected, "{other} {template}");
            }
        }
    }
}

/// An edge that lists one origin.
fn listing() -> Edge {
    let mut config = Config::default();
    config.cors.origins.push("https://app.example.org".to_owned());
    Edge::of(config, Door::WHOLE, Phase::Ready)
}

#[tokio::test]
async fn a_listed_page_may_ask_and_another_may_not() {
    let edge = listing();
    let (listed, other) = (
        ("origin", "https://app.example.org"),
        ("origin", "https://evil.example"),
    );
    let answer = edge.ask("GET", "/health/live", &[listed]).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example.org"
    );
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("retry-after")
    );
    assert_eq!(answer.header("vary"), "origin");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    for fields in [&[other][..], &[]] {
        let answer = edge.ask("GET", "/health/live", fields).await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.header("access-control-allow-origin")
            ),
            (200, "")
        );
        // A cache must not give one page's answer to another.
        assert_eq!(answer.header("vary"), "origin");
    }
    // A refusal is read as well.
    let refused = edge.ask("POST", "/v1/models/mnist/rollback", &[listed]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://app.example.org"
    );
}

#[tokio::test]
async fn a_browser_is_told_beforehand() {
    let edge = listing();
    let wanted = ("access-control-request-method", "POST");
    let preflight = async |edge: &Edge, path: &str, fields: &[(&str, &str)]| {
        let mut request = Request::options(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let Ok(response) = edge
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await;
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let names = [
            "access-control-allow-origin",
            "access-control-allow-methods",
            "access-control-allow-headers",
        ];
        (response.status().as_u16(), names.map(header))
    };
    let listed = ("origin", "https://app.example.org");
    let (status, [origin, methods, headers]) = preflight(&edge, "/v1/predict", &[listed, wanted]).await;
    assert_eq!((status, &*origin), (204, "https://app.example.org"));
    assert!(methods.contains("POST") && headers.contains("x-api-key") && headers.contains("authorization"));
    // Neither of these is a preflight of a listed page, so each is a method that the path does not take.
    for fields in [
        &[("origin", "https://evil.example"), wanted][..],
        &[listed],
        &[wanted],
    ] {
        assert_eq!(preflight(&edge, "/v1/predict", fields).await.0, 405, "{fields:?}");
    }
    assert_eq!(preflight(&edge, "/nothing", &[listed, wanted]).await.0, 404);
    assert_eq!(
        preflight(&Edge::new(Phase::Ready), "/v1/predict", &[listed, wanted])
            .await
            .0,
        405
    );
}

#[tokio::test]
async fn strangers_pages_give_no_feedback() {
    let edge = listing();
    for path in ["/v1/samples", "/v1/feedback"] {
        let ask = async |origin: &str| {
            edge.ask("POST", path, &[("host", "x:8080"), ("origin", origin)])
                .await
        };
        assert_eq!(ask("https://evil.example").await.kind(), "forbidden", "{path}");
        assert_eq!(ask("null").await.kind(), "forbidden", "{path}");
        for own in ["http://x:8080", "https://app.example.org"] {
            assert_eq!(ask(own).await.kind(), "store-unavailable", "{path} {own}");
        }
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let edge = Edge::new(Phase::Ready);
    for (_, template) in ROUTES.iter().filter(|(method, _)| *method == "GET") {
        let path = filled(template);
        let (head, get) = (edge.ask("HEAD", &path, &[]).await, edge.get(&path).await);
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_are_problems() {
    let edge = Edge::new(Phase::Ready);
    for path in [
        "/nothing",
        "/v1",
        "/v1/models/",
        "/health",
        "/health/live/",
        "/%2e%2e/etc/passwd",
    ] {
        let answer = edge.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.kind()),
            (404, "not-found"),
            "{path}"
        );
    }
    for path in [
        "/v1/models/NoName",
        "/v1/models/%2e%2e",
        "/v1/models/%ff",
        "/v1/models/a..b/ready",
    ] {
        let answer = edge.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.kind()),
            (400, "bad-request"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_usable_request_id_comes_back_and_another_is_replaced() {
    let edge = Edge::new(Phase::Ready);
    for path in ["/health/live", "/nothing"] {
        let kept = edge.ask("GET", path, &[("x-request-id", "Mine_1.0-a")]).await;
        assert_eq!(kept.header("x-request-id"), "Mine_1.0-a");
        let fresh = edge.ask("GET", path, &[("x-request-id", "not mine")]).await;
        assert_eq!(fresh.header("x-request-id").len(), 32);
    }
}

#[tokio::test]
async fn a_trace_is_carried_on() {
    let edge = Edge::new(Phase::Ready);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = edge.ask("GET", "/health/live", &[("traceparent", parent)]).await;
    let traced = answer.header("traceparent");
    assert!(
        traced.starts_with(&parent[..36]) && traced.ends_with("-01") && traced != parent,
        "{traced}"
    );
    let untraced = edge
        .ask("GET", "/health/live", &[("traceparent", "00-wrong")])
        .await;
    assert_eq!(untraced.header("traceparent"), "");
}

#[tokio::test]
async fn strange_requests_add_no_series() {
    let edge = Edge::new(Phase::Ready);
    let series = |edge: &Edge| edge.state.metrics.render().lines().count();
    let before = series(&edge);
    for number in 0..100 {
        edge.ask("GET", &format!("/nothing/{number}"), &[]).await;
        edge.ask("GET", &format!("/v1/models/model-{number}"), &[]).await;
        edge.ask(&format!("METHOD{number}"), "/docs", &[]).await;
    }
    assert_eq!(series(&edge), before);
    let text = edge.state.metrics.render();
    for (route, status) in [("unmatched", 404), ("/v1/models/{name}", 503), ("/docs", 405)] {
        let line = format!("sconce_http_requests_total{{route=\"{route}\",status=\"{status}\"}} 100\n");
        assert!(text.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn the_page_and_the_contract_are_served() {
    let edge = Edge::new(Phase::Ready);
    assert_eq!(
        edge.get("/openapi.yaml").await.body,
        include_bytes!("../../openapi.yaml")
    );
    let page = edge.get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    let root = edge.get("/").await;
    assert_eq!((root.status.as_u16(), root.header("location")), (307, "/docs"));
}
