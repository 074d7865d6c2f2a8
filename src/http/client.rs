//! Which client a request comes from: its key's, its peer, or whom a trusted proxy names.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};

use super::Config;
use super::networks::{Networks, prefix};
use super::request_id::RequestId;
use crate::queueing::Client;

/// What is known of a request before its handler. A request extension.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// At the other end of its connection.
    pub(super) peer: Option<IpAddr>,
    /// The SHA-256 of its certificate, where it showed one.
    pub(super) certificate: Option<Arc<str>>,
    /// Its name.
    pub(super) id: Option<RequestId>,
}

/// Where a proxy names its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// A list of addresses.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// Tells clients apart.
#[derive(Debug)]
pub struct Clients {
    trusted: Networks,
    header: ForwardedHeader,
    /// Of this process alone, so that nobody can choose two addresses which are one client.
    hasher: RandomState,
}

/// Whoever holds an IPv6 address mostly holds its whole network.
const IPV6_BITS: u32 = 64;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Clients {
    /// As configured.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            trusted: config.trusted_proxies.clone(),
            header: config.forwarded_header,
            hasher: RandomState::new(),
        }
    }

    /// The client of a request with these headers, which came from `peer`. All without an address are one.
    pub(super) fn of(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Client {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else {
            return Client::default();
        };
        let address = if self.trusted.contain(peer) {
            self.forwarded(headers).unwrap_or(peer)
        } else {
            peer
        };
        let kept = if address.is_ipv6() { IPV6_BITS } else { 32 };
        Client(self.hasher.hash_one((address.is_ipv6(), prefix(address, kept))))
    }

    /// The client of a request with this key, wherever it came from.
    pub(super) fn of_key(&self, id: &str) -> Client {
        Client(self.hasher.hash_one(id))
    }

    /// The last that no trusted proxy is: those before it are what it says itself. None where that is no address.
    fn forwarded(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let (name, address): (_, fn(&str) -> Option<IpAddr>) = match self.header {
            ForwardedHeader::XForwardedFor => (X_FORWARDED_FOR, node),
            ForwardedHeader::Forwarded => (header::FORWARDED, for_parameter),
        };
        let lines = headers.get_all(name);
        for line in lines.iter().rev() {
            for named in line.to_str().ok()?.rsplit(',') {
                let address = address(named.trim())?.to_canonical();
                if !self.trusted.contain(address) {
                    return Some(address);
                }
            }
        }
        None
    }
}

/// The `for` of an element such as `for="[2001:db8::1]:80";proto=https`.
fn for_parameter(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    node(value.trim_matches('"'))
}

/// An address, perhaps with a port.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(bracketed) = text.strip_prefix('[') {
        return bracketed.split_once(']')?.0.parse().ok();
    }
    let address = text.parse().ok();
    address.or_else(|| text.split_once(':')?.0.parse().ok().filter(IpAddr::is_ipv4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(trusted: &str, header: ForwardedHeader) -> Clients {
        Clients::new(&Config {
            trusted_proxies: trusted.to_owned().try_into().unwrap(),
            forwarded_header: header,
            ..Config::default()
        })
    }

    /// Holds that the request is that of a direct peer at `expected`.
    fn check(clients: &Clients, peer: &str, lines: &[(&'static str, &str)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(HeaderName::from_static(name), line.parse().unwrap());
        }
        let address = |text: &str| Some(text.parse().unwrap());
        let found = clients.of(address(peer), &headers);
        let wanted = clients.of(address(expected), &HeaderMap::new());
        assert_eq!(found, wanted, "{peer} {lines:?}");
    }

    #[test]
    fn a_key_is_one_client_and_another_key_another() {
        let clients = clients("", ForwardedHeader::XForwardedFor);
        assert_eq!(clients.of_key("ann"), clients.of_key("ann"));
        assert_ne!(clients.of_key("ann"), clients.of_key("bob"));
    }

    #[test]
    fn a_peer_is_its_own_client_whatever_it_says() {
        let clients = clients("", ForwardedHeader::XForwardedFor);
        check(
            &clients,
            "192.0.2.1",
            &[("x-forwarded-for", "198.51.100.7")],
            "192.0.2.1",
        );
        check(&clients, "::ffff:192.0.2.1", &[], "192.0.2.1");
        check(&clients, "2001:db8:1:2::3", &[], "2001:db8:1:2:ffff::9");
        let of = |text: &str| clients.of(Some(text.parse().unwrap()), &HeaderMap::new());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_ne!(of("::1"), of("0.0.0.1"));
        assert_eq!(clients.of(None, &HeaderMap::new()), Client::default());
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_the_client_itself_nobody() {
        let clients = clients("10.0.0.0/8", ForwardedHeader::XForwardedFor);
        let check = |peer: &str, lines: &[&str], expected: &str| {
            let lines: Vec<_> = lines.iter().map(|&line| ("x-forwarded-for", line)).collect();
            check(&clients, peer, &lines, expected);
        };
        check("10.0.0.1", &["198.51.100.7"], "198.51.100.7");
        check(
            "10.0.0.1",
            &["203.0.113.9, 198.51.100.7, 10.0.0.2"],
            "198.51.100.7",
        );
        check("10.0.0.1", &["203.0.113.9", "198.51.100.7:4711"], "198.51.100.7");
        check("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1");
        check("10.0.0.1", &["2001:db8::1"], "2001:db8::1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1");
        check("10.0.0.1", &["10.0.0.3"], "10.0.0.1");
        check("11.0.0.1", &["198.51.100.7"], "11.0.0.1");
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_configured() {
        let clients = clients("10.0.0.1", ForwardedHeader::Forwarded);
        let check =
            |line: &str, expected: &str| check(&clients, "10.0.0.1", &[("forwarded", line)], expected);
        check("for=198.51.100.7", "198.51.100.7");
        check(
            "for=203.0.113.9, proto=https;For=\"198.51.100.7:4711\";by=10.0.0.1",
            "198.51.100.7",
        );
        check("for=\"[2001:db8::1]:4711\"", "2001:db8::1");
        check("for=_hidden", "10.0.0.1");
        check("proto=https", "10.0.0.1");
    }
}
