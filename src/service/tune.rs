//! How a version is served: as set, as kept timings say, as timed now, or as usual.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Setup;
use crate::engine::tune::{Asked, Cache, Choice, Course, Key, Plans, Split, choose, measure};
use crate::engine::{EngineError, Plan, Target, available_cores};
use crate::registry::Loaded;

/// A version's plan and how it is run.
pub(super) struct Tuned {
    pub(super) plan: Arc<Plan>,
    pub(super) choice: Choice,
    pub(super) source: Source,
}

/// What a choice rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The configuration leaves nothing open.
    Set,
    /// Timings that were kept.
    Kept,
    /// Timings taken now.
    Measured,
    /// Nothing was timed.
    Default,
}

/// Decides how a version is served, and compiles it so.
pub(super) fn tune(setup: &Setup, loaded: &Loaded, target: &Target) -> Result<Tuned, EngineError> {
    let (asked, cores) = (setup.asked, available_cores());
    let mut plans = Plans::new(loaded, target);
    let (choice, source) = if !target.device.is_cpu() {
        (on_gpu(setup, plans.of(1)?.as_ref()), Source::Default)
    } else if !asked.is_open(cores) {
        (asked.unmeasured(cores), Source::Set)
    } else {
        let key = Key::of(loaded, &target.options);
        timed(setup, (&asked, cores), &key, &mut plans)?
    };
    let plan = plans.of(choice.split.threads)?;
    plan.warm_up_instances(choice.split.instances, choice.max_batch_size)?;
    Ok(Tuned { plan, choice, source })
}

/// Where threads of the CPU do not compute: as set, else as usual.
fn on_gpu(setup: &Setup, plan: &Plan) -> Choice {
    Choice {
        split: Split {
            instances: plan.instances(setup.engine.instances),
            threads: 1,
        },
        max_batch_size: setup.batcher.max_batch(),
        why: Vec::new(),
    }
}

/// By kept timings, else by timings taken now, else as where nothing is measured.
fn timed(
    setup: &Setup,
    (asked, cores): (&Asked, usize),
    key: &Key,
    plans: &mut Plans<'_>,
) -> Result<(Choice, Source), EngineError> {
    let cache = Cache::new(&setup.engine.cache);
    let kept = cache.read(key).and_then(|kept| choose(asked, cores, &kept));
    if let Some(choice) = kept {
        return Ok((choice, Source::Kept));
    }
    if setup.engine.tune_ms > 0 {
        let splits = plans.for_splits(&asked.splits(cores))?;
        let limit = Duration::from_millis(setup.engine.tune_ms);
        let timings = measure(&splits, asked, &Course::within(limit, asked, splits.len()))?;
        if let Some(choice) = choose(asked, cores, &timings) {
            if let Err(error) = cache.write(key, &timings) {
                let cache = setup.engine.cache.display();
                tracing::warn!(%cache, %error, "timings are not kept");
            }
            return Ok((choice, Source::Measured));
        }
    }
    Ok((asked.unmeasured(cores), Source::Default))
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "set",
            Self::Kept => "kept",
            Self::Measured => "measured",
            Self::Default => "default",
        })
    }
}
