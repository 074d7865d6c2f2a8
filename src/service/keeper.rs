//! The one owner of what is in service: carries out commands, and follows the folder of models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::handle::{Command, Orders, Turn};
use super::load::Loader;
use super::swap::Retired;
use super::{Config, InService, ServiceError, Setup};
use crate::card;
use crate::engine::prepare_thread;
use crate::model::{ModelName, Version};
use crate::predict::{Predictor, Table};
use crate::registry::{Entry, Registry, Stamp};
use crate::telemetry::Metrics;

/// Owns the table of what is in service: it alone loads versions and swaps them. `app` names and joins its thread; when it
/// is dropped, it closes the queue of each version.
pub struct Keeper {
    pub(super) loader: Loader,
    pub(super) registry: Registry,
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) orders: Orders,
    pub(super) predictor: Arc<Predictor>,
    /// Versions that were loaded (true) or unloaded (false) by command, which outweighs the policy but not an alias.
    pub(super) told: BTreeMap<(ModelName, Version), bool>,
    /// Versions that cannot serve, with the files that say so: they are not tried again while those stay the same.
    pub(super) unfit: BTreeMap<(ModelName, Version), Option<Stamp>>,
    /// Models whose folder cannot be read or is gone, with what was last logged of it.
    pub(super) unreadable: BTreeMap<ModelName, String>,
    /// What was last logged of the folder of models, while it cannot be listed.
    pub(super) unlisted: Option<String>,
    /// Models of whose latest changes the cards do not tell yet.
    pub(super) stale_cards: BTreeSet<ModelName>,
    /// Out of service, and perhaps still held by requests.
    pub(super) retired: Vec<Retired>,
}

impl Keeper {
    /// Loads what the folder of models says, which takes seconds, and hands it to `serve`, which makes the pipeline of it.
    /// Nothing is served by halves: a version that cannot serve is an error. Prepares its thread as inference threads are.
    pub fn open(
        setup: Setup,
        orders: Orders,
        serve: impl FnOnce(Table) -> Arc<Predictor>,
    ) -> Result<Self, ServiceError> {
        // Warm-up runs on this thread as inference will on others.
        prepare_thread();
        let (registry, config, metrics) = (setup.registry.clone(), setup.config, Arc::clone(&setup.metrics));
        let default = registry.default_model(setup.default_model.as_ref())?;
        let mut table = Table {
            models: BTreeMap::new(),
            default,
        };
        let loader = Loader::new(setup)?;
        for entry in registry.list()? {
            let model = loader.model(&entry, config.versions, || orders.stopping())?;
            metrics
                .service
                .of(&entry.name)
                .champion
                .set(i64::from(model.champion.number()));
            table.models.insert(entry.name, model);
        }
        Ok(Self {
            loader,
            registry,
            config,
            metrics,
            orders,
            predictor: serve(table),
            told: BTreeMap::new(),
            unfit: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            unlisted: None,
            stale_cards: BTreeSet::new(),
            retired: Vec::new(),
        })
    }

    /// The pipeline of what is in service.
    pub fn predictor(&self) -> Arc<Predictor> {
        Arc::clone(&self.predictor)
    }

    /// Carries out commands and follows the folder until [`super::Handle::close`].
    pub fn run(mut self) {
        loop {
            match self.orders.next() {
                Turn::Command(command) => self.carry_out(command),
                Turn::Refresh => {
                    self.refresh();
                    self.refresh_cards();
                }
                Turn::Stop => return self.refresh_cards(),
            }
            if self.config.poll_ms == 0 {
                self.refresh_cards();
            }
            self.sweep();
        }
    }

