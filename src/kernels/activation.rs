//! Elementwise functions on vectors.

use std::fmt;

use super::isa::Isa;
use super::vector::{Vector, dispatch};

/// Elementwise functions. NaN gives NaN; the infinities give the limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x·σ(x)
    Silu,
    /// x·relu6(x + 3)/6
    HardSwish,
    /// relu6(x + 3)/6
    HardSigmoid,
    /// 1/(1 + e^-x)
    Sigmoid,
    /// x·Φ(x), with erf
    Gelu,
}

#[cfg(test)]
impl Activation {
    /// Every function.
    pub const ALL: [Self; 7] = [
        Self::Relu,
        Self::Relu6,
        Self::Silu,
        Self::HardSwish,
        Self::HardSigmoid,
        Self::Sigmoid,
        Self::Gelu,
    ];
}

/// `function` of every number, in place; their count is a multiple of `isa`'s lanes.
///
/// # Panics
/// Where it is not.
pub(super) fn activate(isa: Isa, function: Activation, values: &mut [f32]) {
    let lanes = isa.lanes();
    assert!(
        values.len().is_multiple_of(lanes),
        "{} numbers are not whole vectors of {lanes}",
        values.len()
    );
    // SAFETY: one row of all the numbers.
    unsafe { activate_rows(isa, function, values.as_mut_ptr(), [1, 0, values.len() / lanes]) }
}

/// `function` of `rows` rows of `vectors` vectors, `row_stride` numbers from a row to the next, in place.
///
/// # Safety
/// They are valid for reads and writes.
pub(super) unsafe fn activate_block<V: Vector>(
    function: Activation,
    start: *mut f32,
    rows: usize,
    row_stride: usize,
    vectors: usize,
) {
    // SAFETY: the caller's; the vector shows that there are its instructions.
    unsafe { activate_rows(V::ISA, function, start, [rows, row_stride, vectors]) }
}

dispatch! {
    pub(super) unsafe fn activate_rows(function: Activation, start: *mut f32, shape: [usize; 3]) = rows_by_function
}

/// One loop for each function: the choice is made outside.
#[inline(always)]
unsafe fn rows_by_function<V: Vector>(function: Activation, start: *mut f32, shape: [usize; 3]) {
    // SAFETY: the caller's.
    unsafe {
        match function {
            Activation::Relu => rows::<V>(Activation::Relu, start, shape),
            Activation::Relu6 => rows::<V>(Activation::Relu6, start, shape),
            Activation::Silu => rows::<V>(Activation::Silu, start, shape),
            Activation::HardSwish => rows::<V>(Activation::HardSwish, start, shape),
            Activation::HardSigmoid => rows::<V>(Activation::HardSigmoid, start, shape),
            Activation::Sigmoid => rows::<V>(Activation::Sigmoid, start, shape),
            Activation::Gelu => rows::<V>(Activation::Gelu, start, shape),
        }
    }
}

#[inline(always)]
unsafe fn rows<V: Vector>(function: Activation, start: *mut f32, [rows, row_stride, vectors]: [usize; 3]) {
    for row in 0..rows {
        for vector in 0..vectors {
            // SAFETY: the caller vouches for every vector of every row.
            unsafe {
                let at = start.add(row * row_stride + vector * V::LANES);
                apply(function, V::load(at)).store(at);
            }
        }
    }
}

/// `function` of each lane. Callers with a loop choose the function outside of it.
#[inline(always)]
pub(super) fn apply<V: Vector>(function: Activation, x: V) -> V {
    match function {
        Activation::Relu => x.at_least(constant(0.0)),
        Activation::Relu6 => x.at_least(constant(0.0)).at_most(constant(6.0)),
        Activation::Silu => {
            // At the bound the result is 0 like its limit, where −∞ · 0 would be NaN.
            let x = x.at_least(constant(-MOST_EXPONENT));
            x.div(one_plus_exp_minus(x))
        }
        // Below −3 the other factor is 0.
        Activation::HardSwish => x.at_least(constant(-3.0)).mul(hard_sigmoid(x)),
        Activation::HardSigmoid => hard_sigmoid(x),
        Activation::Sigmoid => constant::<V>(1.0).div(one_plus_exp_minus(x)),
        Activation::Gelu => gelu(x),
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Silu => "silu",
            Self::HardSwish => "hard-swish",
            Self::HardSigmoid => "hard-sigmoid",
            Self::Sigmoid => "sigmoid",
            Self::Gelu => "gelu",
        })
    }
}

