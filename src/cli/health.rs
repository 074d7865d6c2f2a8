//! `sconce health`: one question to a running server, for container health checks.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::url::Url;
use super::{CliError, Common};

/// Flags of `sconce health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to ask; 200 means healthy [default: /health/ready at the configured address]
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
        Some(text) => Url::parse(text)?,
        None => url_of_server(super::config(common)?.http.listen)?,
    };
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    match ask(&url, deadline) {
        Ok(200) => Ok(()),
        Ok(status) => Err(CliError::Unhealthy(format!("{url}: status {status}"))),
        Err(error) => Err(CliError::Unhealthy(format!("{url}: {error}"))),
    }
}

/// Where a server that listens on `listen` says whether it is ready; every interface includes the own machine.
fn url_of_server(mut listen: SocketAddr) -> Result<Url, CliError> {
    if listen.port() == 0 {
        let text = "http.listen has port 0, so the server's port is not known: give --url";
        return Err(CliError::Usage(text.to_owned()));
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(Url {
        authority: listen.to_string(),
        path: "/health/ready".to_owned(),
    })
}

/// The status of a GET.
fn ask(url: &Url, deadline: Instant) -> io::Result<u16> {
    let mut stream = connect(&url.authority, deadline)?;
    let Url { authority, path } = url;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut part = [0; 256];
    while !head.contains(&b'\n') && head.len() < MAX_STATUS_BYTES {
        stream.set_read_timeout(Some(left(deadline)?))?;
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
        let check = |listen: &str, expected: &str| {
            let url = url_of_server(listen.parse().unwrap()).unwrap();
            assert_eq!(url.to_string(), expected);
        };
        check("0.0.0.0:8080", "http://127.0.0.1:8080/health/ready");
        check("[::]:81", "http://[::1]:81/health/ready");
        check("10.1.2.3:8080", "http://10.1.2.3:8080/health/ready");
        assert!(url_of_server("127.0.0.1:0".parse().unwrap()).is_err());
    }

    /// What `ask` makes of a server that answers with `answer`.
    fn asked(answer: &'static str) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url {
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
