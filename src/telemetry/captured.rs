//! The log's lines, for tests.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A log in memory.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// An event for each of its lines.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A log that writes into `lines` what `filter` lets through.
pub(crate) fn log_to(lines: &Lines, filter: &str) -> tracing::Dispatch {
    let lines = lines.clone();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(move || lines.clone())
        .finish()
        .into()
}

/// The events of `work` on this thread.
pub(crate) fn captured(filter: &str, work: impl FnOnce()) -> Vec<Value> {
    let lines = Lines::default();
    let log = log_to(&lines, filter);
    // While there is only one, another test's thread that meets an event first, and has no log itself, would switch it off
    // for all.
    let _another = log_to(&Lines::default(), filter);
    tracing::dispatcher::with_default(&log, work);
    lines.events()
}
