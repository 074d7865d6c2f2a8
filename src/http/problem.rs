//! Problem details (RFC 9457): what every refused or failed request is told.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::batcher::{ItemError, Refusal};
use crate::predict::{Failure, NotServed};
use crate::preprocess::ImageError;
use crate::service::{Cause, ServiceError};

use super::RETRY_AFTER;
use super::rate_limit::{RateLimit, whole_seconds};
use crate::store::JobId;
use crate::telemetry::Refused;

/// The closed set of problems; each has a stable `type`, a title and a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not understood.
    BadRequest,
    /// No key of this server came with the request.
    Unauthorized,
    /// The configuration does not allow it.
    Forbidden,
    /// The key lacks a scope.
    WrongScope,
    /// No such path.
    NotFound,
    /// No such model in service.
    ModelNotFound,
    /// No such version in service.
    VersionNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The body came too slowly.
    BodyTimeout,
    /// What is asked for does not go with what is.
    Conflict,
    /// The gate does not allow the promotion.
    GateRefused,
    /// A version's files or answers are wrong.
    VersionUnfit,
    /// The body is over `http.max_body_bytes`.
    BodyTooLarge,
    /// A content type or an image format that is not read.
    UnsupportedMediaType,
    /// A well-formed request with values that are not possible.
    InvalidInput,
    /// An image over the limits.
    ImageTooLarge,
    /// An image that cannot be decoded.
    ImageBroken,
    /// Feedback on something of which nothing is kept.
    NotKept,
    /// An image that was erased.
    Erased,
    /// No such job.
    JobNotFound,
    /// The model has a job that waits or runs.
    JobActive,
    /// The job's state does not allow what is asked.
    JobState,
    /// An idempotency key with another request than before.
    KeyTaken,
    /// A queue is full.
    QueueFull,
    /// What waits takes longer than the request may.
    DeadlineTooNear,
    /// A source gave as many labels as it may.
    QuotaUsed,
    /// The key asked as often as it may.
    RateLimited,
    /// Models are still being loaded.
    Starting,
    /// The server is shutting down.
    Draining,
    /// The model's engine computes nothing.
    EngineLost,
    /// There is no store, another writer holds it, or its disk fails.
    StoreUnavailable,
    /// The disk of the store, or of the models, is full.
    InsufficientStorage,
    /// The deadline passed before the answer was there.
    DeadlinePassed,
    /// The engine failed on this item.
    InferenceFailed,
    /// A bug of the server.
    Internal,
}

/// Every kind, for tests and documentation.
pub const KINDS: &[Kind] = &[
    Kind::BadRequest,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::WrongScope,
    Kind::NotFound,
    Kind::ModelNotFound,
    Kind::VersionNotFound,
    Kind::MethodNotAllowed,
    Kind::BodyTimeout,
    Kind::Conflict,
    Kind::GateRefused,
    Kind::VersionUnfit,
    Kind::BodyTooLarge,
    Kind::UnsupportedMediaType,
    Kind::InvalidInput,
    Kind::ImageTooLarge,
    Kind::ImageBroken,
    Kind::NotKept,
    Kind::Erased,
    Kind::JobNotFound,
    Kind::JobActive,
    Kind::JobState,
    Kind::KeyTaken,
    Kind::QueueFull,
    Kind::DeadlineTooNear,
    Kind::QuotaUsed,
    Kind::RateLimited,
    Kind::Starting,
    Kind::Draining,
    Kind::EngineLost,
    Kind::StoreUnavailable,
    Kind::InsufficientStorage,
    Kind::DeadlinePassed,
    Kind::InferenceFailed,
    Kind::Internal,
];

