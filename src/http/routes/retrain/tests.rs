//! What is asked of jobs, and the answers, on a store in a folder; nobody runs them.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::Request as HttpRequest;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt;

use super::*;
use crate::http::{Config, Door, router};
use crate::jobs;
use crate::retrain::{Parent, RequestError};
use crate::store::{self, JobEnd, JobProgress, JobState, Lease, Store};
use crate::telemetry::Metrics;

struct Bench {
    _folder: TempDir,
    state: Arc<State>,
    phase: watch::Sender<Phase>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// `digits` is a model with version 1; nothing else exists.
fn known(request: &Request) -> Result<(), JobsError> {
    if request.model.as_str() != "digits" {
        return Err(JobsError::Model(request.model.to_string()));
    }
    match request.parent {
        Some(Parent::Version(version)) if version.number() != 1 => Err(JobsError::Request(RequestError {
            key: "parent",
            problem: "there is no such version".to_owned(),
        })),
        _ => Ok(()),
    }
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config {
            folder: folder.path().to_owned(),
            ..store::Config::default()
        };
        let store = Arc::new(Store::open(&config).await.unwrap());
        let config = jobs::Config {
            max_listeners: 1,
            ..jobs::Config::default()
        };
        let (phase, watched) = watch::channel(Phase::Ready);
        let state = Arc::new(State {
            jobs: OnceLock::from(Desk::new(store, &config, Box::new(known))),
            ..State::new(Config::default(), &Metrics::new(&[]), watched)
        });
        Self {
            _folder: folder,
            state,
            phase,
        }
    }

    fn store(&self) -> &Store {
        &self.state.jobs.get().unwrap().store
    }

