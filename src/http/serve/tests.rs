//! Tests of accepting, stalling and closing connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::http::observe::{Observer, observe};
use crate::http::{Admin, Config, Door};
use crate::telemetry::Metrics;

/// A running server. Its clock is the real one, so a limit under test is a few milliseconds and every other is long:
/// what is asserted is that something ends, never how soon.
struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    state: Arc<State>,
    /// A permit lets one request to `/gate` go.
    gate: Arc<Semaphore>,
    task: JoinHandle<io::Result<()>>,
}

struct Client(TcpStream);

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

fn state(change: fn(&mut Config)) -> (watch::Sender<Phase>, Arc<State>) {
    let (sender, phase) = watch::channel(Phase::Ready);
    let mut config = Config::default();
    change(&mut config);
    let metrics = Metrics::new(&[]);
    (sender, Arc::new(State::new(config, &metrics, phase)))
}

/// Handlers that wait, that answer much, and that tell how many connections are open.
fn handlers(state: &Arc<State>, gate: &Arc<Semaphore>) -> Router {
    let open = state.metrics.http_connections.clone();
    let gate = Arc::clone(gate);
    Router::new()
        .route("/gate", get(async move || drop(gate.acquire().await)))
        .route("/large", get(async || vec![b'x'; 64 << 20]))
        .route("/open", get(async move || open.get().to_string()))
        .route("/refuse", post(async || "refused"))
        .layer(axum::middleware::from_fn_with_state(
            Observer::new(Arc::clone(state), Door::WHOLE),
            observe,
        ))
}

fn connections(state: &Arc<State>, gate: &Arc<Semaphore>) -> Connections {
    let entrance = Entrance::all(&state.config, &Admin::default())[0];
    Connections::new(state, handlers(state, gate), &entrance)
}

