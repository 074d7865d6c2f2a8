//! The series of what queues refuse, and of the times they go by.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{FRESH, counters, gauges, register};

/// Why an image was refused for load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many images as may wait for a batch do.
    Queue,
    /// It would be answered after its deadline.
    Deadline,
    /// As many images as may wait to be decoded do, or their bytes are used up.
    Decode,
}

const REFUSALS: [(Refused, &str); 3] = [
    (Refused::Queue, "queue"),
    (Refused::Deadline, "deadline"),
    (Refused::Decode, "decode"),
];
/// Of the line that a batch's time is fitted by.
const PARTS: [&str; 2] = ["batch", "image"];

/// Of every version.
#[derive(Debug)]
pub(super) struct AdmissionSeries {
    refused: IntCounterVec,
    fit: GaugeVec,
    lost: IntGaugeVec,
}

/// One version's.
#[derive(Debug)]
pub struct Admission {
    refused: [IntCounter; REFUSALS.len()],
    fit: [Gauge; PARTS.len()],
    lost: IntGauge,
}

impl AdmissionSeries {
    pub(super) fn new(registry: &Registry) -> Self {
        let fit = GaugeVec::new(
            Opts::new(
                "sconce_batch_fit_seconds",
                "Seconds that a batch takes, as fitted: for itself, and for each image in it.",
            ),
            &["model", "version", "part"],
        );
        let fit = fit.expect(FRESH);
        register(registry, fit.clone());
        Self {
            refused: counters(
                registry,
                "sconce_items_refused_total",
                "Images refused for load, by why; they are among the rejected.",
                &["model", "version", "reason"],
            ),
            fit,
            lost: gauges(
                registry,
                "sconce_engine_lost",
                "1 while the engine computes nothing, so that every image is refused.",
                &["model", "version"],
            ),
        }
    }

    pub(super) fn of(&self, [model, version]: &[&str; 2]) -> Admission {
        Admission {
            refused: REFUSALS.map(|(_, label)| self.refused.with_label_values(&[model, version, label])),
            fit: PARTS.map(|label| self.fit.with_label_values(&[model, version, label])),
            lost: self.lost.with_label_values(&[model, version]),
        }
    }

    pub(super) fn forget(&self, [model, version]: &[&str; 2]) {
        // Each was made when the version was, so none of these can fail.
        for (_, label) in REFUSALS {
            let _ = self.refused.remove_label_values(&[model, version, label]);
        }
        for label in PARTS {
            let _ = self.fit.remove_label_values(&[model, version, label]);
        }
        let _ = self.lost.remove_label_values(&[model, version]);
    }
}

impl Admission {
    /// Counts an image that was refused.
    pub fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
    }

    /// How many images were refused so.
    pub fn refusals(&self, why: Refused) -> u64 {
        self.refused[why as usize].get()
    }

    /// Tells whether the engine computes nothing.
    pub fn lost(&self, lost: bool) {
        self.lost.set(i64::from(lost));
    }

    /// Tells the line that a batch's time is fitted by, in seconds.
    pub fn fitted(&self, batch: f64, image: f64) {
        self.fit[0].set(batch);
        self.fit[1].set(image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_the_places_their_enum_indexes() {
        let mut places = REFUSALS.iter().enumerate();
        assert!(places.all(|(place, (why, _))| *why as usize == place));
    }
}
