//! A body read whole, within its size and its time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::http::Config;
use crate::http::problem::{Kind, Problem};

/// The whole body. One over `http.max_body_bytes` is refused unread where its length is told, else as soon as it is
/// over; one slower than `http.body_timeout_ms` is given up.
pub(in crate::http) async fn read(body: Body, config: &Config) -> Result<Bytes, Problem> {
    let wait = Duration::from_millis(config.body_timeout_ms);
    let read = timeout(wait, whole(body, config.max_body_bytes)).await;
    read.unwrap_or_else(|_elapsed| {
        let detail = format!("the body did not arrive within {} ms", config.body_timeout_ms);
        Err(Problem::new(Kind::BodyTimeout, detail))
    })
}

async fn whole(mut body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    within_limit(told, max_bytes)?;
    let first = next(&mut body).await?.unwrap_or_default();
    within_limit(first.len(), max_bytes)?;
    let Some(mut chunk) = next(&mut body).await? else {
        // The usual case: one chunk, handed on uncopied.
        return Ok(first);
    };
    let mut whole = BytesMut::with_capacity(told);
    whole.extend_from_slice(&first);
    loop {
        within_limit(whole.len() + chunk.len(), max_bytes)?;
        whole.extend_from_slice(&chunk);
        match next(&mut body).await? {
            Some(more) => chunk = more,
            None => return Ok(whole.freeze()),
        }
    }
}

/// The next chunk; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    // A body of told length ends with its last byte; asking for one more frame would cost a turn of the connection.
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|_| Problem::new(Kind::BadRequest, "the body is broken or cut short"))?;
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

fn within_limit(bytes: usize, max_bytes: usize) -> Result<(), Problem> {
    if bytes <= max_bytes {
        return Ok(());
    }
    let detail = format!("the body is over {max_bytes} bytes");
    Err(Problem::new(Kind::BodyTooLarge, detail))
}
