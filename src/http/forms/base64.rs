//! A string of JSON to an image file's bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};

use crate::predict::Picture;
use crate::preprocess::ImageError;

/// Base64 in the standard or the URL-safe alphabet, padded or not, white space passed over, bare or as a `data:` URL.
/// Any other URL is refused: nothing is fetched for a caller.
pub(super) fn picture(text: &str) -> Picture {
    match payload(text).and_then(decoded) {
        Ok(bytes) => Picture::Encoded(bytes.into()),
        Err(reason) => Picture::Refused(ImageError::Invalid(reason.to_owned())),
    }
}

fn payload(text: &str) -> Result<&str, &'static str> {
    if starts_with(text, "http://") || starts_with(text, "https://") {
        return Err("images are not fetched from URLs; send the image's bytes in base64");
    }
    if !starts_with(text, "data:") {
        return Ok(text);
    }
    // RFC 2397: data:[<type>][;parameters][;base64],<data>
    let (head, data) = text
        .split_once(',')
        .ok_or("a data URL has a comma before its data")?;
    let (_, encoding) = head.rsplit_once(';').unwrap_or_default();
    if encoding.trim().eq_ignore_ascii_case("base64") {
        Ok(data)
    } else {
        Err("a data URL of an image is in base64 (data:image/png;base64,…)")
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut text = Cow::Borrowed(text);
    // Encoders after MIME (RFC 2045) break their lines.
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        text.to_mut().retain(|c| !c.is_ascii_whitespace());
    }
    let url_safe = text.bytes().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url_safe {
        URL_SAFE_PAD_INDIFFERENT
    } else {
        STANDARD_PAD_INDIFFERENT
    };
    engine
        .decode(text.as_bytes())
        .map_err(|_| "the string is not base64")
}

fn starts_with(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}
