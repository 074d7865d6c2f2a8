//! A version's card: `card.md` and `card.json` beside its manifest.

use std::fs;
use std::path::Path;

use crate::model::{ModelName, Version};

use super::{MAX_TEXT_BYTES, Registry, RegistryError, atomic, io, read};

const MARKDOWN: &str = "card.md";
const JSON: &str = "card.json";

impl Registry {
    /// Keeps a version's card in place of an earlier one; what is the same already is not written again.
    pub fn keep_card(
        &self,
        name: &ModelName,
        version: Version,
        [markdown, json]: [&str; 2],
    ) -> Result<(), RegistryError> {
        let folder = self.version_folder(name, version)?;
        write_changed(&folder.join(MARKDOWN), markdown)?;
        write_changed(&folder.join(JSON), json)
    }
}

fn write_changed(path: &Path, text: &str) -> Result<(), RegistryError> {
    // What cannot be read is replaced.
    let same = fs::exists(path).is_ok_and(|there| there)
        && read(path, MAX_TEXT_BYTES).is_ok_and(|bytes| bytes == text.as_bytes());
    if same {
        return Ok(());
    }
    atomic::write(path, text.as_bytes()).map_err(|e| io(path, e))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{manifest, registry, weights};
    use super::*;

    #[test]
    fn a_card_is_replaced_only_where_it_changes() {
        let (folder, registry, name) = registry();
        let version = registry.publish(&name, &weights(1), manifest()).unwrap();
        let path = folder.path().join("tiny/1/card.md");
        let keep = |text: &str| {
            registry.keep_card(&name, version, [text, "{}"]).unwrap();
            let written = fs::metadata(&path).unwrap().modified().unwrap();
            (fs::read_to_string(&path).unwrap(), written)
        };
        let first = keep("one");
        assert_eq!(keep("one"), first);
        assert_eq!(keep("two").0, "two");
        let missing = registry.keep_card(&name, 7.try_into().unwrap(), ["", ""]);
        assert!(matches!(missing, Err(RegistryError::NoVersion(..))));
    }
}
