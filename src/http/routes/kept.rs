//! The routes of feedback, samples, review and erasure over a store in a folder, from request to answer.

use std::sync::OnceLock;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::collect::{self, Collector};
use crate::http::{Config, Door, Phase};
use crate::model::{Spec, Weights};
use crate::predict::fixture::{Running, Workbench, png};
use crate::registry::{Manifest, Registry, WeightsFile, atomic};
use crate::store::{self, Digest, Learner, Store};

/// A server whose predictions are all kept; two images and three entries of feedback to a request.
struct Server {
    router: Router,
    state: Arc<State>,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
    _running: Running,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn new(change: fn(&mut store::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = store::Config {
            folder: folder.path().join("data"),
            sampling_rate: 1.0,
            keep_images: true,
            ..store::Config::default()
        };
        change(&mut config);
        let mut bench = Workbench::new(100, 100);
        let (collector, worker) = Collector::new(&config, &bench.metrics);
        let store = collect::open(&config).await.unwrap().unwrap();
        collector.opened(&store);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(worker.run(Arc::clone(&store), stopping));
        let limits = Config {
            max_images: 2,
            max_feedback: 3,
            ..Config::default()
        };
        let state = Arc::new(State {
            predictor: OnceLock::from(Arc::clone(&bench.predictor)),
            collector,
            models: folder.path().join("models"),
            ..State::new(limits, &bench.metrics, watch::channel(Phase::Ready).1)
        });
        Self {
            router: router(Arc::clone(&state), Door::WHOLE),
            state,
            store,
            _folder: folder,
            _running: bench.run(),
            _stop: stop,
        }
    }

    /// A model with a version of each of these runs.
    fn published(&self, name: &str, runs: &[&str]) -> Registry {
        let folder = &self.state.models;
        std::fs::create_dir_all(folder.join(name)).unwrap();
        let spec = "architecture = 'small-cnn'\nlabels = ['a', 'b']\n\
                    input = { channels = 1, height = 8, width = 8 }\n";
        atomic::write(&folder.join(name).join("model.toml"), spec.as_bytes()).unwrap();
        let registry = Registry::open(folder).unwrap();
        let graph = Spec::parse(spec).unwrap().graph().unwrap();
        for run in runs {
            let manifest = Manifest {
                format: Manifest::FORMAT,
                weights: WeightsFile::default(),
                architecture: "small-cnn".to_owned(),
                parameters: graph.parameters(),
                parent: None,
                parent_model: None,
                sconce: "test".to_owned(),
                command: "test".to_owned(),
                seed: 1,
                data: Value::Null,
                training: json!({ "run": run }),
                evaluation: Value::Null,
            };
            let weights = Weights::initialise(&graph, 1).unwrap();
            let published = registry.publish(&name.parse().unwrap(), &weights, manifest);
            published.unwrap();
        }
        registry
    }

    async fn ask(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        self.ask(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, uri: &str, body: &Value) -> (u16, Value) {
        let request = Request::post(uri).header("content-type", "application/json");
        self.ask(request.body(body.to_string().into()).unwrap()).await
    }

    async fn predict(&self, id: &str, image: Vec<u8>) {
        let request = Request::post("/v1/predict").header("x-request-id", id);
        let (status, body) = self.ask(request.body(image.into()).unwrap()).await;
        assert_eq!(status, 200, "{body}");
    }

    async fn feedback(&self, entry: Value) -> (u16, Value) {
        self.post("/v1/feedback", &entry).await
    }

    /// Parts of a form: name and content.
    async fn samples(&self, uri: &str, parts: &[(&str, &[u8])]) -> (u16, Value) {
        let mut body = Vec::new();
        for (name, content) in parts {
            let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        let request = Request::post(uri).header("content-type", "multipart/form-data; boundary=XX");
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn erase(&self, image: &[u8]) -> (u16, Value) {
        let uri = format!("/v1/data/{}", Digest::of(image));
        self.ask(Request::delete(uri).body(Body::empty()).unwrap()).await
    }

    fn counted(&self, line: &str) -> bool {
        self.state.metrics.render().contains(&format!("{line}\n"))
    }
}

fn kind(body: &Value) -> &str {
    let urn = body["type"].as_str().unwrap_or_default();
    urn.strip_prefix("urn:sconce:problem:").unwrap_or_default()
}

fn outcome(outcome: &str) -> Value {
    json!({ "outcome": outcome })
}

#[tokio::test]
async fn feedback_follows_its_prediction_at_once() {
    let server = Server::new(|_| {}).await;
    let entry = json!({ "id": "first", "label": "one", "source": "ann", "confidence": 0.9 });
    assert_eq!(server.feedback(entry.clone()).await.0, 404);
    server.predict("first", png(1)).await;
    assert_eq!(server.feedback(entry.clone()).await, (201, outcome("accepted")));
    assert_eq!(server.feedback(entry).await, (200, outcome("duplicate")));
    // The same image by its bytes, from another source that disagrees.
    let sha256 = Digest::of(&png(1)).to_string();
    let other = json!({ "sha256": sha256, "model": "digits", "label": 2, "source": "bob" });
    assert_eq!(server.feedback(other).await, (201, outcome("quarantined")));
    assert!(server.counted("sconce_feedback_total{outcome=\"accepted\"} 1"));
    assert!(server.counted("sconce_feedback_total{outcome=\"unknown\"} 1"));
}

#[tokio::test]
async fn one_that_is_refused_is_a_problem() {
    let server = Server::new(|config| config.max_labels_per_source_per_day = 1).await;
    for (id, level) in [("a", 0), ("b", 1), ("gone", 2)] {
        server.predict(id, png(level)).await;
    }
    let check = async |entry: Value, status: u16, expected: &str| {
        let (found, body) = server.feedback(entry.clone()).await;
        assert_eq!((found, kind(&body)), (status, expected), "{entry}: {body}");
    };
    let by_id = |id: &str, label: Value| json!({ "id": id, "label": label, "source": "ann" });
    for label in [json!(3), json!(-1), json!("three"), json!(4_294_967_296_u64)] {
        check(by_id("a", label), 422, "invalid-input").await;
    }
    check(by_id("x", json!(1)), 404, "not-kept").await;
    check(by_id("x", json!("one")), 404, "not-kept").await;
    check(by_id("a b", json!(1)), 422, "invalid-input").await;
    check(json!({ "id": "a" }), 400, "bad-request").await;
    assert_eq!(server.feedback(by_id("a", json!(0))).await.0, 201);
    check(by_id("b", json!(1)), 429, "quota-used").await;
    assert_eq!(server.erase(&png(2)).await.0, 200);
    let sha256 = Digest::of(&png(2)).to_string();
    let erased = json!({ "sha256": sha256, "model": "digits", "label": 2, "source": "bob" });
    check(erased, 410, "erased").await;
    let stranger =
        json!({ "sha256": sha256.replace('a', "b"), "model": "pets", "label": 0, "source": "bob" });
    check(stranger, 404, "not-kept").await;
}

#[tokio::test]
async fn many_have_their_outcomes_in_order() {
    let server = Server::new(|_| {}).await;
    server.predict("a", png(0)).await;
    let entry = |id: &str, label: Value| json!({ "id": id, "label": label, "source": "ann" });
    let many =
        json!({ "feedback": [entry("x", json!("one")), entry("a", json!("two")), entry("a", json!(9))] });
    let expected = json!({ "outcomes": [outcome("unknown"), outcome("accepted"), outcome("out_of_range")] });
    assert_eq!(server.feedback(many).await, (200, expected));
    let four = json!({ "feedback": vec![entry("a", json!(1)); 4] });
    let (status, body) = server.feedback(four).await;
    assert_eq!((status, kind(&body)), (422, "invalid-input"));
}

#[tokio::test]
async fn several_images_have_ids_of_their_own() {
    let server = Server::new(|_| {}).await;
    let levels = |level: u8| json!([[level, 0], [0, 0]]);
    let request = Request::post("/v1/predict")
        .header("x-request-id", "req")
        .header("content-type", "application/json");
    let body = json!({ "instances": [levels(1), levels(2)] }).to_string();
    let (_, answer) = server.ask(request.body(body.into()).unwrap()).await;
    for (place, label) in [(0, "one"), (1, "two")] {
        let prediction = &answer["predictions"][place];
        assert_eq!(
            (&prediction["id"], &prediction["label"]),
            (&json!(format!("req:{place}")), &json!(label))
        );
        let entry = json!({ "id": prediction["id"], "label": label, "source": "ann" });
        assert_eq!(server.feedback(entry).await.0, 201);
    }
}

#[tokio::test]
async fn samples_are_kept_with_their_images() {
    let server = Server::new(|_| {}).await;
    let (one, two, broken) = (png(1), png(2), &png(3)[..40]);
    let uri = "/v1/samples?model=digits&source=ann";
    let taken =
        |image: &[u8], outcome: &str| json!({ "outcome": outcome, "sha256": Digest::of(image).to_string() });
    let parts: [(&str, &[u8]); 4] = [
        ("label", b"one"),
        ("image", &one),
        ("image", &two),
        ("label", b"2"),
    ];
    let expected =
        json!({ "model": "digits", "samples": [taken(&one, "accepted"), taken(&two, "accepted")] });
    assert_eq!(server.samples(uri, &parts).await, (201, expected));
    assert_eq!(
        server.store.blob(&Digest::of(&one)).await.unwrap(),
        Some(one.clone().into())
    );

    // An image that cannot be decoded costs its own entry.
    let parts: [(&str, &[u8]); 4] = [
        ("label", b"one"),
        ("image", broken),
        ("image", &one),
        ("label", b"1"),
    ];
    let (status, body) = server.samples(uri, &parts).await;
    assert_eq!(
        (status, kind(&body["samples"][0]["error"])),
        (200, "image-broken")
    );
    assert_eq!(body["samples"][1], taken(&one, "duplicate"));
    assert!(server.counted("sconce_samples_total{outcome=\"undecodable\"} 1"));

    let check = async |uri: &str, parts: &[(&str, &[u8])], status: u16, expected: &str| {
        let (found, body) = server.samples(uri, parts).await;
        assert_eq!((found, kind(&body)), (status, expected), "{body}");
    };
    check(uri, &[("label", b"one"), ("image", broken)], 422, "image-broken").await;
    check(
        uri,
        &[("label", b"one"), ("image", b"text")],
        415,
        "unsupported-media-type",
    )
    .await;
    check(uri, &[("label", b"9"), ("image", &png(4))], 422, "invalid-input").await;
    check(uri, &[("image", &one)], 422, "invalid-input").await;
    check(uri, &[], 422, "invalid-input").await;
    check(
        uri,
        &[("source", b"bob"), ("label", b"1"), ("image", &one)],
        422,
        "invalid-input",
    )
    .await;
    check(uri, &[("picture", &one)], 422, "invalid-input").await;
    check(
        "/v1/samples",
        &[("label", b"1"), ("image", &one)],
        422,
        "invalid-input",
    )
    .await;
    check(
        "/v1/samples?sauce=ann",
        &[("label", b"1"), ("image", &one)],
        400,
        "bad-request",
    )
    .await;
    check(
        "/v1/samples?source=ann&model=pets",
        &[("label", b"1"), ("image", &one)],
        404,
        "model-not-found",
    )
    .await;
    assert_eq!(server.store.blob(&Digest::of(&png(4))).await.unwrap(), None);
}

#[tokio::test]
async fn a_person_sees_conflicts_and_decides() {
    let server = Server::new(|_| {}).await;
    server.predict("a", png(0)).await;
    server.predict("b", png(1)).await;
    for (id, label, source) in [("a", 0, "ann"), ("a", 1, "bob"), ("b", 1, "ann")] {
        server
            .feedback(json!({ "id": id, "label": label, "source": source }))
            .await;
    }
    let sha256 = Digest::of(&png(0)).to_string();
    let (status, listed) = server.get("/v1/feedback/quarantine?model=digits&limit=1").await;
    assert_eq!((status, listed["conflicts"].as_array().unwrap().len()), (200, 1));
    assert_eq!(
        (&listed["conflicts"][0]["sha256"], &listed["next"]),
        (&json!(sha256), &json!(sha256))
    );
    let said = listed["conflicts"][0]["labels"].as_array().unwrap().iter();
    let said: Vec<_> = said.map(|said| (&said["name"], &said["source"])).collect();
    assert_eq!(
        said,
        [(&json!("zero"), &json!("ann")), (&json!("one"), &json!("bob"))]
    );
    let (_, rest) = server
        .get(&format!("/v1/feedback/quarantine?after={sha256}"))
        .await;
    assert_eq!(rest, json!({ "model": "digits", "conflicts": [], "next": null }));

    let summary = async || {
        let (_, body) = server.get("/v1/feedback/summary").await;
        ["accepted", "quarantined", "overruled"].map(|state| body[state].as_u64().unwrap())
    };
    assert_eq!(summary().await, [1, 2, 0]);
    let decision =
        |label: Value| json!({ "model": "digits", "sha256": sha256, "label": label, "source": "eve" });
    let resolved = server
        .post("/v1/feedback/decisions", &decision(json!("zero")))
        .await;
    assert_eq!(resolved, (200, json!({ "sha256": sha256, "label": 0 })));
    // Eve's word is a label too.
    assert_eq!(summary().await, [3, 0, 1]);
    assert_eq!(
        server
            .post("/v1/feedback/decisions", &decision(Value::Null))
            .await
            .0,
        200
    );
    assert_eq!(summary().await, [1, 0, 3]);

    let check = async |body: Value, status: u16, expected: &str| {
        let (found, answer) = server.post("/v1/feedback/decisions", &body).await;
        assert_eq!((found, kind(&answer)), (status, expected), "{body}");
    };
    check(decision(json!(3)), 422, "invalid-input").await;
    let without = json!({ "model": "digits", "sha256": sha256, "source": "eve" });
    check(without, 400, "bad-request").await;
    let unknown = json!({ "model": "digits", "sha256": "0".repeat(64), "label": 1, "source": "eve" });
    check(unknown, 404, "not-kept").await;
    let stranger = json!({ "model": "pets", "sha256": sha256, "label": 1, "source": "eve" });
    check(stranger, 404, "model-not-found").await;
    for uri in [
        "quarantine?limit=0",
        "quarantine?limit=1001",
        "quarantine?after=x",
    ] {
        assert_eq!(server.get(&format!("/v1/feedback/{uri}")).await.0, 422, "{uri}");
    }
    for uri in ["quarantine?page=2", "summary?limit=1"] {
        assert_eq!(server.get(&format!("/v1/feedback/{uri}")).await.0, 400, "{uri}");
    }
}

#[tokio::test]
async fn an_erased_image_tells_who_learnt_from_it() {
    let server = Server::new(|_| {}).await;
    server.predict("a", png(1)).await;
    server
        .feedback(json!({ "id": "a", "label": 1, "source": "ann" }))
        .await;
    let registry = server.published("digits", &["done", "untied"]);
    let [one, two] = [1, 2].map(|number| crate::model::Version::try_from(number).unwrap());
    let learner = |model: &str, run: &str| Learner {
        model: model.parse().unwrap(),
        run: run.parse().unwrap(),
    };
    let (done, images) = (learner("digits", "done"), [Digest::of(&png(1))]);
    server.store.learnt(&done, one, (&images, 0)).await.unwrap();
    for run in [
        learner("digits", "untied"),
        learner("digits", "going"),
        learner("gone", "away"),
    ] {
        server.store.learns(&run, &images, 0).await.unwrap();
    }
    let sha256 = images[0].to_string();
    let expected = json!({
        "sha256": sha256, "predictions": 1, "labels": 1, "image": true,
        "learnt_by": [{ "name": "digits", "version": 1 }, { "name": "digits", "version": 2 }],
        "learning": [{ "name": "digits", "run": "going" }, { "name": "gone", "run": "away" }],
    });
    // The disk fails at first: what is erased is erased, and asking again does the rest.
    let lock = registry.root().join("digits/.aliases.lock");
    std::fs::create_dir(&lock).unwrap();
    let (status, problem) = server.erase(&png(1)).await;
    assert_eq!(status, 500, "{problem}");
    assert!(problem["detail"].as_str().unwrap().ends_with("once more"));
    std::fs::remove_dir(&lock).unwrap();
    let (status, told) = server.erase(&png(1)).await;
    assert_eq!(
        (status, &told["predictions"], &told["image"]),
        (200, &json!(0), &json!(false))
    );
    for key in ["sha256", "learnt_by", "learning"] {
        assert_eq!(told[key], expected[key], "{key}");
    }
    let digits = "digits".parse().unwrap();
    for version in [one, two] {
        assert!(registry.barred(&digits, version).unwrap().is_some(), "{version}");
    }
    let (_, again) = server.erase(&png(1)).await;
    assert_eq!(again, told);
    // Nothing of it comes back.
    server.predict("b", png(1)).await;
    assert_eq!(
        server
            .feedback(json!({ "id": "b", "label": 1, "source": "ann" }))
            .await
            .0,
        404
    );
    let parts: [(&str, &[u8]); 2] = [("label", b"one"), ("image", &png(1))];
    assert_eq!(server.samples("/v1/samples?source=ann", &parts).await.0, 410);
    assert!(server.counted("sconce_erasures_total 3"));
    let request = Request::delete("/v1/data/ABC").body(Body::empty()).unwrap();
    assert_eq!(server.ask(request).await.0, 422);
}

#[tokio::test]
async fn a_full_disk_is_told_and_predictions_go_on() {
    let server = Server::new(|_| {}).await;
    server.predict("a", png(1)).await;
    server.state.collector.settled().await;
    server.store.limit_pages(1).await;
    let entry = |n: u32| json!({ "id": "a", "label": 1, "source": format!("{n:0>120}") });
    let mut acknowledged = 0;
    let refused = loop {
        match server.feedback(entry(acknowledged)).await {
            (201, _) => acknowledged += 1,
            refused => break refused,
        }
        assert!(acknowledged < 1000, "the disk is never full");
    };
    assert_eq!((refused.0, kind(&refused.1)), (507, "insufficient-storage"));
    assert!(server.counted("sconce_feedback_total{outcome=\"failed\"} 1"));
    for n in 0..100 {
        server.predict(&format!("{n:0>120}"), png(2)).await;
    }
    server.state.collector.settled().await;
    assert!(!server.counted("sconce_collected_predictions_total{outcome=\"failed\"} 0"));
    let parts: [(&str, &[u8]); 2] = [("label", b"one"), ("image", &png(1))];
    let sample = server
        .samples(&format!("/v1/samples?source={:0>120}", "x"), &parts)
        .await;
    // A row may still fit where the last page has room.
    assert!(matches!(sample.0, 201 | 507), "{}", sample.1);
    let (_, summary) = server.get("/v1/feedback/summary").await;
    let counted = summary["accepted"].as_u64().unwrap();
    assert_eq!(counted, u64::from(acknowledged) + u64::from(sample.0 == 201));
    server.store.limit_pages(100_000).await;
    assert_eq!(
        server.feedback(entry(acknowledged)).await,
        (201, outcome("accepted"))
    );
}

#[tokio::test]
async fn a_store_that_fails_is_told_without_its_place() {
    let server = Server::new(|_| {}).await;
    server.store.close().await;
    let (status, body) = server
        .feedback(json!({ "id": "a", "label": 1, "source": "ann" }))
        .await;
    assert_eq!((status, kind(&body)), (500, "internal"));
    assert!(!body.to_string().contains("sqlite"), "{body}");
    server.predict("a", png(1)).await;
}

#[tokio::test]
async fn without_a_store_the_routes_say_so() {
    let bench = Workbench::new(1, 1);
    let state = State {
        predictor: OnceLock::from(Arc::clone(&bench.predictor)),
        ..State::new(Config::default(), &bench.metrics, watch::channel(Phase::Ready).1)
    };
    let router = router(Arc::new(state), Door::WHOLE);
    for (method, path) in ROUTES {
        if path.starts_with("/v1/feedback") || path.starts_with("/v1/samples") || path.starts_with("/v1/data")
        {
            let request = Request::builder().method(*method).uri(*path);
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                response.unwrap().status(),
                StatusCode::SERVICE_UNAVAILABLE,
                "{path}"
            );
        }
    }
}
