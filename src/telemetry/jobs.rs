//! The series of retraining jobs.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use super::metrics::{counters, gauge, gauges, seconds_gauge};

/// States of a job, in the order in which the store counts them.
pub const JOB_STATES: [&str; 8] = [
    "queued",
    "running",
    "paused",
    "succeeded",
    "refused",
    "failed",
    "interrupted",
    "cancelled",
];

/// The gate's checks; any other counts as `other`.
pub const CHECKS: [&str; 9] = [
    "labels",
    "pinned",
    "images",
    "non_inferiority",
    "superiority",
    "class_harm",
    "calibration",
    "latency",
    "other",
];

/// Jobs in the store, and the one that runs here.
#[derive(Debug)]
pub struct JobMetrics {
    states: [IntGauge; JOB_STATES.len()],
    ended: [IntCounter; JOB_STATES.len()],
    refusals: [IntCounter; CHECKS.len()],
    /// Epochs done of the job that runs here; 0 without one.
    pub epoch: IntGauge,
    /// Loss of its last epoch; 0 without one.
    pub loss: Gauge,
}

impl JobMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let states = gauges(
            registry,
            "sconce_jobs",
            "Retraining jobs in the store, by state.",
            &["state"],
        );
        let ended = counters(
            registry,
            "sconce_job_runs_total",
            "Runs of jobs in this process, by the state that they left the job in.",
            &["state"],
        );
        let refusals = counters(
            registry,
            "sconce_gate_refusals_total",
            "Checks of the gate that a new version failed in this process's jobs.",
            &["check"],
        );
        Self {
            states: JOB_STATES.map(|state| states.with_label_values(&[state])),
            ended: JOB_STATES.map(|state| ended.with_label_values(&[state])),
            refusals: CHECKS.map(|check| refusals.with_label_values(&[check])),
            epoch: gauge(
                registry,
                "sconce_job_epoch",
                "Epochs done of the job that runs in this process.",
            ),
            loss: seconds_gauge(
                registry,
                "sconce_job_loss",
                "Training loss of its last epoch, in nats.",
            ),
        }
    }

    /// Jobs in the store, in the order of [`JOB_STATES`].
    pub fn count(&self, jobs: &[u64; JOB_STATES.len()]) {
        for (gauge, &count) in self.states.iter().zip(jobs) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A run left its job in this state.
    pub fn end(&self, state: &str) {
        let series = JOB_STATES.iter().zip(&self.ended);
        series
            .filter(|(name, _)| **name == state)
            .for_each(|(_, series)| series.inc());
        self.epoch.set(0);
        self.loss.set(0.0);
    }

    /// A new version failed a check of the gate.
    pub fn refuse(&self, check: &str) {
        let known = CHECKS.iter().zip(&self.refusals);
        let mut known = known.filter(|(name, _)| **name == check || **name == "other");
        if let Some((_, series)) = known.next() {
            series.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    #[test]
    fn what_is_not_known_is_other() {
        let metrics = Metrics::new(&[]);
        metrics.jobs.refuse("class_harm");
        metrics.jobs.refuse("a name of tomorrow");
        metrics.jobs.end("failed");
        metrics.jobs.end("no state");
        metrics.jobs.count(&[3, 0, 0, 0, 0, 0, 0, 0]);
        let text = metrics.render();
        for line in [
            "sconce_gate_refusals_total{check=\"class_harm\"} 1\n",
            "sconce_gate_refusals_total{check=\"other\"} 1\n",
            "sconce_gate_refusals_total{check=\"latency\"} 0\n",
            "sconce_job_runs_total{state=\"failed\"} 1\n",
            "sconce_job_runs_total{state=\"succeeded\"} 0\n",
            "sconce_jobs{state=\"queued\"} 3\n",
            "sconce_job_epoch 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
