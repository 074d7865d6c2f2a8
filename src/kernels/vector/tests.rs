//! Each vector's methods against the scalar ones.

use super::*;
use crate::kernels::Isa;

const VALUES: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.5,
    3.5,
    -2.5,
    1e-30,
    -7.25,
    100.0,
    -126.0,
    127.0,
    0.49,
    1e6,
    f32::NAN,
    -200.0,
];

/// Rows of results, one for each method, of the `LANES` values at `x` and `y`.
#[inline(always)]
unsafe fn methods<V: Vector>(x: *const f32, y: *const f32, to: *mut f32) {
    // SAFETY: the caller's: 16 numbers at each, and 9 rows of 16 at `to`.
    unsafe {
        let mut from = 0;
        while from < 16 {
            let (a, b) = (V::load(x.add(from)), V::load(y.add(from)));
            let all = [
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.div(b),
                a.fma(b, V::splat(0.5)),
                a.at_least(b),
                a.at_most(b),
                a.round(),
                a.at_least(V::splat(-127.0))
                    .at_most(V::splat(128.0))
                    .round()
                    .exp2_whole(),
            ];
            for (row, value) in all.into_iter().enumerate() {
                value.store(to.add(16 * row + from));
            }
            from += V::LANES;
        }
    }
}

dispatch! {
    unsafe fn run(x: *const f32, y: *const f32, to: *mut f32) = methods
}

#[test]
fn methods_equal_the_scalar_ones_at_every_alignment() {
    let scalar: [fn(f32, f32) -> f32; 8] = [
        |a, b| a + b,
        |a, b| a - b,
        |a, b| a * b,
        |a, b| a / b,
        |a, b| a.mul_add(b, 0.5),
        |a, b| if b > a { b } else { a },
        |a, b| if b < a { b } else { a },
        |a, _| if a.abs() < 4e6 { a.round_ties_even() } else { a },
    ];
    for isa in Isa::available() {
        for shift in 0..4 {
            let mut x = vec![0.0; shift];
            x.extend(VALUES);
            let mut y = vec![0.0; shift];
            y.extend(VALUES.iter().rev());
            let mut to = vec![0.0f32; 9 * 16];
            // SAFETY: 16 numbers lie behind the shift in each.
            unsafe { run(isa, x[shift..].as_ptr(), y[shift..].as_ptr(), to.as_mut_ptr()) };
            for (row, f) in scalar.iter().enumerate() {
                for i in 0..16 {
                    let (a, b) = (x[shift + i], y[shift + i]);
                    let (found, expected) = (to[16 * row + i], f(a, b));
                    let same = found == expected || found.is_nan() && expected.is_nan();
                    let near = (found - expected).abs() <= 1e-6 * expected.abs();
                    assert!(same || near, "{isa} row {row}: {a} {b}: {found} {expected}");
                }
            }
            for i in (0..16).filter(|&i| VALUES[i].is_finite()) {
                // By its bits: Miri's exp2 is deliberately inexact.
                let exponent = VALUES[i].clamp(-127.0, 128.0).round_ties_even() as i32;
                let expected = f32::from_bits(((exponent + 127) as u32) << 23);
                assert_eq!(to[16 * 8 + i], expected, "{isa}: {}", VALUES[i]);
            }
        }
    }
}
