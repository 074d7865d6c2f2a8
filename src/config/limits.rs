//! The range of every number in the configuration.

use std::ops::RangeInclusive;

use super::Config;

/// A day: longer waits are mistakes, and far longer ones overflow the clock.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;
const MAX_THREADS: u64 = 1024;
const MAX_WAITING: u64 = 1_000_000;
/// 1 TiB.
const MAX_BYTES: u64 = 1 << 40;

/// Key, value and what is possible.
type Limit = (&'static str, u64, RangeInclusive<u64>);

/// The key that is out of range, and why.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    for (key, value, range) in all(config) {
        if !range.contains(&value) {
            return Err((key, format!("{} is possible", possible(&range))));
        }
    }
    let http = &config.http;
    if http.request_timeout_ms > http.max_request_timeout_ms {
        let most = http.max_request_timeout_ms;
        let problem = format!("more than http.max_request_timeout_ms, which is {most}");
        return Err(("http.request_timeout_ms", problem));
    }
    if config.models.as_os_str().is_empty() {
        return Err(("models", "a folder is expected".to_owned()));
    }
    let filter = config.log.check().map_err(|e| e.to_string());
    filter.map_err(|problem| {
        (
            "log.filter",
            problem.trim_start_matches("log.filter: ").to_owned(),
        )
    })
}

/// A range as errors and `config/default.toml` tell it.
pub(super) fn possible(range: &RangeInclusive<u64>) -> String {
    format!("{} to {}", range.start(), range.end())
}

/// Every number of the configuration, room by room.
pub(super) fn all(config: &Config) -> Vec<Limit> {
    let mut limits = edge(config).to_vec();
    let Config {
        images,
        decode,
        batcher,
        engine,
        ..
    } = config;
    limits.extend([
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
        ("batcher.max_batch_size", batcher.max_batch_size as u64, 1..=4096),
        ("batcher.max_delay_us", batcher.max_delay_us, 0..=1_000_000),
        ("batcher.max_queue", batcher.max_queue as u64, 1..=MAX_WAITING),
        ("engine.instances", engine.instances as u64, 0..=MAX_THREADS),
    ]);
    limits
}

fn edge(config: &Config) -> [Limit; 11] {
    let http = &config.http;
    [
        ("http.threads", http.threads as u64, 0..=MAX_THREADS),
        ("http.max_body_bytes", http.max_body_bytes as u64, 1..=MAX_BYTES),
        ("http.max_images", http.max_images as u64, 1..=10_000),
        (
            "http.max_connections",
            http.max_connections as u64,
            1..=MAX_WAITING,
        ),
        ("http.header_timeout_ms", http.header_timeout_ms, 1..=MAX_MS),
        ("http.body_timeout_ms", http.body_timeout_ms, 1..=MAX_MS),
        ("http.request_timeout_ms", http.request_timeout_ms, 1..=MAX_MS),
        (
            "http.max_request_timeout_ms",
            http.max_request_timeout_ms,
            1..=MAX_MS,
        ),
        ("http.default_top_k", http.default_top_k as u64, 1..=10_000),
        ("http.drain_delay_ms", http.drain_delay_ms, 0..=MAX_MS),
        ("http.drain_timeout_ms", http.drain_timeout_ms, 0..=MAX_MS),
    ]
}
