//! What is done from time to time: deleting what is old, and measuring the versions by their labels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::now_ms;
use super::quality::{Quality, qualities};
use crate::model::{ModelName, Version};
use crate::store::{Expiry, LabelMark, Store, StoreError};
use crate::telemetry::{Live, Metrics};

/// Tends an open store.
#[derive(Debug)]
pub struct Tender {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    /// When expiry was last tried.
    expired_ms: Option<i64>,
    /// The clock jumped, and this was told.
    jumped: bool,
    /// The last step failed, and this was told.
    fails: bool,
    /// Where the labels stood when the versions were last measured.
    mark: Option<LabelMark>,
    measured: BTreeMap<(ModelName, Version), Quality>,
}

/// How often the labels are looked at.
const STEP: Duration = Duration::from_secs(60);
/// How often old predictions are deleted.
const EXPIRE_EVERY_MS: i64 = 3_600_000;

impl Tender {
    /// Of this store, measuring into these series.
    pub fn new(store: &Arc<Store>, metrics: &Arc<Metrics>) -> Self {
        Self {
            store: Arc::clone(store),
            metrics: Arc::clone(metrics),
            expired_ms: None,
            jumped: false,
            fails: false,
            mark: None,
            measured: BTreeMap::new(),
        }
    }

    /// A step at once and every minute, until `stopping` is true.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = async {
                ticks.tick().await;
                self.step(now_ms()).await;
            };
            // The stop wins. A step that is cancelled has its transaction rolled back, and the next expiry ends its work.
            tokio::select! {
                biased;
                _ = stopping.wait_for(|&stopping| stopping) => return,
                () = step => {}
            }
        }
    }

    /// Does what is due at `now_ms`; a failure is logged once until a step succeeds again.
    async fn step(&mut self, now_ms: i64) {
        match self.tend(now_ms).await {
            Ok(()) => self.fails = false,
            Err(error) if self.fails => tracing::debug!(%error, "the store is not tended"),
            Err(error) => {
                self.fails = true;
                tracing::warn!(%error, "the store is not tended");
            }
        }
    }

    async fn tend(&mut self, now_ms: i64) -> Result<(), StoreError> {
        // A clock that was set back is no reason to wait for longer.
        let is_due = |last: i64| !(last..last.saturating_add(EXPIRE_EVERY_MS)).contains(&now_ms);
        if self.expired_ms.is_none_or(is_due) {
            self.expired_ms = Some(now_ms);
            // Measured again, since predictions may go.
            self.mark = None;
            let expiry = self.store.expire(now_ms).await?;
            self.tell(expiry);
        }
        let mark = self.store.label_mark().await?;
        if self.mark != Some(mark) {
            let measured = qualities(&self.store.tallies().await?);
            let before = std::mem::replace(&mut self.measured, measured);
            for gone in before
                .keys()
                .filter(|version| !self.measured.contains_key(version))
            {
                self.series(gone, Live::clear);
            }
            self.mark = Some(mark);
        }
        // Each time, since a version may have come into service meanwhile.
        for (version, quality) in &self.measured {
            self.series(version, |live| show(live, quality));
        }
        Ok(())
    }

    /// Only versions in service have series.
    fn series(&self, (name, version): &(ModelName, Version), set: impl FnOnce(&Live)) {
        if let Some(series) = self.metrics.known_model(name, *version) {
            set(&series.live);
        }
    }

    fn tell(&mut self, expiry: Expiry) {
        match expiry {
            Expiry::Done { predictions, images } => {
                self.jumped = false;
                if predictions + images > 0 {
                    tracing::info!(predictions, images, "what was old is deleted");
                }
            }
            Expiry::ClockJumped { last_ms, now_ms } => {
                if !std::mem::replace(&mut self.jumped, true) {
                    tracing::warn!(
                        last_ms,
                        now_ms,
                        "the clock jumped: nothing is deleted unless store.trust_clock says that the time is right"
                    );
                }
            }
        }
    }
}

