//! Versions that were read and found whole: while their files stay as they were, they are not read for that again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::model::{ModelName, Version};

use super::{Registry, RegistryError, Stamp};

/// Of a file that was changed less than this ago nothing is remembered: another change may come within the same tick of the file
/// system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// By version, the stamp under which it was whole. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Whole(Arc<Mutex<HashMap<(ModelName, Version), Stamp>>>);

impl Whole {
    /// The version was whole, and its files had this stamp before they were read.
    pub(super) fn remember(&self, of: (&ModelName, Version), stamp: Stamp, now: SystemTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (of.0.clone(), of.1);
        if stamp.is_older_than(SETTLED, now) {
            known.insert(key, stamp);
        } else {
            known.remove(&key);
        }
    }

    fn knows(&self, of: (&ModelName, Version), stamp: Stamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(of.0.clone(), of.1)) == Some(&stamp)
    }
}

impl Registry {
    /// Refuses a version that [`Registry::load`] refuses. One that this registry, or a clone of it, loaded before is not read again
    /// while its files are the same by their inodes, lengths and times.
    pub(super) fn check_whole(&self, name: &ModelName, version: Version) -> Result<(), RegistryError> {
        if self.whole.knows((name, version), self.stamp(name, version)?) {
            return Ok(());
        }
        self.load(name, version).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::tests::{manifest, registry, weights};
    use super::*;

    #[test]
    fn what_was_whole_is_read_again_only_where_its_files_changed() {
        let (folder, registry, name) = registry();
        let version = registry.publish(&name, &weights(1), manifest()).unwrap();
        let path = folder.path().join("tiny/1/model.safetensors");
        let damage = || {
            let mut file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all(b"damage").unwrap();
            file.sync_all().unwrap();
        };
        registry.load(&name, version).unwrap();
        // It was written a moment ago, so nothing is remembered.
        damage();
        assert!(registry.check_whole(&name, version).is_err());
        // As if it had been whole so.
        let stamp = registry.stamp(&name, version).unwrap();
        let later = SystemTime::now() + Duration::from_secs(3);
        registry.whole.remember((&name, version), stamp, later);
        assert!(registry.clone().check_whole(&name, version).is_ok());
        assert!(registry.load(&name, version).is_err());
        let length = fs::metadata(&path).unwrap().len();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length + 1)
            .unwrap();
        assert!(registry.check_whole(&name, version).is_err());
        // What is loaded anew within the same moment is forgotten.
        registry
            .whole
            .remember((&name, version), stamp, SystemTime::now());
        assert!(!registry.whole.knows((&name, version), stamp));
    }
}
