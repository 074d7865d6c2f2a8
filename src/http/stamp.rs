//! Whether a file may have changed, told without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Place, length and moment of a file; of one that is not there, none. A file that is renamed over it, or to which a link
/// leads instead, has another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, SystemTime)>);

impl Stamp {
    /// Of the file now.
    pub(super) fn of(path: &Path) -> Self {
        let facts = std::fs::metadata(path).ok();
        let facts = facts.and_then(|facts| Some((facts.ino(), facts.len(), facts.modified().ok()?)));
        Self(facts)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::registry::atomic;

    #[test]
    fn another_file_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        let none = Stamp::of(&path);
        assert_eq!(none, Stamp::of(&path));
        atomic::write(&path, b"one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let one = Stamp::of(&link);
        assert_ne!(one, none);
        // The same length, and within the same tick of the clock.
        atomic::write(&path, b"two").unwrap();
        assert_ne!(Stamp::of(&link), one);
        fs::remove_file(&path).unwrap();
        assert_eq!(Stamp::of(&link), none);
    }
}
