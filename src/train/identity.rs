//! Which run a checkpoint belongs to.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, Split, hex};

use super::Config;

/// Everything that decides a run's course; two runs of equal identity end in the same bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The configuration's JSON: as text, because text compares exactly.
    config: String,
    /// See [`images`].
    images: String,
    /// sha256 of the initial weights' file.
    initial: String,
}

impl Identity {
    /// From a configuration and two hashes.
    pub fn new(config: &Config, images: String, initial: String) -> Self {
        let config = serde_json::to_string(config).expect("a configuration has string keys and plain values");
        Self {
            config,
            images,
            initial,
        }
    }

    /// What differs between two runs; `None` where nothing does.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut parts = Vec::new();
        if self.config != other.config {
            parts.push(format!(
                "other hyper-parameters ({})",
                keys(&self.config, &other.config)
            ));
        }
        if self.images != other.images {
            parts.push("other images".to_owned());
        }
        if self.initial != other.initial {
            parts.push("other initial weights".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Hash of the tensors and labels that are trained and validated on, in their order.
pub(super) fn images(data: &Dataset, split: &Split) -> String {
    let mut digest = Sha256::new();
    for part in [&split.train, &split.hold_out] {
        digest.update((part.len() as u64).to_le_bytes());
        for &index in part {
            let bytes: Vec<u8> = data.tensor(index).iter().flat_map(|v| v.to_le_bytes()).collect();
            digest.update(&bytes);
            digest.update(data.labels[index].to_le_bytes());
        }
    }
    hex(&digest.finalize())
}

/// sha256, lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The keys whose values differ between two JSON objects.
fn keys(a: &str, b: &str) -> String {
    let parse = |text| serde_json::from_str::<serde_json::Map<String, Value>>(text).unwrap_or_default();
    let (a, b) = (parse(a), parse(b));
    let differing = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
    differing
        .map(|(key, _)| key.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::Augment;
    use crate::train::Recipe;

    #[test]
    fn differences_are_named() {
        let config = Recipe::Fast.config(Augment::default(), 3);
        let identity = |config: &Config, images: &str, initial: &str| {
            Identity::new(config, images.to_owned(), initial.to_owned())
        };
        let first = identity(&config, "a", "b");
        let check = |other: Identity, expected: Option<&str>| {
            assert_eq!(first.difference(&other).as_deref(), expected);
        };
        check(first.clone(), None);
        let mut longer = config.clone();
        longer.epochs += 1;
        longer.seed += 1;
        check(
            identity(&longer, "a", "b"),
            Some("other hyper-parameters (epochs, seed)"),
        );
        check(
            identity(&config, "c", "d"),
            Some("other images, other initial weights"),
        );
    }
}
