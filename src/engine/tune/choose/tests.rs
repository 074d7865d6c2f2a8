//! Tests of the choice, on timings that are made up.

use proptest::prelude::*;

use super::*;

const OPEN: Asked = Asked {
    instances: 0,
    threads: 0,
    max_batch: 8,
    open_batch: true,
};

/// Seconds for a batch: instances, threads, batch, ms.
type Made = (usize, usize, usize, f64);

fn timings(max_batch: usize, made: &[Made]) -> Timings {
    let point = |&(instances, threads, batch, ms): &Made| Timing {
        split: Split { instances, threads },
        batch,
        seconds: ms / 1e3,
        spread: 0.0,
    };
    Timings {
        max_batch,
        points: made.iter().map(point).collect(),
    }
}

/// On four cores: instances, threads, largest batch.
#[track_caller]
fn check(asked: &Asked, made: &[Made], expected: Option<(usize, usize, usize)>, said: &[&str]) {
    let choice = choose(asked, 4, &timings(8, made));
    let taken = choice.as_ref().map(|choice| {
        (
            choice.split.instances,
            choice.split.threads,
            choice.max_batch_size,
        )
    });
    assert_eq!(taken, expected);
    let why = choice.map_or_else(Vec::new, |choice| choice.why);
    assert_eq!(why.len(), said.len(), "{why:?}");
    for (line, part) in why.iter().zip(said) {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}

/// 100 ms an image on one thread, whatever the batch; shared threads cost a fifth.
const EVEN: [Made; 6] = [
    (4, 1, 1, 100.0),
    (2, 2, 1, 60.0),
    (1, 4, 1, 30.0),
    (4, 1, 2, 200.0),
    (2, 2, 2, 120.0),
    (1, 4, 2, 60.0),
];

#[test]
fn most_images_a_second_win() {
    let said = [
        "4×1 (instances × threads) serves most: 40 images/s",
        "1×4 answers one image sooner: 30.0 ms",
        "more than 1",
    ];
    check(&OPEN, &EVEN, Some((4, 1, 1)), &said);
    let mut crowded = EVEN;
    crowded[0].3 = 200.0;
    crowded[3].3 = 400.0;
    let said = ["2×2", "1×4 answers one image sooner", "more than 1"];
    let expected = Some((1, 4, 1));
    // 1×4 and 2×2 serve as many but for what batches cost: the fewer threads win.
    check(&OPEN, &crowded, Some((2, 2, 1)), &said);
    crowded[2].3 = 20.0;
    crowded[5].3 = 40.0;
    check(
        &OPEN,
        &crowded,
        expected,
        &[
            "1×4 (instances × threads) serves most: 50",
            "no other split is quicker",
            "more than 1",
        ],
    );
}

#[test]
fn what_beats_only_its_own_noise_is_not_taken() {
    let taken = |spread: f64, noisy: usize| {
        let mut timings = timings(8, &EVEN);
        // 1×4 serves half as many again as 4×1.
        timings.points[2].seconds = 1.0 / 60.0;
        timings.points[5].seconds = 2.0 / 60.0;
        timings.points[noisy].spread = spread;
        choose(&OPEN, 4, &timings).unwrap()
    };
    // Each split serves most in batches of two, its second point.
    for noisy in [3, 5] {
        assert_eq!(taken(0.3, noisy).split.threads, 4);
        assert_eq!(taken(0.4, noisy).split.threads, 1);
    }
    assert!(taken(0.4, 5).why[0].contains("within the noise of 40 %, what 1×4 serves"));
}

#[test]
fn the_batch_ends_where_noise_begins() {
    let one = Asked { threads: 1, ..OPEN };
    let falling = [(4, 1, 1, 10.0), (4, 1, 2, 15.0), (4, 1, 4, 28.0), (4, 1, 8, 55.5)];
    let only = "4×1 (instances × threads) is the only split asked for";
    check(
        &one,
        &falling,
        Some((4, 1, 4)),
        &[only, "", "more than 4 add less than 3 %"],
    );
    let growing = [(4, 1, 1, 10.0), (4, 1, 2, 15.0), (4, 1, 4, 20.0), (4, 1, 8, 30.0)];
    check(
        &one,
        &growing,
        Some((4, 1, 8)),
        &[only, "", "grow up to batches of 8, the largest timed."],
    );
    check(
        &one,
        &growing[..2],
        Some((4, 1, 8)),
        &[only, "", "no time for larger ones"],
    );
    let set = Asked {
        open_batch: false,
        ..one
    };
    check(
        &set,
        &falling,
        Some((4, 1, 8)),
        &[only, "", "max_batch_size is set"],
    );
    let smaller = Asked { max_batch: 2, ..one };
    check(&smaller, &falling, Some((4, 1, 2)), &[only, "", "batches of 2"]);
    // A batch of 5 µs costs more beside the engine than in it.
    let tiny = [(4, 1, 1, 0.005), (4, 1, 8, 0.04)];
    check(&one, &tiny, Some((4, 1, 8)), &[only, "0.005 ms", "batches of 8"]);
}

#[test]
fn what_was_not_timed_is_not_chosen() {
    check(&OPEN, &[], None, &[]);
    check(&OPEN, &EVEN[..2], None, &[]);
    let wider = Asked { max_batch: 9, ..OPEN };
    check(&wider, &EVEN, None, &[]);
    let other = Asked {
        instances: 3,
        threads: 1,
        ..OPEN
    };
    check(&other, &EVEN, None, &[]);
}

fn asked() -> impl Strategy<Value = Asked> {
    (0usize..6, 0usize..6, 1usize..40, any::<bool>()).prop_map(
        |(instances, threads, max_batch, open_batch)| Asked {
            instances,
            threads,
            max_batch,
            open_batch,
        },
    )
}

proptest! {
    #[test]
    fn a_choice_keeps_to_the_cores_the_maximum_and_what_is_set(
        asked in asked(),
        cores in 1usize..20,
        seconds in prop::collection::vec(1e-6f64..1.0, 200),
        rates_alike in any::<bool>(),
    ) {
        let mut seconds = seconds.into_iter().cycle();
        let point = |batch, split: Split| Timing {
            split,
            batch,
            // Every split serves alike where it takes as much longer as it has instances.
            spread: 0.0,
            seconds: if rates_alike { (split.instances * batch) as f64 } else { seconds.next().unwrap_or(1.0) },
        };
        let places = asked.batches().into_iter().flat_map(|batch| {
            asked.splits(cores).into_iter().map(move |split| (batch, split))
        });
        let points = places.map({ let mut point = point; move |(batch, split)| point(batch, split) }).collect();
        let choice = choose(&asked, cores, &Timings { max_batch: asked.max_batch, points });
        let choice = choice.expect("everything asked about was timed");
        let Split { instances, threads } = choice.split;
        let set = |set: usize, taken: usize| set == 0 || set == taken;
        prop_assert!(set(asked.instances, instances) && set(asked.threads, threads));
        let most = cores.max(asked.instances).max(asked.threads).max(asked.instances * asked.threads);
        prop_assert!(instances * threads <= most, "{instances}×{threads} on {cores}");
        prop_assert!((1..=asked.max_batch).contains(&choice.max_batch_size));
        prop_assert!(asked.open_batch || choice.max_batch_size == asked.max_batch);
        if rates_alike {
            prop_assert_eq!(choice.split, asked.splits(cores)[0]);
        }
        prop_assert_eq!(asked.unmeasured(cores).split, asked.splits(cores)[0]);
    }
}
