//! `sconce health`: one question to a running server, for container health checks.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::url::Url;
use super::{CliError, Common};
use crate::config::Config;
use crate::http::Entrance;

mod tls;

/// Flags of `sconce health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to ask; 200 means healthy [default: /health/ready at the configured address]. The certificate of https is not checked
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How long the answer may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

/// A status line is far shorter.
const MAX_STATUS_BYTES: usize = 1024;

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let url = match &args.url {
        Some(text) => Url::parse_either(text)?,
        None => url_of_server(&super::config(common)?)?,
    };
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    match ask(&url, deadline) {
        Ok(200) => Ok(()),
        Ok(status) => Err(CliError::Unhealthy(format!("{url}: status {status}"))),
        Err(error) => Err(CliError::Unhealthy(format!("{url}: {error}"))),
    }
}

/// Where a server of this configuration says whether it is ready; every interface includes the own machine. Of two listeners
/// the one without TLS, which asks for no certificate.
fn url_of_server(config: &Config) -> Result<Url, CliError> {
    let entrances = Entrance::all(&config.http, &config.admin);
    let entrance = entrances
        .iter()
        .find(|entrance| !entrance.has_tls)
        .unwrap_or(&entrances[0]);
    let mut listen = entrance.address;
    if listen.port() == 0 {
        let text = format!(
            "{} has port 0, so the server's port is not known: give --url",
            entrance.key
        );
        return Err(CliError::Usage(text));
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(Url {
        has_tls: entrance.has_tls,
        authority: listen.to_string(),
        path: "/health/ready".to_owned(),
    })
}

/// A connection, plain or in TLS.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A name or an address, without the port and an address's brackets.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The status of a GET.
fn ask(url: &Url, deadline: Instant) -> io::Result<u16> {
    let Url { authority, path, .. } = url;
    let socket = connect(authority, deadline)?;
    let mut stream: Box<dyn Stream> = match url.has_tls {
        false => Box::new(socket.try_clone()?),
        true => Box::new(tls::wrapped(socket.try_clone()?, host(authority))?),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    // A handshake reads before it writes the question.
    socket.set_read_timeout(Some(left(deadline)?))?;
    socket.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut part = [0; 256];
    while !head.contains(&b'\n') && head.len() < MAX_STATUS_BYTES {
        socket.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part)? {
            0 => break,
            count => head.extend_from_slice(&part[..count]),
        }
    }
    status(&head).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the host has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Of `HTTP/1.1 200 OK`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&b| b == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.strip_prefix("HTTP/1.")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn the_configured_address_is_asked_on_this_machine() {
        let url = |listen: &str, admin: &str, has_tls: bool| {
            let mut config = Config::default();
            config.http.listen = listen.parse().unwrap();
            config.admin.address = admin.parse().unwrap();
            if has_tls {
                config.http.tls.certificate = "a".into();
            }
            url_of_server(&config)
        };
        let check = |listen: &str, admin: &str, has_tls: bool, expected: &str| {
            assert_eq!(url(listen, admin, has_tls).unwrap().to_string(), expected);
        };
        let local = "127.0.0.1:8081";
        check("0.0.0.0:8080", local, false, "http://127.0.0.1:8080/health/ready");
        check("[::]:81", local, false, "http://[::1]:81/health/ready");
        check("10.1.2.3:8080", "", false, "http://10.1.2.3:8080/health/ready");
        check("0.0.0.0:443", local, true, "http://127.0.0.1:8081/health/ready");
        check("0.0.0.0:443", "", true, "https://127.0.0.1:443/health/ready");
        check(
            "0.0.0.0:443",
            "0.0.0.0:81",
            true,
            "https://127.0.0.1:443/health/ready",
        );
        assert!(url("127.0.0.1:0", local, false).is_err());
        assert_eq!(
            [host("a:80"), host("[::1]:80"), host("127.0.0.1:1")],
            ["a", "::1", "127.0.0.1"]
        );
    }

    /// What `ask` makes of a server that answers with `answer`.
    fn asked(answer: &'static str) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url {
            has_tls: false,
            authority: listener.local_addr().unwrap().to_string(),
            path: "/x".to_owned(),
        };
        let server = thread::Builder::new().spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 9];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"GET /x HT");
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let status = ask(&url, Instant::now() + Duration::from_secs(60));
        server.unwrap().join().unwrap();
        status
    }

    #[test]
    fn the_status_is_read_and_nothing_else_is_believed() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\n\r\n").unwrap(), 200);
        assert_eq!(asked("HTTP/1.1 503 Service Unavailable\r\n").unwrap(), 503);
        for wrong in ["", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1\r\n", "HTTP/1.1 abc\r\n"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_passed_deadline_ends_the_question() {
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        assert_eq!(
            ask(&url, Instant::now()).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
