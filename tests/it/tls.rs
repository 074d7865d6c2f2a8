//! TLS in a running server: what it announces, its health, certificates that change, and files that are wrong.

use std::path::{Path, PathBuf};

use sconce::registry::atomic;

use crate::serve::models;
use crate::server::{Server, ask_at, sconce};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tls")
        .join(name)
}

#[test]
fn a_server_in_tls_is_healthy_and_takes_new_certificates() {
    let (folder, place) = (models(), tempfile::tempdir().unwrap());
    let put = |name: &str| {
        for kind in ["pem", "key"] {
            let bytes = std::fs::read(fixture(&format!("{name}.{kind}"))).unwrap();
            atomic::write(&place.path().join(kind), &bytes).unwrap();
        }
    };
    put("first");
    let file = |kind: &str| place.path().join(kind).display().to_string();
    let settings = [
        &format!("http.tls.certificate={}", file("pem")),
        &format!("http.tls.key={}", file("key")),
        "http.poll_ms=0",
        "http.drain_delay_ms=0",
        "admin.address=127.0.0.1:0",
    ];
    let mut server = Server::ready(folder.path(), &settings);
    // Of this machine alone, so without TLS.
    let admin = server.admin();
    let health = |url: &str| {
        let asked = sconce(&["health", "--timeout-ms", "60000", "--url", url]).output();
        asked.unwrap().status.code()
    };
    assert_eq!(
        health(&format!("https://{}/health/ready", server.address)),
        Some(0)
    );
    assert_eq!(health(&format!("http://{admin}/health/ready")), Some(0));
    assert_eq!(health(&format!("https://{}/nothing", server.address)), Some(1));
    assert_eq!(
        health(&format!("http://{}/health/ready", server.address)),
        Some(1)
    );
    put("second");
    server.signal("HUP");
    server.wait_for("the certificates were read anew");
    assert_eq!(
        health(&format!("https://{}/health/ready", server.address)),
        Some(0)
    );
    let head = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let metrics = ask_at(&admin, head, &[]).1;
    assert!(
        metrics.contains("sconce_tls_handshakes_total{outcome=\"done\"} 3\n"),
        "{metrics}"
    );
    server.signal("TERM");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn certificates_that_are_wrong_end_the_start_before_a_port_is_bound() {
    let folder = models();
    let check = |certificate: &str, key: &str, part: &str| {
        let settings = [("certificate", certificate), ("key", key)];
        let settings = settings.map(|(name, file)| format!("http.tls.{name}={}", fixture(file).display()));
        let mut command = sconce(&["serve", "--listen", "127.0.0.1:0", "--admin", "", "--models"]);
        command.arg(folder.path());
        let output = settings
            .iter()
            .fold(&mut command, |command, setting| command.args(["--set", setting]));
        let output = output.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{text}");
        assert!(text.contains(part) && output.stdout.is_empty(), "{text}");
    };
    check("no.pem", "first.key", "no.pem: No such file");
    check(
        "first.pem",
        "second.key",
        "second.key: does not go with the certificate",
    );
}
