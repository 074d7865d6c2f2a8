//! `multipart/form-data`: the parts of a body that was read, none of them copied.

use axum::http::HeaderValue;
use bytes::Bytes;
use memchr::memmem;

use super::too_many;
use crate::http::problem::{Kind, Problem, excerpt};
use crate::predict::Picture;

/// Longest boundary (RFC 2046, 5.1.1).
const MAX_BOUNDARY: usize = 70;
/// Longest headers of a part.
const MAX_HEAD: usize = 8 << 10;

/// The parts named `image` (or `images`), in order; file names and types of parts are not asked.
pub(super) fn pictures(
    content_type: &HeaderValue,
    body: Bytes,
    max_images: usize,
) -> Result<Vec<Picture>, Problem> {
    let mut pictures = Vec::new();
    for part in Parts::of(content_type, body)? {
        let Part { name, content } = part?;
        if !matches!(&*name, "image" | "images") {
            let detail = format!(
                "a part is named '{}'; images are parts named 'image'",
                excerpt(&name)
            );
            return Err(Problem::new(Kind::InvalidInput, detail));
        }
        if pictures.len() == max_images {
            return Err(too_many(max_images));
        }
        pictures.push(Picture::Encoded(content));
    }
    Ok(pictures)
}

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    /// What its `Content-Disposition` calls it.
    pub(super) name: String,
    /// A slice of the body.
    pub(super) content: Bytes,
}

/// The parts of a body, in order. After an error there are no more.
#[derive(Debug)]
pub(super) struct Parts {
    body: Bytes,
    /// CRLF, two hyphens, the boundary.
    delimiter: Vec<u8>,
    /// Behind the delimiter that was found last; `None` before the first.
    at: Option<usize>,
    ended: bool,
}

impl Parts {
    /// Of a body with this content type, which must name the boundary.
    pub(super) fn of(content_type: &HeaderValue, body: Bytes) -> Result<Self, Problem> {
        let boundary = parameter(content_type.as_bytes(), "boundary");
        let boundary = boundary.filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len()));
        let boundary = boundary.ok_or_else(|| broken("its content type names no boundary"))?;
        Ok(Self {
            body,
            delimiter: [b"\r\n--", &boundary[..]].concat(),
            at: None,
            ended: false,
        })
    }

    /// The next part; `None` at the last delimiter.
    fn part(&mut self) -> Option<Option<Part>> {
        let begin = match self.at {
            Some(at) => at,
            None => self.first()?,
        };
        let rest = self.body.get(begin..)?;
        if rest.starts_with(b"--") {
            return Some(None);
        }
        // Blanks may follow the delimiter.
        let blanks = rest.iter().take_while(|&&b| b == b' ' || b == b'\t').count();
        let head_at = begin + blanks + b"\r\n".len();
        if !rest[blanks..].starts_with(b"\r\n") {
            return None;
        }
        let head = &self.body[head_at..];
        let head_end = memmem::find(&head[..head.len().min(MAX_HEAD)], b"\r\n\r\n")?;
        let name = name(&head[..head_end])?;
        let content_at = head_at + head_end + b"\r\n\r\n".len();
        let length = memmem::find(&self.body[content_at..], &self.delimiter)?;
        self.at = Some(content_at + length + self.delimiter.len());
        Some(Some(Part {
            name,
            content: self.body.slice(content_at..content_at + length),
        }))
    }

    /// Behind the first delimiter, before which anything may stand.
    fn first(&self) -> Option<usize> {
        let at_once = &self.delimiter[b"\r\n".len()..];
        if self.body.starts_with(at_once) {
            return Some(at_once.len());
        }
        memmem::find(&self.body, &self.delimiter).map(|at| at + self.delimiter.len())
    }
}

impl Iterator for Parts {
    type Item = Result<Part, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let part = self.part().ok_or_else(|| broken("a part is broken or cut short"));
        self.ended = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// The name in a part's headers; empty where it has none. `None` where these are no headers.
fn name(head: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    for line in head.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&b| b == b':')?;
        let (field, value) = (line[..colon].trim_ascii(), &line[colon + 1..]);
        if field.eq_ignore_ascii_case(b"content-disposition") {
            name = parameter(value, "name").unwrap_or_default();
        }
    }
    Some(String::from_utf8_lossy(&name).into_owned())
}

