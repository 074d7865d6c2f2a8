//! The series of who may do what: keys, their refusals, and the files that they are read from.

use std::collections::HashSet;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::metrics::{counter, counters, gauge};

/// What became of a request to a route that needs a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was let in.
    Admitted,
    /// Its key lacks the scope.
    WrongScope,
    /// Its key asked too often.
    OverQuota,
    /// It had no key, or none that is known.
    Unauthorized,
}

const ACCESSES: [(Access, &str); 4] = [
    (Access::Admitted, "admitted"),
    (Access::WrongScope, "wrong_scope"),
    (Access::OverQuota, "over_quota"),
    (Access::Unauthorized, "unauthorized"),
];
/// What may become of a request whose key is known: the first of [`ACCESSES`].
const KNOWN: usize = 3;

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// In a connection.
    Done,
    /// In an error: no TLS, no version or certificate in common, a peer that left.
    Failed,
    /// By its deadline.
    Late,
}

const HANDSHAKES: [(Handshake, &str); 3] = [
    (Handshake::Done, "done"),
    (Handshake::Failed, "failed"),
    (Handshake::Late, "late"),
];

/// The server's series.
#[derive(Debug)]
pub struct AccessMetrics {
    /// Keys in force.
    pub keys: IntGauge,
    /// How often the file of keys was read anew.
    pub reloads: IntCounter,
    /// How often it could not be, so that the keys before went on.
    pub reload_failures: IntCounter,
    /// How often certificates were read anew.
    pub tls_reloads: IntCounter,
    /// How often they could not be, so that those before went on.
    pub tls_reload_failures: IntCounter,
    handshakes: [IntCounter; HANDSHAKES.len()],
    all: [IntCounter; ACCESSES.len()],
    by_key: IntCounterVec,
}

/// One key's series.
#[derive(Clone, Debug)]
pub struct KeySeries([IntCounter; KNOWN]);

impl AccessMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let all = "Requests to routes that need a key, by what became of them.";
        let all = counters(r, "sconce_auth_requests_total", all, &["outcome"]);
        let handshakes = "TLS handshakes by how they ended.";
        let handshakes = counters(r, "sconce_tls_handshakes_total", handshakes, &["outcome"]);
        let by_key = "The same by key, of those that had one.";
        Self {
            keys: gauge(r, "sconce_auth_keys", "API keys in force."),
            reloads: counter(r, "sconce_auth_reloads_total", "How often keys were read anew."),
            reload_failures: counter(
                r,
                "sconce_auth_reload_failures_total",
                "How often keys could not be read anew; those before went on.",
            ),
            tls_reloads: counter(
                r,
                "sconce_tls_reloads_total",
                "How often certificates were read anew.",
            ),
            tls_reload_failures: counter(
                r,
                "sconce_tls_reload_failures_total",
                "How often certificates could not be read anew; those before went on.",
            ),
            handshakes: HANDSHAKES.map(|(_, label)| handshakes.with_label_values(&[label])),
            all: ACCESSES.map(|(_, label)| all.with_label_values(&[label])),
            by_key: counters(r, "sconce_key_requests_total", by_key, &["key", "outcome"]),
        }
    }

    /// The series of a key, made at 0 on first use. Ids come from the configuration, never from a caller.
    pub fn key(&self, id: &str) -> KeySeries {
        KeySeries(std::array::from_fn(|place| {
            self.by_key.with_label_values(&[id, ACCESSES[place].1])
        }))
    }

    /// Takes away the series of the keys `gone` that are not among those that `stay`.
    pub fn forget<'a>(&self, gone: impl Iterator<Item = &'a str>, stay: &HashSet<&str>) {
        for id in gone.filter(|id| !stay.contains(id)) {
            for (_, label) in &ACCESSES[..KNOWN] {
                // Each was made when the key was.
                let _ = self.by_key.remove_label_values(&[id, label]);
            }
        }
    }

    /// Counts a handshake.
    pub fn handshake(&self, handshake: Handshake) {
        self.handshakes[handshake as usize].inc();
    }

    /// Counts a request, for its key too where it has one.
    pub fn count(&self, access: Access, key: Option<&KeySeries>) {
        self.all[access as usize].inc();
        if let Some(series) = key.and_then(|KeySeries(series)| series.get(access as usize)) {
            series.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn labels_stand_at_the_places_their_enum_indexes() {
        let in_order = |(place, (handshake, _)): (usize, &(Handshake, &str))| *handshake as usize == place;
        assert!(HANDSHAKES.iter().enumerate().all(in_order));
        let in_order = |(place, (access, _)): (usize, &(Access, &str))| *access as usize == place;
        assert!(ACCESSES.iter().enumerate().all(in_order));
    }

    #[test]
    fn a_request_counts_for_all_and_for_its_key_and_a_key_that_goes_takes_its_series() {
        let metrics = Metrics::new(&[]);
        let access = &metrics.access;
        let (ann, _bob) = (access.key("ann"), access.key("bob"));
        access.count(Access::Admitted, Some(&ann));
        access.count(Access::Unauthorized, None);
        let text = metrics.render();
        for line in [
            "sconce_auth_requests_total{outcome=\"admitted\"} 1\n",
            "sconce_auth_requests_total{outcome=\"unauthorized\"} 1\n",
            "sconce_auth_requests_total{outcome=\"over_quota\"} 0\n",
            "sconce_key_requests_total{key=\"ann\",outcome=\"admitted\"} 1\n",
            "sconce_key_requests_total{key=\"bob\",outcome=\"wrong_scope\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        access.forget(["ann", "bob"].into_iter(), &HashSet::from(["bob", "eve"]));
        let text = metrics.render();
        assert!(
            !text.contains("key=\"ann\"") && text.contains("key=\"bob\""),
            "{text}"
        );
    }
}
