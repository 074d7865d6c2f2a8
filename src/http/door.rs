//! Which routes a listener answers, and to whom.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Config;
use super::auth::{Auth, AuthError, Scope};
use super::config::Management;

/// The listener of those who manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where managing routes and series are answered.
    pub address: AdminAddress,
    /// Most open connections there; further ones wait to be accepted.
    pub max_connections: usize,
}

/// An IP address and port or, as the empty text, none: then `http.listen` answers everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// What a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Whether managing routes and series are among it.
    pub manages: bool,
    /// Whether this machine alone reaches it.
    pub is_local: bool,
}

/// A listener to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Where.
    pub address: SocketAddr,
    /// What is answered there.
    pub door: Door,
    /// Whether connections begin with a handshake, where there is TLS: what managers of this machine do needs none.
    pub has_tls: bool,
    /// How many connections may be open.
    pub max_connections: usize,
    /// The key of the configuration that names the address.
    pub key: &'static str,
}

/// An address is not one; the text says what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an IP address and port is expected, such as 127.0.0.1:8081, or \"\"")]
pub struct NoAddress;

const ADMIN: &str = "admin.address";
const MAX_CONNECTIONS: usize = 1_000_000;

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: AdminAddress(Some(SocketAddr::from(([127, 0, 0, 1], 8081)))),
            max_connections: 64,
        }
    }
}

