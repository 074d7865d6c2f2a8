//! The log's lines, for tests.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A log in memory.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

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
    /// What was written so far, an event each.
    pub(super) fn events(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A log that writes into `lines` what `filter` lets through.
pub(super) fn log_to(lines: &Lines, filter: &str) -> tracing::Dispatch {
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
pub(super) fn captured(filter: &str, work: impl FnOnce()) -> Vec<Value> {
    let lines = Lines::default();
    let log = log_to(&lines, filter);
    // While there is only one, another test's thread that meets an event first, and has no log itself, would switch it off
    // for all.
    let _another = log_to(&Lines::default(), filter);
    tracing::dispatcher::with_default(&log, work);
    lines.events()
}
