//! `multipart/form-data` to pictures.

use axum::body::Body;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;

use super::too_many;
use crate::http::problem::{Kind, Problem, excerpt};
use crate::predict::Picture;

/// The parts named `image` (or `images`), in order; file names and types of parts are not asked.
pub(super) async fn pictures(
    content_type: &HeaderValue,
    body: Bytes,
    max_images: usize,
) -> Result<Vec<Picture>, Problem> {
    let mut multipart = open(content_type, body).await?;
    let mut pictures = Vec::new();
    while let Some(part) = multipart.next_field().await.map_err(cut)? {
        let name = part.name().unwrap_or_default();
        if !matches!(name, "image" | "images") {
            let detail = format!(
                "a part is named '{}'; images are parts named 'image'",
                excerpt(name)
            );
            return Err(Problem::new(Kind::InvalidInput, detail));
        }
        if pictures.len() == max_images {
            return Err(too_many(max_images));
        }
        pictures.push(Picture::Encoded(part.bytes().await.map_err(cut)?));
    }
    Ok(pictures)
}

/// The parts of a body that was read.
pub(super) async fn open(content_type: &HeaderValue, body: Bytes) -> Result<Multipart, Problem> {
    let mut request = Request::new(Body::from(body));
    request.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    // The body was read within its own limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let multipart = Multipart::from_request(request, &()).await;
    multipart.map_err(|_| broken("its content type names no boundary"))
}

/// What is said of a part that cannot be read; why is the reader's own affair.
pub(super) fn cut(_: MultipartError) -> Problem {
    broken("a part is broken or cut short")
}

fn broken(what: &str) -> Problem {
    Problem::new(
        Kind::BadRequest,
        format!("the multipart form cannot be read: {what}"),
    )
}
