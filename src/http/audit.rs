//! One line in the log for each administrative act: who, what, of what, how it ended.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;

use super::auth::{self, Bucket};
use super::client::Caller;
use super::problem::Kind;
use super::request_id::RequestId;
use crate::telemetry::logging::clipped;

/// What bounds the lines that callers without a key can make.
#[derive(Debug)]
pub(super) struct Audit {
    strangers: Bucket,
    /// Lines left out since the last that was written.
    suppressed: AtomicU64,
    origin: Instant,
}

/// An act on its way. Dropped before its end, its caller hung up; what it asked for may still be done.
pub(super) struct Act<'a> {
    audit: &'a Audit,
    name: &'static str,
    /// The key, or else the peer's address.
    who: String,
    has_key: bool,
    peer: Option<String>,
    /// The SHA-256 of the peer's certificate.
    certificate: Option<Arc<str>>,
    request_id: RequestId,
    note: Note,
    outcome: Cow<'static, str>,
}

/// What a handler notes of its act. A request extension.
#[derive(Clone, Debug, Default)]
pub(super) struct Note(Arc<Mutex<Facts>>);

/// Of what, each shortened and escaped.
#[derive(Debug, Default)]
struct Facts {
    model: Option<String>,
    version: Option<String>,
    alias: Option<String>,
    job: Option<String>,
    sha256: Option<String>,
    by: Option<String>,
}

/// Refusals of strangers that are told: ten a second, a hundred at once.
const STRANGERS_PER_SECOND: f64 = 10.0;
const STRANGERS_AT_ONCE: u32 = 100;

impl Audit {
    pub(super) fn new() -> Self {
        Self {
            strangers: Bucket::new(STRANGERS_PER_SECOND, STRANGERS_AT_ONCE),
            suppressed: AtomicU64::new(0),
            origin: Instant::now(),
        }
    }

    /// Begins an act: `template` and the request's path tell of what it is.
    pub(super) fn begin<'a>(
        &'a self,
        name: &'static str,
        template: &str,
        request: &mut Request,
        request_id: &RequestId,
    ) -> Act<'a> {
        let note = Note::default();
        note.path(template, request.uri().path());
        request.extensions_mut().insert(note.clone());
        let caller = request.extensions().get::<Caller>();
        let peer = caller.and_then(|caller| caller.peer).map(|peer| peer.to_string());
        let certificate = caller.and_then(|caller| caller.certificate.clone());
        Act {
            audit: self,
            name,
            who: peer.clone().unwrap_or_else(|| "unknown".to_owned()),
            has_key: false,
            peer,
            certificate,
            request_id: request_id.clone(),
            note,
            outcome: "hung_up".into(),
        }
    }

    /// Whether a line of a caller without a key is written `now`, in nanoseconds, and how many were left out before it.
    fn tells_of_stranger(&self, now: u64) -> Option<u64> {
        if self.strangers.take(now).is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

impl Act<'_> {
    /// It comes with this key.
    pub(super) fn by(&mut self, key: &auth::Caller) {
        self.who = key.id().to_string();
        self.has_key = true;
    }

    /// It was answered so.
    pub(super) fn end(mut self, response: &Response) {
        let status = response.status();
        self.outcome = match response.extensions().get::<Kind>() {
            Some(kind) => kind.name().into(),
            None if status.as_u16() == 202 => "accepted".into(),
            None if status.is_success() => "done".into(),
            None => format!("status {}", status.as_u16()).into(),
        };
    }
}

impl Drop for Act<'_> {
    fn drop(&mut self) {
        let may_refuse = [Kind::Unauthorized, Kind::Forbidden].map(Kind::name);
        let is_refused = !self.has_key && may_refuse.contains(&&*self.outcome);
        let suppressed = match is_refused {
            false => None,
            true => {
                let now = u64::try_from(self.audit.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                match self.audit.tells_of_stranger(now) {
                    None => return,
                    some => some.filter(|&count| count > 0),
                }
            }
        };
        let facts = self.note.lock();
        let Facts {
            model,
            version,
            alias,
            job,
            sha256,
            by,
        } = &*facts;
        tracing::info!(
            target: "audit",
            who = &*self.who,
            act = self.name,
            model = model.as_deref(),
            version = version.as_deref(),
            alias = alias.as_deref(),
            job = job.as_deref(),
            sha256 = sha256.as_deref(),
            by = by.as_deref(),
            outcome = &*self.outcome,
            peer = self.peer.as_deref(),
            certificate = self.certificate.as_deref(),
            request_id = &*self.request_id.0,
            suppressed,
            "administrative act"
        );
    }
}

impl Note {
    /// The model.
    pub(super) fn model(&self, model: &str) {
        self.lock().model = Some(clipped(model));
    }

    /// The version.
    pub(super) fn version(&self, version: &impl ToString) {
        self.lock().version = Some(clipped(&version.to_string()));
    }

    /// The job.
    pub(super) fn job(&self, job: &impl ToString) {
        self.lock().job = Some(clipped(&job.to_string()));
    }

