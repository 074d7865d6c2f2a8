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
mod tile;
mod vector;
mod view;
mod windows;
mod winograd;

#[cfg(test)]
mod testing;

pub use activation::{Activation, activate};
pub use aligned::Aligned;
pub use batch::Batch;
pub use conv::{Conv, Filters, Job, MAX_TAPS};
pub use depthwise::Depthwise;
pub use elementwise::{Affine, add, add_in_place, multiply, multiply_in_place};
pub use first::{First, Image};
pub use isa::Isa;
pub use layout::{Planes, copy_channels, from_planes, pad, to_planes};
pub use map::Map;
pub use norm::LayerNorm;
pub use output::{Output, Part};
pub use peak::{fma_burst, read_sum};
pub use pool::{avg_pool, global_avg_pool, max_pool};
pub use view::{Source, Target};
pub use windows::Windows;
pub use winograd::{Square, Winograd};