fn show(live: &Live, quality: &Quality) {
    live.judged.set(i64::try_from(quality.judged).unwrap_or(i64::MAX));
    live.accuracy.set(quality.accuracy);
    live.accuracy_low.set(quality.interval.low);
    live.accuracy_high.set(quality.interval.high);
    live.macro_f1.set(quality.macro_f1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Classes, Config, Digest, Feedback, Kept, Subject};

    const NOW: i64 = 1_800_000_000_000;
    const DAY: i64 = 86_400_000;

    async fn store() -> (tempfile::TempDir, Arc<Store>) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            folder: folder.path().join("data"),
            ..Config::default()
        };
        (folder, Arc::new(Store::open(&config).await.unwrap()))
    }

    async fn keep(store: &Store, id: &str, at_ms: i64) {
        let kept = Kept {
            id: id.parse().unwrap(),
            model: "digits".parse().unwrap(),
            version: Version::FIRST,
            sha256: Digest::of(id.as_bytes()),
            class: 1,
            probability: 0.5,
            at_ms,
            image: None,
        };
        store.keep(&kept).await.unwrap();
    }

    async fn label(store: &Store, id: &str, label: u32) {
        let feedback = Feedback {
            subject: Subject::Prediction(id.parse().unwrap()),
            label,
            source: "s".parse().unwrap(),
            key: None,
            confidence: None,
        };
        let classes = Classes::from([("digits".parse().unwrap(), 10)]);
        let outcomes = store.feedback(&[feedback], &classes, NOW).await.unwrap();
        assert!(outcomes[0].is_kept());
    }

    #[tokio::test]
    async fn versions_are_measured_when_labels_came_and_cleared_when_they_went() {
        let (_folder, store) = store().await;
        let metrics = Metrics::new(&[]);
        let served = metrics.model(&"digits".parse().unwrap(), Version::FIRST);
        let mut tender = Tender::new(&store, &metrics);
        for id in ["a", "b"] {
            keep(&store, id, NOW).await;
        }
        tender.step(NOW).await;
        assert_eq!(
            (served.live.judged.get(), served.live.accuracy.get().is_nan()),
            (0, true)
        );
        label(&store, "a", 1).await;
        label(&store, "b", 2).await;
        tender.step(NOW + 60_000).await;
        assert_eq!((served.live.judged.get(), served.live.accuracy.get()), (2, 0.5));
        let (low, high) = (served.live.accuracy_low.get(), served.live.accuracy_high.get());
        assert!(0.0 < low && low < 0.5 && 0.5 < high && high < 1.0);
        for id in ["a", "b"] {
            store.erase(&Digest::of(id.as_bytes()), NOW).await.unwrap();
        }
        tender.step(NOW + 120_000).await;
        assert_eq!(
            (served.live.judged.get(), served.live.accuracy.get().is_nan()),
            (0, true)
        );
    }

    #[tokio::test]
    async fn a_version_out_of_service_gets_no_series() {
        let (_folder, store) = store().await;
        let metrics = Metrics::new(&[]);
        keep(&store, "a", NOW).await;
        label(&store, "a", 1).await;
        Tender::new(&store, &metrics).step(NOW).await;
        assert!(!metrics.render().contains("sconce_live_judged{"));
    }

    #[tokio::test]
    async fn what_is_old_is_deleted_at_the_start_and_every_hour() {
        let (_folder, store) = store().await;
        let mut tender = Tender::new(&store, &Metrics::new(&[]));
        let there = async |id: &str| store.prediction(&id.parse().unwrap()).await.unwrap().is_some();
        keep(&store, "a", NOW).await;
        tender.step(NOW + 31 * DAY).await;
        assert!(!there("a").await);
        keep(&store, "b", NOW).await;
        tender.step(NOW + 31 * DAY + EXPIRE_EVERY_MS - 1).await;
        assert!(there("b").await);
        tender.step(NOW + 31 * DAY + EXPIRE_EVERY_MS).await;
        assert!(!there("b").await);
        // Neither back nor far ahead does the clock delete what is not old.
        keep(&store, "c", NOW + 31 * DAY).await;
        for jumped in [NOW, NOW + 300 * DAY] {
            tender.step(jumped).await;
            assert!(there("c").await);
        }
        assert!(tender.jumped);
    }
}
