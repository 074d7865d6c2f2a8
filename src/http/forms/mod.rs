//! A request's body, in any of its forms, to pictures.

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Config;
use super::problem::{Kind, Problem, excerpt};
use crate::predict::{Picture, Room};

mod base64;
mod bodies;
mod body;
mod json;
mod levels;
mod multipart;
mod samples;
#[cfg(test)]
mod tests;

pub use bodies::Bodies;
pub(super) use body::{Use, Whole, read as read_body};
pub(super) use samples::samples;

/// How the body holds its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The body is one image file; its kind is told by its bytes, whatever the content type says.
    Raw,
    /// `multipart/form-data` with parts named `image`.
    Multipart,
    /// `application/json` with `image`, `images` or `instances`.
    Json,
}

/// The pictures of a request, at least one and at most `http.max_images`, and the room that they take. What is wrong with one of them alone is its
/// own [`Picture::Refused`]; what is wrong with the request is a problem.
pub(super) async fn pictures(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
) -> Result<(Vec<Picture>, Room), Problem> {
    let content_type = headers.get(CONTENT_TYPE);
    let form = form(content_type)?;
    refuse_encoded(headers)?;
    let used = if form == Form::Json {
        Use::Json
    } else {
        Use::AsItIs
    };
    let Whole { bytes, room } = body::read(body, bodies, used).await?;
    let pictures = parsed(form, content_type, bytes, bodies.config.max_images)?;
    Ok((pictures, room))
}

/// The pictures of a body that is there whole, read as a prediction's request is; for whoever holds one without a server.
pub fn pictures_of(
    content_type: Option<&HeaderValue>,
    body: Bytes,
    config: &Config,
) -> Result<Vec<Picture>, Problem> {
    parsed(form(content_type)?, content_type, body, config.max_images)
}

fn parsed(
    form: Form,
    content_type: Option<&HeaderValue>,
    body: Bytes,
    max_images: usize,
) -> Result<Vec<Picture>, Problem> {
    let pictures = match (form, content_type) {
        (Form::Multipart, Some(content_type)) => multipart::pictures(content_type, body, max_images)?,
        (Form::Json, _) => json::pictures(&body, max_images)?,
        (Form::Raw | Form::Multipart, _) => vec![Picture::Encoded(body)],
    };
    if pictures.is_empty() {
        return Err(Problem::new(Kind::InvalidInput, "the request holds no image"));
    }
    Ok(pictures)
}

/// A request's body as one JSON document. What is no JSON is 400, JSON with other keys or values is 422.
pub(super) async fn document<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
) -> Result<T, Problem> {
    let whole = json_body(headers, body, bodies).await?;
    serde_json::from_slice(&whole.bytes).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => Kind::InvalidInput,
            _ => Kind::BadRequest,
        };
        let detail = format!("the JSON is not understood: {}", excerpt(&error.to_string()));
        Problem::new(kind, detail)
    })
}

/// A body of JSON, whole.
pub(super) async fn json_body(headers: &HeaderMap, body: Body, bodies: &Bodies) -> Result<Whole, Problem> {
    if !matches!(form(headers.get(CONTENT_TYPE)), Ok(Form::Json)) {
        let detail = "the content type is not application/json";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    }
    refuse_encoded(headers)?;
    body::read(body, bodies, Use::Json).await
}

/// The form of a content type; parameters are not asked, and letter case does not matter (RFC 9110, 8.3.1).
fn form(content_type: Option<&HeaderValue>) -> Result<Form, Problem> {
    let Some(value) = content_type else {
        return Ok(Form::Raw);
    };
    let essence = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let is_image = essence
        .get(..b"image/".len())
        .is_some_and(|start| start.eq_ignore_ascii_case(b"image/"));
    if is_image || is("application/octet-stream") || essence.is_empty() {
        Ok(Form::Raw)
    } else if is("multipart/form-data") {
        Ok(Form::Multipart)
    } else if is("application/json") {
        Ok(Form::Json)
    } else {
        Err(Problem::new(
            Kind::UnsupportedMediaType,
            "the content type is none of image/*, application/octet-stream, multipart/form-data and application/json",
        ))
    }
}

/// A compressed body could unpack to any size, so none is read.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = |value: &HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        value.is_empty() || value.eq_ignore_ascii_case(b"identity")
    };
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        Ok(())
    } else {
        Err(Problem::new(
            Kind::UnsupportedMediaType,
            "a body with a content encoding is not read; send it as it is",
        ))
    }
}

fn too_many(max_images: usize) -> Problem {
    let detail = format!("the request holds more than {max_images} images");
    Problem::new(Kind::InvalidInput, detail)
}
