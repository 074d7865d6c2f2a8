//! Where a run begins: from a version of the model itself, or from one of another model with the same body.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Graph, ModelName, NameError, Spec, Version};
use crate::registry::{Alias, Entry, Registry, RegistryError};

use super::{Request, RequestError, RetrainError};

/// A version as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "parent: a version's number, \"champion\", \"challenger\" or \"previous\" is expected"
)]
pub enum Parent {
    /// By its number.
    Version(Version),
    /// By what it is called when the run begins.
    Alias(Alias),
}

/// The version that a run begins from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Its model.
    pub model: ModelName,
    /// Its number.
    pub version: Version,
}

/// Finds the version that `request` begins from, and holds its network against that of `entry`, the model that is to get a new
/// version. None where the model has no version yet and no parent is named: then the weights are fresh.
///
/// # Errors
///
/// No such model, version or alias; another input; another body.
pub fn beginning(
    registry: &Registry,
    request: &Request,
    entry: &Entry,
) -> Result<Option<Beginning>, RetrainError> {
    let is_other = |name: &&ModelName| **name != entry.name;
    let Some(model) = request.parent_model.as_ref().filter(is_other) else {
        if entry.versions.is_empty() && request.parent.is_none() {
            return Ok(None);
        }
        let version = find(entry, request.parent)?;
        let model = entry.name.clone();
        return Ok(Some(Beginning { model, version }));
    };
    let other = match registry.entry(model) {
        Err(RegistryError::NoModel(_)) => return Err(wrong(format!("there is no model '{model}'")).into()),
        other => other?,
    };
    check_body((&entry.name, &entry.spec), (model, &other.spec))?;
    let (model, version) = (model.clone(), find(&other, request.parent)?);
    Ok(Some(Beginning { model, version }))
}

/// Refuses a parent whose weights but for its last layer are no weights of the model.
pub(super) fn check_body(own: (&ModelName, &Spec), parent: (&ModelName, &Spec)) -> Result<(), RetrainError> {
    let [graph, parents] = [own, parent].map(|(name, spec)| graph(name, spec));
    match graph?.body_difference(&parents?) {
        None => Ok(()),
        Some(difference) => {
            let [(own, spec), (other, others)] = [own, parent];
            let problem = format!(
                "'{own}' ({}) cannot begin from '{other}' ({}): their networks differ before the last layer ({difference})",
                spec.architecture, others.architecture
            );
            Err(wrong(problem).into())
        }
    }
}

/// A model's network.
pub(super) fn graph(name: &ModelName, spec: &Spec) -> Result<Graph, RetrainError> {
    let graph = spec.graph();
    graph.map_err(|error| RetrainError::Data(format!("model '{name}': {error}")))
}

/// The version that is named, or else the champion.
fn find(entry: &Entry, parent: Option<Parent>) -> Result<Version, RetrainError> {
    match parent {
        None | Some(Parent::Alias(Alias::Champion)) => Ok(entry.champion()?),
        Some(Parent::Alias(alias)) => entry.aliases.get(alias).ok_or_else(|| {
            let problem = format!("model '{}' has no {}", entry.name, alias.name());
            let key = "parent";
            RequestError { key, problem }.into()
        }),
        Some(Parent::Version(version)) if entry.versions.contains(&version) => Ok(version),
        Some(Parent::Version(version)) => Err(RegistryError::NoVersion(entry.name.clone(), version).into()),
    }
}

fn wrong(problem: String) -> RequestError {
    let key = "parent_model";
    RequestError { key, problem }
}

impl FromStr for Parent {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let alias = [Alias::Champion, Alias::Challenger, Alias::Previous]
            .into_iter()
            .find(|alias| alias.name() == text);
        alias.map_or_else(|| text.parse().map(Self::Version), |alias| Ok(Self::Alias(alias)))
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of '{}'", self.version, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_a_number_or_an_alias() {
        let check = |json: &str, text: &str, expected: Option<Parent>| {
            let read = serde_json::from_str::<Parent>(json);
            assert_eq!(read.as_ref().ok(), expected.as_ref(), "{json}");
            assert_eq!(text.parse::<Parent>().ok(), expected, "{text}");
            match expected {
                Some(parent) => assert_eq!(serde_json::to_string(&parent).unwrap(), json),
                None => assert!(
                    read.unwrap_err()
                        .to_string()
                        .starts_with("parent: a version's number")
                ),
            }
        };
        check("2", "2", Some(Parent::Version(2.try_into().unwrap())));
        check(
            "\"challenger\"",
            "challenger",
            Some(Parent::Alias(Alias::Challenger)),
        );
        check("0", "0", None);
        check("\"latest\"", "latest", None);
    }
}
