//! `sconce serve` that takes feedback and samples on a disk that fails.

use std::collections::BTreeSet;
use std::io::Cursor;

use sconce::collect::now_ms;
use sconce::model::ModelName;
use sconce::store::{self, Classes, Digest, Feedback, Outcome, Store, Subject};
use serde_json::json;

use super::disk::{ERRORS, KILLS};
use super::victim::{Answer, Victim};
use super::*;
use crate::serve::models;

/// A label that the server said is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// Its number.
    image: u32,
    source: String,
    /// Whether it came with the image.
    with_image: bool,
}

/// What is asked of the server; each time with another number, so that no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// One label on a kept prediction.
    Feedback,
    /// Several at once, on a prediction and on an image.
    Several,
    /// An image with its label.
    Sample,
    /// Two images with theirs.
    Samples,
    /// A prediction, which is kept on the way.
    Predict,
}

const ASKS: [Ask; 5] = [
    Ask::Feedback,
    Ask::Several,
    Ask::Sample,
    Ask::Samples,
    Ask::Predict,
];

/// What there is feedback on: a prediction of this id, of this image.
const ID: &str = "the-prediction";
const IMAGE: u32 = 0;

/// Models and a store; what was acknowledged of it.
struct Place {
    models: TempDir,
    /// Holds the folder `store`.
    beside: TempDir,
    kept: Mutex<BTreeSet<Row>>,
    asked: Mutex<u32>,
}

impl Place {
    fn new() -> Self {
        let (models_in_memory, beside) = (folder(), folder());
        copy(models().path(), models_in_memory.path());
        Self {
            models: models_in_memory,
            beside,
            kept: Mutex::default(),
            asked: Mutex::new(IMAGE),
        }
    }

    /// With a store in which there is a prediction.
    fn with_prediction() -> Self {
        let place = Self::new();
        let server = place.start(None, true).unwrap();
        let head = format!("image/png\r\nX-Request-Id: {ID}");
        let (status, _) = server.ask("POST", "/v1/predict", &head, &image(IMAGE)).unwrap();
        assert_eq!(status, 200);
        // Waits until it is kept.
        place.must_take(&server, Ask::Feedback);
        assert_eq!(server.stop().0.code(), Some(0));
        place
    }

    fn store(&self) -> PathBuf {
        self.beside.path().join("store")
    }

    /// `keeps`: predictions with their images.
    fn start(&self, disk: Option<&Disk>, keeps: bool) -> Result<Victim, String> {
        let store = format!("store.folder={}", self.store().display());
        let rate = if keeps {
            "store.sampling_rate=1"
        } else {
            "store.sampling_rate=0"
        };
        let settings = [&*store, rate, "store.keep_images=true"];
        Victim::start(self.models.path(), &settings, disk)
    }

    /// Asks, and remembers what is acknowledged. An error is a problem that says that the disk is full or the store cannot be
    /// used.
    fn ask(&self, server: &Victim, ask: Ask) -> Answer {
        let number = {
            let mut asked = self.asked.lock().unwrap();
            *asked += 2;
            *asked
        };
        let source = format!("source-{number}");
        let row = |image, with_image, source: &str| Row {
            image,
            source: source.to_owned(),
            with_image,
        };
        let (answer, rows) = match ask {
            Ask::Feedback => {
                let body = json!({"id": ID, "label": "b", "source": source});
                (
                    server.post("/v1/feedback", &body),
                    vec![row(IMAGE, false, &source)],
                )
            }
            Ask::Several => {
                let second = format!("{source}-too");
                let sha256 = Digest::of(&image(IMAGE)).to_string();
                let body = json!({"feedback": [
                    {"id": ID, "label": "b", "source": source},
                    {"sha256": sha256, "model": "tiny", "label": 1, "source": second, "confidence": 0.5},
                ]});
                let rows = [&source, &second].map(|source| row(IMAGE, false, source));
                (server.post("/v1/feedback", &body), rows.to_vec())
            }
            Ask::Sample => (
                samples(server, &source, &[number]),
                vec![row(number, true, &source)],
            ),
            Ask::Samples => {
                let rows = [number, number + 1].map(|number| row(number, true, &source));
                (samples(server, &source, &[number, number + 1]), rows.to_vec())
            }
            Ask::Predict => {
                let answer = server.ask("POST", "/v1/predict", "image/png", &image(number));
                (answer, Vec::new())
            }
        };
        let Some((status, body)) = &answer else {
            return answer;
        };
        match status {
            200 | 201 => self.keep(&rows, body),
            503 => assert_eq!(
                body["type"], "urn:sconce:problem:store-unavailable",
                "{ask:?} {body}"
            ),
            507 => assert_eq!(
                body["type"], "urn:sconce:problem:insufficient-storage",
                "{ask:?} {body}"
            ),
            _ => panic!("{ask:?}: {status} {body}\n{}", server.log()),
        }
        assert!(ask != Ask::Predict || *status == 200, "{body}");
        answer
    }