impl Kind {
    fn facts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "The request is not understood"),
            Self::Unauthorized => (401, "unauthorized", "A key is needed"),
            Self::Forbidden => (403, "forbidden", "The server does not allow this"),
            Self::WrongScope => (403, "wrong-scope", "The key does not allow this"),
            Self::NotFound => (404, "not-found", "There is nothing at this path"),
            Self::ModelNotFound => (404, "model-not-found", "No such model is served"),
            Self::VersionNotFound => (404, "version-not-found", "No such version is served"),
            Self::MethodNotAllowed => (405, "method-not-allowed", "The path does not take this method"),
            Self::BodyTimeout => (408, "body-timeout", "The body came too slowly"),
            Self::Conflict => (409, "conflict", "It does not go with what is"),
            Self::GateRefused => (409, "gate-refused", "The gate does not allow it"),
            Self::VersionUnfit => (409, "version-unfit", "The version cannot serve"),
            Self::BodyTooLarge => (413, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => (415, "unsupported-media-type", "This type is not read"),
            Self::InvalidInput => (422, "invalid-input", "A value is not possible"),
            Self::ImageTooLarge => (422, "image-too-large", "The image is too large"),
            Self::ImageBroken => (422, "image-broken", "The image cannot be decoded"),
            Self::NotKept => (404, "not-kept", "Nothing of this is kept"),
            Self::Erased => (410, "erased", "This was erased"),
            Self::QuotaUsed => (429, "quota-used", "The source may give no more labels today"),
            Self::RateLimited => (429, "rate-limited", "The key asks too often"),
            Self::JobNotFound => (404, "job-not-found", "There is no such job"),
            Self::JobActive => (409, "job-active", "The model has a job that waits or runs"),
            Self::JobState => (409, "job-state", "The job's state does not allow this"),
            Self::KeyTaken => (422, "key-taken", "The idempotency key has another request"),
            Self::QueueFull => (429, "queue-full", "Too much is waiting"),
            Self::DeadlineTooNear => (429, "deadline-too-near", "The deadline cannot be met"),
            Self::Starting => (503, "starting", "The server is starting"),
            Self::Draining => (503, "draining", "The server is shutting down"),
            Self::EngineLost => (503, "engine-lost", "The model cannot answer now"),
            Self::StoreUnavailable => (503, "store-unavailable", "The store cannot be used now"),
            Self::InsufficientStorage => (507, "insufficient-storage", "The disk is full"),
            Self::DeadlinePassed => (504, "deadline-passed", "The deadline passed"),
            Self::InferenceFailed => (500, "inference-failed", "The model gave no answer"),
            Self::Internal => (500, "internal", "The server failed"),
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().0).expect("the table above holds valid statuses")
    }

    /// The last part of the `type` URN.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// What `WWW-Authenticate` says with it (RFC 6750, 3): how to come in.
    fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => Some("Bearer realm=\"sconce\""),
            Self::WrongScope => Some("Bearer realm=\"sconce\", error=\"insufficient_scope\""),
            _ => None,
        }
    }

    /// One sentence, the same for every occurrence.
    pub fn title(self) -> &'static str {
        self.facts().2
    }
}

/// Most characters of a caller's own text that a detail repeats.
const MAX_EXCERPT: usize = 200;

