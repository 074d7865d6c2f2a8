//! Sconce serves trained image classifiers over HTTP.
//!
//! The rooms below stand in order: a room uses only rooms above it (`ARCHITECTURE.md`, held by a test).

#[cfg(feature = "failpoints")]
pub mod failpoints;
pub mod kernels;
pub mod queueing;
pub mod model;
pub mod telemetry;
pub mod preprocess;
pub mod postprocess;
pub mod registry;
pub mod store;
pub mod engine;
pub mod dataset;
pub mod batcher;
pub mod train;
pub mod evaluate;
pub mod card;
pub mod retrain;
pub mod jobs;
pub mod predict;
pub mod service;
pub mod collect;
pub mod http;
pub mod config;
pub mod app;
pub mod cli;
