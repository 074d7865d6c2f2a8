//! Outcomes to the one answer of all forms.

use std::fmt::Write;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

use crate::collect::PredictionId;
use crate::http::problem::Problem;
use crate::postprocess::Prediction;
use crate::predict::{Outcome, Served};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Bytes set aside per prediction: one with a top-k of three takes about 300.
const PREDICTION_BYTES: usize = 512;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    model: Model<'a>,
    predictions: Entries<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: u32,
}

/// One entry per image, in order.
struct Entries<'a> {
    /// The request's id.
    id: &'a str,
    outcomes: &'a [Outcome],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Prediction(&'a Prediction),
    /// One of several, under an id of its own.
    Named {
        id: PredictionId<'a>,
        #[serde(flatten)]
        prediction: &'a Prediction,
    },
    Failure {
        error: Problem,
    },
}

/// The answer with every image's outcome; where no image has a prediction, the problem of the first.
pub(super) fn respond(id: &str, served: &Served, outcomes: &[Outcome]) -> Result<Response, Problem> {
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let (model, version) = (served.name.as_str(), served.version.number());
    tracing::debug!(id, model, version, images = outcomes.len(), failed, "answered");
    if failed == outcomes.len()
        && let Some(Err(first)) = outcomes.first().map(|outcome| &outcome.result)
    {
        return Err(first.into());
    }
    let answer = Answer {
        id,
        model: Model { name: model, version },
        predictions: Entries { id, outcomes },
    };
    let mut body = Vec::with_capacity(PREDICTION_BYTES * outcomes.len());
    serde_json::to_writer(&mut body, &answer).expect("texts and finite numbers always serialise");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (SERVER_TIMING, server_timing(outcomes)),
    ];
    Ok((headers, body).into_response())
}

impl<'a> Serialize for Entries<'a> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let among = self.outcomes.len();
        let entry = |(place, outcome): (usize, &'a Outcome)| match &outcome.result {
            Ok(prediction) if among == 1 => Entry::Prediction(prediction),
            Ok(prediction) => Entry::Named {
                id: PredictionId::new(self.id, place, among),
                prediction,
            },
            Err(failure) => Entry::Failure {
                error: failure.into(),
            },
        };
        serializer.collect_seq(self.outcomes.iter().enumerate().map(entry))
    }
}

/// Where the time went, in milliseconds (W3C Server Timing); of several images, the longest of each stage.
fn server_timing(outcomes: &[Outcome]) -> HeaderValue {
    let longest = |stage: fn(&Outcome) -> Duration| outcomes.iter().map(stage).max().unwrap_or_default();
    let stages = [
        ("decode", longest(|o| o.timing.decode)),
        ("preprocess", longest(|o| o.timing.preprocess)),
        ("queue", longest(|o| o.timing.queue)),
        ("batch", longest(|o| o.timing.batch_wait)),
        ("inference", longest(|o| o.timing.inference)),
        ("postprocess", longest(|o| o.postprocess)),
    ];
    let mut text = String::with_capacity(160);
    for (name, spent) in stages {
        let (separator, micros) = (if text.is_empty() { "" } else { ", " }, spent.as_micros());
        let (whole, thousandths) = (micros / 1000, micros % 1000);
        write!(text, "{separator}{name};dur={whole}.{thousandths:03}")
            .expect("a String takes all that is written");
    }
    HeaderValue::try_from(text).expect("names and digits are valid in a header")
}
