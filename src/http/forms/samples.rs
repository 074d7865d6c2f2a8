//! `multipart/form-data` to images with their labels.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;

use super::{Bodies, Form, Use, Whole, body, form, multipart, refuse_encoded, too_many};
use crate::http::problem::{Kind, Problem, excerpt};
use crate::predict::Room;

/// A form of samples, as it was written.
#[derive(Debug, Default)]
pub(in crate::http) struct Samples {
    /// Whose classes the labels are.
    pub(in crate::http) model: Option<String>,
    /// Who says so.
    pub(in crate::http) source: Option<String>,
    /// At least one and at most `http.max_images`, each with its label.
    pub(in crate::http) samples: Vec<(Bytes, String)>,
    /// What the images take.
    pub(in crate::http) room: Room,
}

/// Reads parts named `image` and as many named `label`, the first of one with the first of the other; beside them at most
/// one `model` and one `source`.
pub(in crate::http) async fn samples(
    headers: &HeaderMap,
    body: Body,
    bodies: &Bodies,
) -> Result<Samples, Problem> {
    let content_type = headers.get(CONTENT_TYPE);
    let (Form::Multipart, Some(content_type)) = (form(content_type)?, content_type) else {
        let detail = "samples are multipart/form-data with parts named image and label";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    };
    refuse_encoded(headers)?;
    let Whole { bytes, room } = body::read(body, bodies, Use::AsItIs).await?;
    let max_images = bodies.config.max_images;
    let mut form = Samples {
        room,
        ..Samples::default()
    };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for part in multipart::Parts::of(content_type, bytes)? {
        let multipart::Part { name, content } = part?;
        match name.as_str() {
            "image" if images.len() == max_images => return Err(too_many(max_images)),
            "image" => images.push(content),
            "label" if labels.len() == max_images => return Err(too_many(max_images)),
            "label" => labels.push(text("label", &content)?),
            "model" => once("model", &mut form.model, &content)?,
            "source" => once("source", &mut form.source, &content)?,
            other => {
                let name = excerpt(other);
                return Err(invalid(format!(
                    "a part is named '{name}'; image, label, model and source are known"
                )));
            }
        }
    }
    if images.is_empty() || images.len() != labels.len() {
        let (images, labels) = (images.len(), labels.len());
        return Err(invalid(format!(
            "the form holds {images} images and {labels} labels; it needs one label for each image"
        )));
    }
    form.samples = images.into_iter().zip(labels).collect();
    Ok(form)
}

fn once(key: &str, place: &mut Option<String>, content: &[u8]) -> Result<(), Problem> {
    match place.replace(text(key, content)?) {
        None => Ok(()),
        Some(_) => Err(invalid(format!("{key} stands twice in the form"))),
    }
}

fn text(key: &str, content: &[u8]) -> Result<String, Problem> {
    let text = std::str::from_utf8(content).map_err(|_| invalid(format!("{key}: it is not UTF-8")))?;
    Ok(text.trim().to_owned())
}

fn invalid(detail: String) -> Problem {
    Problem::new(Kind::InvalidInput, detail)
}
