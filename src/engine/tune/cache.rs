//! Timings kept on disk: a file for each network on each kind of machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Timing, Timings};
use crate::engine::machine::cpu_name;
use crate::engine::{Options, available_cores};
use crate::registry::{Loaded, atomic, sha256};

/// What timings depend on. Those of another key say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Sconce's version.
    pub sconce: String,
    /// The weights file's, lower-case hex.
    pub weights_sha256: String,
    /// Its name.
    pub architecture: String,
    /// C×H×W.
    pub input: String,
    /// For one image.
    pub flops: u64,
    /// The processor's name.
    pub cpu: String,
    /// The vector instructions of the kernels.
    pub instructions: String,
    /// Whether convolutions may take Winograd's way.
    pub winograd: bool,
    /// That this process may use.
    pub cores: usize,
}

/// A folder of timings, or none.
#[derive(Clone, Debug)]
pub struct Cache(Option<PathBuf>);

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    format: u32,
    key: Key,
    timings: Timings,
}

/// Read on its own, since other formats may have other fields.
#[derive(Debug, Deserialize)]
struct Format {
    format: u32,
}

const FORMAT: u32 = 1;
/// Some hundred timings are a tenth of it.
const MAX_FILE_BYTES: u64 = 256 << 10;

impl Key {
    /// Of a version on this machine.
    pub fn of(loaded: &Loaded, options: &Options) -> Self {
        let input = loaded.graph.input;
        Self {
            sconce: env!("CARGO_PKG_VERSION").to_owned(),
            weights_sha256: loaded.manifest.weights.sha256.clone(),
            architecture: loaded.spec.architecture.clone(),
            input: format!("{}×{}×{}", input.channels, input.height, input.width),
            flops: loaded.graph.flops(),
            cpu: cpu_name(),
            instructions: options.instructions.isa().to_string(),
            winograd: options.winograd,
            cores: available_cores(),
        }
    }

    fn file(&self) -> String {
        let text = serde_json::to_vec(self).expect("a struct of texts and numbers");
        format!("tune-{}.json", &sha256(&text)[..32])
    }
}

impl Cache {
    /// In `folder`, which need not exist; an empty path is no cache.
    pub fn new(folder: &Path) -> Self {
        let is_folder = !folder.as_os_str().is_empty();
        Self(is_folder.then(|| folder.to_owned()))
    }

    /// The timings of this key. A file that is not right is logged and passed over.
    pub fn read(&self, key: &Key) -> Option<Timings> {
        let path = self.0.as_ref()?.join(key.file());
        read(&path, key).unwrap_or_else(|problem| {
            tracing::warn!(path = %path.display(), problem, "kept timings are passed over");
            None
        })
    }

    /// Keeps timings in place of earlier ones; tells where. `None` where there is no cache.
    pub fn write(&self, key: &Key, timings: &Timings) -> io::Result<Option<PathBuf>> {
        let Some(folder) = &self.0 else {
            return Ok(None);
        };
        let entry = Entry {
            format: FORMAT,
            key: key.clone(),
            timings: timings.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&entry)?;
        text.push(b'\n');
        let path = std::path::absolute(folder)?.join(key.file());
        fs::create_dir_all(folder)?;
        atomic::write(&path, &text)?;
        Ok(Some(path))
    }
}

/// `None` where there is no file; else why it is not right.
fn read(path: &Path, key: &Key) -> Result<Option<Timings>, String> {
    let mut text = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| e.to_string())?,
    };
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    let Format { format } = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if format != FORMAT {
        return Err(format!("it has format {format}; {FORMAT} is read"));
    }
    let Entry {
        key: found, timings, ..
    } = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if found != *key {
        return Err("it is of another network or another machine".to_owned());
    }
    // JSON holds no infinity and no NaN.
    let is_sound = |point: &Timing| point.batch > 0 && point.seconds > 0.0 && point.spread >= 0.0;
    if !timings.points.iter().all(is_sound) {
        return Err("a batch, a time or a spread in it is below what can be".to_owned());
    }
    Ok(Some(timings))
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::*;

    fn key() -> Key {
        Key {
            sconce: "0".to_owned(),
            weights_sha256: "a".repeat(64),
            architecture: "small-cnn".to_owned(),
            input: "1×8×8".to_owned(),
            flops: 5,
            cpu: "Processor".to_owned(),
            instructions: "portable".to_owned(),
            winograd: true,
            cores: 2,
        }
    }

    fn timings() -> Timings {
        let point = |batch, seconds| Timing {
            split: Split {
                instances: 2,
                threads: 1,
            },
            batch,
            seconds,
            spread: 0.01,
        };
        Timings {
            max_batch: 2,
            points: vec![point(1, 0.1), point(2, 0.15)],
        }
    }

    #[test]
    fn what_is_kept_is_found_again_by_the_same_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(&folder.path().join("deep/cache"));
        assert_eq!(cache.read(&key()), None);
        let path = cache.write(&key(), &timings()).unwrap().unwrap();
        assert!(path.is_file());
        assert_eq!(cache.read(&key()), Some(timings()));
        let other = |change: fn(&mut Key)| {
            let mut key = key();
            change(&mut key);
            assert_eq!(cache.read(&key), None, "{key:?}");
        };
        other(|key| key.weights_sha256.replace_range(..1, "b"));
        other(|key| "1×9×8".clone_into(&mut key.input));
        other(|key| "Other".clone_into(&mut key.cpu));
        other(|key| "avx2".clone_into(&mut key.instructions));
        other(|key| key.winograd = false);
        other(|key| key.cores = 3);
        other(|key| "1".clone_into(&mut key.sconce));
    }

    #[test]
    fn a_file_that_is_not_right_is_passed_over_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let path = cache.write(&key(), &timings()).unwrap().unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let check = |text: &str, part: &str| {
            atomic::write(&path, text.as_bytes()).unwrap();
            let problem = read(&path, &key()).unwrap_err();
            assert!(problem.contains(part), "'{part}' is not in: {problem}");
            assert_eq!(cache.read(&key()), None);
        };
        check("", "EOF");
        check(&whole[..whole.len() / 2], "EOF");
        check(
            &whole.replace("\"format\": 1", "\"format\": 2"),
            "format 2; 1 is read",
        );
        check("{\"format\": 2, \"new\": []}", "format 2");
        check(&whole.replace("Processor", "Other"), "another machine");
        check(&whole.replace("0.15", "-0.15"), "below what can be");
        check(&whole.replace("0.01", "-0.01"), "below what can be");
        check(&whole.replace("0.15", "\"x\""), "invalid type");
        check(&" ".repeat(300_000), "larger than");
        cache.write(&key(), &timings()).unwrap();
        assert_eq!(cache.read(&key()), Some(timings()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_and_no_folder_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        atomic::write(&file, b"").unwrap();
        let cache = Cache::new(&file.join("cache"));
        assert!(cache.write(&key(), &timings()).is_err());
        assert_eq!(cache.read(&key()), None);
        let none = Cache::new(Path::new(""));
        assert_eq!(none.write(&key(), &timings()).unwrap(), None);
        assert_eq!(none.read(&key()), None);
    }
}