async fn start(change: fn(&mut Config)) -> Server {
    let (phase, state) = state(change);
    let gate = Arc::new(Semaphore::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = connections(&state, &gate);
    let task = tokio::spawn(connections.serve(listener));
    Server {
        address,
        phase,
        state,
        gate,
        task,
    }
}

impl Server {
    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let waited = async {
            while !holds(&self.state) {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, waited).await.expect("it never holds");
    }

    async fn finish(self) {
        self.phase.send_replace(Phase::Closing);
        timeout(HANG, self.task)
            .await
            .expect("the server never ends")
            .unwrap()
            .unwrap();
        let open = self.state.metrics.http_connections.get();
        assert_eq!(open, 0, "connections are left");
    }
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        timeout(HANG, self.0.write_all(bytes))
            .await
            .expect("the server never reads")
            .unwrap();
    }

    async fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .await;
    }

    /// One answer, whole: its head and its body.
    async fn answer(&mut self) -> (String, String) {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).expect("a length");
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if body.len() == length {
                    return (head.to_owned(), body.to_owned());
                }
            }
            let came = timeout(HANG, self.0.read_buf(&mut bytes)).await;
            assert_ne!(came.expect("no answer comes").unwrap(), 0, "cut after {text:?}");
        }
    }

    /// Reads nothing more and then the end, or a reset.
    async fn is_closed(&mut self) {
        let mut rest = [0; 1];
        let end = timeout(HANG, self.0.read(&mut rest)).await;
        assert!(matches!(end.expect("it stays open"), Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_connection_is_kept_and_counted() {
    let server = start(|_| ()).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.ask("/open").await;
        let (head, body) = client.answer().await;
        assert!(
            head.starts_with("HTTP/1.1 200") && !head.contains("connection: close"),
            "{head}"
        );
        assert_eq!(body, "1");
    }
    drop(client);
    server
        .until(|state| state.metrics.http_connections.get() == 0)
        .await;
    server.finish().await;
}

#[tokio::test]
async fn a_silent_or_slow_head_is_let_go() {
    let server = start(|config| config.header_timeout_ms = 20).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send(b"GET /open HTTP/1.1\r\nhos").await;
    silent.is_closed().await;
    slow.is_closed().await;
    server.finish().await;
}

#[tokio::test]
async fn a_handler_is_not_hurried_by_the_connection() {
    let server = start(|config| config.idle_timeout_ms = 1).await;
    let (mut waiting, mut idle) = (server.connect().await, server.connect().await);
    waiting.ask("/gate").await;
    server
        .until(|state| state.metrics.http_in_flight.get() == 1)
        .await;
    idle.ask("/open").await;
    idle.answer().await;
    // The limit has passed for the one that waits for nothing.
    idle.is_closed().await;
    server.gate.add_permits(1);
    assert!(waiting.answer().await.0.starts_with("HTTP/1.1 200"));
    server.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_let_go() {
    let server = start(|config| config.idle_timeout_ms = 20).await;
    let mut client = server.connect().await;
    client.ask("/open").await;
    client.answer().await;
    client.is_closed().await;
    server.finish().await;
}

fn one_is_answered(state: &State) -> bool {
    state.metrics.render().contains("status=\"200\"} 1\n")
}

#[tokio::test]
async fn a_peer_that_never_reads_is_let_go() {
    let server = start(|config| config.idle_timeout_ms = 20).await;
    let mut client = server.connect().await;
    client.ask("/large").await;
    server.until(one_is_answered).await;
    server
        .until(|state| state.metrics.http_connections.get() == 0)
        .await;
    server.finish().await;
}

#[tokio::test]
async fn a_peer_that_never_reads_does_not_hold_up_the_end() {
    let server = start(|_| ()).await;
    let mut client = server.connect().await;
    client.ask("/large").await;
    server.until(one_is_answered).await;
    server.finish().await;
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let server = start(|config| config.max_connections = 1).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.ask("/open").await;
    assert_eq!(first.answer().await.1, "1");
    second.ask("/open").await;
    first.ask("/open").await;
    assert_eq!(first.answer().await.1, "1");
    drop(first);
    assert_eq!(second.answer().await.1, "1");
    drop(second);
    server.finish().await;
}

#[tokio::test]
async fn draining_answers_close_their_connections() {
    let server = start(|_| ()).await;
    let (mut kept, mut late) = (server.connect().await, server.connect().await);
    kept.ask("/open").await;
    assert!(!kept.answer().await.0.contains("connection: close"));
    server.phase.send_replace(Phase::Draining);
    for client in [&mut kept, &mut late] {
        client.ask("/open").await;
        let (head, _) = client.answer().await;
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("connection: close"),
            "{head}"
        );
        client.is_closed().await;
    }
    drop((kept, late));
    server.finish().await;
}

#[tokio::test]
async fn closing_finishes_what_is_in_flight_and_lets_idle_ones_go() {
    let server = start(|_| ()).await;
    let (mut busy, mut idle, mut fresh) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    idle.ask("/open").await;
    idle.answer().await;
    busy.ask("/gate").await;
    server
        .until(|state| state.metrics.http_in_flight.get() == 1)
        .await;
    server.phase.send_replace(Phase::Closing);
    // Connected before the end, so it is answered.
    fresh.ask("/open").await;
    let (head, _) = fresh.answer().await;
    assert!(head.contains("connection: close"), "{head}");
    idle.is_closed().await;
    assert!(!server.task.is_finished());
    server.gate.add_permits(1);
    let (head, _) = busy.answer().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    busy.is_closed().await;
    drop((busy, idle, fresh));
    let address = server.address;
    server.finish().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_is_let_in_by_the_kernel_is_answered_at_the_end() {
    let (phase, state) = state(|_| ());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    phase.send_replace(Phase::Closing);
    let connections = connections(&state, &Arc::new(Semaphore::new(0)));
    let task = tokio::spawn(connections.serve(listener));
    client.ask("/open").await;
    assert_eq!(client.answer().await.1, "1");
    timeout(HANG, task)
        .await
        .expect("the server never ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_refused_upload_still_gets_its_answer() {
    let server = start(|_| ()).await;
    let mut client = server.connect().await;
    let length = 32 << 20;
    client
        .send(format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").as_bytes())
        .await;
    // Far more than the kernel buffers, and no handler reads it.
    client.send(&vec![0; length]).await;
    assert_eq!(client.answer().await.1, "refused");
    drop(client);
    server.finish().await;
}

#[tokio::test]
async fn accepting_goes_on_after_failures() {
    let (_phase, state) = state(|_| ());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let stream = listener.accept().await;
    let too_many_open_files = Err(io::Error::from_raw_os_error(24));
    let left_early = Err(io::ErrorKind::ConnectionAborted.into());
    let arrivals = Mutex::new(VecDeque::from([too_many_open_files, left_early, stream]));
    let next = |_: &mut Context<'_>| {
        arrivals
            .lock()
            .unwrap()
            .pop_front()
            .map_or(Poll::Pending, Poll::Ready)
    };
    let mut connections = connections(&state, &Arc::new(Semaphore::new(0)));
    tokio::select! {
        () = connections.accept(next) => panic!("the loop ended"),
        (_, body) = async {
            client.ask("/open").await;
            client.answer().await
        } => assert_eq!(body, "1"),
    }
}

#[test]
fn the_servers_future_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: fn(Vec<(TcpListener, Entrance)>, Arc<State>) -> T) {}
    spawnable(serve);
}

#[test]
fn rests_grow_and_the_log_is_told_now_and_then() {
    let error = io::Error::from_raw_os_error(24);
    let (mut backoff, begun) = (Backoff::default(), Instant::now());
    let mut told = Vec::new();
    for second in 0..25 {
        let now = begun + Duration::from_secs(second);
        let before = backoff.told;
        let rest = backoff.after(&error, now);
        assert!(rest <= Duration::from_secs(1) && rest >= Duration::from_millis(10));
        told.extend((backoff.told != before).then_some(second));
        if second == 20 {
            assert_eq!(rest, Duration::from_secs(1));
            // One was accepted: the next rest is short, the log stays quiet.
            backoff.rest = Duration::ZERO;
        }
    }
    assert_eq!(told, [0, 10, 20]);
    assert_eq!(backoff.rest, Duration::from_millis(80));
}
