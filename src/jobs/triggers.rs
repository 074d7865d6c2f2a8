//! What starts a job without anybody asking: a schedule, new labels, a measured accuracy.

use super::schedule::Schedule;
use super::{Config, JobsError};
use crate::evaluate::Interval;
use crate::model::ModelName;
use crate::retrain::Request;
use crate::store::{Cause, Job, JobError, JobFilter, JobState, Key, LiveAccuracy, NewJob, Store};

/// When a job is due.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    schedule: Schedule,
    new_labels: u64,
    accuracy_floor: f64,
    cooldown_ms: i64,
}

/// What is known of a model.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    now_ms: i64,
    /// When its last job was asked for; without one, when this process began to watch.
    since_ms: i64,
    last: Option<Last>,
    /// Images labelled since the last job.
    labels: u64,
    /// Of predictions since then.
    live: LiveAccuracy,
}

/// A model's newest job.
#[derive(Clone, Copy, Debug)]
struct Last {
    state: JobState,
    ended_ms: Option<i64>,
}

/// Why a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The schedule's time.
    Schedule(i64),
    /// Enough new labels.
    Labels,
    /// Too low an accuracy.
    Accuracy,
}

impl Rules {
    /// The error is what is wrong with the schedule.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let minutes = i64::try_from(config.cooldown_minutes).unwrap_or(i64::MAX);
        Ok(Self {
            schedule: Schedule::parse(&config.schedule)?,
            new_labels: config.new_labels,
            accuracy_floor: config.accuracy_floor,
            cooldown_ms: minutes.saturating_mul(60_000),
        })
    }

    /// Whether there is none.
    pub(super) fn are_off(&self) -> bool {
        self.schedule.is_never() && self.new_labels == 0 && self.accuracy_floor == 0.0
    }

    fn due(&self, evidence: &Evidence) -> Option<Due> {
        if evidence
            .last
            .is_some_and(|last| self.rests(last, evidence.now_ms))
        {
            return None;
        }
        if let Some(at_ms) = self.schedule.last(evidence.since_ms, evidence.now_ms) {
            return Some(Due::Schedule(at_ms));
        }
        if self.new_labels > 0 && evidence.labels >= self.new_labels {
            return Some(Due::Labels);
        }
        self.is_surely_low(evidence.live).then_some(Due::Accuracy)
    }

    /// Whether no job may follow yet. One that somebody has paused is not overtaken.
    fn rests(&self, last: Last, now_ms: i64) -> bool {
        let cools = last
            .ended_ms
            .is_some_and(|at| now_ms < at.saturating_add(self.cooldown_ms));
        last.state.is_active() || last.state == JobState::Paused || cools
    }

    /// Whether even the upper end of the 95 % interval lies under the floor. The lower end would do so with every handful of
    /// labels, however right the model is: of 10 right among 10 it is 72 %.
    fn is_surely_low(&self, live: LiveAccuracy) -> bool {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        live.judged > 0 && Interval::wilson(count(live.right), count(live.judged)).high < self.accuracy_floor
    }
}

/// Submits a job for each model for which one is due. `watched_ms` is when this process began to watch. Whoever watches
/// beside it comes to the same key, so that one job is made.
pub(super) async fn pull(
    store: &Store,
    rules: &Rules,
    models: &[ModelName],
    (watched_ms, now_ms): (i64, i64),
) -> Result<(), JobsError> {
    for model in models {
        let filter = JobFilter {
            model: Some(model.clone()),
            state: None,
        };
        let last = store.jobs(&filter, 1).await?.into_iter().next();
        let evidence = Evidence {
            now_ms,
            since_ms: last.as_ref().map_or(watched_ms, |last| last.created_ms),
            labels: store.labelled_since(model, since(last.as_ref())).await?,
            live: store.live_accuracy(model, since(last.as_ref())).await?,
            last: last.as_ref().map(|last| Last {
                state: last.state,
                ended_ms: last.ended_ms,
            }),
        };
        if let Some(due) = rules.due(&evidence) {
            submit(store, due.job(model, last.as_ref())?, now_ms).await?;
        }
    }
    Ok(())
}

/// From when on labels and predictions count: without a job, all of them.
fn since(last: Option<&Job>) -> i64 {
    last.map_or(0, |last| last.created_ms)
}

