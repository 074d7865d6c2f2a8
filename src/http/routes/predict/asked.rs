//! What a request asks for, told by its path, its query and its headers.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{Query, RawPathParams};
use axum::http::request;

use crate::http::problem::{Kind, Problem, excerpt};
use crate::http::{Config, priority};
use crate::model::{ModelName, Version};
use crate::postprocess::Detail;
use crate::queueing::Asker;

const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// A checked request, its images aside.
#[derive(Debug)]
pub(super) struct Asked {
    /// Unset: the default model.
    pub(super) model: Option<ModelName>,
    /// Unset: the champion.
    pub(super) version: Option<Version>,
    /// How much of each prediction.
    pub(super) detail: Detail,
    /// Who asks, and how urgently.
    pub(super) asker: Asker,
    /// How long the caller waits for the answer, once the request has been read.
    pub(super) timeout: Duration,
}

impl Asked {
    /// The first thing that is not understood or not possible is the problem.
    pub(super) fn read(
        path: &RawPathParams,
        head: &request::Parts,
        config: &Config,
    ) -> Result<Self, Problem> {
        let mut asked = Self {
            model: None,
            version: None,
            detail: Detail {
                top_k: config.default_top_k,
                probabilities: false,
            },
            asker: Asker {
                urgency: priority::urgency(&head.headers),
                ..Asker::default()
            },
            timeout: timeout(head, config)?,
        };
        for (key, value) in path {
            match key {
                "version" => asked.version = Some(parsed(value)?),
                _ => asked.model = Some(parsed(value)?),
            }
        }
        asked.read_query(head)?;
        Ok(asked)
    }

    fn read_query(&mut self, head: &request::Parts) -> Result<(), Problem> {
        let short_route = self.model.is_none();
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
        let Query(pairs) = pairs.map_err(|_| bad("the query string is not understood".to_owned()))?;
        for (key, value) in &pairs {
            match key.as_str() {
                "top_k" => self.detail.top_k = top_k(value)?,
                "probabilities" => self.detail.probabilities = flag(value)?,
                "model" if short_route => self.model = Some(parsed(value)?),
                "model" => return Err(bad("the path names the model; the query must not".to_owned())),
                other => {
                    let known = "top_k, probabilities and, without a model in the path, model are known";
                    return Err(bad(format!("unknown query key '{}'; {known}", excerpt(other))));
                }
            }
        }
        Ok(())
    }
}

fn timeout(head: &request::Parts, config: &Config) -> Result<Duration, Problem> {
    let Some(value) = head.headers.get(TIMEOUT_HEADER) else {
        return Ok(Duration::from_millis(config.request_timeout_ms));
    };
    let most = config.max_request_timeout_ms;
    let asked = value.to_str().ok().and_then(|text| text.parse().ok());
    match asked.filter(|ms| (1..=most).contains(ms)) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(bad(format!(
            "{TIMEOUT_HEADER} is a whole number of milliseconds from 1 to {most}"
        ))),
    }
}

/// At least 1; one beyond the classes lists them all.
fn top_k(value: &str) -> Result<usize, Problem> {
    let count = value.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| impossible("top_k is a whole number from 1"))
}

fn flag(value: &str) -> Result<bool, Problem> {
    value
        .parse()
        .map_err(|_| impossible("probabilities is true or false"))
}

fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| bad(error.to_string()))
}

fn bad(detail: String) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

fn impossible(detail: &str) -> Problem {
    Problem::new(Kind::InvalidInput, detail)
}
