//! Which versions serve: `aliases.json`, each change of which is made under a lock.

use std::fs::{File, OpenOptions};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{ModelName, Version};

use super::history::{self, Action, Change, Finding};
use super::{Entry, MAX_TEXT_BYTES, Registry, RegistryError, atomic, invalid, io, json};

const ALIASES: &str = "aliases.json";
/// Locked by whoever changes the aliases; hidden, since it says nothing. The system frees a dead holder's lock.
const LOCK: &str = ".aliases.lock";
/// Most characters of a reason.
const MAX_REASON: usize = 1_000;
/// Most characters of who asks.
const MAX_BY: usize = 100;

/// The versions that a model's aliases name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aliases {
    /// Answers requests that name no version.
    pub champion: Option<Version>,
    /// Being compared with the champion.
    pub challenger: Option<Version>,
    /// The champion before.
    pub previous: Option<Version>,
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alias {
    /// [`Aliases::champion`].
    Champion,
    /// [`Aliases::challenger`].
    Challenger,
    /// [`Aliases::previous`].
    Previous,
}

/// Who asks for a change, kept in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// A person, or what stands for one; 1 to 100 characters.
    pub by: String,
    /// Why; 1 to 1,000 characters.
    pub reason: Option<String>,
}

/// What allows a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// The gate's blessing.
    Blessed {
        /// The champion with which it compared; no other may have come since.
        over: Version,
    },
    /// Somebody's word, who must give a reason.
    Forced {
        /// What the gate had found, if it was asked.
        finding: Finding,
    },
}

/// A promotion asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Who asks.
    pub author: Author,
    /// With what right.
    pub grounds: Grounds,
}

/// What a change makes of the aliases, and what the history will say of it.
struct Step {
    aliases: Aliases,
    action: Action,
    alias: Alias,
    grounds: Option<Grounds>,
}

impl Registry {
    /// Makes a version the champion, and the champion the previous one. The version is checked to be whole first. Nothing
    /// changes where it does not exist, is the champion already, is barred or damaged, or the grounds do not hold.
    pub fn promote(
        &self,
        name: &ModelName,
        version: Version,
        promotion: &Promotion,
    ) -> Result<Change, RegistryError> {
        let Promotion { author, grounds } = promotion;
        if matches!(grounds, Grounds::Forced { .. }) && author.reason.is_none() {
            return Err(wording("the reason of a forced promotion", MAX_REASON));
        }
        self.change(name, author, |entry| {
            let aliases = self.with_new_champion(entry, version)?;
            match *grounds {
                Grounds::Blessed { over } if entry.aliases.champion != Some(over) => {
                    Err(RegistryError::Overtaken {
                        name: name.clone(),
                        compared: over,
                    })
                }
                grounds => Ok(Step {
                    aliases,
                    action: Action::Promote,
                    alias: Alias::Champion,
                    grounds: Some(grounds),
                }),
            }
        })
    }

    /// Makes the previous champion the champion again, and the champion the previous one: a second rollback undoes the
    /// first.
    pub fn rollback(&self, name: &ModelName, author: &Author) -> Result<Change, RegistryError> {
        self.change(name, author, |entry| {
            let previous = entry.aliases.previous;
            let previous = previous.ok_or_else(|| RegistryError::NoPrevious(name.clone()))?;
            Ok(Step {
                aliases: self.with_champion(entry, previous)?,
                action: Action::Rollback,
                alias: Alias::Champion,
                grounds: None,
            })
        })
    }

    /// Gives an alias to a version, or takes it away. A champion that stands is neither replaced nor taken away so; the
    /// first may be named so, for there is none to compare it with. What is so already is not told to the history.
    pub fn set_alias(
        &self,
        name: &ModelName,
        alias: Alias,
        version: Option<Version>,
        author: &Author,
    ) -> Result<Change, RegistryError> {
        self.change(name, author, |entry| {
            let mut aliases = entry.aliases;
            match (alias, version) {
                (Alias::Champion, Some(version)) if aliases.champion.is_none() => {
                    aliases = self.with_new_champion(entry, version)?;
                }
                (Alias::Champion, _) => return Err(RegistryError::ChampionStands(name.clone())),
                (Alias::Challenger, _) => aliases.challenger = self.beside_champion(entry, version)?,
                (Alias::Previous, _) => aliases.previous = self.beside_champion(entry, version)?,
            }
            Ok(Step {
                aliases,
                action: Action::Alias,
                alias,
                grounds: None,
            })
        })
    }

    /// Writes down that a model's only version is its champion, which it is without being named: a second version must
    /// not take that from it.
    pub fn keep_champion(&self, name: &ModelName) -> Result<(), RegistryError> {
        let folder = self.folder(name)?;
        let _lock = lock(&folder)?;
        let entry = self.entry(name)?;
        if entry.versions.len() == 1 && entry.aliases.champion.is_some() {
            write(&folder, &entry.aliases)?;
        }
        Ok(())
    }

