//! Each number's place.

use proptest::prelude::*;

use super::*;
use crate::kernels::testing::{Field, cases, places, refused, shares};

/// The numbers of a field as planes.
fn planes_of(field: &Field) -> Vec<f32> {
    let [height, width, channels] = field.shape;
    let mut planes = Vec::new();
    for item in 0..field.items {
        for at in 0..channels * height * width {
            let pixel = at % (height * width);
            let place = [pixel / width, pixel % width, at / (height * width)];
            planes.push(field.at(item, place) as f32);
        }
    }
    planes
}

/// A field within zeros.
fn framed(field: &Field, size: [usize; 2], start: [usize; 2]) -> Field {
    let [height, width, channels] = field.shape;
    Field::new(
        field.items,
        [size[0], size[1], channels],
        |item, [row, column, channel]| {
            let at = [row.wrapping_sub(start[0]), column.wrapping_sub(start[1])];
            let inside = at[0] < height && at[1] < width;
            if inside {
                field.at(item, [at[0], at[1], channel])
            } else {
                0.0
            }
        },
    )
}

prop_compose! {
    fn fields()(
        items in 1..=2usize, shape in [1..=5usize, 1..=6, 1..=40], seed in any::<u32>()
    ) -> Field {
        Field::random(items, shape, u64::from(seed))
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn channels_are_copied_beside_the_others(
        x in fields(), before in 0..=33usize, after in 0..=18usize, slack in 0..=3usize, parts in 1..=3usize
    ) {
        let [height, width, channels] = x.shape;
        let target = Field::random(x.items, [height, width, before + channels + after], 9);
        let expected = Field::new(x.items, target.shape, |item, [row, column, channel]| {
            let own = channel.wrapping_sub(before);
            let at = [row, column, channel];
            if own < channels { x.at(item, [row, column, own]) } else { target.at(item, at) }
        });
        for place in places(slack, 0.0) {
            let (values, map) = x.laid_out(place.isa, 1);
            let source = Source { values: &values[1..], map };
            expected.check_in_place(place, &target, |target| for batch in shares(x.items, parts) {
                copy_channels(place.isa, source, target(), before, batch);
            });
        }
    }

    #[test]
    fn maps_are_padded_with_zeros(
        x in fields(), start in [0..=2usize, 0..=2], end in [0..=2usize, 0..=2], slack in 0..=3usize,
        parts in 1..=3usize
    ) {
        let size = [0, 1].map(|axis| start[axis] + x.shape[axis] + end[axis]);
        let (expected, planes) = (framed(&x, size, start), planes_of(&x));
        let planes = Planes { values: &planes, height: x.shape[0], width: x.shape[1] };
        for place in places(slack, 0.0) {
            let (values, map) = x.laid_out(place.isa, 1);
            let source = Source { values: &values[1..], map };
            expected.check_written(place, |target| for batch in shares(x.items, parts) {
                pad(place.isa, source, target(), start, batch);
            });
            expected.check_written(place, |target| for batch in shares(x.items, parts) {
                from_planes(place.isa, planes, target(), start, batch);
            });
        }
    }

    #[test]
    fn planes_hold_the_maps_numbers(x in fields(), slack in 0..=3usize, parts in 1..=3usize) {
        let expected = planes_of(&x);
        for place in places(slack, 0.0) {
            let (values, map) = x.laid_out(place.isa, slack);
            let mut planes = vec![0.0; expected.len()];
            for batch in shares(x.items, parts) {
                let source = Source { values: &values[slack..], map };
                to_planes(place.isa, source, planes.as_mut_slice().into(), batch);
            }
            assert_eq!(planes, expected);
        }
    }
}

#[test]
fn what_pads_an_images_channels_is_zero() {
    for channels in [1, 3] {
        let planes = vec![1.0; channels * 6];
        let planes = Planes {
            values: &planes,
            height: 2,
            width: 3,
        };
        for isa in Isa::available() {
            let stride = isa.padded(channels);
            let map = Map {
                height: 4,
                width: 5,
                channels,
                stride,
            };
            let mut y = vec![f32::NAN; map.item()];
            let target = Target {
                values: y.as_mut_slice().into(),
                map,
            };
            from_planes(isa, planes, target, [1, 1], Batch::whole(1));
            assert_eq!(y.iter().sum::<f32>(), (channels * 6) as f32, "{isa}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |run: fn(Source<'_>, Target<'_>)| refused(3, run);
    assert!(!refused(|x, y| pad(Isa::PORTABLE, x, y, [1, 0], Batch::whole(1))));
    assert!(refused(|x, y| pad(Isa::PORTABLE, x, y, [2, 0], Batch::whole(1))));
    assert!(refused(|x, y| pad(
        Isa::PORTABLE,
        x,
        y,
        [usize::MAX, 0],
        Batch::whole(1)
    )));
    assert!(refused(|x, y| copy_channels(
        Isa::PORTABLE,
        x,
        y,
        0,
        Batch::whole(1)
    )));
    assert!(refused(|x, y| {
        let y = Target { map: x.map, ..y };
        copy_channels(Isa::PORTABLE, x, y, 1, Batch::whole(1));
    }));
    assert!(refused(|x, y| {
        let planes = Planes {
            values: &x.values[..11],
            height: 2,
            width: 2,
        };
        from_planes(Isa::PORTABLE, planes, y, [0, 0], Batch::whole(1));
    }));
    assert!(refused(|x, _| to_planes(
        Isa::PORTABLE,
        x,
        (&mut [0.0; 11][..]).into(),
        Batch::whole(1)
    )));
}
