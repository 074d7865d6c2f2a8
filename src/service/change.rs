//! Changes of the aliases that are served at once: promotion, rollback, an alias.

use serde::Deserialize;

use super::keeper::Keeper;
use super::{Changed, ServiceError};
use crate::model::{ModelName, Version};
use crate::registry::{Alias, Author, Entry, Grounds, Promotion, RegistryError};

/// A change asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks; 1 to 100 characters.
    pub by: String,
    /// Why; 1 to 1,000 characters.
    pub reason: Option<String>,
    /// What.
    pub step: Step,
}

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A version becomes the champion.
    Promote {
        /// Which.
        version: Version,
        /// Whether also without the gate's blessing, which needs a reason.
        force: bool,
    },
    /// The previous champion becomes the champion again.
    Rollback,
    /// An alias is given to a version or taken away.
    Alias(Alias, Option<Version>),
}

/// What matters here of the verdict that is kept with a version.
#[derive(Debug, Deserialize)]
struct Kept {
    champion_version: Version,
    blessed: bool,
    #[serde(default)]
    reasons: Vec<String>,
}

impl Keeper {
    /// Makes the version ready that the change brings into service, changes the aliases, then swaps.
    pub(super) fn change(&mut self, name: &ModelName, ask: &Ask) -> Result<Changed, ServiceError> {
        let entry = self.registry.entry(name)?;
        let promotion = match ask.step {
            Step::Promote { version, force } => Some(self.promotion(&entry, (version, force), ask)?),
            Step::Rollback | Step::Alias(..) => None,
        };
        let coming = match ask.step {
            Step::Promote { version, .. } => Some(version),
            Step::Rollback => entry.aliases.previous,
            Step::Alias(_, version) => version,
        };
        let ready = match coming {
            Some(version) => Some(self.ready(&entry, version)?),
            None => None,
        };
        let change = match (ask.step, promotion) {
            (Step::Promote { version, .. }, Some(promotion)) => {
                self.registry.promote(name, version, &promotion)?
            }
            (Step::Alias(alias, version), _) => {
                self.registry.set_alias(name, alias, version, &ask.author())?
            }
            _ => self.registry.rollback(name, &ask.author())?,
        };
        let entry = self.registry.entry(name)?;
        self.apply(&entry, ready.as_ref());
        Ok(Changed {
            change,
            model: self.in_service(name)?,
        })
    }

    /// What is refused before anything is loaded: a version that is not there, serves already or is barred, and one that the
    /// gate does not bless against the present champion.
    fn promotion(
        &self,
        entry: &Entry,
        (version, force): (Version, bool),
        ask: &Ask,
    ) -> Result<Promotion, ServiceError> {
        let name = &entry.name;
        if !entry.versions.contains(&version) {
            return Err(RegistryError::NoVersion(name.clone(), version).into());
        }
        if entry.aliases.champion == Some(version) {
            return Err(RegistryError::AlreadyChampion(name.clone(), version).into());
        }
        self.registry.check_barred(name, version)?;
        let kept = match self.registry.verdict(name, version)? {
            Some(value) => serde_json::from_value(value).ok(),
            None => None,
        };
        let grounds = match (grounds(kept.as_ref(), entry.aliases.champion), force) {
            (Ok(over), _) => Grounds::Blessed { over },
            (Err(_), true) => Grounds::Forced {
                finding: self.registry.finding(name, version)?,
            },
            (Err(why), false) => return Err(ServiceError::NotBlessed(why)),
        };
        Ok(Promotion {
            author: ask.author(),
            grounds,
        })
    }
}

impl Ask {
    fn author(&self) -> Author {
        Author {
            by: self.by.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// The champion over which the gate blesses; or why it does not.
fn grounds(kept: Option<&Kept>, champion: Option<Version>) -> Result<Version, String> {
    let Some(kept) = kept else {
        return Err("the gate has not compared this version with the champion".to_owned());
    };
    if champion != Some(kept.champion_version) {
        let compared = kept.champion_version;
        return Err(format!(
            "the gate compared this version with version {compared}, which is not the champion"
        ));
    }
    if !kept.blessed {
        let reasons = kept.reasons.join("; ");
        return Err(format!("the gate says no: {reasons}"));
    }
    Ok(kept.champion_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blessing_holds_against_the_champion_that_was_compared() {
        let [one, two] = [1, 2].map(|number| Version::try_from(number).unwrap());
        let kept = |blessed| Kept {
            champion_version: one,
            blessed,
            reasons: vec!["class 4 fell".to_owned(), "it is slow".to_owned()],
        };
        let check = |kept: Option<Kept>, champion: Option<Version>, expected: Result<Version, &str>| {
            let found = grounds(kept.as_ref(), champion);
            match (&found, expected) {
                (Ok(over), Ok(expected)) => assert_eq!(*over, expected),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                _ => panic!("{found:?}"),
            }
        };
        check(Some(kept(true)), Some(one), Ok(one));
        check(Some(kept(true)), Some(two), Err("with version 1, which is not"));
        check(Some(kept(true)), None, Err("which is not"));
        check(Some(kept(false)), Some(one), Err("no: class 4 fell; it is slow"));
        check(None, Some(one), Err("has not compared"));
    }
}