    /// Remembers the rows that an answer acknowledges: one outcome, or one for each.
    fn keep(&self, rows: &[Row], body: &serde_json::Value) {
        let list = body["outcomes"].as_array().or_else(|| body["samples"].as_array());
        let alone = [body.clone()];
        let outcomes = list.map_or(&alone[..], |list| &list[..]);
        for (row, outcome) in rows.iter().zip(outcomes) {
            match outcome["outcome"].as_str() {
                Some("accepted" | "duplicate") => {
                    self.kept.lock().unwrap().insert(row.clone());
                }
                Some(other) => panic!("{row:?}: {other}"),
                // One image of several: its own problem stands in its place.
                None => assert!(
                    matches!(outcome["error"]["status"].as_u64(), Some(503 | 507)),
                    "{outcome}"
                ),
            }
        }
    }

    #[track_caller]
    fn must_take(&self, server: &Victim, ask: Ask) {
        let answer = self.ask(server, ask);
        let taken = matches!(&answer, Some((200 | 201, body)) if !body.to_string().contains("error"));
        assert!(taken, "{ask:?}: {answer:?}\n{}", server.log());
    }

    /// A prediction is kept after it is answered: waits until that was tried.
    fn settle(&self, server: &Victim, ask: Ask) {
        if ask == Ask::Predict {
            assert!(self.ask(server, Ask::Feedback).is_some(), "{}", server.log());
        }
    }

    /// Whether all that was acknowledged is there, and nothing else lies about. Nobody may have the store open.
    fn holds(&self, told: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let config = store::Config {
            folder: self.store(),
            ..store::Config::default()
        };
        runtime.unwrap().block_on(async {
            let store = Store::open(&config).await.unwrap();
            let name: ModelName = "tiny".parse().unwrap();
            let classes = Classes::from([(name.clone(), 2)]);
            let rows: Vec<Row> = self.kept.lock().unwrap().iter().cloned().collect();
            for row in rows {
                let sha256 = Digest::of(&image(row.image));
                let again = Feedback {
                    subject: Subject::Image {
                        model: name.clone(),
                        sha256,
                    },
                    label: 1,
                    source: row.source.parse().unwrap(),
                    key: None,
                    confidence: None,
                };
                let outcomes = store.feedback(&[again], &classes, 0).await.unwrap();
                assert_eq!(outcomes, [Outcome::Duplicate], "{row:?} is lost; {told}");
                let bytes = store.blob(&sha256).await.unwrap();
                assert!(!row.with_image || bytes.is_some(), "{row:?} has no image; {told}");
            }
            store.expire(now_ms()).await.unwrap();
            store.close().await;
        });
        let begun = |path: &PathBuf| path.to_string_lossy().contains('#');
        let left: Vec<PathBuf> = files(&self.store()).into_iter().filter(begun).collect();
        assert!(left.is_empty(), "{left:?}; {told}");
    }
}

/// An image like no other of another number.
fn image(number: u32) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let level = |x: u32, y: u32| number.to_le_bytes()[(x % 4) as usize].wrapping_add((y * 16) as u8);
    let pixels = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([level(x, y)]));
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

