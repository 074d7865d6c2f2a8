//! Plans against candle and plain loops.

mod exact;
mod layers;
mod numbers;
mod options;
mod plans;
mod recipe;

use super::Options;
use crate::engine::options::Instructions;
use crate::kernels::Isa;

/// The defaults on one set of instructions.
fn only(isa: Isa) -> Options {
    Options {
        instructions: Instructions::Only(isa),
        ..Options::default()
    }
}
