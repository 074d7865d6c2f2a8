//! From what the aliases name to what serves: missing versions made ready, the table swapped, the unused given back.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::keeper::Keeper;
use super::{ServiceError, Versions};
use crate::model::{ModelName, Version};
use crate::predict::{Served, ServedModel};
use crate::registry::{Action, Aliases, Entry, RegistryError};

/// A version out of service.
pub(super) struct Retired {
    name: ModelName,
    version: Version,
    /// Gone once no request holds it; then its queue is closed, and its workers end.
    served: Weak<Served>,
}

/// The versions that a model's folder alone says should serve.
pub(super) fn wanted(entry: &Entry, policy: Versions) -> BTreeSet<Version> {
    let Aliases {
        champion,
        challenger,
        previous,
    } = entry.aliases;
    let aliased = [champion, challenger, previous].into_iter().flatten();
    match policy {
        Versions::Aliases => aliased.collect(),
        Versions::All => entry.versions.iter().copied().collect(),
    }
}

impl Keeper {
    /// A version of the folder, from service or made ready beside it. Where it cannot serve, nothing is changed.
    pub(super) fn ready(&mut self, entry: &Entry, version: Version) -> Result<Arc<Served>, ServiceError> {
        let name = &entry.name;
        if !entry.versions.contains(&version) {
            return Err(RegistryError::NoVersion(name.clone(), version).into());
        }
        let table = self.predictor.table();
        if let Some(served) = table.models.get(name).and_then(|model| model.get(version)) {
            return Ok(Arc::clone(served));
        }
        let loaded = self.loader.version(name, version);
        if loaded.is_err() {
            self.metrics.service.of(name).load_failures.inc();
        }
        loaded
    }

    /// Makes the model serve as its folder says. `ready` is used where it is wanted. A version that cannot serve is left
    /// out; where it is the champion, the one before goes on.
    pub(super) fn apply(&mut self, entry: &Entry, ready: Option<&Arc<Served>>) {
        let begun = Instant::now();
        let table = self.predictor.table();
        let present = table.models.get(&entry.name);
        let mut versions = Vec::new();
        for version in self.wanted_now(entry) {
            let is_ready = ready.filter(|served| served.version == version);
            let at_hand = present.and_then(|model| model.get(version)).or(is_ready);
            versions.extend(at_hand.cloned().or_else(|| self.try_load(entry, version)));
        }
        let serves = |version: &Version| {
            versions
                .iter()
                .any(|served: &Arc<Served>| served.version == *version)
        };
        let new = entry.aliases.champion.filter(serves);
        let Some(champion) = new.or(present.map(|model| model.champion)) else {
            return;
        };
        if !serves(&champion) {
            versions.extend(present.and_then(|model| model.get(champion)).cloned());
        }
        versions.sort_by_key(|served| served.version);
        let model = ServedModel { champion, versions };
        if present.is_none_or(|present| !is_same(present, &model)) && !self.orders.stopping() {
            self.swap(&entry.name, model, begun);
        }
    }

    /// As the folder and the commands say.
    fn wanted_now(&self, entry: &Entry) -> BTreeSet<Version> {
        let mut wanted = wanted(entry, self.config.versions);
        for &version in &entry.versions {
            match self.told.get(&(entry.name.clone(), version)) {
                Some(true) => drop(wanted.insert(version)),
                Some(false) => drop(wanted.remove(&version)),
                None => {}
            }
        }
        wanted.extend(self::wanted(entry, Versions::Aliases));
        wanted
    }

    /// A version that failed is not tried again while its files stay the same, and told once.
    fn try_load(&mut self, entry: &Entry, version: Version) -> Option<Arc<Served>> {
        let key = (entry.name.clone(), version);
        let stamp = self.registry.stamp(&entry.name, version).ok();
        if self.orders.stopping() || self.unfit.get(&key) == Some(&stamp) {
            return None;
        }
        match self.ready(entry, version) {
            Ok(served) => {
                self.unfit.remove(&key);
                Some(served)
            }
            Err(error) => {
                tracing::warn!(model = %entry.name, %version, %error, "the version cannot serve; what served goes on");
                self.unfit.insert(key, stamp);
                None
            }
        }
    }

    /// Requests that begin after this find the new versions. Those that found an old one hold it until they are answered.
    fn swap(&mut self, name: &ModelName, model: ServedModel, begun: Instant) {
        let before = self.predictor.table();
        let mut table = (*before).clone();
        let (champion, versions) = (model.champion, told(&model));
        let old = table.models.insert(name.clone(), model);
        self.predictor.put(table);
        let series = self.metrics.service.of(name);
        series.champion.set(i64::from(champion.number()));
        let gone = old.iter().flat_map(|old| &old.versions);
        self.retired.extend(gone.map(|served| Retired {
            name: name.clone(),
            version: served.version,
            served: Arc::downgrade(served),
        }));
        match old.map(|old| old.champion) {
            Some(was) if was != champion && self.came_back(name, champion) => series.rollbacks.inc(),
            Some(was) if was != champion => series.promotions.inc(),
            _ => {}
        }
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.service.swap_seconds.set(seconds);
        tracing::info!(model = %name, %champion, versions, seconds, "in service");
    }

    /// Whether the history says that this champion came by a rollback; one that was named by hand did not.
    fn came_back(&self, name: &ModelName, champion: Version) -> bool {
        let last = self.registry.last_change(name).unwrap_or_default();
        last.is_some_and(|change| change.action == Action::Rollback && change.to == Some(champion))
    }

    /// Forgets the retired that nobody holds, with their series. One that came back into service keeps its series.
    pub(super) fn sweep(&mut self) {
        let table = self.predictor.table();
        let metrics = &self.metrics;
        self.retired.retain(
            |Retired {
                 name,
                 version,
                 served,
             }| {
                let serves = table
                    .models
                    .get(name)
                    .is_some_and(|model| model.get(*version).is_some());
                let is_held = served.strong_count() > 0;
                if !serves && !is_held {
                    metrics.forget(name, *version);
                }
                !serves && is_held
            },
        );
    }
}

fn is_same(a: &ServedModel, b: &ServedModel) -> bool {
    let both = || a.versions.iter().zip(&b.versions);
    a.champion == b.champion && a.versions.len() == b.versions.len() && both().all(|(a, b)| Arc::ptr_eq(a, b))
}

fn told(model: &ServedModel) -> String {
    let numbers: Vec<String> = model
        .versions
        .iter()
        .map(|served| served.version.to_string())
        .collect();
    numbers.join(" ")
}