    /// Where a caller waits no more, the answer is not wanted.
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Change(name, ask, answer) => {
                let changed = self.change(&name, &ask);
                let made = changed.is_ok();
                let _ = answer.send(told(changed));
                if made {
                    self.stale_cards.insert(name);
                }
            }
            Command::Load(name, version, answer) => {
                let _ = answer.send(told(self.load(&name, version)));
            }
            Command::Unload(name, version, answer) => {
                let _ = answer.send(told(self.unload(&name, version)));
            }
            Command::History(name, answer) => {
                let _ = answer.send(told(self.registry.history(&name).map_err(Into::into)));
            }
            Command::Refresh(answer) => {
                self.refresh();
                let _ = answer.send(Ok(()));
            }
            Command::Wake => {}
        }
    }

    /// Of changes that are made and serve already: what is told of them follows, once for many.
    fn refresh_cards(&mut self) {
        for name in std::mem::take(&mut self.stale_cards) {
            if let Err(error) = card::refresh(&self.registry, &name) {
                tracing::warn!(model = %name, %error, "the cards do not tell of the latest change");
            }
        }
    }

    /// Serves what the folder says now. What cannot be read or cannot serve leaves its model as it is, and so does a folder that
    /// is gone: its model serves on, and is followed again when it comes back.
    pub(super) fn refresh(&mut self) {
        let names = match self.registry.names() {
            Ok(names) => names,
            Err(error) => return self.tell_unlisted(error.to_string()),
        };
        if self.unlisted.take().is_some() {
            tracing::info!("the folder of models is followed again");
        }
        self.tell_gone(&names);
        for name in names {
            match self.registry.entry(&name) {
                Ok(entry) => {
                    if self.unreadable.remove(&name).is_some() {
                        tracing::info!(model = %name, "the model is followed again");
                    }
                    self.apply(&entry, None);
                }
                Err(error) => self.tell_unreadable(name, error.to_string()),
            }
        }
    }

    /// Tells of models in service without a folder; forgets those that are neither.
    fn tell_gone(&mut self, names: &[ModelName]) {
        let table = self.predictor.table();
        let is_there = |name: &ModelName| names.binary_search(name).is_ok();
        self.unreadable
            .retain(|name, _| is_there(name) || table.models.contains_key(name));
        for name in table.models.keys().filter(|name| !is_there(name)) {
            self.tell_unreadable(name.clone(), "its folder is gone".to_owned());
        }
    }

    /// Once for as long as it stays the same.
    fn tell_unlisted(&mut self, error: String) {
        if self.unlisted.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "the folder of models cannot be read: what serves stays as it is"
            );
            self.unlisted = Some(error);
        }
    }

    /// Once for as long as it stays the same.
    fn tell_unreadable(&mut self, model: ModelName, error: String) {
        if self.unreadable.get(&model) != Some(&error) {
            tracing::warn!(%model, error, "the model stays as it is");
            self.metrics.service.of(&model).load_failures.inc();
            self.unreadable.insert(model, error);
        }
    }

    pub(super) fn load(&mut self, name: &ModelName, version: Version) -> Result<InService, ServiceError> {
        let entry = self.registry.entry(name)?;
        let ready = self.ready(&entry, version)?;
        self.told.insert((name.clone(), version), true);
        self.apply(&entry, Some(&ready));
        self.in_service(name)
    }

    pub(super) fn unload(&mut self, name: &ModelName, version: Version) -> Result<InService, ServiceError> {
        let entry = self.registry.entry(name)?;
        if let Some(alias) = self.alias_of(&entry, version) {
            return Err(ServiceError::Aliased(name.clone(), version, alias));
        }
        let table = self.predictor.table();
        let model = table.models.get(name);
        model
            .and_then(|model| model.get(version))
            .ok_or_else(|| ServiceError::NotInService(name.clone(), version))?;
        self.told.insert((name.clone(), version), false);
        self.apply(&entry, None);
        self.in_service(name)
    }

    /// How a model serves now.
    pub(super) fn in_service(&self, name: &ModelName) -> Result<InService, ServiceError> {
        let table = self.predictor.table();
        let model = table.models.get(name);
        let model = model.ok_or_else(|| ServiceError::Nothing(format!("'{name}' is not in service")))?;
        Ok(InService {
            name: name.clone(),
            champion: model.champion,
            versions: model.versions.iter().map(|served| served.version).collect(),
        })
    }

    /// The alias for which a version must stay in service.
    fn alias_of(&self, entry: &Entry, version: Version) -> Option<super::Alias> {
        use super::Alias::{Challenger, Champion, Previous};
        let named = [Champion, Challenger, Previous]
            .into_iter()
            .find(|&alias| entry.aliases.get(alias) == Some(version));
        let table = self.predictor.table();
        let answers = table.models.get(&entry.name).map(|model| model.champion) == Some(version);
        named.or(answers.then_some(Champion))
    }
}

/// A failure with its paths is the operator's; the caller gets what it may see.
fn told<T>(result: Result<T, ServiceError>) -> Result<T, ServiceError> {
    result.inspect_err(|error| tracing::warn!(%error, "a change of what serves was refused"))
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let table = self.predictor.table();
        for served in table.models.values().flat_map(|model| &model.versions) {
            served.batcher.close();
        }
    }
}
