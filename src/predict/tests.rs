//! What becomes of pictures, with every thread in the test's hand.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::fixture::{FAILS, MAX_SIDE, NOT_FINITE, PANICS, Workbench, pixels, png};
use super::*;
use crate::telemetry::Outcome as Ended;

const FULL: Result<usize, &str> = Err("the queue is full");

fn options() -> Options {
    Options {
        detail: Detail {
            top_k: 3,
            probabilities: false,
        },
        asker: Asker::default(),
        deadline: Instant::now() + Duration::from_secs(600),
    }
}

fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn encoded(bytes: impl Into<Bytes>) -> Picture {
    Picture::Encoded(bytes.into())
}

/// Every picture's class or its error, after the pool and the queue have each done all their work.
async fn outcomes(bench: &mut Workbench, pictures: Vec<Picture>) -> Vec<Result<usize, String>> {
    let (predictor, served) = (Arc::clone(&bench.predictor), bench.served());
    let mut future = pin!(predictor.predict(&served, pictures, options()));
    if let Poll::Ready(outcomes) = poll(future.as_mut()) {
        return classes(outcomes);
    }
    bench.decode();
    bench.infer();
    classes(future.await)
}

fn classes(outcomes: Vec<Outcome>) -> Vec<Result<usize, String>> {
    let class = |outcome: Outcome| {
        let prediction = outcome.result.map_err(|failure| failure.to_string())?;
        Ok(prediction.index)
    };
    outcomes.into_iter().map(class).collect()
}

/// Ok, failed, rejected, dropped; the rest of the accepted is in flight.
fn check_ended(bench: &Workbench, expected: [u64; 4], in_flight: i64) {
    let served = bench.served();
    let metrics = &served.metrics;
    let ended = [Ended::Ok, Ended::Failed, Ended::Rejected, Ended::Dropped].map(|o| metrics.ended(o));
    assert_eq!((ended, metrics.in_flight.get()), (expected, in_flight));
    let accounted = ended.iter().sum::<u64>() + in_flight as u64;
    assert_eq!(metrics.accepted.get(), accounted);
}

fn observed(bench: &Workbench, name: &str) -> u64 {
    let line =
        format!("sconce_stage_duration_seconds_count{{model=\"digits\",stage=\"{name}\",version=\"1\"}} ");
    let text = bench.metrics.render();
    let count = text.lines().find_map(|l| l.strip_prefix(&line));
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn outcomes_stand_in_the_order_of_their_pictures_and_fail_alone() {
    let mut bench = Workbench::new(100, 100);
    let mut cut = png(1);
    cut.truncate(40);
    let large = Picture::Pixels(Pixels {
        width: MAX_SIDE + 1,
        height: 1,
        channels: 1,
        bytes: vec![0; 65],
    });
    let unfilled = Picture::Pixels(Pixels {
        width: 3,
        height: 3,
        channels: 1,
        bytes: vec![0; 4],
    });
    let cases = [
        (pixels(2), Ok(2)),
        (Picture::Refused(ImageError::Invalid("no".to_owned())), Err("no")),
        (encoded(png(1)), Ok(1)),
        (encoded(cut), Err("the image is broken")),
        (pixels(FAILS), Err("inference failed")),
        (encoded(Vec::new()), Err("the image is empty")),
        (encoded(&b"text"[..]), Err("the bytes are none of")),
        (
            pixels(NOT_FINITE),
            Err("the model gave a number that is not finite"),
        ),
        (large, Err("the image is too large: 65×1")),
        (
            unfilled,
            Err("the image is broken: its pixels do not fill its size"),
        ),
        (pixels(PANICS), Err("inference failed")),
        (encoded(png(0)), Ok(0)),
    ];
    let (pictures, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let found = outcomes(&mut bench, pictures).await;
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.into_iter().zip(expected) {
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}: {expected}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
        }
    }
    check_ended(&bench, [3, 9, 0, 0], 0);
    // The cut file is found broken by its chunks; neither it nor what else was refused goes any further.
    assert_eq!(
        (observed(&bench, "decode"), observed(&bench, "preprocess")),
        (2, 7)
    );
    assert_eq!(observed(&bench, "postprocess"), 3);
}

#[tokio::test]
async fn a_full_pool_or_queue_rejects_what_is_beyond() {
    let check = async |max_decoding, max_queue, expected: [Result<usize, &str>; 3]| {
        let mut bench = Workbench::new(max_decoding, max_queue);
        let found = outcomes(&mut bench, vec![pixels(0), encoded(png(1)), pixels(2)]).await;
        assert_eq!(found, expected.map(|e| e.map_err(str::to_owned)));
        let ok = expected.iter().filter(|e| e.is_ok()).count() as u64;
        check_ended(&bench, [ok, 0, 3 - ok, 0], 0);
    };
    check(3, 3, [Ok(0), Ok(1), Ok(2)]).await;
    check(1, 3, [Ok(0), FULL, FULL]).await;
    check(3, 2, [Ok(0), Ok(1), FULL]).await;
}

