//! Each function against its formula in f64.

use super::*;

/// Φ(x): a series near 0, Laplace's continued fraction in the tails.
fn normal_distribution(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x.abs() < 4.0 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            odd += 2.0;
            term *= x * x / odd;
            sum += term;
        }
        return 0.5 + density * sum;
    }
    let size = x.abs();
    let fraction = (1..60).rev().fold(size, |below, k| size + f64::from(k) / below);
    let tail = density / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

pub(in crate::kernels) fn formula(function: Activation, x: f64) -> f64 {
    let relu6 = |x: f64| x.clamp(0.0, 6.0);
    match function {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => relu6(x),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::HardSwish => x * relu6(x + 3.0) / 6.0,
        Activation::HardSigmoid => relu6(x + 3.0) / 6.0,
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Gelu => x * normal_distribution(x),
    }
}

/// What may be lost beside a share of the result: where two terms cancel, or the result has no normal number.
fn floor(function: Activation) -> f64 {
    match function {
        Activation::Relu | Activation::Relu6 => 0.0,
        Activation::Silu | Activation::Sigmoid => 1e-36,
        Activation::HardSwish => 4e-7,
        Activation::HardSigmoid | Activation::Gelu => 1e-7,
    }
}

/// Numbers of every size and sign, dense where the functions bend.
fn samples() -> Vec<f32> {
    let step = if cfg!(miri) { 400 } else { 1 };
    let near = (-32_000..32_000i16).step_by(step).map(|i| f32::from(i) / 1600.0);
    let spread = (0..u32::MAX).step_by(65_537 * step).map(f32::from_bits);
    let mut all: Vec<f32> = near.chain(spread).filter(|x| x.is_finite()).collect();
    all.resize(all.len().next_multiple_of(16), 0.5);
    all
}

#[test]
fn functions_equal_their_formulas() {
    let samples = samples();
    for isa in Isa::available() {
        for function in Activation::ALL {
            let mut found = samples.clone();
            activate(isa, function, &mut found);
            for (&x, found) in samples.iter().zip(found) {
                let expected = formula(function, f64::from(x));
                let error = (f64::from(found) - expected).abs();
                assert!(
                    error <= 3e-7 * expected.abs() + floor(function),
                    "{isa} {function:?}({x}): {found}, not {expected}"
                );
            }
        }
    }
}

/// e^−x of each lane.
#[inline(always)]
unsafe fn exp_minus_rows<V: Vector>(start: *mut f32, vectors: usize) {
    for vector in 0..vectors {
        // SAFETY: the caller vouches for every vector.
        unsafe {
            let at = start.add(vector * V::LANES);
            let [factor, power] = exp_minus(V::load(at));
            factor.mul(power).store(at);
        }
    }
}

dispatch! {
    unsafe fn run_exp_minus(start: *mut f32, vectors: usize) = exp_minus_rows
}

#[test]
fn exp_is_right_to_two_units_in_the_last_place() {
    let samples: Vec<f32> = samples().into_iter().map(|x| x.max(-88.9)).collect();
    for isa in Isa::available() {
        let mut found = samples.clone();
        // SAFETY: the samples are whole vectors of 16.
        unsafe { run_exp_minus(isa, found.as_mut_ptr(), samples.len() / isa.lanes()) };
        for (&x, found) in samples.iter().zip(found) {
            let expected = (-f64::from(x)).exp();
            if expected > 127.49f64.exp2() {
                assert!(f64::from(found) > 127.4f64.exp2(), "{isa} exp(-{x}): {found}");
            } else if expected < f64::from(f32::MIN_POSITIVE) {
                assert!(found <= f32::MIN_POSITIVE, "{isa} exp(-{x}): {found}");
            } else {
                let error = (f64::from(found) - expected).abs();
                assert!(
                    error <= 2.0 * f64::from(f32::EPSILON) * expected || x > 86.9,
                    "{isa} exp(-{x}): {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn infinities_give_the_limits_and_nan_stays() {
    let limits = [
        [0.0, f32::INFINITY],
        [0.0, 6.0],
        [0.0, f32::INFINITY],
        [0.0, f32::INFINITY],
    ];
    let limits = limits
        .into_iter()
        .chain([[0.0, 1.0], [0.0, 1.0], [0.0, f32::INFINITY]]);
    for isa in Isa::available() {
        for (function, limits) in Activation::ALL.into_iter().zip(limits.clone()) {
            let mut values = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -f32::NAN].repeat(4);
            activate(isa, function, &mut values);
            for found in values.chunks(4) {
                assert_eq!(found[..2], limits, "{isa} {function:?}");
                assert!(found[2].is_nan() && found[3].is_nan(), "{isa} {function:?}");
            }
        }
    }
}

#[test]
fn only_the_block_is_written() {
    for isa in Isa::available() {
        let lanes = isa.lanes();
        for function in Activation::ALL {
            // Three rows of two vectors, five numbers apart, from the third number on.
            let mut values = vec![-1.0f32; 3 * (2 * lanes + 5) + 2];
            // SAFETY: the last row ends three numbers before the end.
            unsafe {
                activate_rows(isa, function, values.as_mut_ptr().add(2), [3, 2 * lanes + 5, 2]);
            }
            for (i, &value) in values.iter().enumerate() {
                let inside = i >= 2 && (i - 2) % (2 * lanes + 5) < 2 * lanes;
                let expected = if inside { formula(function, -1.0) } else { -1.0 };
                assert!(
                    (f64::from(value) - expected).abs() < 1e-6,
                    "{isa} {function:?} {i}"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "whole vectors")]
fn part_of_a_vector_is_refused() {
    activate(Isa::PORTABLE, Activation::Relu, &mut [0.0; 6]);
}
