//! Four lanes without instructions of their own; the compiler finds those of its target.

use super::Vector;
use crate::kernels::isa::{Isa, Kind};

/// Four `f32`.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(in crate::kernels) struct F32x4([f32; 4]);

// Lane by lane, as `array::from_fn` and `map` are not always inlined, which costs a factor of fifty.
impl F32x4 {
    #[inline(always)]
    fn each(self, f: impl Fn(f32) -> f32) -> Self {
        let [x0, x1, x2, x3] = self.0;
        Self([f(x0), f(x1), f(x2), f(x3)])
    }

    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (self.0, b.0);
        Self([f(a0, b0), f(a1, b1), f(a2, b2), f(a3, b3)])
    }
}

impl Vector for F32x4 {
    const ISA: Isa = Isa(Kind::Portable);
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the address.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for the address.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // Two roundings: without the instruction, a single one is a slow call.
        self.mul(b).add(c)
    }

    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        self.zip(bound, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        self.zip(bound, |a, b| if b < a { b } else { a })
    }

    #[inline(always)]
    fn exp2_whole(self) -> Self {
        self.each(|x| f32::from_bits(((x + 127.0) as u32) << 23))
    }

    #[inline(always)]
    fn round(self) -> Self {
        // Adding 1.5·2²³ leaves no bit for the fraction.
        const MAGIC: f32 = 12_582_912.0;
        self.each(|x| (x + MAGIC) - MAGIC)
    }
}
