//! Against the same arithmetic in f64.

use proptest::prelude::*;

use super::*;
use crate::kernels::activation::formula;
use crate::kernels::testing::{Field, cases, most, numbers, places, refused, shares};

fn any_function() -> impl Strategy<Value = Option<Activation>> {
    prop::sample::select(vec![
        None,
        Some(Activation::Relu),
        Some(Activation::Relu6),
        Some(Activation::Silu),
    ])
}

/// Maps of any shape; a slack for each map; parts; a number that is no number.
fn cases_of() -> impl Strategy<Value = (usize, [usize; 3], [usize; 2], usize, bool)> {
    (
        1..=3usize,
        [1..=6usize, 1..=9, 1..=most(70)],
        [0..=3usize, 0..=3],
        1..=4usize,
        any::<bool>(),
    )
}

fn field(items: usize, shape: [usize; 3], seed: u64, nan: bool) -> Field {
    let mut field = Field::random(items, shape, seed);
    if nan {
        field.set(items - 1, [shape[0] / 2, shape[1] - 1, shape[2] - 1], f64::NAN);
    }
    field
}

fn then(function: Option<Activation>, x: f64) -> f64 {
    match function {
        Some(function) if !x.is_nan() => formula(function, x),
        _ => x,
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sums_are_of_both_maps(
        (items, shape, slack, parts, nan) in cases_of(), function in any_function(), seed in any::<u32>()
    ) {
        let a = field(items, shape, u64::from(seed), nan);
        let b = field(items, shape, u64::from(seed) + 1, false);
        let sum = Field::new(items, shape, |item, at| then(function, a.at(item, at) + b.at(item, at)));
        for place in places(slack[0], 1e-6) {
            let [(a_values, a_map), (b_values, b_map)] = [a.laid_out(place.isa, slack[1]), b.laid_out(place.isa, 0)];
            let a_source = Source { values: &a_values[slack[1]..], map: a_map };
            let b_source = Source { values: &b_values, map: b_map };
            sum.check_written(place, |target| for batch in shares(items, parts) {
                add(place.isa, [a_source, b_source], target(), function, batch);
            });
            sum.check_in_place(place, &b, |target| for batch in shares(items, parts) {
                add_in_place(place.isa, a_source, target(), function, batch);
            });
        }
    }

    #[test]
    fn products_are_by_each_items_factors(
        (items, shape, slack, parts, nan) in cases_of(), seed in any::<u32>()
    ) {
        let x = field(items, shape, u64::from(seed), nan);
        let factors = Field::random(items, [1, 1, shape[2]], u64::from(seed) + 1);
        let product = Field::new(items, shape, |item, at| x.at(item, at) * factors.at(item, [0, 0, at[2]]));
        for place in places(slack[0], 1e-6) {
            let ((values, map), (factors, _)) = (x.laid_out(place.isa, slack[1]), factors.laid_out(place.isa, 0));
            let source = Source { values: &values[slack[1]..], map };
            product.check_written(place, |target| for batch in shares(items, parts) {
                multiply(place.isa, source, &factors, target(), batch);
            });
            product.check_in_place(place, &x, |target| for batch in shares(items, parts) {
                multiply_in_place(place.isa, target(), &factors, batch);
            });
        }
    }

    #[test]
    fn affine_maps_have_a_scale_and_a_shift_for_each_channel(
        (items, shape, slack, parts, nan) in cases_of(), function in any_function(), seed in any::<u32>()
    ) {
        let x = field(items, shape, u64::from(seed), nan);
        let (scale, shift) = (numbers(shape[2], 1), numbers(shape[2], 2));
        let expected = Field::new(items, shape, |item, at| {
            then(function, x.at(item, at) * f64::from(scale[at[2]]) + f64::from(shift[at[2]]))
        });
        for place in places(slack[0], 1e-6) {
            let affine = Affine::pack(place.isa, &scale, &shift, function);
            let (values, map) = x.laid_out(place.isa, slack[1]);
            let source = Source { values: &values[slack[1]..], map };
            expected.check_written(place, |target| for batch in shares(items, parts) {
                affine.run(source, target(), batch);
            });
            expected.check_in_place(place, &x, |target| for batch in shares(items, parts) {
                affine.run_in_place(target(), batch);
            });
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |run: fn(Source<'_>, Target<'_>)| refused(2, run);
    let isa = Isa::PORTABLE;
    assert!(!refused(|x, y| add_in_place(
        Isa::PORTABLE,
        x,
        y,
        None,
        Batch::whole(1)
    )));
    assert!(refused(|x, y| add_in_place(
        Isa::PORTABLE,
        x,
        y,
        None,
        Batch::whole(2)
    )));
    assert!(refused(|x, y| multiply(
        Isa::PORTABLE,
        x,
        &[0.0; 3],
        y,
        Batch::whole(1)
    )));
    assert!(refused(|x, y| {
        let other = Map { height: 1, ..x.map };
        add_in_place(
            Isa::PORTABLE,
            Source { map: other, ..x },
            y,
            None,
            Batch::whole(1),
        );
    }));
    assert!(refused(|_, y| {
        Affine::pack(Isa::PORTABLE, &[1.0; 2], &[0.0; 2], None).run_in_place(y, Batch::whole(1));
    }));
    assert!(std::panic::catch_unwind(|| Affine::pack(isa, &[1.0; 2], &[0.0; 3], None)).is_err());
}
