//! The folder of one run: what it leaves for people and for itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::ModelName;
use crate::registry::atomic;
use crate::train::tensorboard::EventFile;
use crate::train::{History, curves};

use super::CliError;

/// `checkpoint.safetensors`, `history.json`, `curves.svg` and a TensorBoard event file, up to date after each epoch.
pub(super) struct RunFolder {
    path: PathBuf,
    /// Made with the first epoch, with all epochs so far.
    events: Option<EventFile>,
    /// Epochs that the event file has.
    told: usize,
}

const CHECKPOINT: &str = "checkpoint.safetensors";
const HISTORY: &str = "history.json";
const CURVES: &str = "curves.svg";

impl RunFolder {
    /// Makes the folder, `runs/NAME-TIME` where none is given. One that holds a checkpoint is an error unless the run
    /// is to go on from it; going on without a checkpoint is an error too.
    pub(super) fn open(given: Option<&Path>, model: &ModelName, resume: bool) -> Result<Self, CliError> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Path::new("runs").join(format!("{model}-{}", now.as_secs()))
            }
        };
        let folder = Self {
            path,
            events: None,
            told: 0,
        };
        match (folder.checkpoint().exists(), resume) {
            (true, false) => {
                return folder
                    .refuse("holds a checkpoint: --resume goes on from it, another --run-dir begins anew");
            }
            (false, true) => return folder.refuse("holds no checkpoint to go on from"),
            _ => {}
        }
        fs::create_dir_all(&folder.path).map_err(|e| failed(&folder.path, e))?;
        Ok(folder)
    }

    fn refuse(&self, problem: &str) -> Result<Self, CliError> {
        Err(CliError::Usage(format!("{}: {problem}", self.path.display())))
    }

    /// Where the run's state goes.
    pub(super) fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// Writes all epochs so far.
    pub(super) fn update(&mut self, history: &History, title: &ModelName) -> Result<(), CliError> {
        self.write(HISTORY, &history.json())?;
        let svg = curves::svg(history, title.as_str()).map_err(|e| CliError::Failed(e.to_string()))?;
        self.write(CURVES, svg.as_bytes())?;
        self.tell(history).map_err(|e| failed(&self.path, e))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.path.join(name);
        atomic::write(&path, bytes).map_err(|e| failed(&path, e))
    }

    fn tell(&mut self, history: &History) -> std::io::Result<()> {
        let now = SystemTime::now();
        let events = match &mut self.events {
            Some(events) => events,
            None => self.events.insert(EventFile::create(&self.path, now)?),
        };
        for record in &history.epochs[self.told..] {
            events.add(record, now)?;
            self.told += 1;
        }
        Ok(())
    }

    /// For a terminal: what lies there.
    pub(super) fn text(&self) -> String {
        format!(
            "{}: {CURVES}, {HISTORY}, TensorBoard events, {CHECKPOINT}",
            self.path.display()
        )
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("{}: {error}", path.display()))
}
