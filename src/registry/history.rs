//! Every change of a model's aliases, for ever: `history.jsonl`, one line each.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{ModelName, Version};

use super::{Alias, Registry, RegistryError, atomic, invalid, io, read};

const HISTORY: &str = "history.jsonl";
/// A line holds 1,100 characters of people at most, each of twelve bytes in JSON at most, and little else.
const TAIL_BYTES: u64 = 32 << 10;
/// Largest history that is read: some 200,000 changes.
const MAX_HISTORY_BYTES: u64 = 64 << 20;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, as [`super::rfc3339`] writes it.
    pub at: String,
    /// What was done.
    pub action: Action,
    /// To which alias; of a promotion or a rollback the champion.
    pub alias: Alias,
    /// The version that had the alias.
    pub from: Option<Version>,
    /// The version that has it now.
    pub to: Option<Version>,
    /// Who asked.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was a promotion without the gate's blessing.
    pub forced: bool,
    /// What the gate had found.
    pub verdict: Finding,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A version became the champion.
    Promote,
    /// The previous champion became the champion again.
    Rollback,
    /// An alias was given or taken away.
    Alias,
}

/// The gate's word on a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Yes.
    Blessed,
    /// No.
    Refused,
    /// It was not asked.
    None,
}

impl Registry {
    /// Every change, oldest first; none where there is no history. A line that a crash cut short is passed over. One that
    /// was not carried out is there too: [`carried_out`].
    pub fn history(&self, name: &ModelName) -> Result<Vec<Change>, RegistryError> {
        let path = self.folder(name)?.join(HISTORY);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let bytes = read(&path, MAX_HISTORY_BYTES)?;
        let lines = bytes
            .split(|&byte| byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.is_empty());
        let change = |(index, line): (usize, &[u8])| match serde_json::from_slice(line) {
            Ok(change) => Some(Ok(change)),
            // The beginning of an object is no object: this writer died.
            Err(error) if error.is_eof() => None,
            Err(error) => Some(Err(invalid(&path, format!("line {}: {error}", index + 1)))),
        };
        lines.filter_map(change).collect()
    }

    /// The latest change, without reading those before it.
    pub fn last_change(&self, name: &ModelName) -> Result<Option<Change>, RegistryError> {
        let path = self.folder(name)?.join(HISTORY);
        let tail = match tail(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            tail => tail.map_err(|e| io(&path, e))?,
        };
        let mut lines = tail.rsplit(|&byte| byte == b'\n');
        Ok(lines.find_map(|line| serde_json::from_slice(line).ok()))
    }
}

/// Whether each change of a history was carried out, for a model whose champion is `champion`. A change of the champion was if
/// the next one goes on from it; the last, if the champion is what it says. Else its writer died before the aliases were
/// written, or they were written by hand. Of other aliases nothing is known: a promotion may take them away.
pub fn carried_out(changes: &[Change], champion: Option<Version>) -> Vec<bool> {
    let mut after = champion;
    let was = |change: &Change| {
        if change.alias != Alias::Champion {
            return true;
        }
        let was = change.to == after;
        after = change.from;
        was
    };
    let mut all: Vec<bool> = changes.iter().rev().map(was).collect();
    all.reverse();
    all
}

/// The end of a file, long enough for two lines of the greatest length.
fn tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Action {
    /// As the history has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Alias => "alias",
        }
    }
}

impl Finding {
    /// As the history has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blessed => "blessed",
            Self::Refused => "refused",
            Self::None => "none",
        }
    }
}

/// Adds a change, on disk when this returns; returns the history's length before.
pub(super) fn append(folder: &Path, change: &Change) -> Result<u64, RegistryError> {
    let path = folder.join(HISTORY);
    let line = serde_json::to_string(change).map_err(|e| invalid(&path, e))?;
    atomic::append_line(&path, &line).map_err(|e| io(&path, e))
}

/// Removes the last change, which was not carried out. Where that fails as well, the line is harmless.
pub(super) fn take_back(folder: &Path, length: u64) {
    let _ = atomic::truncate(&folder.join(HISTORY), length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_from_which_nothing_goes_on_was_not_carried_out() {
        let check = |changes: &[(Alias, u32, u32)], champion: u32, expected: &[bool]| {
            let version = |number: u32| Version::try_from(number).ok();
            let change = |&(alias, from, to): &(Alias, u32, u32)| Change {
                at: String::new(),
                action: Action::Promote,
                alias,
                from: version(from),
                to: version(to),
                by: String::new(),
                reason: None,
                forced: false,
                verdict: Finding::None,
            };
            let changes: Vec<Change> = changes.iter().map(change).collect();
            assert_eq!(carried_out(&changes, version(champion)), expected, "{changes:?}");
        };
        let champion = |from, to| (Alias::Champion, from, to);
        check(&[], 1, &[]);
        check(&[champion(0, 1), champion(1, 2)], 2, &[true, true]);
        check(&[champion(0, 1), champion(1, 2)], 1, &[true, false]);
        let both = [
            champion(1, 2),
            champion(1, 2),
            (Alias::Challenger, 0, 3),
            champion(1, 3),
        ];
        check(&both, 3, &[false, false, true, true]);
        check(&both, 1, &[false, false, true, false]);
    }
}