async fn submit(store: &Store, job: NewJob, now_ms: i64) -> Result<(), JobsError> {
    let (model, cause) = (job.model.clone(), job.cause);
    match store.submit_job(&job, now_ms).await {
        Ok(submitted) if submitted.is_new => {
            tracing::info!(%model, job = %submitted.id, trigger = cause.text(), "a retraining is due");
            Ok(())
        }
        // Another process was quicker.
        Ok(_) | Err(JobError::Active(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Due {
    fn job(self, model: &ModelName, last: Option<&Job>) -> Result<NewJob, JobsError> {
        let last = last.map_or(0, |last| last.id.number());
        let (cause, key) = match self {
            Self::Schedule(at_ms) => (Cause::Schedule, format!("schedule:{model}:{at_ms}")),
            Self::Labels => (Cause::Labels, format!("labels:{model}:{last}")),
            Self::Accuracy => (Cause::Accuracy, format!("accuracy:{model}:{last}")),
        };
        Ok(NewJob {
            model: model.clone(),
            request: super::desk::text(&Request::new(model.clone())),
            cause,
            key: Some(key.parse::<Key>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Classes, Sample};

    const NOW: i64 = 1_772_357_400_000;
    const MINUTE: i64 = 60_000;

    fn rules(change: fn(&mut Config)) -> Rules {
        let mut config = Config::default();
        change(&mut config);
        Rules::new(&config).unwrap()
    }

    fn quiet() -> Evidence {
        Evidence {
            now_ms: NOW,
            since_ms: NOW - 600 * MINUTE,
            last: None,
            labels: 0,
            live: LiveAccuracy::default(),
        }
    }

    fn ended(minutes_ago: i64) -> Option<Last> {
        Some(Last {
            state: JobState::Failed,
            ended_ms: Some(NOW - minutes_ago * MINUTE),
        })
    }

    #[test]
    fn each_trigger_fires_at_its_edge_and_not_before() {
        let check = |change: fn(&mut Config), evidence: Evidence, expected: Option<Due>| {
            assert_eq!(rules(change).due(&evidence), expected, "{evidence:?}");
        };
        let labels = |labels| Evidence { labels, ..quiet() };
        let live = |right, judged| Evidence {
            live: LiveAccuracy { judged, right },
            ..quiet()
        };
        check(|_| {}, labels(1_000_000), None);
        check(|_| {}, live(0, 1_000), None);
        check(|c| c.new_labels = 100, labels(99), None);
        check(|c| c.new_labels = 100, labels(100), Some(Due::Labels));
        check(|c| c.accuracy_floor = 0.9, live(0, 0), None);
        // 10 of 10 has the interval 0.72 to 1; 850 of 1,000 0.827 to 0.871; 890 of 1,000 0.869 to 0.908.
        check(|c| c.accuracy_floor = 0.9, live(10, 10), None);
        check(|c| c.accuracy_floor = 0.9, live(890, 1_000), None);
        check(|c| c.accuracy_floor = 0.9, live(850, 1_000), Some(Due::Accuracy));
        let nine = Some(Due::Schedule(NOW - 30 * MINUTE));
        check(|c| c.schedule = "0 9 * * *".to_owned(), quiet(), nine);
        let after = Evidence {
            since_ms: NOW - 30 * MINUTE,
            ..quiet()
        };
        check(|c| c.schedule = "0 9 * * *".to_owned(), after, None);
    }

    #[test]
    fn nothing_follows_an_open_job_or_within_the_cool_down() {
        let check = |last: Option<Last>, is_due: bool| {
            let evidence = Evidence {
                last,
                labels: 5,
                ..quiet()
            };
            let due = rules(|c| c.new_labels = 5).due(&evidence);
            assert_eq!(due.is_some(), is_due, "{last:?}");
        };
        let open = |state| {
            Some(Last {
                state,
                ended_ms: None,
            })
        };
        check(None, true);
        check(open(JobState::Queued), false);
        check(open(JobState::Running), false);
        check(open(JobState::Paused), false);
        check(ended(0), false);
        check(ended(59), false);
        check(ended(60), true);
    }

    #[tokio::test]
    async fn whoever_watches_beside_another_makes_no_second_job() {
        let folder = tempfile::tempdir().unwrap();
        let config = store::Config {
            folder: folder.path().to_owned(),
            ..store::Config::default()
        };
        let (store, model) = (
            Store::open(&config).await.unwrap(),
            "digits".parse::<ModelName>().unwrap(),
        );
        let rules = rules(|c| c.new_labels = 1);
        let look = async |now_ms: i64| {
            pull(&store, &rules, std::slice::from_ref(&model), (NOW, now_ms))
                .await
                .unwrap();
            store.jobs(&JobFilter::default(), 9).await.unwrap()
        };
        let label = async |image: &'static str, at_ms: i64| {
            let sample = Sample {
                model: model.clone(),
                image: image.into(),
                label: 1,
                source: "s".parse().unwrap(),
                key: None,
            };
            let classes = Classes::from([(model.clone(), 10)]);
            store.sample(&sample, &classes, at_ms).await.unwrap();
        };
        assert!(look(NOW).await.is_empty());
        label("one", NOW - 1).await;
        look(NOW).await;
        let jobs = look(NOW).await;
        assert_eq!((jobs.len(), jobs[0].cause), (1, Cause::Labels));
        let request: Request = serde_json::from_str(&jobs[0].request).unwrap();
        assert_eq!(request, Request::new(model.clone()));
        store.cancel_job(jobs[0].id, NOW).await.unwrap();
        let later = NOW + 60 * MINUTE;
        assert_eq!(look(later).await.len(), 1);
        label("two", later).await;
        assert_eq!(look(later - 1).await.len(), 1);
        assert_eq!(look(later).await.len(), 2);
    }

    #[test]
    fn without_triggers_nothing_is_looked_up() {
        assert!(rules(|_| {}).are_off());
        assert!(!rules(|c| c.new_labels = 1).are_off());
        assert!(!rules(|c| c.accuracy_floor = 0.5).are_off());
        assert!(!rules(|c| c.schedule = "0 0 30 2 *".to_owned()).are_off());
    }
}
