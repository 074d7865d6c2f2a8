//! The series of the versions in service.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::metrics::{counters, gauges, seconds_gauge};
use crate::model::ModelName;

/// Which versions serve, and how they came to.
#[derive(Debug)]
pub struct ServiceMetrics {
    champion: IntGaugeVec,
    promotions: IntCounterVec,
    rollbacks: IntCounterVec,
    load_failures: IntCounterVec,
    /// Seconds that the latest change of the versions in service took, loading included; 0 before.
    pub swap_seconds: Gauge,
}

/// One model's, whatever its versions are.
#[derive(Clone, Debug)]
pub struct NameMetrics {
    /// The version that answers requests which name none.
    pub champion: IntGauge,
    /// Champions that came into service by a promotion.
    pub promotions: IntCounter,
    /// Champions that came back into service by a rollback.
    pub rollbacks: IntCounter,
    /// Versions that could not be made ready, and changes of the model's folder that could not be read.
    pub load_failures: IntCounter,
}

impl ServiceMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name, help| counters(registry, name, help, &["model"]);
        Self {
            champion: gauges(
                registry,
                "sconce_model_champion_version",
                "The version that answers requests which name none.",
                &["model"],
            ),
            promotions: counters("sconce_promotions_total", "Champions that came by a promotion."),
            rollbacks: counters(
                "sconce_rollbacks_total",
                "Champions that came back by a rollback.",
            ),
            load_failures: counters(
                "sconce_model_load_failures_total",
                "Versions that could not be made ready, and changes that could not be read.",
            ),
            swap_seconds: seconds_gauge(
                registry,
                "sconce_swap_seconds",
                "Seconds of the latest change of the versions in service, loading included.",
            ),
        }
    }

    /// The series of a model, made at 0 on first use.
    pub fn of(&self, name: &ModelName) -> NameMetrics {
        let label = [name.as_str()];
        NameMetrics {
            champion: self.champion.with_label_values(&label),
            promotions: self.promotions.with_label_values(&label),
            rollbacks: self.rollbacks.with_label_values(&label),
            load_failures: self.load_failures.with_label_values(&label),
        }
    }
}