#[tokio::test]
async fn a_closed_pool_or_queue_rejects_everything() {
    let closed = || vec![Err("the server is shutting down".to_owned()); 2];
    let pictures = || vec![pixels(0), encoded(png(1))];
    let mut bench = Workbench::new(9, 9);
    bench.pool.close();
    assert_eq!(outcomes(&mut bench, pictures()).await, closed());
    check_ended(&bench, [0, 0, 2, 0], 0);
    let mut bench = Workbench::new(9, 9);
    bench.served().batcher.close();
    assert_eq!(outcomes(&mut bench, pictures()).await, closed());
    check_ended(&bench, [0, 0, 2, 0], 0);
}

#[tokio::test]
async fn who_hangs_up_is_counted_and_costs_nothing_further() {
    for decoded_before in [false, true] {
        let mut bench = Workbench::new(9, 9);
        let (predictor, served) = (Arc::clone(&bench.predictor), bench.served());
        {
            let pictures = vec![encoded(png(0)), encoded(png(PANICS))];
            let mut future = pin!(predictor.predict(&served, pictures, options()));
            assert!(poll(future.as_mut()).is_pending());
            check_ended(&bench, [0, 0, 0, 0], 2);
            if decoded_before {
                bench.decode();
            }
        }
        check_ended(&bench, [0, 0, 0, 2], 0);
        if !decoded_before {
            bench.decode();
        }
        bench.infer();
        assert_eq!(observed(&bench, "decode"), if decoded_before { 2 } else { 0 });
        assert_eq!(observed(&bench, "inference"), 0);
        check_ended(&bench, [0, 0, 0, 2], 0);
    }
}

#[tokio::test]
async fn what_waits_past_its_deadline_is_answered_so() {
    let late = Options {
        deadline: Instant::now(),
        ..options()
    };
    let expected = Err(Failure::Item(ItemError::DeadlinePassed));
    // Nothing works: only the clock ends the wait.
    let bench = Workbench::new(9, 9);
    let outcomes = bench
        .predictor
        .predict(&bench.served(), vec![pixels(0)], late)
        .await;
    assert_eq!(outcomes[0].result, expected);
    check_ended(&bench, [0, 1, 0, 0], 0);
    // The pool comes to it too late, and does not decode it.
    let mut bench = Workbench::new(9, 9);
    let served = bench.served();
    let picture = (encoded(png(0)), Room::default());
    let waiting = Waiting::begin(&bench.predictor, &served, picture, late);
    bench.decode();
    assert_eq!(waiting.outcome(&served, options()).await.result, expected);
    assert_eq!(observed(&bench, "decode"), 0);
    check_ended(&bench, [0, 1, 0, 0], 0);
}

#[tokio::test]
async fn a_decoder_that_panics_is_the_fault_of_its_image() {
    let mut bench = Workbench::new(9, 9);
    let found = outcomes(
        &mut bench,
        vec![encoded(png(1)), encoded(short_palette()), encoded(png(2))],
    )
    .await;
    assert_eq!((&found[0], &found[2]), (&Ok(1), &Ok(2)));
    // A later release of the decoder may refuse it.
    let panicked = found[1] == Err(ImageError::Panicked.to_string());
    assert!(
        panicked
            || found[1]
                .as_ref()
                .is_err_and(|e| e.starts_with("the image is broken"))
    );
    assert_eq!(bench.metrics.decode_panics.get(), u64::from(panicked));
    check_ended(&bench, [2, 1, 0, 0], 0);
}

/// A PNG whose palette of 7 bytes is no whole number of colours: the `png` crate 0.18.1 panics on it.
fn short_palette() -> Vec<u8> {
    let chunk = |name: &[u8], data: &[u8]| {
        let body = [name, data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], &body, &crc.sum().to_be_bytes()].concat()
    };
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 4, 1);
    encoder.set_color(::png::ColorType::Indexed);
    encoder.set_palette(vec![0; 9]);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0, 1, 2, 2]).unwrap();
    writer.finish().unwrap();
    let whole = chunk(b"PLTE", &[0; 9]);
    let at = file.windows(whole.len()).position(|w| w == whole).unwrap();
    file.splice(at..at + whole.len(), chunk(b"PLTE", &[0; 7]));
    file
}

#[test]
fn a_version_is_found_by_what_the_request_names() {
    let bench = Workbench::new(1, 1);
    let [digits, other] = ["digits", "other"].map(|name| name.parse::<ModelName>().unwrap());
    let second = Version::FIRST.next();
    let check = |model: Option<&ModelName>, version, expected: Result<Version, NotServed>| {
        let found = bench.predictor.find(model, version).map(|served| served.version);
        assert_eq!(found, expected);
    };
    check(None, None, Ok(Version::FIRST));
    check(Some(&digits), None, Ok(Version::FIRST));
    check(Some(&digits), Some(Version::FIRST), Ok(Version::FIRST));
    check(
        Some(&digits),
        second,
        Err(NotServed::Version(digits.clone(), second.unwrap())),
    );
    check(
        None,
        second,
        Err(NotServed::Version(digits.clone(), second.unwrap())),
    );
    check(Some(&other), None, Err(NotServed::Model(other.clone())));
    assert_eq!(bench.predictor.table().default, digits);
}
