//! The most memory that a server takes, whatever images are sent to it at once.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::serve::publish_to;
use crate::server::{Server, answer, head};

pub(crate) mod make;

use make::{REFUSED, bombs, photos, thumbnail};

/// What a server may take beside what it takes idle: 128 MB.
const MOST: u64 = 128_000_000;
const AT_ONCE: usize = 32;

/// A network that sees colours, so that nothing of an image is left out.
const SPEC: &str =
    "architecture = 'small-cnn'\nlabels = ['a', 'b']\ninput = { channels = 3, height = 64, width = 64 }\n";

fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tiny")).unwrap();
    fs::File::create(folder.path().join("tiny/model.toml"))
        .unwrap()
        .write_all(SPEC.as_bytes())
        .unwrap();
    publish_to(folder.path(), SPEC, 1);
    folder
}

/// A number of `/proc/PID/status` in bytes: `VmRSS` now, `VmHWM` the most ever.
fn memory(server: &Server, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let kib: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap();
    kib * 1024
}

/// Status, body, and the time since the first byte was sent.
type Answer = (u16, String, Duration);

/// Sends every body at once, each on a connection of its own; the answers in order.
fn send_at_once(server: &Server, bodies: &[&[u8]]) -> Vec<Answer> {
    let gate = Barrier::new(bodies.len());
    thread::scope(|scope| {
        let send = |body: &'_ [u8]| {
            let (gate, body) = (&gate, body.to_vec());
            scope.spawn(move || {
                let mut stream = TcpStream::connect(&server.address).unwrap();
                gate.wait();
                let begun = Instant::now();
                let head = head("/v1/predict", "image/any", body.len());
                let head = head.replace("Host: x", "Host: x\r\nX-Request-Timeout-Ms: 600000");
                stream.write_all(head.as_bytes()).unwrap();
                // Whoever is refused early may not be read to the end.
                let _ = stream.write_all(&body);
                let (status, body) = answer(stream);
                (status, body, begun.elapsed())
            })
        };
        let threads: Vec<_> = bodies.iter().map(|body| send(body)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A server that has answered once, and what it takes now.
fn idle(settings: &[&str]) -> (tempfile::TempDir, Server, u64) {
    let folder = models();
    // What is asked is how much memory they take, not how long.
    let patience = [
        "http.max_request_timeout_ms=600000",
        "http.body_timeout_ms=600000",
    ];
    let server = Server::ready(folder.path(), &[&patience, settings].concat());
    assert_eq!(send_at_once(&server, &[&thumbnail()])[0].0, 200);
    let idle = memory(&server, "VmRSS");
    (folder, server, idle)
}

fn check_memory(server: &Server, idle: u64, what: &str) {
    let most = memory(server, "VmHWM");
    let taken = most.saturating_sub(idle);
    println!(
        "measured: {what}: idle {} MB, at most {} MB more",
        idle / 1_000_000,
        taken / 1_000_000
    );
    assert!(taken <= MOST, "{what}: {taken} bytes more than idle");
}

#[test]
fn bombs_take_no_more_memory_than_the_ceilings() {
    let bombs = bombs();
    let (_folder, server, before) = idle(&[]);
    // Twice, so that what is kept of the first time counts the second; another kind begins.
    for first in [0, 7] {
        let kinds = (first..first + AT_ONCE).map(|at| &bombs[at % bombs.len()]);
        let kinds: Vec<_> = kinds.collect();
        let bodies: Vec<&[u8]> = kinds.iter().map(|bomb| &bomb.bytes[..]).collect();
        let mut slowest = Duration::ZERO;
        for (bomb, (status, body, spent)) in kinds.iter().zip(send_at_once(&server, &bodies)) {
            assert!(bomb.statuses.contains(&status), "{}: {status} {body}", bomb.name);
            if bomb.statuses == REFUSED {
                slowest = slowest.max(spent);
            }
        }
        println!("measured: among {AT_ONCE} bombs, refused after at most {slowest:.0?}");
        check_memory(&server, before, "bombs");
    }
    for bomb in bombs.iter().filter(|bomb| bomb.statuses == REFUSED) {
        let (_, _, spent) = send_at_once(&server, &[&bomb.bytes]).remove(0);
        println!("measured: {} alone, refused after {spent:.1?}", bomb.name);
    }
    let panics = server.get("/metrics").1;
    assert!(panics.contains("\nsconce_decode_in_flight_bytes 0\n"), "{panics}");
}

#[test]
fn photos_of_24_megapixels_are_answered_and_wait_for_each_other() {
    let photos = photos();
    let (_folder, server, before) = idle(&[]);
    for (format, bytes) in &photos {
        println!("{format}: {} bytes", bytes.len());
        let (status, body, spent) = send_at_once(&server, &[bytes]).remove(0);
        assert_eq!(status, 200, "{format}: {body}");
        println!("measured: {format} answered after {spent:.0?}");
        check_memory(&server, before, format);
    }
    let [(_, jpeg), (_, png)] = &photos;
    let small = thumbnail();
    let mixed: Vec<&[u8]> = [&jpeg[..], png, &small].repeat(4);
    for (status, body, _) in send_at_once(&server, &mixed) {
        assert_eq!(status, 200, "{body}");
    }
    check_memory(&server, before, "twelve at once");
}
