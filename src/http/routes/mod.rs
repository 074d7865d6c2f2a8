//! What can be asked, one file per resource.

pub mod predict;
