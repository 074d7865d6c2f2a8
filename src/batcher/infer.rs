//! What a worker asks of an engine.

use std::sync::Arc;

use crate::engine::{Plan, Slot};
use crate::model::Version;

/// What computes batches. [`Slot`] is the real one; tests have another.
pub trait Infer: Send + Sync + 'static {
    /// What a batch is bound to from its begin to its end.
    type Bound;
    /// Binds the next batch.
    fn bind(&self) -> Self::Bound;
    /// The version of a binding.
    fn version(bound: &Self::Bound) -> Version;
    /// Logits of `items` inputs laid end to end, as many for each, over what `logits` held. May panic.
    #[expect(
        clippy::result_unit_err,
        reason = "a worker does the same whatever the fault, which the engine logs"
    )]
    fn run(bound: &Self::Bound, inputs: &[f32], items: usize, logits: &mut Vec<f32>) -> Result<(), ()>;
    /// Whether it computes an input that nothing is wrong with: asked after a failure, to tell an item's fault from the
    /// engine's. May panic.
    fn answers(bound: &Self::Bound) -> bool;
}

impl Infer for Slot {
    type Bound = Arc<Plan>;

    fn bind(&self) -> Arc<Plan> {
        self.load()
    }

    fn version(bound: &Arc<Plan>) -> Version {
        bound.version()
    }

    fn run(bound: &Arc<Plan>, inputs: &[f32], items: usize, logits: &mut Vec<f32>) -> Result<(), ()> {
        bound.run_uncaught(inputs, items, logits).map_err(|error| {
            tracing::error!(version = %bound.version(), items, %error, "a batch failed");
        })
    }

    fn answers(bound: &Arc<Plan>) -> bool {
        bound.answers()
    }
}
