//! What every request gets, in one layer: its id, its series, its line in the log, a look at its key, and an answer if its
//! handler panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::audit::{Act, Audit};
use super::auth::{Admission, Need, Scope, Standing};
use super::client::Caller;
use super::cors::Cors;
use super::orca::Format;
use super::problem::{Kind, Problem};
use super::request_id::{self, Ids, RequestId};
use super::trace::{self, Trace};
use super::{Door, Phase, ROUTES, act, need};
use crate::telemetry::metrics::RouteMetrics;

/// The layer's state: one per server.
#[derive(Debug)]
pub(super) struct Observer {
    state: Arc<super::State>,
    ids: Ids,
    audit: Audit,
    cors: Cors,
    routes: Vec<Observed>,
    /// Whatever matches no route.
    unmatched: Observed,
}

/// A route as the layer knows it.
#[derive(Debug)]
struct Observed {
    path: &'static str,
    series: Arc<RouteMetrics>,
    need: Need,
}

/// No answer is another type than it says, tells other sites where it was asked from, or is part of their pages.
const ALWAYS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
/// Nor is it kept by whoever passes it on, or a page that could load anything; the page about the server says more.
const UNLESS_SAID: [(HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// A key's quota and what is left of it (draft-ietf-httpapi-ratelimit-headers).
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The label of requests that match no route.
const UNMATCHED: &str = "unmatched";

impl Observer {
    /// Makes the series of every route, for a listener that answers what its `door` says.
    pub(super) fn new(state: Arc<super::State>, door: Door) -> Arc<Self> {
        let observed = |path, need| Observed {
            path,
            series: state.metrics.route(path),
            need,
        };
        let known = |&(_, path): &(_, &'static str)| observed(path, need(path, door));
        Arc::new(Self {
            routes: ROUTES.iter().map(known).collect(),
            unmatched: observed(UNMATCHED, Need::Nothing),
            ids: Ids::new(),
            audit: Audit::new(),
            cors: Cors::new(&state.config.cors),
            state,
        })
    }

    /// Whether the request may go on, and its key. Without one, feedback is not taken from pages of strangers, which browsers
    /// let send forms anywhere.
    fn admit(&self, route: &Observed, request: &Request) -> Admission {
        let headers = request.headers();
        let mut admission = self.state.auth.admit(route.need, headers);
        let is_feedback = route.need == Need::Key(Scope::Feedback);
        if is_feedback && !self.state.auth.is_on() && self.cors.is_foreign(headers) {
            let detail = "it comes from a page of another origin, which is not among http.cors.origins";
            admission.refused = Some(Problem::new(Kind::Forbidden, detail));
        }
        admission
    }

    /// What a browser is told that asks beforehand; it carries no key and wants nothing yet.
    fn preflight(&self, route: &Observed, request: &Request) -> Option<Response> {
        let is_known = route.path != UNMATCHED;
        let answer = || self.cors.preflight(request.method(), request.headers());
        is_known.then(answer).flatten()
    }

    /// How a balancer wants to be told of the load; only with answers that are of the load.
    fn load(&self, route: &Observed, request: &Request) -> Option<Format> {
        let told = self.state.config.load_report && route.need == Need::Key(Scope::Predict);
        told.then(|| Format::asked(request.headers())).flatten()
    }

    fn tell_load(&self, format: Format, headers: &mut HeaderMap) {
        let table = self.state.predictor.get().map(|predictor| predictor.table());
        let from = (&*self.state.metrics, table.as_deref());
        self.state.reporter.mark(format, from, headers);
    }

    /// A dozen short texts, mostly of different lengths: comparing them is quicker than hashing one.
    fn route(&self, request: &Request) -> &Observed {
        let matched = request.extensions().get::<MatchedPath>();
        let known = matched.and_then(|path| self.routes.iter().find(|route| route.path == path.as_str()));
        known.unwrap_or(&self.unmatched)
    }
}

/// The layer.
pub(super) async fn observe(
    State(observer): State<Arc<Observer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let seen = Seen::begin(&observer, &request);
    let id = Some(seen.id.clone());
    // The connection left it, so that nothing is allocated here.
    match request.extensions_mut().get_mut::<Caller>() {
        Some(caller) => caller.id = id,
        None => {
            let caller = Caller::default();
            request.extensions_mut().insert(Caller { id, ..caller });
        }
    }
    let mut act = act(request.method().as_str(), seen.route.path).map(|name| {
        observer
            .audit
            .begin(name, seen.route.path, &mut request, &seen.id)
    });
    let allowed = observer.cors.allowed(request.headers());
    let (mut response, standing) = match observer.preflight(seen.route, &request) {
        Some(answer) => (answer, None),
        None => answer(&observer, seen.route, act.as_mut(), (request, next)).await,
    };
    if let Some(act) = act {
        act.end(&response);
    }
    observer.cors.mark(allowed, response.headers_mut());
    seen.mark(response.headers_mut(), standing);
    seen.end(response.status().as_u16());
    response
}

/// The route's answer, if its caller may have one, and what the caller's key has left.
async fn answer(
    observer: &Observer,
    route: &Observed,
    act: Option<&mut Act<'_>>,
    (mut request, next): (Request, Next),
) -> (Response, Option<Standing>) {
    let Admission {
        key,
        standing,
        refused,
    } = observer.admit(route, &request);
    if let Some(key) = key {
        act.into_iter().for_each(|act| act.by(&key));
        request.extensions_mut().insert(key);
    }
    if let Some(problem) = refused {
        return (problem.into_response(), standing);
    }
    let load = observer.load(route, &request);
    let mut answer = catch_panic(next.run(request)).await.unwrap_or_else(|| {
        Problem::new(Kind::Internal, "the log says more under this request's id").into_response()
    });
    if let Some(format) = load {
        observer.tell_load(format, answer.headers_mut());
    }
    (answer, standing)
}

/// One request in flight. Dropped before its end, it counts as 499: the caller hung up.
struct Seen<'a> {
    observer: &'a Observer,
    route: &'a Observed,
    method: &'static str,
    id: RequestId,
    trace: Option<Trace>,
    begin: Instant,
    status: u16,
}

impl<'a> Seen<'a> {
    fn begin(observer: &'a Observer, request: &Request) -> Self {
        observer.state.metrics.http_in_flight.inc();
        Self {
            observer,
            route: observer.route(request),
            method: method(request.method()),
            id: RequestId::of(request.headers(), &observer.ids),
            trace: Trace::of(request.headers(), &observer.ids),
            begin: Instant::now(),
            status: 499,
        }
    }

    /// The headers of every answer.
    fn mark(&self, headers: &mut HeaderMap, standing: Option<Standing>) {
        let id = HeaderValue::from_str(&self.id.0).expect("a request id is made of header characters");
        headers.insert(request_id::HEADER, id);
        if let Some(trace) = &self.trace {
            headers.insert(trace::HEADER, trace.header());
        }
        for (name, value) in ALWAYS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in UNLESS_SAID {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if let Some(standing) = standing {
            for (name, text) in [(POLICY, standing.policy()), (LIMIT, standing.limit())] {
                let value = HeaderValue::try_from(text).expect("digits and quotes make a header");
                // There may be limits of others.
                headers.append(name, value);
            }
        }
        // The caller asks elsewhere from now on, and finds no connection of ours that is about to close.
        if self.observer.state.phase() >= Phase::Draining {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn end(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        let Self { method, status, .. } = *self;
        let route = self.route.path;
        let seconds = self.begin.elapsed().as_secs_f64();
        self.observer.state.metrics.http_in_flight.dec();
        self.route.series.observe(status, seconds);
        let (ms, request_id) = (seconds * 1e3, &*self.id.0);
        let trace_id = self.trace.as_ref().map(Trace::trace_id);
        let parent_id = self.trace.as_ref().map(Trace::parent_id);
        let span_id = self.trace.as_ref().map(Trace::span_id);
        // 503 and 504 are the server's word on load and shutdown, not its failures.
        if status >= 500 && !matches!(status, 503 | 504) {
            tracing::error!(
                method, route, status, ms, request_id, trace_id, parent_id, span_id, "failed"
            );
        } else {
            tracing::debug!(
                method, route, status, ms, request_id, trace_id, parent_id, span_id, "answered"
            );
        }
    }
}

/// `None` where it panicked. The process's panic hook has told of it.
async fn catch_panic<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    // Nothing of the future is used again after a panic.
    poll_fn(move |cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .map_or(Poll::Ready(None), |polled| polled.map(Some))
    })
    .await
}

/// Methods are a caller's text; the log takes those it knows.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tokio::sync::watch;
    use tower::ServiceExt;

    use super::*;

    use crate::http::Config;
    use crate::telemetry::Metrics;
    use crate::telemetry::captured::{Lines, log_to};

    /// `/docs` answers, `/metrics` panics and `/` never answers.
    fn observed() -> (Arc<super::super::State>, Router) {
        let metrics = Metrics::new(&[]);
        let phase = watch::channel(Phase::Ready).1;
        let state = Arc::new(super::super::State::new(Config::default(), &metrics, phase));
        let layer =
            axum::middleware::from_fn_with_state(Observer::new(Arc::clone(&state), Door::WHOLE), observe);
        let router = Router::new()
            .route("/docs", get(async || "fine"))
            .route("/metrics", get(async || -> &'static str { panic!("a secret") }))
            .route("/", get(std::future::pending::<()>))
            .layer(layer);
        (state, router)
    }

    fn request(path: &str) -> Request {
        Request::get(path)
            .header("x-request-id", "mine")
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .body(Body::empty())
            .unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_without_its_text() {
        let (state, router) = observed();
        let response = router.oneshot(request("/metrics")).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-request-id"], "mine");
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["type"], "urn:sconce:problem:internal");
        assert!(!problem.to_string().contains("secret"));
        assert_eq!(state.metrics.http_in_flight.get(), 0);
    }

    #[tokio::test]
    async fn a_caller_who_hangs_up_counts_as_499() {
        let (state, router) = observed();
        let mut waiting = pin!(router.oneshot(request("/")));
        let polled = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        assert_eq!(state.metrics.http_in_flight.get(), 1);
        waiting.set(observed().1.oneshot(request("/")));
        assert_eq!(state.metrics.http_in_flight.get(), 0);
        let text = state.metrics.render();
        let line = "sconce_http_requests_total{route=\"/\",status=\"499\"} 1\n";
        assert!(text.contains(line), "{text}");
    }

    /// The one event of a request.
    async fn logged(request: Request) -> serde_json::Value {
        let lines = Lines::default();
        let log = log_to(&lines, "sconce=debug");
        // While there is only one, another test's thread that meets an event first, and has no log itself, would switch
        // it off for all.
        let _another = log_to(&Lines::default(), "sconce=debug");
        let guard = tracing::dispatcher::set_default(&log);
        let answer = observed().1.oneshot(request).await;
        drop(guard);
        answer.unwrap();
        let mut events = lines.events();
        assert_eq!(events.len(), 1);
        events.remove(0)
    }

    #[tokio::test]
    async fn a_request_is_one_line_of_checked_words() {
        let mut wild = request("/docs/%3Cscript%3E?secret=1");
        *wild.method_mut() = Method::from_bytes(b"STRANGE").unwrap();
        wild.headers_mut()
            .insert("x-request-id", HeaderValue::from_static("a b"));
        let line = logged(wild).await;
        assert_eq!(
            (&line["method"], &line["route"], &line["status"], &line["level"]),
            (&"other".into(), &"unmatched".into(), &404.into(), &"DEBUG".into())
        );
        for strange in ["script", "secret", "STRANGE", "a b"] {
            assert!(!line.to_string().contains(strange), "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_stands_in_its_callers_trace_and_tells_failures_loudly() {
        let line = logged(request("/metrics")).await;
        assert_eq!(line["request_id"], "mine");
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(line["parent_id"], "00f067aa0ba902b7");
        assert_eq!(line["span_id"].as_str().map(str::len), Some(16));
        assert_eq!((&line["status"], &line["level"]), (&500.into(), &"ERROR".into()));
    }
}
