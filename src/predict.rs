//! The hot path: bytes of images to predictions.

/// The inference pipeline of every served model.
#[derive(Debug)]
pub struct Predictor {}