/// The bounds that `function` clamps to, where that is all it does; without a function, none.
pub(super) fn bounds(function: Option<Activation>) -> Option<[f32; 2]> {
    match function {
        None => Some([f32::NEG_INFINITY, f32::INFINITY]),
        Some(Activation::Relu) => Some([0.0, f32::INFINITY]),
        Some(Activation::Relu6) => Some([0.0, 6.0]),
        Some(_) => None,
    }
}

#[inline(always)]
fn constant<V: Vector>(x: f32) -> V {
    // SAFETY: called where there is a vector already, which shows that there are its instructions.
    unsafe { V::splat(x) }
}

#[inline(always)]
fn hard_sigmoid<V: Vector>(x: V) -> V {
    let clamped = x
        .add(constant(3.0))
        .at_least(constant(0.0))
        .at_most(constant(6.0));
    clamped.mul(constant(1.0 / 6.0))
}

#[inline(always)]
fn one_plus_exp_minus<V: Vector>(x: V) -> V {
    let [factor, power] = exp_minus(x.at_least(constant(-MOST_EXPONENT)));
    factor.fma(power, constant(1.0))
}

/// From here on e^x is infinite, by the power of 2 that [`exp_minus`] gives.
const MOST_EXPONENT: f32 = 88.9;

/// e^−x as a factor near 1 and a power of 2, for x from −88.9 on: x = r − n·ln 2, e^−r by a polynomial, and 2ⁿ. Where
/// the product would be below 2^−126 it is 0, and ∞ where it would be above 2^127.5.
#[inline(always)]
fn exp_minus<V: Vector>(x: V) -> [V; 2] {
    // ln 2 in two parts, the first of so few bits that its product with n is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // Taylor's last three terms, the others fitted to |r| ≤ ln 2 / 2: off by at most 4e-9 of the sum.
    const TERMS: [f32; 6] = [-8.367_61e-3, 4.166_724e-2, -1.666_653_3e-1, 0.5, -1.0, 1.0];
    let x = x.at_most(constant(88.3));
    let n = x.mul(constant(-std::f32::consts::LOG2_E)).round();
    let r = n.fma(constant(LOW), n.fma(constant(HIGH), x));
    let mut sum = constant::<V>(1.386_367_5e-3);
    for term in TERMS {
        sum = sum.fma(r, constant(term));
    }
    [sum, n.exp2_whole()]
}

/// x·Φ(x) = max(x, 0) − |x|·Φ(−|x|), with ln Φ(−a) as a polynomial.
#[inline(always)]
fn gelu<V: Vector>(x: V) -> V {
    // Of −ln Φ(−a), fitted to 0 ≤ a ≤ 6 with the weight a·Φ(−a): the product is off by at most 5e-8. Beyond, it falls
    // like Φ.
    const TERMS: [f32; 8] = [
        -2.219_533_6e-5,
        1.049_391_3e-4,
        1.529_477_6e-4,
        -4.971_697e-3,
        3.644_013_4e-2,
        3.182_813e-1,
        7.978_875e-1,
        std::f32::consts::LN_2,
    ];
    let positive = x.at_least(constant(0.0));
    let size = x.at_least(constant::<V>(0.0).sub(x)).at_most(constant(20.0));
    let mut minus_log = constant::<V>(1.536_952_6e-6);
    for term in TERMS {
        minus_log = minus_log.fma(size, constant(term));
    }
    let [factor, power] = exp_minus(minus_log);
    positive.sub(size.mul(factor).mul(power))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::formula;
