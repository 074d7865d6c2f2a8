//! What becomes of pictures that are the same, with every thread in the test's hand.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

use super::fixture::{FAILS, PANICS, Workbench, png};
use super::flight::Boarded;
use super::*;

type Asked = Pin<Box<dyn Future<Output = Vec<Outcome>>>>;

const SHARED: Config = Config {
    share: true,
    cache_bytes: 0,
};
const KEPT: Config = Config {
    share: false,
    cache_bytes: 1 << 20,
};
const MINUTES: Duration = Duration::from_secs(600);

fn ask(bench: &Workbench, image: &[u8], patience: Duration) -> Asked {
    let options = Options {
        detail: Detail {
            top_k: 3,
            probabilities: false,
        },
        asker: Asker::default(),
        deadline: Instant::now() + patience,
    };
    let (predictor, served) = (Arc::clone(&bench.predictor), bench.served());
    let pictures = vec![Picture::Encoded(Bytes::copy_from_slice(image))];
    Box::pin(async move { predictor.predict(&served, pictures, options).await })
}

/// What asks needs one for its deadline.
fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().enable_time().build().unwrap());
    &RUNTIME
}

/// Its class or its error, where it has one.
fn poll(asked: &mut Asked) -> Option<Result<usize, String>> {
    let _context = runtime().enter();
    match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcomes) => {
            let result = outcomes[0].result.clone();
            Some(
                result
                    .map(|prediction| prediction.index)
                    .map_err(|failure| failure.to_string()),
            )
        }
        Poll::Pending => None,
    }
}

/// All begun, none answered.
fn begun(bench: &Workbench, images: &[Vec<u8>]) -> Vec<Asked> {
    let begin = |image: &Vec<u8>| {
        let mut asked = ask(bench, image, MINUTES);
        assert_eq!(poll(&mut asked), None);
        asked
    };
    images.iter().map(begin).collect()
}

fn answers(asked: &mut [Asked]) -> Vec<Result<usize, String>> {
    asked
        .iter_mut()
        .map(|asked| poll(asked).expect("answered"))
        .collect()
}

/// How often a stage was passed.
fn passed(bench: &Workbench, stage: &str) -> u64 {
    let line =
        format!("sconce_stage_duration_seconds_count{{model=\"digits\",stage=\"{stage}\",version=\"1\"}} ");
    let text = bench.metrics.render();
    let count = text.lines().find_map(|text| text.strip_prefix(&line));
    count.unwrap().parse().unwrap()
}

fn flights(bench: &Workbench) -> usize {
    bench.served().flights.as_ref().map_or(0, Flights::len)
}

#[test]
fn the_same_image_is_decoded_and_computed_once() {
    let mut bench = Workbench::with(SHARED, 100, 100);
    let mut asked = begun(&bench, &[png(1), png(1), png(2), png(1), png(2)]);
    assert_eq!(flights(&bench), 2);
    bench.decode();
    bench.infer();
    assert_eq!(answers(&mut asked), [Ok(1), Ok(1), Ok(2), Ok(1), Ok(2)]);
    assert_eq!((passed(&bench, "decode"), passed(&bench, "inference")), (2, 2));
    drop(asked);
    let sharing = &bench.served().metrics.sharing;
    assert_eq!((sharing.shares(), flights(&bench)), (3, 0));
}

#[test]
fn unless_it_is_asked_for_each_is_computed() {
    let mut bench = Workbench::new(100, 100);
    let mut asked = begun(&bench, &[png(1), png(1)]);
    bench.decode();
    bench.infer();
    assert_eq!(answers(&mut asked), [Ok(1), Ok(1)]);
    assert_eq!((passed(&bench, "decode"), passed(&bench, "inference")), (2, 2));
}

#[test]
fn whoever_hangs_up_leaves_the_others_their_answer() {
    for decoded_before in [false, true] {
        let mut bench = Workbench::with(SHARED, 100, 100);
        let mut asked = begun(&bench, &[png(1), png(1), png(1)]);
        if decoded_before {
            bench.decode();
        }
        drop(asked.remove(0));
        if !decoded_before {
            bench.decode();
        }
        bench.infer();
        assert_eq!(answers(&mut asked), [Ok(1), Ok(1)], "{decoded_before}");
        assert_eq!((passed(&bench, "decode"), passed(&bench, "inference")), (1, 1));
        drop(asked);
        assert_eq!((flights(&bench), bench.served().metrics.in_flight.get()), (0, 0));
    }
    // Nobody is left: it costs nothing further.
    let mut bench = Workbench::with(SHARED, 100, 100);
    drop(begun(&bench, &[png(1), png(1)]));
    bench.decode();
    bench.infer();
    assert_eq!((passed(&bench, "decode"), flights(&bench)), (0, 0));
}

#[test]
fn each_has_a_deadline_and_a_place_of_its_own() {
    let mut bench = Workbench::with(SHARED, 100, 2);
    let mut asked = begun(&bench, &[png(1)]);
    let late = runtime().block_on(ask(&bench, &png(1), Duration::ZERO));
    assert_eq!(late[0].result, Err(Failure::Item(ItemError::DeadlinePassed)));
    // What was late keeps its place until the pool comes to it.
    let mut beyond = ask(&bench, &png(1), MINUTES);
    assert_eq!(poll(&mut beyond), Some(Err("the queue is full".to_owned())));
    bench.decode();
    bench.infer();
    assert_eq!(answers(&mut asked), [Ok(1)]);
    drop((asked, beyond));
    assert_eq!(flights(&bench), 0);
}