/// The beginning of a caller's text, for a detail: on one line, control characters escaped.
pub(super) fn excerpt(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(MAX_EXCERPT) {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// One occurrence of a problem. Serialises as `{type, title, status, detail}`, with `job` where one is in the way; the detail is for the caller and holds
/// nothing internal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// What happened this time, and what would be right.
    pub detail: String,
    /// When to ask again; becomes `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// The limit that was met; becomes `RateLimit` and `RateLimit-Policy`.
    pub limit: Option<RateLimit>,
    /// The job that is in the way.
    pub job: Option<JobId>,
    /// A body is left unread, so that the connection ends with this answer.
    pub closes: bool,
}

impl Problem {
    /// A problem without `Retry-After`.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            retry_after: None,
            limit: None,
            job: None,
            closes: false,
        }
    }

    /// Tells that the connection ends with this answer.
    pub fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// Names the job that is in the way.
    pub fn job(mut self, id: JobId) -> Self {
        self.job = Some(id);
        self
    }

    /// Adds `Retry-After`.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4 + usize::from(self.job.is_some())))?;
        map.serialize_entry("type", &format_args!("urn:sconce:problem:{}", self.kind.name()))?;
        map.serialize_entry("title", self.kind.title())?;
        map.serialize_entry("status", &self.kind.status().as_u16())?;
        map.serialize_entry("detail", &self.detail)?;
        if let Some(job) = self.job {
            map.serialize_entry("job", &job.number())?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a map of strings and a number always serialises");
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.kind.status(), [(header::CONTENT_TYPE, content_type)], body).into_response();
        // What the log calls it.
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        if let Some(challenge) = self.kind.challenge() {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if let Some(limit) = self.limit {
            limit.write(headers);
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<NotServed> for Problem {
    fn from(missing: NotServed) -> Self {
        let kind = match missing {
            NotServed::Model(_) => Kind::ModelNotFound,
            NotServed::Version(..) => Kind::VersionNotFound,
        };
        Self::new(kind, missing.to_string())
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let (cause, detail) = error.told();
        let (kind, wait) = match cause {
            Cause::NoModel => (Kind::ModelNotFound, None),
            Cause::NoVersion => (Kind::VersionNotFound, None),
            Cause::Conflict => (Kind::Conflict, None),
            Cause::NotBlessed => (Kind::GateRefused, None),
            Cause::Unfit => (Kind::VersionUnfit, None),
            Cause::Impossible => (Kind::InvalidInput, None),
            Cause::Full => (Kind::InsufficientStorage, None),
            Cause::Busy => (Kind::QueueFull, Some(RETRY_AFTER)),
            Cause::Stopping => (Kind::Draining, Some(RETRY_AFTER)),
            Cause::Failed => (Kind::Internal, None),
        };
        Self {
            retry_after: wait,
            ..Self::new(kind, detail)
        }
    }
}

impl From<&ImageError> for Problem {
    fn from(error: &ImageError) -> Self {
        let kind = match error {
            ImageError::UnknownFormat => Kind::UnsupportedMediaType,
            ImageError::TooLarge(_) => Kind::ImageTooLarge,
            ImageError::Empty | ImageError::Broken(_) | ImageError::Panicked => Kind::ImageBroken,
            ImageError::Invalid(_) => Kind::InvalidInput,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<&ItemError> for Problem {
    fn from(error: &ItemError) -> Self {
        let kind = match error {
            ItemError::Refused(refusal) => return refusal.into(),
            ItemError::DeadlinePassed => Kind::DeadlinePassed,
            ItemError::Closed => Kind::Draining,
            ItemError::Lost => Kind::EngineLost,
            ItemError::Inference | ItemError::NonFinite => Kind::InferenceFailed,
        };
        let problem = Self::new(kind, error.to_string());
        match error {
            ItemError::Closed | ItemError::Lost => problem.retry_after(RETRY_AFTER),
            _ => problem,
        }
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let Refusal {
            why,
            retry_after,
            limit,
        } = *refusal;
        let (kind, policy) = match why {
            Refused::Queue => (Kind::QueueFull, "queue"),
            Refused::Decode => (Kind::QueueFull, "decode"),
            Refused::Deadline => (Kind::DeadlineTooNear, "deadline"),
        };
        let limit = RateLimit {
            policy,
            quota: limit,
            left: 0,
            reset: retry_after,
        };
        Self {
            limit: Some(limit),
            ..Self::new(kind, refusal.to_string()).retry_after(retry_after)
        }
    }
}

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Image(error) => error.into(),
            Failure::Item(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: HashSet<_> = KINDS.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn a_problem_is_a_problem_document() {
        let refusal = Refusal::new(Refused::Queue, Duration::from_millis(1200), 9);
        let problem = Problem::from(&ItemError::Refused(refusal));
        let response = problem.clone().into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()["ratelimit"], "\"queue\";r=0;t=2");
        let expected = serde_json::json!({
            "type": "urn:sconce:problem:queue-full",
            "title": "Too much is waiting",
            "status": 429,
            "detail": "the queue is full",
        });
        assert_eq!(serde_json::to_value(&problem).unwrap(), expected);
    }
}
