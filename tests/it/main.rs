//! The integration tests: one binary.

mod contract;
mod http;
mod openapi;
