//! Tests of connections in TLS: versions, certificates on both sides, deadlines, places, and files that change.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion, version};

use super::*;
use crate::http::{self, Admin, Entrance, Phase, State};
use crate::registry::atomic;
use crate::telemetry::captured::{Lines, log_to};

/// So long that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// A server whose certificate is `first`, in a folder where its files may be changed.
struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    state: Arc<State>,
    tls: Arc<Tls>,
    folder: TempDir,
    task: JoinHandle<io::Result<()>>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

fn copy(name: &str, to: &Path) {
    atomic::write(to, &std::fs::read(fixture(name)).unwrap()).unwrap();
}

impl Server {
    async fn start(change: impl FnOnce(&mut http::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = http::Config::default();
        config.tls.certificate = folder.path().join("certificate");
        config.tls.key = folder.path().join("key");
        copy("first.pem", &config.tls.certificate);
        copy("first.key", &config.tls.key);
        change(&mut config);
        assert_eq!(config.check(), Ok(()));
        let metrics = Metrics::new(&[]);
        let tls = Tls::load(&config.tls, &metrics).unwrap().unwrap();
        let (phase, watched) = watch::channel(Phase::Ready);
        let admin = Admin {
            address: "".parse().unwrap(),
            ..Admin::default()
        };
        let entrance = Entrance::all(&config, &admin)[0];
        let state = Arc::new(State {
            tls: Some(Arc::clone(&tls)),
            ..State::new(config, &metrics, watched)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            task: tokio::spawn(http::serve(vec![(listener, entrance)], Arc::clone(&state))),
            phase,
            state,
            tls,
            folder,
        }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self, client: ClientConfig) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let connected = connector.connect(name, self.tcp().await);
        timeout(HANG, connected).await.expect("the handshake hangs")
    }

    /// Puts `name`'s certificate and key in the place of those that are there; one of them where the other is left out.
    fn replace(&self, certificate: Option<&str>, key: Option<&str>) {
        for (name, to) in [(certificate, "certificate"), (key, "key")] {
            name.iter()
                .for_each(|name| copy(name, &self.folder.path().join(to)));
        }
        self.tls.refresh(false);
    }

    async fn until(&self, line: &str) {
        let waited = async {
            while !self.state.metrics.render().contains(line) {
                tokio::task::yield_now().await;
            }
        };
        let told = timeout(HANG, waited).await;
        told.unwrap_or_else(|_| panic!("never: {line}\n{}", self.state.metrics.render()));
    }

    async fn finish(self) {
        self.phase.send_replace(Phase::Closing);
        timeout(HANG, self.task)
            .await
            .expect("the server never ends")
            .unwrap()
            .unwrap();
        assert_eq!(
            self.state.metrics.http_connections.get(),
            0,
            "connections are left"
        );
    }
}

/// A client that trusts the servers' authority and shows the certificate of that name, if any.
fn client(own: Option<&str>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots(&fixture("servers.pem")).unwrap());
    let Some(own) = own else {
        return config.with_no_client_auth();
    };
    let chain = certificates(&fixture(&format!("{own}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture(&format!("{own}.key"))).unwrap();
    config.with_client_auth_cert(chain, key).unwrap()
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

/// What a request is answered; empty where the connection ends instead.
async fn ask(stream: &mut client::TlsStream<TcpStream>, request: &str) -> String {
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok::<_, io::Error>(bytes);
            }
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.split("content-length: ").nth(1).unwrap();
            if body.len() >= length.split("\r\n").next().unwrap().parse().unwrap() {
                return Ok(bytes);
            }
        }
    };
    let answer = timeout(HANG, asked).await.expect("no answer comes");
    String::from_utf8(answer.unwrap_or_default()).unwrap()
}

const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn both_versions_are_spoken_and_http_1_is_agreed_on() {
    let server = Server::start(|_| ()).await;
    for version in BOTH {
        let mut config = client(None, &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut stream = server.connect(config).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(connection.protocol_version(), Some(version.version));
        for _ in 0..2 {
            assert!(ask(&mut stream, LIVE).await.starts_with("HTTP/1.1 200"));
        }
    }
    let mut config = client(None, BOTH);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(server.connect(config).await.is_err());
    server
        .until("sconce_tls_handshakes_total{outcome=\"done\"} 2\n")
        .await;
    server
        .until("sconce_tls_handshakes_total{outcome=\"failed\"} 1\n")
        .await;
    server.finish().await;
}

#[tokio::test]
async fn who_speaks_no_tls_or_nothing_is_let_go() {
    let server = Server::start(|config| config.header_timeout_ms = 50).await;
    let mut plain = server.tcp().await;
    plain.write_all(LIVE.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    // An alert of TLS, or a reset.
    let _ = timeout(HANG, plain.read_to_end(&mut rest))
        .await
        .expect("it stays open");
    assert!(!rest.starts_with(b"HTTP"));
    let mut silent = server.tcp().await;
    rest.clear();
    let _ = timeout(HANG, silent.read_to_end(&mut rest))
        .await
        .expect("it stays open");
    assert!(rest.is_empty());
    // After the handshake, a silent peer has no more time than any other.
    let mut stream = server.connect(client(None, BOTH)).await.unwrap();
    let _ = timeout(HANG, stream.read_to_end(&mut rest))
        .await
        .expect("it stays open");
    for outcome in ["done", "failed", "late"] {
        server
            .until(&format!(
                "sconce_tls_handshakes_total{{outcome=\"{outcome}\"}} 1\n"
            ))
            .await;
    }
    server.finish().await;
}

#[tokio::test]
async fn a_handshake_takes_a_place_and_does_not_hold_up_the_end() {
    let server = Server::start(|config| config.max_connections = 1).await;
    let silent = server.tcp().await;
    server.until("sconce_http_connections 1\n").await;
    let mut waiting = Box::pin(server.connect(client(None, BOTH)));
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
    drop(silent);
    let mut stream = waiting.as_mut().await.unwrap();
    drop(waiting);
    assert!(ask(&mut stream, LIVE).await.starts_with("HTTP/1.1 200"));
    drop(stream);
    let _silent = server.tcp().await;
    server.until("sconce_http_connections 1\n").await;
    server.finish().await;
}

/// The certificate that the server shows to new connections.
async fn shown(server: &Server) -> Vec<u8> {
    let stream = server.connect(client(None, BOTH)).await.unwrap();
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

fn of(name: &str) -> Vec<u8> {
    certificates(&fixture(name)).unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificates_change_without_a_connection_lost() {
    let server = Server::start(|_| ()).await;
    let mut kept = server.connect(client(None, BOTH)).await.unwrap();
    assert_eq!(shown(&server).await, of("first.pem"));
    // Half of a change is none.
    server.replace(Some("second.pem"), None);
    assert_eq!(shown(&server).await, of("first.pem"));
    server.replace(None, Some("second.key"));
    assert_eq!(shown(&server).await, of("second.pem"));
    assert!(ask(&mut kept, LIVE).await.starts_with("HTTP/1.1 200"));
    for broken in ["second.key", "make.sh"] {
        server.replace(Some(broken), None);
        server.tls.refresh(false);
        assert_eq!(shown(&server).await, of("second.pem"));
    }
    std::fs::remove_file(server.folder.path().join("key")).unwrap();
    server.tls.refresh(false);
    assert_eq!(shown(&server).await, of("second.pem"));
    // Each was told of once.
    server.until("sconce_tls_reload_failures_total 4\n").await;
    server.replace(Some("first.pem"), Some("first.key"));
    assert_eq!(shown(&server).await, of("first.pem"));
    server.until("sconce_tls_reloads_total 2\n").await;
    assert!(ask(&mut kept, LIVE).await.starts_with("HTTP/1.1 200"));
    server.finish().await;
}

/// Whether a client with this certificate gets an answer. In TLS 1.3 it is refused only after its own side of the handshake.
async fn is_answered(server: &Server, own: Option<&str>, version: &'static SupportedProtocolVersion) -> bool {
    match server.connect(client(own, &[version])).await {
        Err(_) => false,
        Ok(mut stream) => ask(&mut stream, LIVE).await.starts_with("HTTP/1.1 200"),
    }
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_for() {
    for (mode, nobody) in [
        (ClientCertificates::Required, false),
        (ClientCertificates::Optional, true),
    ] {
        let server = Server::start(|config| {
            config.tls.client_ca = fixture("clients.pem");
            config.tls.client_certificates = mode;
        });
        let server = server.await;
        for version in BOTH {
            assert!(is_answered(&server, Some("client"), version).await, "{mode:?}");
            assert!(!is_answered(&server, Some("stranger"), version).await, "{mode:?}");
            assert_eq!(is_answered(&server, None, version).await, nobody, "{mode:?}");
        }
        server.finish().await;
    }
}

#[tokio::test]
async fn an_act_tells_the_clients_certificate() {
    let lines = Lines::default();
    let log = log_to(&lines, "audit=info");
    let _another = log_to(&Lines::default(), "audit=info");
    let _guard = tracing::dispatcher::set_default(&log);
    let server = Server::start(|config| config.tls.client_ca = fixture("clients.pem")).await;
    let mut stream = server.connect(client(Some("client"), BOTH)).await.unwrap();
    let request = "POST /v1/models/digits/versions/1/load HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    assert!(ask(&mut stream, request).await.starts_with("HTTP/1.1 503"));
    drop(stream);
    server.finish().await;
    let events = lines.events();
    let expected = crate::store::Digest::of(&of("client.pem")).to_string();
    assert_eq!(events[0]["certificate"], expected.as_str(), "{events:?}");
}

#[test]
fn files_that_are_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    atomic::write(&empty, b"").unwrap();
    let check = |certificate: PathBuf, key: PathBuf, client_ca: PathBuf, parts: [&str; 2]| {
        let config = Config {
            certificate,
            key,
            client_ca,
            ..Config::default()
        };
        let error = Tls::load(&config, &Metrics::new(&[])).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("PRIVATE") && !error.contains('\n'), "{error}");
    };
    let (pem, key) = (fixture("first.pem"), fixture("first.key"));
    let none = PathBuf::new();
    check(
        fixture("no.pem"),
        key.clone(),
        none.clone(),
        ["no.pem: ", "No such file"],
    );
    check(
        empty.clone(),
        key.clone(),
        none.clone(),
        ["empty: ", "no certificate"],
    );
    check(
        pem.clone(),
        pem.clone(),
        none.clone(),
        ["first.pem: ", "no private key"],
    );
    check(
        pem.clone(),
        fixture("second.key"),
        none,
        ["second.key: ", "does not go with the certificate"],
    );
    check(pem, key, empty, ["empty: ", "no certificate"]);
    assert!(
        Tls::load(&Config::default(), &Metrics::new(&[]))
            .unwrap()
            .is_none()
    );
}
