//! A caller that keeps its connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// One connection, one request at a time.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    pub(super) fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Status and body of a prediction by `tiny`, or by one of its versions (`/versions/2`).
    pub(super) fn predict(&mut self, version: &str, image: &[u8]) -> (u16, Vec<u8>) {
        let mut request = format!(
            "POST /v1/models/tiny{version}/predict?probabilities=true HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\n\
             Content-Type: image/png\r\nContent-Length: {}\r\n\r\n",
            image.len()
        )
        .into_bytes();
        request.extend_from_slice(image);
        self.0.get_mut().write_all(&request).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> (u16, Vec<u8>) {
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the connection ended");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            status = status.or_else(|| line.split(' ').nth(1)?.parse().ok());
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status.unwrap(), body)
    }
}
