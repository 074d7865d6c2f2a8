//! A run's folder: what it set out to do, and how far it came.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::dataset::hex;
use crate::model::Version;
use crate::registry::atomic;
use crate::store::{Digest, Example, Learner};

use super::{Request, RequestError, RetrainError};

/// The folder, held against a second run until it is dropped.
pub(super) struct Work {
    folder: PathBuf,
    /// What a run before this one set out to do here.
    pub(super) plan: Option<Plan>,
    /// The system frees a dead holder's lock.
    _lock: File,
}

/// What a run set out to do: written before the first epoch, so that whoever goes on does the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    format: u32,
    /// Tells the run's version from every other's: it stands in the manifest.
    pub(super) run: String,
    request: Request,
    /// The version whose weights it begins from.
    pub(super) parent: Option<Version>,
    /// sha256 and class of each image of the store that it learns from or holds out.
    pub(super) examples: Vec<(String, u32)>,
    /// Of all images that it trains and validates on.
    pub(super) data: String,
}

/// A run with the images of the store that it trains on.
pub(super) struct Learning {
    pub(super) learner: Learner,
    pub(super) images: Vec<Digest>,
}

const FORMAT: u32 = 1;
const PLAN: &str = "run.json";
const CHECKPOINT: &str = "checkpoint.safetensors";
const LOCK: &str = "lock";
/// Some millions of images.
const MAX_PLAN_BYTES: u64 = 1 << 30;

impl Plan {
    /// A new run's; no two runs have the same `run`.
    pub(super) fn new(
        request: &Request,
        parent: Option<Version>,
        examples: &[Example],
        data: String,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unique = format!("{data} {} {}", now.as_nanos(), std::process::id());
        Self {
            format: FORMAT,
            run: hex(&Sha256::digest(unique)[..8]),
            request: request.clone(),
            parent,
            examples: examples.iter().map(key).collect(),
            data,
        }
    }

    /// Those of `examples` that this run set out with.
    pub(super) fn known(&self, examples: Vec<Example>) -> Vec<Example> {
        let keys: std::collections::HashSet<_> = self.examples.iter().collect();
        let known = |example: &Example| keys.contains(&key(example));
        examples.into_iter().filter(known).collect()
    }

    /// As the store knows it.
    pub(super) fn learning(&self) -> Result<Learning, RetrainError> {
        let all = self.examples.iter().map(|(sha256, _)| sha256.parse::<Digest>());
        let all: Vec<Digest> = all.collect::<Result<_, _>>()?;
        let is_trained = |sha256: &Digest| !crate::dataset::is_held_out(sha256.bytes());
        let (model, run) = (self.request.model.clone(), self.run.parse()?);
        Ok(Learning {
            learner: Learner { model, run },
            images: all.into_iter().filter(is_trained).collect(),
        })
    }
}

fn key(example: &Example) -> (String, u32) {
    (example.sha256.to_string(), example.label)
}

impl Work {
    /// Makes the folder where it is missing, and reads what a run before left there.
    pub(super) fn open(folder: &Path, request: &Request) -> Result<Self, RetrainError> {
        fs::create_dir_all(folder).map_err(|error| RetrainError::folder(folder, error))?;
        // A relative path has no parent in which a file could be written beside it.
        let folder = std::path::absolute(folder).map_err(|error| RetrainError::folder(folder, error))?;
        let lock = lock(&folder)?;
        let plan = read(&folder.join(PLAN))?;
        if plan.as_ref().is_some_and(|plan| plan.request != *request) {
            let problem = format!(
                "{} belongs to a run that was asked for otherwise",
                folder.display()
            );
            let key = "work";
            return Err(RequestError { key, problem }.into());
        }
        Ok(Self {
            folder,
            plan,
            _lock: lock,
        })
    }

    /// Begins anew by a plan.
    pub(super) fn begin(&mut self, plan: Plan) -> Result<(), RetrainError> {
        let checkpoint = self.checkpoint();
        match fs::remove_file(&checkpoint) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(RetrainError::folder(&checkpoint, error));
            }
            _ => {}
        }
        let path = self.folder.join(PLAN);
        let bytes = serde_json::to_vec(&plan).expect("a plan has string keys and plain values");
        atomic::write(&path, &bytes).map_err(|error| RetrainError::folder(&path, error))?;
        self.plan = Some(plan);
        Ok(())
    }

    /// Where the training's state goes.
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.folder.join(CHECKPOINT)
    }
}

fn lock(folder: &Path) -> Result<File, RetrainError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|error| RetrainError::folder(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RetrainError::Held(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(RetrainError::folder(&path, error)),
    }
}

fn read(path: &Path) -> Result<Option<Plan>, RetrainError> {
    let failed = |error| RetrainError::folder(path, error);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_PLAN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?;
    if plan.format != FORMAT {
        let problem = format!("has format {}; {FORMAT} is read", plan.format);
        return Err(failed(io::Error::other(problem)));
    }
    Ok(Some(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(seed: u64) -> Request {
        Request {
            seed,
            ..Request::new("digits".parse().unwrap())
        }
    }

    fn example(image: &str) -> Example {
        Example {
            sha256: Digest::of(image.as_bytes()),
            label: 1,
            source: "s".parse().unwrap(),
            at_ms: 0,
        }
    }

    #[test]
    fn whoever_comes_again_finds_the_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let mut work = Work::open(&path, &request(1)).unwrap();
        assert_eq!(work.plan, None);
        let examples = ["A", "B", "C"].map(example);
        let plan = Plan::new(&request(1), Some(Version::FIRST), &examples, "d".to_owned());
        work.begin(plan.clone()).unwrap();
        assert!(matches!(
            Work::open(&path, &request(1)),
            Err(RetrainError::Held(_))
        ));
        drop(work);
        let again = Work::open(&path, &request(1)).unwrap();
        assert_eq!(again.plan.as_ref(), Some(&plan));
        let known = plan.known(vec![example("B"), example("D")]);
        assert_eq!(known, [example("B")]);
        let held_out = |sha256: &Digest| crate::dataset::is_held_out(sha256.bytes());
        let trained: Vec<Digest> = examples
            .iter()
            .map(|e| e.sha256)
            .filter(|d| !held_out(d))
            .collect();
        assert_eq!(plan.learning().unwrap().images, trained);
        drop(again);
        let other = Work::open(&path, &request(2)).err().unwrap();
        assert!(matches!(other, RetrainError::Request(_)), "{other}");
    }

    #[test]
    fn a_new_plan_takes_the_checkpoint_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut work = Work::open(folder.path(), &request(1)).unwrap();
        atomic::write(&work.checkpoint(), b"old").unwrap();
        let plan = |examples: &[Example]| Plan::new(&request(1), None, examples, String::new());
        let (first, second) = (plan(&[]), plan(&[]));
        assert_ne!(first.run, second.run);
        work.begin(first).unwrap();
        assert!(!work.checkpoint().exists());
    }
}