    /// The image.
    pub(super) fn image(&self, sha256: &str) {
        self.lock().sha256 = Some(clipped(sha256));
    }

    /// Who asks, in the caller's own words.
    pub(super) fn by(&self, by: &str) {
        self.lock().by = Some(clipped(by));
    }

    /// What stands in the path where the template has a name.
    fn path(&self, template: &str, path: &str) {
        let mut facts = self.lock();
        for (name, value) in template.split('/').zip(path.split('/')) {
            let fact = match name {
                "{name}" => &mut facts.model,
                "{version}" => &mut facts.version,
                "{alias}" => &mut facts.alias,
                "{id}" => &mut facts.job,
                "{sha256}" => &mut facts.sha256,
                _ => continue,
            };
            *fact = Some(clipped(value));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;
    use serde_json::Value;

    use super::*;
    use crate::http::problem::Problem;
    use crate::telemetry::captured::captured;

    fn request(path: &str) -> Request {
        let mut request = Request::post(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Caller {
            peer: Some("192.0.2.7".parse().unwrap()),
            ..Caller::default()
        });
        request
    }

    const PROMOTE: &str = "/v1/models/{name}/promote";

    fn act<'a>(audit: &'a Audit, path: &str) -> Act<'a> {
        let id = RequestId("mine".into());
        audit.begin("promote", PROMOTE, &mut request(path), &id)
    }

    fn lines(acts: impl FnOnce(&Audit)) -> Vec<Value> {
        captured("audit=info", || acts(&Audit::new()))
    }

    #[test]
    fn a_line_tells_who_what_and_how_it_ended() {
        let lines = lines(|audit| {
            let act = act(audit, "/v1/models/mnist/promote");
            act.note.version(&2);
            act.note.by("anna");
            act.end(&"fine".into_response());
        });
        let line = &lines[0];
        for (field, value) in [
            ("target", "audit"),
            ("who", "192.0.2.7"),
            ("peer", "192.0.2.7"),
            ("act", "promote"),
            ("model", "mnist"),
            ("version", "2"),
            ("by", "anna"),
            ("outcome", "done"),
            ("request_id", "mine"),
        ] {
            assert_eq!(line[field], value, "{field}: {line}");
        }
        assert!(
            line.get("job").is_none() && line.get("suppressed").is_none(),
            "{line}"
        );
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn an_act_has_its_line_however_it_ends() {
        let lines = lines(|audit| {
            let refusal = Problem::new(Kind::GateRefused, "no").into_response();
            act(audit, "/v1/models/mnist/promote").end(&refusal);
            let accepted = (axum::http::StatusCode::ACCEPTED, "").into_response();
            act(audit, "/v1/models/mnist/promote").end(&accepted);
            drop(act(audit, "/v1/models/mnist/promote"));
        });
        let outcomes: Vec<_> = lines
            .iter()
            .map(|line| line["outcome"].as_str().unwrap())
            .collect();
        assert_eq!(outcomes, ["gate-refused", "accepted", "hung_up"]);
    }

    #[test]
    fn what_a_caller_wrote_is_cut_and_escaped() {
        let long = "x".repeat(1000);
        let lines = lines(|audit| {
            let act = act(audit, &format!("/v1/models/{long}/promote"));
            act.note.by("a\nb\u{1b}[31m\u{202e}");
            act.end(&"".into_response());
        });
        assert_eq!(lines[0]["model"].as_str().unwrap().chars().count(), 129);
        assert_eq!(lines[0]["by"], "a\\nb\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn strangers_cannot_fill_the_log() {
        let audit = Audit::new();
        let told = |now: u64| audit.tells_of_stranger(now);
        assert_eq!((0..STRANGERS_AT_ONCE).filter_map(|_| told(0)).sum::<u64>(), 0);
        assert_eq!([told(0), told(0), told(1)], [None; 3]);
        let tenth = 100_000_000;
        assert_eq!([told(tenth), told(tenth)], [Some(3), None]);
        assert_eq!(told(3 * tenth), Some(1));
    }

    #[test]
    fn only_strangers_are_left_out() {
        let lines = lines(|audit| {
            while audit.tells_of_stranger(0).is_some() {}
            let refusal = |kind| Problem::new(kind, "no").into_response();
            // Of these the time that passes lets through one at most.
            act(audit, "/v1/models/mnist/promote").end(&refusal(Kind::Unauthorized));
            act(audit, "/v1/models/mnist/promote").end(&refusal(Kind::Unauthorized));
            act(audit, "/v1/models/mnist/promote").end(&refusal(Kind::Conflict));
            let mut known = act(audit, "/v1/models/mnist/promote");
            known.has_key = true;
            known.end(&refusal(Kind::Forbidden));
        });
        let outcomes = lines.iter().map(|line| line["outcome"].as_str().unwrap());
        let let_in: Vec<_> = outcomes.filter(|outcome| *outcome != "unauthorized").collect();
        assert_eq!(let_in, ["conflict", "forbidden"]);
    }
}
