//! What a request carries.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::super::super::CliError;

/// Of one file: far more than any server here takes in a request.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// Of all files: they are held in memory.
const MAX_TOTAL_BYTES: usize = 256 << 20;

/// A request's body.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) content_type: HeaderValue,
    pub(super) bytes: Bytes,
}

/// Image files, each with the content type of its first bytes.
pub(super) fn images(paths: &[PathBuf]) -> Result<Vec<Payload>, CliError> {
    let mut total = 0;
    let mut payloads = Vec::with_capacity(paths.len());
    for path in paths {
        let bytes = read(path)?;
        total += bytes.len();
        if total > MAX_TOTAL_BYTES {
            let most = MAX_TOTAL_BYTES >> 20;
            return Err(CliError::Data(format!(
                "the images are more than {most} MiB together"
            )));
        }
        let not_known = |_| CliError::Data(format!("{}: not an image of a known format", path.display()));
        let format = image::guess_format(&bytes).map_err(not_known)?;
        payloads.push(Payload {
            content_type: HeaderValue::from_static(format.to_mime_type()),
            bytes,
        });
    }
    Ok(payloads)
}

/// A whole request body from a file, such as JSON or a form.
pub(super) fn body(path: &Path, content_type: &str) -> Result<Payload, CliError> {
    let wrong = |_| CliError::Usage("--content-type: not a header's value".to_owned());
    Ok(Payload {
        content_type: HeaderValue::from_str(content_type).map_err(wrong)?,
        bytes: read(path)?,
    })
}

fn read(path: &Path) -> Result<Bytes, CliError> {
    let wrong = |why: &dyn std::fmt::Display| CliError::Data(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BODY_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| wrong(&e))?;
    if bytes.len() as u64 > MAX_BODY_BYTES {
        return Err(wrong(&format!("more than {} MiB", MAX_BODY_BYTES >> 20)));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
    }

    #[test]
    fn an_image_names_its_own_type() {
        let found = images(&[examples("digit.png"), examples("scan.jpg")]).unwrap();
        let types: Vec<&HeaderValue> = found.iter().map(|payload| &payload.content_type).collect();
        assert_eq!(types, ["image/png", "image/jpeg"]);
        assert!(found.iter().all(|payload| !payload.bytes.is_empty()));
    }

    #[test]
    fn what_cannot_be_sent_is_told() {
        let check = |error: CliError, expected: &str| {
            assert!(error.to_string().contains(expected), "{error}");
        };
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        check(images(&[manifest]).unwrap_err(), "Cargo.toml: not an image");
        check(images(&[examples("nothing.png")]).unwrap_err(), "nothing.png");
        check(
            body(&examples("digit.png"), "a\nb").unwrap_err(),
            "--content-type",
        );
        let endless = Path::new("/dev/zero");
        check(body(endless, "text/plain").unwrap_err(), "more than 64 MiB");
    }
}
