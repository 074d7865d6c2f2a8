//! The series of what is kept: predictions, labels, erasures, and how good the versions in service are.

use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::{FRESH, counter, counters, gauge, gauges, register};

/// What became of a prediction that was chosen to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is on the disk.
    Kept,
    /// One of this id was kept before.
    IdTaken,
    /// Its image was erased before.
    Erased,
    /// Too many were waiting, or too many bytes.
    QueueFull,
    /// The store could not.
    Failed,
}

const KEEPINGS: [(Keeping, &str); 5] = [
    (Keeping::Kept, "kept"),
    (Keeping::IdTaken, "id_taken"),
    (Keeping::Erased, "erased"),
    (Keeping::QueueFull, "queue_full"),
    (Keeping::Failed, "failed"),
];

/// What may become of a label, as the store names it; of an image that cannot be decoded; and of one that the store failed
/// to keep.
pub const LABEL_OUTCOMES: [&str; 10] = [
    "accepted",
    "duplicate",
    "quarantined",
    "overruled",
    "unknown",
    "out_of_range",
    "over_quota",
    "erased",
    "undecodable",
    "failed",
];

/// The series that no version has for itself.
#[derive(Debug)]
pub struct Collecting {
    /// 1 while the store is open.
    pub store_open: IntGauge,
    /// Predictions that wait to be kept.
    pub waiting: IntGauge,
    /// Requests that erased an image.
    pub erasures: IntCounter,
    predictions: [IntCounter; KEEPINGS.len()],
    feedback: [IntCounter; LABEL_OUTCOMES.len()],
    samples: [IntCounter; LABEL_OUTCOMES.len()],
    live: LiveSeries,
}

/// The families of [`Live`].
#[derive(Debug)]
struct LiveSeries {
    judged: IntGaugeVec,
    accuracy: GaugeVec,
    accuracy_low: GaugeVec,
    accuracy_high: GaugeVec,
    macro_f1: GaugeVec,
}

/// How good one version's kept predictions are, held against accepted labels. The shares are NaN where none is labelled: 0
/// would say that all are wrong.
#[derive(Debug)]
pub struct Live {
    /// Kept predictions whose image has an accepted label.
    pub judged: IntGauge,
    /// Share of them that is right.
    pub accuracy: Gauge,
    /// Lower end of its 95 % Wilson interval.
    pub accuracy_low: Gauge,
    /// Upper end.
    pub accuracy_high: Gauge,
    /// Mean F1 over the classes that were predicted or labelled.
    pub macro_f1: Gauge,
}

impl Collecting {
    /// All series but those of versions, at 0.
    pub(super) fn new(r: &Registry) -> Self {
        let kept = "Predictions that were chosen to be kept, by what became of them.";
        let kept = counters(r, "sconce_collected_predictions_total", kept, &["outcome"]);
        let labels = |name, help| {
            let series = counters(r, name, help, &["outcome"]);
            LABEL_OUTCOMES.map(|label| series.with_label_values(&[label]))
        };
        Self {
            store_open: gauge(r, "sconce_store_open", "1 while the store is open."),
            waiting: gauge(r, "sconce_collect_queue_depth", "Predictions waiting to be kept."),
            erasures: counter(r, "sconce_erasures_total", "Requests that erased an image."),
            predictions: KEEPINGS.map(|(_, label)| kept.with_label_values(&[label])),
            feedback: labels("sconce_feedback_total", "Feedback by what became of it."),
            samples: labels("sconce_samples_total", "Samples by what became of them."),
            live: LiveSeries::new(r),
        }
    }

    /// Counts predictions that became so.
    pub fn predictions(&self, keeping: Keeping, count: u64) {
        self.predictions[keeping as usize].inc_by(count);
    }

    /// Counts one feedback; the outcome is one of [`LABEL_OUTCOMES`].
    pub fn feedback(&self, outcome: &str) {
        count(&self.feedback, outcome);
    }

    /// Counts one sample; the outcome is one of [`LABEL_OUTCOMES`].
    pub fn sample(&self, outcome: &str) {
        count(&self.samples, outcome);
    }

