//! Sets the processor to treat subnormal numbers as 0: on many processors arithmetic on them is a hundred times slower.
#![expect(unsafe_code, reason = "the control register can be reached by assembly only")]

/// Flushes subnormal results and operands to 0 on this thread; nothing on processors other than x86-64 and aarch64.
pub(super) fn flush_subnormals() {
    #[cfg(target_arch = "x86_64")]
    set_mxcsr();
    #[cfg(target_arch = "aarch64")]
    set_fpcr();
}

/// MXCSR bits FTZ (15) and DAZ (6): Intel SDM volume 1, 10.2.3.
#[cfg(target_arch = "x86_64")]
fn set_mxcsr() {
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMALS_ARE_ZERO: u32 = 1 << 6;
    let mut mxcsr: u32 = 0;
    // SAFETY: stores the 32 bits of the register into a live u32 and touches nothing else.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
    }
    mxcsr |= FLUSH_TO_ZERO | DENORMALS_ARE_ZERO;
    // SAFETY: loads the register from a live u32. The bits were read from it and only two that every x86-64 processor
    // has are set more; exceptions stay masked. They change the value of subnormal results on this thread alone, which
    // no code in this process builds a memory access on.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack, readonly));
    }
}

/// FPCR bit FZ (24), for results and operands: Arm ARM, FPCR.
#[cfg(target_arch = "aarch64")]
fn set_fpcr() {
    const FLUSH_TO_ZERO: u64 = 1 << 24;
    let mut fpcr: u64;
    // SAFETY: reads a register that user code may read.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
    }
    fpcr |= FLUSH_TO_ZERO;
    // SAFETY: writes back what was read with one bit more. It changes the value of subnormal results on this thread
    // alone, which no code in this process builds a memory access on.
    unsafe {
        std::arch::asm!("msr fpcr, {}", in(reg) fpcr, options(nomem, nostack));
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;
    use std::thread;

    use super::*;

    /// A subnormal result, and a normal result of a subnormal operand.
    fn products() -> [f32; 2] {
        let subnormal = black_box(f32::from_bits(1 << 22));
        [
            black_box(f32::MIN_POSITIVE) * black_box(0.5),
            subnormal * black_box(4.0),
        ]
    }

    #[test]
    fn subnormal_numbers_are_zero_on_a_prepared_thread_alone() {
        let prepared = thread::scope(|scope| {
            let prepared = scope.spawn(|| {
                flush_subnormals();
                products()
            });
            prepared.join().unwrap()
        });
        let other = thread::scope(|scope| scope.spawn(products).join().unwrap());
        assert_eq!(prepared, [0.0, 0.0]);
        assert!(other.iter().all(|&product| product > 0.0), "{other:?}");
    }
}
