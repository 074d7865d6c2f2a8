//! The composition root: builds the rooms, spawns the threads, drains.

use crate::config::Config;

/// Why the server did not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A model cannot be served.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// The device or a plan.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// A port, thread or signal handler.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// There is nothing to serve, or the default model does not exist.
    #[error("{0}")]
    Models(String),
}

/// Serves until SIGTERM or SIGINT, then drains.
pub fn serve(_config: &Config) -> Result<(), AppError> {
    todo!()
}