    /// Reads, decides and writes under the lock. The history's line is on disk before the aliases are: a crash between
    /// both leaves a line too many, never a change that nobody knows of.
    fn change(
        &self,
        name: &ModelName,
        author: &Author,
        decide: impl FnOnce(&Entry) -> Result<Step, RegistryError>,
    ) -> Result<Change, RegistryError> {
        author.check()?;
        let folder = self.folder(name)?;
        let _lock = lock(&folder)?;
        let entry = self.entry(name)?;
        let step = decide(&entry)?;
        let change = step.told(&entry.aliases, author);
        if step.aliases == entry.aliases {
            return Ok(change);
        }
        let length = history::append(&folder, &change)?;
        write(&folder, &step.aliases).inspect_err(|_| {
            // The folder's sync fails after the swap: then the line is true and stays.
            if read(&folder, &entry.versions).ok() != Some(step.aliases) {
                history::take_back(&folder, length);
            }
        })?;
        Ok(change)
    }

    /// As [`Registry::with_champion`], of a version that was perhaps never promoted.
    fn with_new_champion(&self, entry: &Entry, version: Version) -> Result<Aliases, RegistryError> {
        self.beside_champion(entry, Some(version))?;
        self.check_barred(&entry.name, version)?;
        self.with_champion(entry, version)
    }

    /// The aliases once `version` is the champion, which must be whole.
    fn with_champion(&self, entry: &Entry, version: Version) -> Result<Aliases, RegistryError> {
        let version = self.beside_champion(entry, Some(version))?;
        if let Some(version) = version {
            self.check_whole(&entry.name, version)?;
        }
        let Aliases {
            champion,
            challenger,
            previous,
        } = entry.aliases;
        let other = |alias: &Version| Some(*alias) != version;
        Ok(Aliases {
            champion: version,
            challenger: challenger.filter(other),
            previous: champion.or(previous).filter(other),
        })
    }

    /// Refuses a version that does not exist or is the champion.
    fn beside_champion(
        &self,
        entry: &Entry,
        version: Option<Version>,
    ) -> Result<Option<Version>, RegistryError> {
        let Some(number) = version else {
            return Ok(None);
        };
        if !entry.versions.contains(&number) {
            return Err(RegistryError::NoVersion(entry.name.clone(), number));
        }
        if entry.aliases.champion == version {
            return Err(RegistryError::AlreadyChampion(entry.name.clone(), number));
        }
        Ok(version)
    }
}

impl Step {
    fn told(&self, before: &Aliases, author: &Author) -> Change {
        let (forced, verdict) = match self.grounds {
            Some(Grounds::Blessed { .. }) => (false, Finding::Blessed),
            Some(Grounds::Forced { finding }) => (true, finding),
            None => (false, Finding::None),
        };
        Change {
            at: super::rfc3339(std::time::SystemTime::now()),
            action: self.action,
            alias: self.alias,
            from: before.get(self.alias),
            to: self.aliases.get(self.alias),
            by: author.by.clone(),
            reason: author.reason.clone(),
            forced,
            verdict,
        }
    }
}

impl Aliases {
    /// The version that has the alias.
    pub fn get(&self, alias: Alias) -> Option<Version> {
        match alias {
            Alias::Champion => self.champion,
            Alias::Challenger => self.challenger,
            Alias::Previous => self.previous,
        }
    }

    fn named(&self) -> impl Iterator<Item = Version> {
        [self.champion, self.challenger, self.previous]
            .into_iter()
            .flatten()
    }
}

impl Alias {
    /// As `aliases.json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Challenger => "challenger",
            Self::Previous => "previous",
        }
    }
}

impl Author {
    fn check(&self) -> Result<(), RegistryError> {
        let check = |what: &'static str, text: &str, limit: usize| {
            let fits = !text.trim().is_empty() && text.chars().count() <= limit;
            if fits { Ok(()) } else { Err(wording(what, limit)) }
        };
        check("who asks", &self.by, MAX_BY)?;
        self.reason
            .as_deref()
            .map_or(Ok(()), |reason| check("the reason", reason, MAX_REASON))
    }
}

/// The aliases of a model's folder; without the file, its only version is the champion.
pub(super) fn read(folder: &Path, versions: &[Version]) -> Result<Aliases, RegistryError> {
    let path = folder.join(ALIASES);
    if !path.exists() {
        let only = if let [only] = versions { Some(*only) } else { None };
        return Ok(Aliases {
            champion: only,
            ..Aliases::default()
        });
    }
    let aliases: Aliases =
        serde_json::from_slice(&super::read(&path, MAX_TEXT_BYTES)?).map_err(|e| invalid(&path, e))?;
    match aliases.named().find(|version| !versions.contains(version)) {
        Some(missing) => Err(invalid(
            &path,
            format!("names version {missing}, which does not exist"),
        )),
        None => Ok(aliases),
    }
}

fn write(folder: &Path, aliases: &Aliases) -> Result<(), RegistryError> {
    let path = folder.join(ALIASES);
    atomic::write(&path, &json(aliases)).map_err(|e| io(&path, e))
}

/// Waits until nobody else changes these aliases; free again when dropped.
pub(super) fn lock(folder: &Path) -> Result<File, RegistryError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|e| io(&path, e))?;
    file.lock().map_err(|e| io(&path, e))?;
    Ok(file)
}

fn wording(what: &'static str, limit: usize) -> RegistryError {
    RegistryError::Wording { what, limit }
}

#[cfg(test)]
mod tests;
