//! A thousand promotions, measured: not a test of every run, for it tells times.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::client::Client;
use super::*;

/// Changes of the champion in all, over the blocks with swaps.
const PROMOTIONS: usize = 1_000;
/// Each without and with swaps, in turn.
const BLOCKS: usize = 4;
/// Requests of each client per second.
const RATE: u32 = 200;
const CLIENTS: usize = 2;

/// Seconds of each request, without and with swaps.
type Times = [Mutex<Vec<f64>>; 2];

#[test]
#[ignore = "a measurement: cargo test --release --test it -- --ignored --nocapture a_thousand_promotions"]
fn a_thousand_promotions() {
    for (what, versions) in [
        ("two versions, both warm", 2),
        ("three versions, one loaded each time", 3),
    ] {
        let folder = folder(versions);
        let server = Server::ready(folder.path(), &SETTINGS);
        let own = probabilities(&server, versions);
        let champion = |changes: usize| changes as u64 % versions + 1;
        let (progress, times) = (Progress::default(), Times::default());
        let (mut rss, mut swaps) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            let over = Over(&progress);
            for _ in 0..CLIENTS {
                scope.spawn(|| paced(&progress, &server.address, (&champion, &own), &times));
            }
            for block in 0..BLOCKS {
                let begun = Instant::now();
                for change in 1..=PROMOTIONS / BLOCKS {
                    let number = block * PROMOTIONS / BLOCKS + change;
                    progress.begun.store(number, Ordering::SeqCst);
                    let asked = Instant::now();
                    server.promote(champion(number));
                    swaps.push(asked.elapsed().as_secs_f64());
                    progress.done.store(number, Ordering::SeqCst);
                }
                rss.push(resident(&server));
                // As long again without.
                progress.quiet.store(true, Ordering::SeqCst);
                park_for(begun.elapsed());
                progress.quiet.store(false, Ordering::SeqCst);
            }
            drop(over);
        });
        let [swapping, quiet] = times.map(|times| times.into_inner().unwrap());
        println!("{what}: RSS after each block, KiB: {rss:?}");
        told("  promotion", swaps);
        told("  request while swapping", swapping);
        told("  request while quiet", quiet);
    }
}

/// Asks at its rate until all is over.
fn paced(
    progress: &Progress,
    address: &str,
    (champion, own): (&(impl Fn(usize) -> u64 + Sync), &BTreeMap<u64, Value>),
    times: &Times,
) {
    let (mut client, image) = (Client::new(address), image());
    let mut due = Instant::now();
    while !progress.over.load(Ordering::SeqCst) {
        due += Duration::from_secs(1) / RATE;
        park_for(due.saturating_duration_since(Instant::now()));
        let quiet = progress.quiet.load(Ordering::SeqCst);
        let asked = Instant::now();
        progress.ask(&mut client, &image, champion, own);
        let seconds = asked.elapsed().as_secs_f64();
        times[usize::from(quiet)].lock().unwrap().push(seconds);
    }
}

fn park_for(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        park_timeout(left);
    }
}

fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn told(what: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize] * 1e3;
    let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
    println!(
        "{what}: n {}, median {median:.2} ms, p99 {p99:.2} ms, most {most:.2} ms",
        seconds.len()
    );
}