/// The value of a parameter (RFC 9110, 5.6.6): `essence; key=value; key="value"`.
fn parameter(header: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut rest = header;
    loop {
        rest = &rest[rest.iter().position(|&b| b == b';')? + 1..];
        let end = rest.iter().position(|&b| b == b'=' || b == b';')?;
        if rest[end] == b';' {
            rest = &rest[end..];
            continue;
        }
        let found = rest[..end].trim_ascii();
        rest = rest[end + 1..].trim_ascii_start();
        let value = match rest.strip_prefix(b"\"") {
            Some(quoted) => {
                let (value, behind) = unquoted(quoted)?;
                rest = behind;
                value
            }
            None => {
                let end = rest.iter().position(|&b| b == b';').unwrap_or(rest.len());
                let value = rest[..end].trim_ascii().to_vec();
                rest = &rest[end..];
                value
            }
        };
        if found.eq_ignore_ascii_case(key.as_bytes()) {
            return Some(value);
        }
    }
}

/// A quoted string behind its first quote, and what follows it.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &text[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(byte),
        }
    }
    None
}

fn broken(what: &str) -> Problem {
    Problem::new(
        Kind::BadRequest,
        format!("the multipart form cannot be read: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(content_type: &str, body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let body = Bytes::copy_from_slice(body);
        let parts = Parts::of(&HeaderValue::from_str(content_type).unwrap(), body);
        let parts = parts.map_err(|problem| problem.detail.to_string())?;
        let shown = |part: Result<Part, Problem>| {
            let part = part.map_err(|problem| problem.detail.to_string())?;
            Ok((part.name, part.content.to_vec()))
        };
        parts.map(shown).collect()
    }

    #[test]
    fn parameters_are_plain_or_quoted() {
        let check = |header: &str, expected: Option<&str>| {
            let found = parameter(header.as_bytes(), "name");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{header}");
        };
        check("form-data; name=a", Some("a"));
        check("form-data;NAME = a ;x=y", Some("a"));
        check("form-data; filename=\"a;name=b\"; name=\"c\"", Some("c"));
        check("form-data; name=\"a\\\"b\\\\\"", Some("a\"b\\"));
        check("form-data; flag; name=a", Some("a"));
        check("form-data; name=", Some(""));
        check("form-data", None);
        check("form-data; name", None);
        check("form-data; name=\"a", None);
        check("name=a", None);
    }

    #[test]
    fn forms_are_read_as_they_come() {
        let form = "multipart/form-data; boundary=\"a b\"";
        let head = "Content-Disposition: form-data; name=x";
        let one = |name: &str, content: &str| Ok(vec![(name.to_owned(), content.as_bytes().to_vec())]);
        let check = |body: String, expected: Result<Vec<(String, Vec<u8>)>, String>| {
            assert_eq!(parts(form, body.as_bytes()), expected, "{body:?}");
        };
        check(format!("--a b\r\n{head}\r\n\r\n1\r\n--a b--"), one("x", "1"));
        check(
            format!("before\r\n--a b \t\r\n{head}\r\n\r\n\r\n--a b--after"),
            one("x", ""),
        );
        check(
            format!("--a b\r\n{head}\r\n\r\n--a b\r\n--a bc\r\n--a b--"),
            Err("the multipart form cannot be read: a part is broken or cut short".to_owned()),
        );
        check(
            "--a b\r\nX: y\r\ncontent-disposition:form-data;name=z\r\n\r\n2\r\n--a b--".to_owned(),
            one("z", "2"),
        );
        check("--a b\r\nX: y\r\n\r\n3\r\n--a b--\r\n".to_owned(), one("", "3"));
        check("--a b--".to_owned(), Ok(vec![]));
        let long = "x".repeat(MAX_HEAD);
        let cut = "the multipart form cannot be read: a part is broken or cut short".to_owned();
        check(
            format!("--a b\r\nX: {long}\r\n{head}\r\n\r\n1\r\n--a b--"),
            Err(cut),
        );
        let boundary = "multipart/form-data; boundary=";
        assert!(
            parts(&format!("{boundary}{}", "b".repeat(71)), b"")
                .unwrap_err()
                .contains("no boundary")
        );
    }

    proptest! {
        #[test]
        fn parts_come_back_whatever_they_hold(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)
        ) {
            let mut body = Vec::new();
            for content in &contents {
                body.extend(b"--XyZ\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n");
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--XyZ--\r\n");
            let found = parts("multipart/form-data; boundary=XyZ", &body).unwrap();
            let found: Vec<Vec<u8>> = found.into_iter().map(|(_, content)| content).collect();
            prop_assert_eq!(found, contents);
        }

        #[test]
        fn no_body_panics(body in "(--b|\r\n|--|name=|;|\"|:|Content-Disposition| |x){0,20}") {
            if let Ok(parts) = parts("multipart/form-data; boundary=b", body.as_bytes()) {
                prop_assert!(parts.len() <= body.len());
            }
        }
    }
}
