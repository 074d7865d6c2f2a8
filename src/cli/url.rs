//! Addresses of servers that are asked over plain HTTP.

use super::CliError;

/// `http://` + authority + path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Host and port, as the request's `Host` says it.
    pub(super) authority: String,
    /// The path with the query, from its `/` on.
    pub(super) path: String,
}

impl Url {
    /// Of `http://HOST[:PORT][/PATH]`; port 80 and path `/` where none is given.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = || CliError::Usage(format!("'{text}' is not of the form http://HOST[:PORT]/PATH"));
        if text.starts_with("https://") {
            let why = "https is not spoken here: ask the server behind the proxy, over http://";
            return Err(CliError::Usage(format!("'{text}': {why}")));
        }
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '?', '#']) || !plain(rest) {
            return Err(wrong());
        }
        let port_follows = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if port_follows { "" } else { ":80" };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            authority: format!("{authority}{port}"),
            path: path.to_owned(),
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let check = |text: &str, authority: &str, path: &str| {
            let url = Url::parse(text).unwrap();
            assert_eq!((&*url.authority, &*url.path), (authority, path), "{text}");
        };
        check(
            "http://127.0.0.1:8080/health/ready",
            "127.0.0.1:8080",
            "/health/ready",
        );
        check("http://localhost", "localhost:80", "/");
        check("http://[::1]/x", "[::1]:80", "/x");
        check("http://[::1]:81/x?y=:z", "[::1]:81", "/x?y=:z");
        for wrong in [
            "https://a/",
            "a:80",
            "http://",
            "http:///x",
            "http://a/\r\nX: y",
            "http://u@a/",
            "http://a?x=1",
        ] {
            assert!(matches!(Url::parse(wrong), Err(CliError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn https_is_told_apart_from_nonsense() {
        let error = Url::parse("https://a/").unwrap_err();
        assert!(error.to_string().contains("https is not spoken"), "{error}");
    }
}
