//! The range of every number in the configuration.

use std::ops::RangeInclusive;
use std::path::Path;

use super::Config;

const MAX_THREADS: u64 = 1024;
const MAX_WAITING: u64 = 1_000_000;
/// 1 TiB.
const MAX_BYTES: u64 = 1 << 40;

/// A day.
const MAX_POLL_MS: u64 = 86_400_000;

/// Key, value and what is possible.
type Limit = (&'static str, u64, RangeInclusive<u64>);

/// The key that is out of range, and why.
pub(super) fn check(config: &Config) -> Result<(), (String, String)> {
    for (key, value, range) in limits(config) {
        if !range.contains(&value) {
            let problem = format!("{} to {} is possible", range.start(), range.end());
            return Err((key.to_owned(), problem));
        }
    }
    if config.models.as_os_str().is_empty() {
        return Err(("models".to_owned(), "a folder is expected".to_owned()));
    }
    for (key, folder) in [
        ("engine.cache", &config.engine.cache),
        ("store.folder", &config.store.folder),
    ] {
        if lies_within(folder, &config.models) {
            let problem = "a folder outside that of the models is expected, which holds models alone";
            return Err((key.to_owned(), problem.to_owned()));
        }
    }
    let store = config.store.check();
    store.map_err(|text| key_and_problem(&format!("store.{text}")))?;
    let jobs = config.jobs.check();
    jobs.map_err(|text| key_and_problem(&format!("jobs.{text}")))?;
    config.http.check().map_err(|text| key_and_problem(&text))?;
    let admin = config.admin.check(&config.http);
    admin.map_err(|text| key_and_problem(&format!("admin.{text}")))?;
    let auth = config.auth.check();
    auth.map_err(|text| key_and_problem(&format!("auth.{text}")))?;
    config.engine.check().map_err(|text| key_and_problem(&text))?;
    let sections = [
        ("store", config.store.check()),
        ("retrain", config.retrain.check()),
        ("gate", config.gate.check()),
        ("intake", config.intake.check()),
    ];
    for (section, checked) in sections {
        checked.map_err(|text| key_and_problem(&format!("{section}.{text}")))?;
    }
    let log = config.log.check();
    log.map_err(|error| key_and_problem(&error.to_string()))
}

/// By their names: whether `folder`, if any, is `around` or in it.
fn lies_within(folder: &Path, around: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    match (absolute(folder), absolute(around)) {
        (Some(folder), Some(around)) => folder.starts_with(around),
        // An empty path is no folder.
        _ => false,
    }
}

/// Of `key: problem` or `key: value; problem`, as rooms that check themselves say it.
fn key_and_problem(text: &str) -> (String, String) {
    let (key, problem) = text.split_once(": ").unwrap_or(("", text));
    let problem = problem.split_once("; ").map_or(problem, |(_, problem)| problem);
    (key.to_owned(), problem.to_owned())
}

/// The numbers of the rooms that have no check of their own.
fn limits(config: &Config) -> [Limit; 22] {
    let Config {
        images,
        decode,
        batcher,
        answers,
        engine,
        service,
        store,
        ..
    } = config;
    [
        ("images.max_side", u64::from(images.max_side), 1..=65_535),
        ("images.max_pixels", images.max_pixels, 1..=u64::from(u32::MAX)),
        ("images.max_alloc_bytes", images.max_alloc_bytes, 1..=MAX_BYTES),
        ("decode.threads", decode.threads as u64, 0..=MAX_THREADS),
        ("decode.max_queue", decode.max_queue as u64, 1..=MAX_WAITING),
        (
            "decode.max_in_flight_bytes",
            decode.max_in_flight_bytes,
            1..=MAX_BYTES,
        ),
        ("decode.ageing_ms", decode.ageing_ms, 1..=MAX_POLL_MS),
        ("batcher.max_batch_size", batcher.max_batch_size as u64, 0..=4096),
        ("batcher.max_delay_us", batcher.max_delay_us, 0..=1_000_000),
        ("batcher.max_queue", batcher.max_queue as u64, 1..=MAX_WAITING),
        ("batcher.ageing_ms", batcher.ageing_ms, 1..=MAX_POLL_MS),
        ("batcher.max_lost_ms", batcher.max_lost_ms, 0..=MAX_POLL_MS),
        ("answers.cache_bytes", answers.cache_bytes as u64, 0..=MAX_BYTES),
        ("engine.instances", engine.instances as u64, 0..=MAX_THREADS),
        ("engine.threads", engine.threads as u64, 0..=MAX_THREADS),
        ("engine.tune_ms", engine.tune_ms, 0..=5000),
        ("service.poll_ms", service.poll_ms, 0..=MAX_POLL_MS),
        ("service.max_queue", service.max_queue as u64, 1..=10_000),
        ("store.retention_days", u64::from(store.retention_days), 1..=3650),
        (
            "store.max_labels_per_source_per_day",
            u64::from(store.max_labels_per_source_per_day),
            1..=1_000_000_000,
        ),
        ("store.max_queue", store.max_queue as u64, 1..=MAX_WAITING),
        (
            "store.max_queue_bytes",
            store.max_queue_bytes as u64,
            1..=MAX_BYTES,
        ),
    ]
}