    /// A version's series, by model and version.
    pub(super) fn live(&self, version: &[&str; 2]) -> Live {
        let share = |series: &GaugeVec| {
            let share = series.with_label_values(version);
            share.set(f64::NAN);
            share
        };
        Live {
            judged: self.live.judged.with_label_values(version),
            accuracy: share(&self.live.accuracy),
            accuracy_low: share(&self.live.accuracy_low),
            accuracy_high: share(&self.live.accuracy_high),
            macro_f1: share(&self.live.macro_f1),
        }
    }

    /// Removes a version's series, which goes out of service.
    pub fn forget_live(&self, version: &[&str; 2]) {
        // An error means that they were not there.
        let _ = self.live.judged.remove_label_values(version);
        for series in [
            &self.live.accuracy,
            &self.live.accuracy_low,
            &self.live.accuracy_high,
            &self.live.macro_f1,
        ] {
            let _ = series.remove_label_values(version);
        }
    }
}

impl LiveSeries {
    fn new(r: &Registry) -> Self {
        let version = &["model", "version"];
        let shares = |name: &str, help: &str| {
            let series = GaugeVec::new(Opts::new(name, help), version).expect(FRESH);
            register(r, series.clone());
            series
        };
        Self {
            judged: gauges(
                r,
                "sconce_live_judged",
                "Kept predictions whose image has an accepted label.",
                version,
            ),
            accuracy: shares(
                "sconce_live_accuracy",
                "Share of the judged predictions that is right.",
            ),
            accuracy_low: shares(
                "sconce_live_accuracy_low",
                "Lower end of the accuracy's 95 % interval.",
            ),
            accuracy_high: shares(
                "sconce_live_accuracy_high",
                "Upper end of the accuracy's 95 % interval.",
            ),
            macro_f1: shares(
                "sconce_live_macro_f1",
                "Mean F1 over the classes that were predicted or labelled.",
            ),
        }
    }
}

impl Live {
    /// Says that nothing is judged.
    pub fn clear(&self) {
        self.judged.set(0);
        for share in [
            &self.accuracy,
            &self.accuracy_low,
            &self.accuracy_high,
            &self.macro_f1,
        ] {
            share.set(f64::NAN);
        }
    }
}

fn count(series: &[IntCounter; LABEL_OUTCOMES.len()], outcome: &str) {
    if let Some(place) = LABEL_OUTCOMES.iter().position(|label| *label == outcome) {
        series[place].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Version;
    use crate::telemetry::Metrics;

    #[test]
    fn labels_stand_at_the_places_their_enum_indexes() {
        let in_order = |(place, (keeping, _)): (usize, &(Keeping, &str))| *keeping as usize == place;
        assert!(KEEPINGS.iter().enumerate().all(in_order));
    }

    #[test]
    fn every_series_exists_from_the_start_and_shares_of_nothing_are_no_number() {
        let metrics = Metrics::new(&[]);
        let name = "mnist".parse().unwrap();
        metrics.model(&name, Version::FIRST);
        let text = metrics.render();
        let check = |line: &str| assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
        for (_, label) in KEEPINGS {
            check(&format!(
                "sconce_collected_predictions_total{{outcome=\"{label}\"}} 0"
            ));
        }
        for label in LABEL_OUTCOMES {
            check(&format!("sconce_feedback_total{{outcome=\"{label}\"}} 0"));
            check(&format!("sconce_samples_total{{outcome=\"{label}\"}} 0"));
        }
        check("sconce_erasures_total 0");
        check("sconce_live_judged{model=\"mnist\",version=\"1\"} 0");
        check("sconce_live_accuracy{model=\"mnist\",version=\"1\"} NaN");
        metrics.collecting.forget_live(&["mnist", "1"]);
        assert!(!metrics.render().contains("sconce_live_judged{"));
    }

    #[test]
    fn an_outcome_counts_where_it_stands() {
        let metrics = Metrics::new(&[]);
        metrics.collecting.feedback("over_quota");
        metrics.collecting.sample("no such outcome");
        let text = metrics.render();
        assert!(text.contains("sconce_feedback_total{outcome=\"over_quota\"} 1\n"));
        assert_eq!(
            text.matches("sconce_samples_total{").count(),
            LABEL_OUTCOMES.len()
        );
        assert!(!text.contains("no such"));
    }
}
