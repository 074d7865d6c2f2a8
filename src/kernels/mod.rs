//! Loops over `f32` slices in the widest vectors this processor has. Maps lie channels-last (NHWC), each pixel's channels
//! padded to whole vectors.
#![expect(
    unsafe_code,
    reason = "vector instructions and unchecked loads; nowhere else is it allowed"
)]

mod activation;
mod aligned;
mod batch;
mod conv;
mod depthwise;
mod elementwise;
mod first;
mod isa;
mod layout;
mod map;
mod norm;
mod output;
mod peak;
mod pool;
#[cfg(test)]
mod reference;
mod task;
mod team;
mod tile;
mod vector;
mod view;
mod windows;
mod winograd;

#[cfg(test)]
mod testing;

use batch::Batch;
use output::{Output, Part};
#[cfg(test)]
use view::Target;

pub use activation::Activation;
pub use aligned::Aligned;
pub use conv::{Conv, Filters, Job, MAX_TAPS};
pub use depthwise::Depthwise;
pub use elementwise::Affine;
pub use first::{First, Image};
pub use isa::Isa;
pub use layout::Planes;
pub use map::Map;
pub use norm::LayerNorm;
pub use peak::{fma_burst, read_sum};
pub use task::{Kernel, Task};
pub use team::{Alone, Team};
pub use view::Source;
pub use windows::Windows;
pub use winograd::{Square, Winograd};
