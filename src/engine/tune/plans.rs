//! One version compiled for several counts of threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Split;
use crate::engine::{EngineError, Options, Plan, Target};
use crate::registry::Loaded;

/// Compiles a version, once for each count of threads.
#[derive(Debug)]
pub struct Plans<'a> {
    loaded: &'a Loaded,
    target: &'a Target,
    /// By threads.
    made: BTreeMap<usize, Arc<Plan>>,
}

impl<'a> Plans<'a> {
    /// For this target but for its threads.
    pub fn new(loaded: &'a Loaded, target: &'a Target) -> Self {
        Self {
            loaded,
            target,
            made: BTreeMap::new(),
        }
    }

    /// The plan of so many threads.
    pub fn of(&mut self, threads: usize) -> Result<Arc<Plan>, EngineError> {
        if let Some(plan) = self.made.get(&threads) {
            return Ok(Arc::clone(plan));
        }
        let target = Target {
            options: Options {
                threads,
                ..self.target.options
            },
            ..self.target.clone()
        };
        let Loaded {
            version,
            graph,
            weights,
            ..
        } = self.loaded;
        let plan = Plan::compile(*version, graph, weights, &target)?;
        self.made.insert(threads, Arc::clone(&plan));
        Ok(plan)
    }

    /// Each split with its plan.
    pub fn for_splits(&mut self, splits: &[Split]) -> Result<Vec<(Split, Arc<Plan>)>, EngineError> {
        let splits = splits.iter();
        splits
            .map(|&split| Ok((split, self.of(split.threads)?)))
            .collect()
    }
}
