//! The series of answers that cost no inference of their own.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{FRESH, counters, register};

/// Of every version.
#[derive(Debug)]
pub(super) struct SharingSeries {
    shared: IntCounterVec,
    hits: IntCounterVec,
    misses: IntCounterVec,
    entries: IntGaugeVec,
}

/// One version's.
#[derive(Debug)]
pub struct Sharing {
    shared: IntCounter,
    /// Images whose answer was kept.
    pub hits: IntCounter,
    /// Images whose answer was looked for and not kept.
    pub misses: IntCounter,
    /// Answers that are kept.
    pub entries: IntGauge,
}

impl SharingSeries {
    pub(super) fn new(registry: &Registry) -> Self {
        let both = ["model", "version"];
        let entries = IntGaugeVec::new(
            Opts::new("sconce_answer_cache_entries", "Answers that are kept."),
            &both,
        );
        let entries = entries.expect(FRESH);
        register(registry, entries.clone());
        Self {
            shared: counters(
                registry,
                "sconce_items_shared_total",
                "Images answered by the inference of another that was the same and on its way.",
                &both,
            ),
            hits: counters(
                registry,
                "sconce_answer_cache_hits_total",
                "Images whose answer was kept.",
                &both,
            ),
            misses: counters(
                registry,
                "sconce_answer_cache_misses_total",
                "Images whose answer was looked for and not kept.",
                &both,
            ),
            entries,
        }
    }

    pub(super) fn of(&self, both: &[&str; 2]) -> Sharing {
        Sharing {
            shared: self.shared.with_label_values(both),
            hits: self.hits.with_label_values(both),
            misses: self.misses.with_label_values(both),
            entries: self.entries.with_label_values(both),
        }
    }

    pub(super) fn forget(&self, both: &[&str; 2]) {
        // Each was made when the version was, so none of these can fail.
        for counter in [&self.shared, &self.hits, &self.misses] {
            let _ = counter.remove_label_values(both);
        }
        let _ = self.entries.remove_label_values(both);
    }
}

impl Sharing {
    /// Counts images that were answered by another's inference.
    pub fn shared(&self, images: usize) {
        self.shared.inc_by(images as u64);
    }

    /// How many were.
    pub fn shares(&self) -> u64 {
        self.shared.get()
    }
}