impl Admin {
    /// Checks every value against the rest of the edge; the text names the key.
    pub fn check(&self, http: &Config) -> Result<(), String> {
        if !(1..=MAX_CONNECTIONS).contains(&self.max_connections) {
            let connections = self.max_connections;
            return Err(format!(
                "max_connections: {connections}; 1 to {MAX_CONNECTIONS} is possible"
            ));
        }
        match self.address.0 {
            Some(address) if address == http.listen && address.port() != 0 => {
                Err("address: http.listen has the same (\"\" answers everything on one)".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Door {
    /// Everything, to this machine alone.
    pub const WHOLE: Self = Self {
        manages: true,
        is_local: true,
    };
}

impl Entrance {
    /// The listeners of a server; that of its clients first.
    pub fn all(http: &Config, admin: &Admin) -> Vec<Self> {
        let apart = admin.address.0;
        let public = Self {
            address: http.listen,
            door: Door {
                manages: apart.is_none(),
                is_local: http.listen.ip().is_loopback(),
            },
            has_tls: http.tls.is_on(),
            max_connections: http.max_connections,
            key: "http.listen",
        };
        let managing = apart.map(|address| Self {
            address,
            door: Door {
                manages: true,
                is_local: address.ip().is_loopback(),
            },
            has_tls: http.tls.is_on() && !address.ip().is_loopback(),
            max_connections: admin.max_connections,
            key: ADMIN,
        });
        std::iter::once(public).chain(managing).collect()
    }

    /// Refuses to let others manage without a key: an address of its own for that which others reach, and one where
    /// `http.management` insists on it.
    ///
    /// # Errors
    ///
    /// No key has the scope.
    pub fn check(&self, management: Management, auth: &Auth) -> Result<(), AuthError> {
        let door = self.door;
        let is_meant = self.key == ADMIN || management == Management::On;
        if !door.manages || door.is_local || !is_meant || auth.has(Scope::Admin) {
            return Ok(());
        }
        let Self { key, address, .. } = self;
        Err(AuthError::new(format!(
            "{key} = {address}: others reach it, so managing needs a key with the scope admin; \
             `sconce keys new --id ID --scopes admin` makes one for auth.keys_file"
        )))
    }
}

impl FromStr for AdminAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        match text {
            "" => Ok(Self(None)),
            text => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| NoAddress),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

impl Serialize for AdminAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth;
    use crate::telemetry::Metrics;

    fn entrances(listen: &str, admin: &str) -> Vec<Entrance> {
        let http = Config {
            listen: listen.parse().unwrap(),
            ..Config::default()
        };
        let admin = Admin {
            address: admin.parse().unwrap(),
            ..Admin::default()
        };
        Entrance::all(&http, &admin)
    }

    #[test]
    fn managing_is_apart_unless_there_is_one_address_for_all() {
        let check = |listen: &str, admin: &str, expected: &[(bool, bool)]| {
            let entrances = entrances(listen, admin);
            let doors = entrances
                .iter()
                .map(|entrance| (entrance.door.manages, entrance.door.is_local));
            assert_eq!(doors.collect::<Vec<_>>(), expected, "{listen} {admin}");
        };
        check("127.0.0.1:80", "127.0.0.1:81", &[(false, true), (true, true)]);
        check("0.0.0.0:80", "[::1]:81", &[(false, false), (true, true)]);
        check("[::1]:80", "[::]:81", &[(false, true), (true, false)]);
        check("127.0.0.1:80", "", &[(true, true)]);
        check("192.168.0.7:80", "", &[(true, false)]);
    }

    #[test]
    fn who_lets_others_manage_needs_a_key() {
        let auth = |scope: Option<&str>| {
            let mut config = auth::Config::default();
            if let Some(scope) = scope {
                let hash = auth::KeyHash::of(b"x");
                let key = serde_json::json!({"id": "a", "scopes": [scope], "hash": hash});
                config.keys.push(serde_json::from_value(key).unwrap());
            }
            Auth::load(&config, &Metrics::new(&[])).unwrap()
        };
        let check = |listen: &str, admin: &str, management, scope: Option<&str>, refused: Option<&str>| {
            let auth = auth(scope);
            let entrances = entrances(listen, admin);
            let found = entrances
                .iter()
                .find_map(|entrance| entrance.check(management, &auth).err());
            let text = found.map(|error| error.to_string());
            let fits = match refused {
                None => text.is_none(),
                Some(key) => text
                    .as_ref()
                    .is_some_and(|text| text.starts_with(key) && !text.contains('\n')),
            };
            assert!(fits, "{listen} {admin} {management:?} {scope:?}: {text:?}");
        };
        use Management::{Auto, Off, On};
        let (local, open) = ("127.0.0.1:81", "0.0.0.0:81");
        check("0.0.0.0:80", local, Auto, None, None);
        check("0.0.0.0:80", local, On, None, None);
        check(
            "127.0.0.1:80",
            open,
            Auto,
            None,
            Some("admin.address = 0.0.0.0:81: "),
        );
        check(
            "127.0.0.1:80",
            open,
            Auto,
            Some("predict"),
            Some("admin.address = "),
        );
        check("127.0.0.1:80", open, Auto, Some("admin"), None);
        // The series are answered there too.
        check("127.0.0.1:80", open, Off, None, Some("admin.address"));
        check("0.0.0.0:80", "", Off, None, None);
        // One address for all: managing is answered with 403 there, unless it is insisted on.
        check("0.0.0.0:80", "", Auto, None, None);
        check("0.0.0.0:80", "", On, None, Some("http.listen = 0.0.0.0:80: "));
        check("0.0.0.0:80", "", On, Some("admin"), None);
        check("127.0.0.1:80", "", On, None, None);
    }

    #[test]
    fn two_listeners_need_two_addresses() {
        let check = |listen: &str, admin: &str, connections: usize, expected: Option<&str>| {
            let http = Config {
                listen: listen.parse().unwrap(),
                ..Config::default()
            };
            let admin = Admin {
                address: admin.parse().unwrap(),
                max_connections: connections,
            };
            let error = admin.check(&http).err();
            assert_eq!(
                error.as_deref().map(|text| text.split(':').next().unwrap()),
                expected
            );
        };
        check("127.0.0.1:80", "127.0.0.1:81", 1, None);
        check("127.0.0.1:80", "127.0.0.1:80", 1, Some("address"));
        check("127.0.0.1:0", "127.0.0.1:0", 1, None);
        check("127.0.0.1:80", "", 0, Some("max_connections"));
        assert_eq!("localhost:80".parse::<AdminAddress>(), Err(NoAddress));
    }
}