#[test]
fn an_error_is_everybodys() {
    let check = |image: Vec<u8>, expected: &str| {
        let mut bench = Workbench::with(SHARED, 100, 100);
        let mut asked = begun(&bench, &[image.clone(), png(1), image]);
        bench.decode();
        bench.infer();
        let found = answers(&mut asked);
        assert_eq!(found[1], Ok(1));
        for found in [&found[0], &found[2]] {
            let error = found.as_ref().unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(passed(&bench, "decode"), 2);
        drop(asked);
        assert_eq!(flights(&bench), 0);
    };
    check(png(FAILS), "inference failed");
    check(png(PANICS), "inference failed");
    // Within its pixels, which nobody looks at before it is decoded.
    let mut damaged = png(1);
    let at = damaged.len() - 18;
    damaged[at] ^= 1;
    check(damaged, "the image is broken");
}

/// A file of this many bytes that differs from others of its length only in the byte at `mark`.
fn file(length: usize, mark: usize) -> Bytes {
    let mut bytes = vec![7; length];
    bytes[mark] = 8;
    bytes.into()
}

#[test]
fn what_only_looks_the_same_goes_alone() {
    let bench = Workbench::with(SHARED, 100, 100);
    let served = bench.served();
    let first = Boarded::board(&served, &file(100_000, 3000)).unwrap();
    // What is hashed of a long file is the same of both.
    assert!(Boarded::board(&served, &file(100_000, 4000)).is_none());
    let again = Boarded::board(&served, &file(100_000, 3000)).unwrap();
    assert!(Arc::ptr_eq(&first.flight, &again.flight));
    assert!(Boarded::board(&served, &file(100_001, 3000)).is_some());
    assert!(Boarded::board(&served, &file(2000, 1)).is_some());
    drop((first, again));
    assert_eq!(flights(&bench), 0);
    // The other is the first to come now.
    assert!(Boarded::board(&served, &file(100_000, 4000)).is_some());
}

#[test]
fn a_kept_answer_costs_nothing_and_goes_with_its_image() {
    let mut bench = Workbench::with(KEPT, 100, 100);
    let running = bench.run();
    let first = runtime().block_on(ask(&bench, &png(1), MINUTES));
    let served = bench.served();
    let sharing = &served.metrics.sharing;
    assert_eq!(
        (sharing.hits.get(), sharing.misses.get(), sharing.entries.get()),
        (0, 1, 1)
    );
    let second = runtime().block_on(ask(&bench, &png(1), MINUTES));
    assert_eq!(first[0].result, second[0].result);
    assert_eq!(second[0].timing, Timing::default());
    assert_eq!((passed(&bench, "inference"), sharing.hits.get()), (1, 1));
    // Also where nothing more is let in.
    drop(running);
    assert_eq!(poll(&mut ask(&bench, &png(1), MINUTES)), Some(Ok(1)));
    bench.predictor.erase(&Sha256::digest(png(1)).into());
    assert_eq!(sharing.entries.get(), 0);
    let closed = Some(Err("the server is shutting down".to_owned()));
    assert_eq!(poll(&mut ask(&bench, &png(1), MINUTES)), closed);
    assert_eq!((sharing.hits.get(), sharing.misses.get()), (2, 2));
    assert_eq!(
        served.metrics.accepted.get(),
        served.metrics.ended(crate::telemetry::Outcome::Ok) + 1
    );
}

#[test]
fn what_fails_is_not_kept() {
    let mut bench = Workbench::with(KEPT, 100, 100);
    let _running = bench.run();
    for _ in 0..2 {
        let failed = runtime().block_on(ask(&bench, &png(FAILS), MINUTES));
        assert!(failed[0].result.is_err());
    }
    let sharing = &bench.served().metrics.sharing;
    assert_eq!(
        (sharing.hits.get(), sharing.misses.get(), sharing.entries.get()),
        (0, 2, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever asks for whatever and hangs up whenever: all others have their own image's answer, each image is computed at
    /// most once, and nothing is left.
    #[test]
    fn everybody_has_the_answer_to_his_image(
        asked in prop::collection::vec((0u8..4, 0u8..4), 1..30),
    ) {
        let mut bench = Workbench::with(SHARED, 100, 100);
        let images: Vec<_> = asked.iter().map(|&(image, _)| png(image)).collect();
        let mut all: Vec<_> = begun(&bench, &images).into_iter().map(Some).collect();
        let hang_up = |all: &mut Vec<Option<Asked>>, when: u8| {
            let gone = all.iter_mut().zip(&asked).filter(|(_, (_, moment))| *moment == when);
            gone.for_each(|(asked, _)| *asked = None);
        };
        hang_up(&mut all, 0);
        bench.decode();
        hang_up(&mut all, 1);
        bench.infer();
        let mut computed = std::collections::BTreeSet::new();
        for (future, &(image, _)) in all.iter_mut().zip(&asked) {
            if let Some(future) = future {
                prop_assert_eq!(poll(future), Some(Ok(usize::from(image % 3))));
                computed.insert(image);
            }
        }
        drop(all);
        prop_assert_eq!(passed(&bench, "inference"), computed.len() as u64);
        prop_assert!(passed(&bench, "decode") <= 4);
        let served = bench.served();
        prop_assert_eq!((flights(&bench), served.metrics.in_flight.get()), (0, 0));
        prop_assert_eq!(served.metrics.queue_depth.get(), 0);
    }
}
