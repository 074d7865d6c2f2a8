//! A thousand promotions, measured: not a test of every run, for it tells times.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::client::Client;
use super::*;
use crate::server::head;

/// As a server is, but for the seconds of its end.
const SETTINGS: [&str; 4] = [
    "log.filter=sconce::app=info",
    "engine.instances=1",
    "http.threads=1",
    "http.drain_delay_ms=0",
];
/// Changes of the champion in all, over the blocks with swaps.
const PROMOTIONS: usize = 1_000;
const TWENTY_MS: Duration = Duration::from_millis(20);
/// Each with swaps and without, in turn.
const BLOCKS: usize = 4;
/// Requests of each client per second.
const RATE: u32 = 200;
const CLIENTS: usize = 2;

/// Seconds of each request, without and with swaps.
type Times = [Mutex<Vec<f64>>; 2];

#[test]
#[ignore = "a measurement: cargo test --release --test it -- --ignored --nocapture a_thousand_promotions"]
fn a_thousand_promotions() {
    for (what, versions, every) in [
        ("two versions, both warm; 50 a second", 2, TWENTY_MS),
        ("three versions, one loaded each time; 50 a second", 3, TWENTY_MS),
        ("two versions, both warm; one after the other", 2, Duration::ZERO),
        (
            "three versions, one loaded each time; one after the other",
            3,
            Duration::ZERO,
        ),
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
                    promote(&server, champion(number));
                    swaps.push(asked.elapsed().as_secs_f64());
                    progress.done.store(number, Ordering::SeqCst);
                    park_for(every.saturating_sub(asked.elapsed()));
                }
                rss.push(resident(&server));
                // As long again with the same caller, who asks as often for what changes nothing.
                let (block, each) = (begun.elapsed(), begun.elapsed() / (PROMOTIONS / BLOCKS) as u32);
                progress.quiet.store(true, Ordering::SeqCst);
                let begun = Instant::now();
                while begun.elapsed() < block {
                    let asked = Instant::now();
                    refused(&server, champion(progress.done.load(Ordering::SeqCst)));
                    park_for(each.saturating_sub(asked.elapsed()));
                }
                progress.quiet.store(false, Ordering::SeqCst);
            }
            drop(over);
        });
        let [swapping, quiet] = times.map(|times| times.into_inner().unwrap());
        println!("measured: {what}: RSS after each block, KiB: {rss:?}");
        told("promotion", swaps);
        told("request while swapping", swapping);
        told("request without a swap", quiet);
    }
}

/// Asks for the champion that serves: the same request, lock and look at the files, and no swap.
fn refused(server: &Server, version: u64) {
    let (status, answer) = ask(server, version);
    assert_eq!(status, 409, "{answer}");
}

fn promote(server: &Server, version: u64) {
    let (status, answer) = ask(server, version);
    assert_eq!(status, 200, "{answer}");
}

/// As a caller does that spends little on the answer: this program shares the server's cores.
fn ask(server: &Server, version: u64) -> (u16, String) {
    let body = format!(r#"{{"version": {version}, "by": "a test", "reason": "to and fro", "force": true}}"#);
    let head = head("/v1/models/tiny/promote", "application/json", body.len());
    server.ask(&head, body.as_bytes())
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
        "measured:   {what}: n {}, median {median:.2} ms, p99 {p99:.2} ms, most {most:.2} ms",
        seconds.len()
    );
}
