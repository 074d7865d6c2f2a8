//! Four lanes that every processor of the target has: SSE2 on x86-64, NEON on aarch64, plain numbers elsewhere.

use super::Vector;
use crate::kernels::Isa;

#[cfg(target_arch = "aarch64")]
use neon as lanes;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use plain as lanes;
#[cfg(target_arch = "x86_64")]
use sse2 as lanes;

/// Four `f32`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct F32x4(lanes::Register);

impl F32x4 {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut numbers = [0.0; 4];
        // SAFETY: four numbers each.
        unsafe {
            self.store(numbers.as_mut_ptr());
            Self::load(numbers.map(f).as_ptr())
        }
    }
}

impl Vector for F32x4 {
    const LANES: usize = 4;
    const ISA: Isa = Isa::PORTABLE;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(lanes::splat(x))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the address.
        Self(unsafe { lanes::load(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for the address.
        unsafe { lanes::store(to, self.0) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(lanes::add(self.0, b.0))
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self(lanes::sub(self.0, b.0))
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(lanes::mul(self.0, b.0))
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Self(lanes::div(self.0, b.0))
    }

    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(lanes::fma(self.0, b.0, c.0))
    }

    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        Self(lanes::at_least(self.0, bound.0))
    }

    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        Self(lanes::at_most(self.0, bound.0))
    }

    #[inline(always)]
    fn exp2_whole(self) -> Self {
        self.map(|x| f32::from_bits(((x + 127.0) as u32) << 23))
    }

    #[inline(always)]
    fn round(self) -> Self {
        // Adding 1.5·2²³ leaves no bit for the fraction.
        const MAGIC: f32 = 12_582_912.0;
        // SAFETY: every processor has these lanes.
        let magic = unsafe { Self::splat(MAGIC) };
        self.add(magic).sub(magic)
    }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64 as x86;

    pub(super) type Register = x86::__m128;

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Register {
        // SAFETY: every x86-64 has SSE2. So below.
        unsafe { x86::_mm_set1_ps(x) }
    }

    #[inline(always)]
    pub(super) unsafe fn load(from: *const f32) -> Register {
        // SAFETY: the caller vouches for the address.
        unsafe { x86::_mm_loadu_ps(from) }
    }

    #[inline(always)]
    pub(super) unsafe fn store(to: *mut f32, x: Register) {
        // SAFETY: the caller vouches for the address.
        unsafe { x86::_mm_storeu_ps(to, x) }
    }

    #[inline(always)]
    pub(super) fn add(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_add_ps(a, b) }
    }

    #[inline(always)]
    pub(super) fn sub(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_sub_ps(a, b) }
    }

    #[inline(always)]
    pub(super) fn mul(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_mul_ps(a, b) }
    }

    #[inline(always)]
    pub(super) fn div(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_div_ps(a, b) }
    }

    /// Two roundings: SSE2 has no fused instruction.
    #[inline(always)]
    pub(super) fn fma(a: Register, b: Register, c: Register) -> Register {
        add(mul(a, b), c)
    }

    /// Where one operand is NaN, the instruction gives the second.
    #[inline(always)]
    pub(super) fn at_least(x: Register, bound: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_max_ps(bound, x) }
    }

    /// Where one operand is NaN, the instruction gives the second.
    #[inline(always)]
    pub(super) fn at_most(x: Register, bound: Register) -> Register {
        // SAFETY: as above.
        unsafe { x86::_mm_min_ps(bound, x) }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64 as arm;

    pub(super) type Register = arm::float32x4_t;

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Register {
        // SAFETY: every aarch64 target of Rust with an operating system has NEON. So below.
        unsafe { arm::vdupq_n_f32(x) }
    }

    #[inline(always)]
    pub(super) unsafe fn load(from: *const f32) -> Register {
        // SAFETY: the caller vouches for the address.
        unsafe { arm::vld1q_f32(from) }
    }

    #[inline(always)]
    pub(super) unsafe fn store(to: *mut f32, x: Register) {
        // SAFETY: the caller vouches for the address.
        unsafe { arm::vst1q_f32(to, x) }
    }

    #[inline(always)]
    pub(super) fn add(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vaddq_f32(a, b) }
    }

    #[inline(always)]
    pub(super) fn sub(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vsubq_f32(a, b) }
    }

    #[inline(always)]
    pub(super) fn mul(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vmulq_f32(a, b) }
    }

    #[inline(always)]
    pub(super) fn div(a: Register, b: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vdivq_f32(a, b) }
    }

    #[inline(always)]
    pub(super) fn fma(a: Register, b: Register, c: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vfmaq_f32(c, a, b) }
    }

    /// Compared and chosen: the instruction for it gives NaN where the bound is NaN, unlike x86-64's.
    #[inline(always)]
    pub(super) fn at_least(x: Register, bound: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vbslq_f32(arm::vcgtq_f32(bound, x), bound, x) }
    }

    /// As above.
    #[inline(always)]
    pub(super) fn at_most(x: Register, bound: Register) -> Register {
        // SAFETY: as above.
        unsafe { arm::vbslq_f32(arm::vcltq_f32(bound, x), bound, x) }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod plain {
    pub(super) type Register = [f32; 4];

    #[inline(always)]
    fn zip(a: Register, b: Register, f: impl Fn(f32, f32) -> f32) -> Register {
        std::array::from_fn(|i| f(a[i], b[i]))
    }

    #[inline(always)]
    pub(super) fn splat(x: f32) -> Register {
        [x; 4]
    }

    #[inline(always)]
    pub(super) unsafe fn load(from: *const f32) -> Register {
        // SAFETY: the caller vouches for the address.
        unsafe { from.cast::<Register>().read_unaligned() }
    }

    #[inline(always)]
    pub(super) unsafe fn store(to: *mut f32, x: Register) {
        // SAFETY: the caller vouches for the address.
        unsafe { to.cast::<Register>().write_unaligned(x) }
    }

    #[inline(always)]
    pub(super) fn add(a: Register, b: Register) -> Register {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    pub(super) fn sub(a: Register, b: Register) -> Register {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    pub(super) fn mul(a: Register, b: Register) -> Register {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    pub(super) fn div(a: Register, b: Register) -> Register {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    pub(super) fn fma(a: Register, b: Register, c: Register) -> Register {
        add(mul(a, b), c)
    }

    #[inline(always)]
    pub(super) fn at_least(x: Register, bound: Register) -> Register {
        zip(x, bound, |x, bound| if bound > x { bound } else { x })
    }

    #[inline(always)]
    pub(super) fn at_most(x: Register, bound: Register) -> Register {
        zip(x, bound, |x, bound| if bound < x { bound } else { x })
    }
}
