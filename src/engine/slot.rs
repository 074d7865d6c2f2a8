//! Where a model's serving plan stands, exchanged between two batches.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Plan;

/// Holds the plan that answers next. A batch takes it once and is computed wholly by it.
#[derive(Debug)]
pub struct Slot(ArcSwap<Plan>);

impl Slot {
    /// A slot that holds `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self(ArcSwap::new(plan))
    }

    /// The plan for the next batch.
    pub fn load(&self) -> Arc<Plan> {
        self.0.load_full()
    }

    /// Batches that begin after this use `plan`; returns the one before.
    pub fn swap(&self, plan: Arc<Plan>) -> Arc<Plan> {
        self.0.swap(plan)
    }
}