fn samples(server: &Victim, source: &str, images: &[u32]) -> Answer {
    let mut form = Vec::new();
    for &number in images {
        let parts: [(&str, &[u8]); 2] = [("label", b"b"), ("image", &image(number))];
        for (name, content) in parts {
            let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
            form.extend_from_slice(head.as_bytes());
            form.extend_from_slice(content);
            form.extend_from_slice(b"\r\n");
        }
    }
    form.extend_from_slice(b"--XX--\r\n");
    let path = format!("/v1/samples?model=tiny&source={source}");
    server.ask("POST", &path, "multipart/form-data; boundary=XX", &form)
}

/// The disk of a running server fails at each call of a request. It says so, goes on predicting meanwhile, and takes the
/// next request when the disk is well.
fn errors(most: usize) {
    let place = Place::with_prediction();
    let disk = Disk::new(&place.store());
    let (mut tried, mut answers) = (Vec::new(), BTreeMap::new());
    for (asks, keeps) in [(&ASKS[..4], false), (&ASKS[4..], true)] {
        let server = place.start(Some(&disk), keeps).unwrap();
        let mut all = Vec::new();
        for &ask in asks {
            disk.heal();
            place.must_take(&server, ask);
            place.settle(&server, ask);
            let calls = disk.calls();
            assert!(
                calls.iter().any(|call| call.path.ends_with("-wal")),
                "{ask:?}: {calls:?}"
            );
            all.extend(points(&calls, &ERRORS).into_iter().map(|point| (ask, point)));
        }
        for (ask, point) in sample(all, most / 2) {
            disk.plan(point.fault, point.at);
            let answer = place.ask(&server, ask);
            let (status, _) = answer.unwrap_or_else(|| panic!("{ask:?} {point:?}: {}", server.log()));
            *answers.entry(status).or_insert(0) += 1;
            place.settle(&server, ask);
            // An image whose folder is there needs fewer calls than the first one.
            let reached = disk.failed() > 0;
            server.must_predict();
            disk.heal();
            server.must_predict();
            place.must_take(&server, ask);
            place.settle(&server, ask);
            tried.extend(reached.then_some(point));
        }
        assert_eq!(server.stop().0.code(), Some(0));
        place.holds("after errors");
    }
    assert!(
        answers.contains_key(&503) && answers.contains_key(&507),
        "{answers:?}"
    );
    told(&format!("feedback, errors ({answers:?})"), &tried);
}

/// A running server is killed at each call of a request, and starts again on what it left.
fn kills(most: usize) -> Vec<Point> {
    let place = Place::with_prediction();
    let disk = Disk::new(&place.store());
    let mut all = Vec::new();
    for ask in ASKS {
        let keeps = ask == Ask::Predict;
        let server = place.start(Some(&disk), keeps).unwrap();
        disk.heal();
        place.must_take(&server, ask);
        place.settle(&server, ask);
        let calls = disk.calls();
        all.extend(points(&calls, &KILLS).into_iter().map(|point| (ask, point)));
    }
    let mut tried = Vec::new();
    for (ask, point) in sample(all, most) {
        disk.heal();
        let server = place.start(Some(&disk), ask == Ask::Predict).unwrap();
        server.must_predict();
        disk.plan(point.fault, point.at);
        let answer = place.ask(&server, ask);
        if answer.is_some() && ask == Ask::Predict {
            place.ask(&server, Ask::Feedback);
        }
        if disk.failed() > 0 {
            assert_eq!(server.ended().0.code(), None, "{ask:?} {point:?}");
            tried.push(point);
        }
    }
    disk.heal();
    let server = place.start(None, true).unwrap();
    ASKS.iter().for_each(|&ask| place.must_take(&server, ask));
    assert_eq!(server.stop().0.code(), Some(0));
    place.holds("after kills");
    tried
}

