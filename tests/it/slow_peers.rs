//! Four hundred peers that keep a server waiting, and one honest client that does not wait for them.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::serve::{image, models};
use crate::server::{Server, head};

/// Of each kind.
const PEERS: usize = 80;
/// What the server waits for a head, a body, a request and a taker, in milliseconds.
const PATIENCE_MS: u64 = 1500;
/// Rounds after which a peer that is never let go has failed the test.
const ROUNDS: usize = 200_000;

/// A peer that keeps its connection open.
struct Peer {
    stream: TcpStream,
    /// What it sends, a byte a round; then nothing more.
    drips: Vec<u8>,
    next: usize,
}

impl Peer {
    /// Sends `begin` at once.
    fn new(address: &str, begin: &[u8], drips: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(begin).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            drips: drips.to_vec(),
            next: 0,
        }
    }

    fn drip(&mut self) {
        if let Some(byte) = self.drips.get(self.next) {
            // Refused once the server has let go.
            let _ = self.stream.write(&[*byte]);
            self.next += 1;
        }
    }

    /// Whether the server has closed; what it said before is passed over.
    fn is_let_go(&mut self) -> bool {
        let mut said = [0; 4096];
        loop {
            match self.stream.read(&mut said) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

/// Asks for much and takes nothing of it.
struct Glutton(TcpStream);

impl Glutton {
    fn new(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let asked = "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
        // What does not fit into the system's buffers is not needed.
        let _ = stream.write(asked.as_bytes());
        Self(stream)
    }

    /// Whether the server has closed: nothing more can be sent. Not read, or it would be no glutton.
    fn is_let_go(&mut self) -> bool {
        let sent = self.0.write(b"G");
        sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    }
}

#[test]
fn an_honest_client_is_answered_while_four_hundred_keep_the_server_waiting() {
    let folder = models();
    let patience = ["header", "body", "idle"].map(|key| format!("http.{key}_timeout_ms={PATIENCE_MS}"));
    let [header, body, idle] = &patience;
    // Nobody reads the log, so it says nothing.
    let settings = [header, body, idle, "http.threads=1", "log.filter=off"];
    let server = Server::start(folder.path(), &settings);
    while server.get("/health/ready").0 != 200 {}
    let (address, long) = (&*server.address, "x".repeat(1 << 20));
    let slow_head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}");
    let small_body = head("/v1/predict", "image/png", 60_000);
    // Takes of the room that all large bodies have, and then stalls.
    let large_body = [
        head("/v1/predict", "image/png", 30 << 20).as_bytes(),
        &vec![0; 100_000],
    ]
    .concat();
    let mut peers = Vec::new();
    let mut gluttons = Vec::new();
    for _ in 0..PEERS {
        peers.push(Peer::new(address, b"", b""));
        peers.push(Peer::new(address, b"", slow_head.as_bytes()));
        peers.push(Peer::new(address, small_body.as_bytes(), long.as_bytes()));
        peers.push(Peer::new(address, &large_body, long.as_bytes()));
        gluttons.push(Glutton::new(address));
    }
    let image = image();
    // A photo's size, so that it asks for room too.
    let medium = [&image[..], &vec![0; 300_000]].concat();
    let (mut answered, mut slowest, mut most_open) = (0, Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        for body in [&image, &medium] {
            let begun = Instant::now();
            let (status, answer) = server.ask(&head("/v1/predict", "image/png", body.len()), body);
            slowest = slowest.max(begun.elapsed());
            answered += 1;
            assert_eq!(status, 200, "{answer}");
        }
        most_open = most_open.max(peers.len() + gluttons.len());
        peers.iter_mut().for_each(Peer::drip);
        peers.retain_mut(|peer| !peer.is_let_go());
        gluttons.retain_mut(|glutton| !glutton.is_let_go());
        if peers.is_empty() && gluttons.is_empty() {
            break;
        }
    }
    println!("measured: {most_open} slow peers, {answered} honest answers, the slowest after {slowest:.0?}");
    assert!(
        peers.is_empty() && gluttons.is_empty(),
        "{} peers and {} gluttons are still there",
        peers.len(),
        gluttons.len()
    );
    assert_eq!(most_open, 5 * PEERS);
    // The server may notice a moment later that the last honest client is gone.
    let alone = |_| server.get("/metrics").1.contains("\nsconce_http_connections 1\n");
    assert!((0..1_000).any(alone), "{}", server.get("/metrics").1);
}
