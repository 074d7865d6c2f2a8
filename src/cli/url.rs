//! Addresses of servers that are asked.

use super::CliError;

/// `http://` or `https://` + authority + path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Whether it is `https`.
    pub(super) has_tls: bool,
    /// Host and port, as the request's `Host` says it.
    pub(super) authority: String,
    /// The path with the query, from its `/` on.
    pub(super) path: String,
}

impl Url {
    /// Of `http://HOST[:PORT][/PATH]`; port 80 and path `/` where none is given.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        if text.starts_with("https://") {
            let why = "https is not spoken here: ask the server behind the proxy, over http://";
            return Err(CliError::Usage(format!("'{text}': {why}")));
        }
        Self::parse_either(text)
    }

    /// Of one of these, or of `https://HOST[:PORT][/PATH]`, whose port is 443 where none is given.
    pub(super) fn parse_either(text: &str) -> Result<Self, CliError> {
        let wrong = || CliError::Usage(format!("'{text}' is not of the form http://HOST[:PORT]/PATH"));
        let (has_tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").ok_or_else(wrong)?),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '?', '#']) || !plain(rest) {
            return Err(wrong());
        }
        let port_follows = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = match (port_follows, has_tls) {
            (true, _) => "",
            (false, false) => ":80",
            (false, true) => ":443",
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            has_tls,
            authority: format!("{authority}{port}"),
            path: path.to_owned(),
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.has_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
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
        let secure = Url::parse_either("https://a/x").unwrap();
        assert_eq!((secure.has_tls, &*secure.authority), (true, "a:443"));
        assert_eq!(secure.to_string(), "https://a:443/x");
        assert!(!Url::parse_either("http://a").unwrap().has_tls);
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