/// The same while SQLite moves its log into the database, which it does when the log is long.
fn checkpoints(most: usize) -> Vec<Point> {
    let place = Place::with_prediction();
    // The database alone: all that it gets comes out of the log.
    let disk = Disk::new(&place.store().join("store.sqlite"));
    let server = place.start(Some(&disk), false).unwrap();
    let moved = |server: &Victim| {
        for _ in 0..2_000 {
            place.ask(server, Ask::Feedback)?;
            if !disk.calls().is_empty() {
                break;
            }
        }
        Some(disk.calls())
    };
    disk.heal();
    let calls = moved(&server).unwrap();
    assert!(calls.iter().any(|call| call.name == "fsync"), "{calls:?}");
    let points = sample(points(&calls, &[&ERRORS[..], &KILLS[..]].concat()), most);
    let mut tried = Vec::new();
    // After a failure the log is still long, and the next request tries once more.
    for point in points.iter().filter(|point| !point.fault.kills()) {
        disk.plan(point.fault, point.at);
        assert!(moved(&server).is_some(), "{point:?}: {}", server.log());
        tried.extend((disk.failed() > 0).then(|| point.clone()));
        disk.heal();
        server.must_predict();
    }
    // Killed, so that it does not move the log when it ends.
    drop(server);
    for point in points.iter().filter(|point| point.fault.kills()) {
        disk.plan(point.fault, point.at);
        // A start writes, too, and may get no further.
        if let Ok(server) = place.start(Some(&disk), false) {
            let died = moved(&server).is_none();
            assert!(!died || disk.failed() > 0, "{point:?}: {}", server.log());
        }
        tried.extend((disk.failed() > 0).then(|| point.clone()));
    }
    disk.heal();
    let server = place.start(None, false).unwrap();
    place.must_take(&server, Ask::Feedback);
    assert_eq!(server.stop().0.code(), Some(0));
    place.holds("after checkpoints");
    tried
}

/// A server's life, from an empty folder on: it starts, takes a sample and feedback on it, and ends.
fn lives(most: usize) -> Vec<Point> {
    let calls = {
        let place = Place::new();
        let disk = Disk::new(place.beside.path());
        place.lives(&disk, None);
        disk.calls()
    };
    let all = sample(points(&calls, &[&KILLS[..], &ERRORS[..]].concat()), most);
    each(all, |point| {
        let place = Place::new();
        let disk = Disk::new(place.beside.path());
        disk.plan(point.fault, point.at);
        place.lives(&disk, Some(point));
        let reached = disk.failed() > 0;
        // And once more, on a disk that is well.
        place.lives(&disk, None);
        place.holds(&format!("{point:?}"));
        reached
    })
}

impl Place {
    /// Without a point all goes well.
    fn lives(&self, disk: &Disk, point: Option<&Point>) {
        if point.is_none() {
            disk.heal();
        }
        let may_die = point.is_some_and(|point| point.fault.kills());
        let server = match self.start(Some(disk), false) {
            Ok(server) => server,
            Err(log) => return assert!(may_die, "{point:?}: {log}"),
        };
        let asked = [Ask::Sample, Ask::Samples].map(|ask| match point {
            Some(_) => self.ask(&server, ask).is_some(),
            None => {
                self.must_take(&server, ask);
                true
            }
        });
        // What the store does after it answered may be the point, too.
        let predicted = server.ask("POST", "/v1/predict", "image/png", &image(IMAGE));
        if asked.contains(&false) || predicted.is_none() {
            return assert!(may_die, "{point:?}: {}", server.log());
        }
        assert!(matches!(predicted, Some((200, _))), "{point:?}: {predicted:?}");
        let (status, log) = server.stop();
        let died = may_die && disk.failed() > 0;
        let expected = if died { None } else { Some(0) };
        assert_eq!(status.code(), expected, "{point:?}: {log}");
    }
}

#[test]
fn a_disk_that_fails_is_told_and_nothing_is_lost() {
    errors(60);
}

#[test]
fn a_server_that_is_killed_has_lost_nothing() {
    told("feedback, kills", &kills(20));
}

#[test]
fn a_log_that_cannot_be_moved_into_the_database_loses_nothing() {
    told("feedback, checkpoints", &checkpoints(10));
}

#[test]
fn a_server_that_cannot_open_its_store_predicts() {
    told("feedback, from start to end", &lives(20));
}

#[test]
#[ignore = "all points: .ci/run crash"]
fn every_point_of_feedback() {
    errors(usize::MAX);
    told("feedback, kills", &kills(usize::MAX));
    told("feedback, checkpoints", &checkpoints(usize::MAX));
}

#[test]
#[ignore = "all points: .ci/run crash"]
fn every_point_of_a_servers_life() {
    told("feedback, from start to end", &lives(usize::MAX));
}
