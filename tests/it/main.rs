//! The integration tests: one binary.
#![expect(
    clippy::unwrap_used,
    reason = "these are tests; the lint spares only functions marked as such"
)]

mod admin;
mod allocation;
mod answers;
mod architecture;
mod bench_load;
mod bench_overload;
mod bombs;
mod contract;
#[cfg(target_os = "linux")]
mod crash;
mod doctor;
mod feedback;
mod gate;
mod http;
mod import;
mod live;
mod mutations;
mod jobs;
mod keys;
mod openapi;
mod public_architectures;
mod preprocess;
mod promote;
mod retrain;
mod serve;
mod server;
mod shipped;
mod slow_peers;
mod tls;
mod torch;
