//! A vector of `f32`, written once for every kernel and compiled for each set of instructions.

use super::isa::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::F32x8;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::F32x16;
pub(super) use portable::F32x4;

/// [`Vector::LANES`] numbers in a register.
///
/// A value is made only by an unsafe function, whose caller vouches that the processor has the instructions; the other
/// methods rest on that. Kernels are generic, inlined whole into a function with the right `target_feature`
/// ([`dispatch`]), so that every method becomes one instruction.
pub(super) trait Vector: Copy {
    /// Its instructions.
    const ISA: Isa;
    /// Numbers in it.
    const LANES: usize;

    /// Every lane `x`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn splat(x: f32) -> Self;
    /// Lanes from `from` on, of any alignment.
    ///
    /// # Safety
    /// The processor has the instructions, and `from` is valid for reads of all lanes.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes the lanes to `to`, of any alignment.
    ///
    /// # Safety
    /// `to` is valid for writes of all lanes.
    unsafe fn store(self, to: *mut f32);
    /// self + b
    fn add(self, b: Self) -> Self;
    /// self − b
    fn sub(self, b: Self) -> Self;
    /// self · b
    fn mul(self, b: Self) -> Self;
    /// self / b
    fn div(self, b: Self) -> Self;
    /// self · b + c, rounded once where the processor can.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The larger; `self` where it is NaN, so that NaN is not hidden behind a bound.
    fn at_least(self, bound: Self) -> Self;
    /// The smaller; `self` where it is NaN.
    fn at_most(self, bound: Self) -> Self;
    /// 2^self for whole numbers from −126 to 127; −127 gives 0 and 128 ∞.
    fn exp2_whole(self) -> Self;
    /// The nearest whole number, ties to even, for |self| below 2²².
    fn round(self) -> Self;
}

/// Defines a function that runs the generic `$kernel::<V>` of its arguments with the vectors of `isa`.
macro_rules! dispatch {
    ($(#[$doc:meta])* $visibility:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $kernel:ident) => {
        $(#[$doc])*
        $visibility unsafe fn $name(isa: $crate::kernels::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
            unsafe fn avx512($($arg: $type),*) {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::kernels::vector::F32x16>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $type),*) {
                // SAFETY: the caller's.
                unsafe { $kernel::<$crate::kernels::vector::F32x8>($($arg),*) }
            }
            match isa.0 {
                // SAFETY: an Isa is made only where the processor has it; the rest is the caller's.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::isa::Kind::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::isa::Kind::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: the caller's.
                $crate::kernels::isa::Kind::Portable => unsafe {
                    $kernel::<$crate::kernels::vector::F32x4>($($arg),*)
                },
            }
        }
    };
}
pub(super) use dispatch;

#[cfg(test)]
mod tests;