    async fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
        let Ok(response) = router(Arc::clone(&self.state), Door::WHOLE)
            .oneshot(request)
            .await;
        response
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let response = self.begin(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn submit(&self, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.ask("POST", "/v1/retrain", &headers, &body.to_string()).await
    }

    async fn take(&self) -> Lease {
        let taken = self.store().take_job(&"w".parse().unwrap(), 1, 1_000_000).await;
        taken.unwrap().unwrap()
    }

    async fn tell(&self, lease: &Lease, line: &str) {
        let (lines, progress) = ([line.to_owned()], JobProgress::default());
        let kept = self.store().record_job(lease, &lines, &progress, 2);
        assert!(kept.await.unwrap());
    }

    async fn end(&self, lease: &Lease, state: JobState) {
        let end = JobEnd {
            state,
            reason: None,
            version: None,
            promoted: None,
        };
        assert!(self.store().end_job(lease, &end, 3).await.unwrap());
    }
}

#[tokio::test]
async fn a_job_is_asked_for_looked_at_and_ended() {
    let bench = Bench::new().await;
    let made = bench.submit(&json!({"model": "digits", "epochs": 3})).await;
    assert_eq!(
        (made.status, &made.headers["location"]),
        (202, &"/v1/retrain/1".parse().unwrap())
    );
    let job = made.json();
    assert_eq!(
        [
            &job["id"],
            &job["state"],
            &job["trigger"],
            &job["request"]["epochs"]
        ],
        [&json!(1), &json!("queued"), &json!("manual"), &json!(3)]
    );
    let active = bench.submit(&json!({"model": "digits"})).await;
    assert_eq!(active.status, 409);
    assert_eq!(
        (&active.json()["type"], &active.json()["job"]),
        (&json!("urn:sconce:problem:job-active"), &json!(1))
    );
    let get = async |path: &str| bench.ask("GET", path, &[], "").await;
    assert_eq!(get("/v1/retrain/1").await.json(), job);
    assert_eq!(get("/v1/retrain").await.json(), json!({"jobs": [job]}));
    assert_eq!(
        get("/v1/retrain?state=failed&model=digits").await.json(),
        json!({"jobs": []})
    );

    let post = async |path: &str| bench.ask("POST", path, &[], "").await;
    let paused = post("/v1/retrain/1/pause").await;
    assert_eq!((paused.status, &paused.json()["state"]), (200, &json!("paused")));
    let resumed = post("/v1/retrain/1/resume").await;
    assert_eq!(
        (resumed.status, &resumed.json()["state"]),
        (202, &json!("queued"))
    );
    bench.take().await;
    let asked = bench.ask("DELETE", "/v1/retrain/1", &[], "").await;
    assert_eq!((asked.status, &asked.json()["wish"]), (202, &json!("cancel")));
    bench.store().reclaim_jobs(2_000_000, 3).await.unwrap();
    assert_eq!(get("/v1/retrain/1").await.json()["state"], "cancelled");
    let again = bench.ask("DELETE", "/v1/retrain/1", &[], "").await;
    assert_eq!((again.status, &again.json()["job"]), (409, &json!(1)));
}

#[tokio::test]
async fn what_is_wrong_is_said_before_anything_starts() {
    let bench = Bench::new().await;
    let check = async |body: Value, status: u16, part: &str| {
        let answer = bench.submit(&body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(answer.text.contains(part), "{body}: {}", answer.text);
    };
    check(json!({"model": "pets"}), 404, "model-not-found").await;
    check(
        json!({"model": "digits", "epochs": 0}),
        422,
        "epochs: must be 1 to 1000",
    )
    .await;
    check(
        json!({"model": "digits", "epoch": 1}),
        422,
        "unknown field `epoch`",
    )
    .await;
    check(
        json!({"model": "digits", "parent": 7}),
        422,
        "parent: there is no such version",
    )
    .await;
    check(
        json!({"model": "digits", "parent": "newest"}),
        422,
        "parent: a version's number",
    )
    .await;
    check(
        json!({"model": "digits", "parent_model": "No Model"}),
        422,
        "a model name is",
    )
    .await;
    check(json!({"model": "../x"}), 422, "invalid-input").await;
    check(json!([]), 422, "invalid-input").await;
    let json = ("content-type", "application/json");
    let raw = async |headers: &[(&str, &str)], body: &str| {
        bench.ask("POST", "/v1/retrain", headers, body).await.status
    };
    assert_eq!(raw(&[json], "{\"model\"").await, 400);
    assert_eq!(raw(&[], "{\"model\":\"digits\"}").await, 415);
    assert_eq!(
        raw(&[json, ("idempotency-key", "a b")], "{\"model\":\"digits\"}").await,
        400
    );
    let get = async |path: &str| bench.ask("GET", path, &[], "").await.status;
    assert_eq!(get("/v1/retrain/1").await, 404);
    assert_eq!(get("/v1/retrain/01").await, 400);
    assert_eq!(get("/v1/retrain/1/events").await, 404);
    assert_eq!(get("/v1/retrain?limit=0").await, 422);
    assert_eq!(get("/v1/retrain?state=done").await, 422);
    assert_eq!(get("/v1/retrain?page=2").await, 400);
    assert_eq!(bench.store().jobs(&JobFilter::default(), 9).await.unwrap(), []);
    bench.phase.send_replace(Phase::Draining);
    check(json!({"model": "digits"}), 503, "draining").await;
}

#[tokio::test]
async fn asking_twice_under_one_key_is_asking_once() {
    let bench = Bench::new().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let post = async |body: &str| bench.ask("POST", "/v1/retrain", &headers, body).await;
    let (first, again) = (
        post("{\"model\":\"digits\"}").await,
        post("{\"model\": \"digits\", \"seed\": 0}").await,
    );
    assert_eq!((first.status, again.status, first.text), (202, 202, again.text));
    let other = post("{\"model\":\"digits\",\"seed\":1}").await;
    assert_eq!((other.status, &other.json()["job"]), (422, &json!(1)));
}

#[tokio::test]
async fn without_a_store_there_are_no_jobs() {
    let mut bench = Bench::new().await;
    Arc::get_mut(&mut bench.state).unwrap().jobs = OnceLock::new();
    let answer = bench.ask("GET", "/v1/retrain", &[], "").await;
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (503, &json!("urn:sconce:problem:store-unavailable"))
    );
    bench.phase.send_replace(Phase::Starting);
    let answer = bench.ask("GET", "/v1/retrain", &[], "").await;
    assert_eq!(answer.json()["type"], "urn:sconce:problem:starting");
}

/// The ids and the names of a stream's events.
fn told(text: &str) -> Vec<(i64, String)> {
    let piece = |piece: &str| {
        let field = |name: &str| piece.lines().find_map(|line| line.strip_prefix(name));
        Some((field("id: ")?.parse().unwrap(), field("event: ")?.to_owned()))
    };
    text.split("\n\n").filter_map(piece).collect()
}

#[tokio::test]
async fn a_stream_tells_everything_in_order_and_goes_on_where_it_broke_off() {
    let bench = Bench::new().await;
    bench.submit(&json!({"model": "digits"})).await;
    let lease = bench.take().await;
    let mut stream = bench.begin("GET", "/v1/retrain/1/events", &[], "").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut said = String::new();
    for line in ["{\"event\":\"note\",\"text\":\"a\"}", "{\"event\":\"epoch\"}"] {
        let frame = stream.body_mut().frame().await.unwrap().unwrap();
        said.push_str(str::from_utf8(&frame.into_data().unwrap()).unwrap());
        bench.tell(&lease, line).await;
    }
    bench.end(&lease, JobState::Succeeded).await;
    let rest = stream.into_body().collect().await.unwrap().to_bytes();
    said.push_str(str::from_utf8(&rest).unwrap());
    let names = ["state", "state", "note", "epoch", "state"].map(str::to_owned);
    let expected: Vec<_> = (1..).zip(names).collect();
    assert_eq!(told(&said), expected, "{said}");
    assert!(
        said.contains("\ndata: {\"event\":\"note\",\"text\":\"a\"}\n"),
        "{said}"
    );

    let after = async |id: &str| {
        let headers = [("last-event-id", id)];
        bench.ask("GET", "/v1/retrain/1/events", &headers, "").await
    };
    assert_eq!(told(&after("3").await.text), expected[3..]);
    assert_eq!(after("5").await.status, 204);
    assert_eq!(after("x").await.status, 400);
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives_and_ends_with_the_server() {
    let bench = Bench::new().await;
    bench.submit(&json!({"model": "digits"})).await;
    let desk = bench.state.jobs.get().unwrap();
    let follower = events::Follower {
        state: Arc::clone(&bench.state),
        id: "1".parse().unwrap(),
        after: 0,
        phase: bench.state.phase.clone(),
        silence: Duration::ZERO,
        spoken: Instant::now(),
        _place: desk.listen().unwrap(),
    };
    let (told, follower) = follower.next().await.unwrap();
    assert!(told.starts_with(b"id: 1\n"));
    let (told, follower) = follower.next().await.unwrap();
    assert_eq!(told, ":\n\n");
    let full = bench.ask("GET", "/v1/retrain/1/events", &[], "").await;
    assert_eq!(
        (full.status, &full.headers["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    bench.phase.send_replace(Phase::Draining);
    assert!(follower.next().await.is_none());
    bench.phase.send_replace(Phase::Ready);
    bench.take().await;
    let stream = bench.begin("GET", "/v1/retrain/1/events", &[], "").await;
    assert_eq!(stream.status(), 200, "the place was not given back");
}
