//! One keep-alive connection to a server.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::super::CliError;
use super::super::super::url::Url;
use super::payload::Payload;
use super::recorder::Outcome;

/// A server, its name looked up once.
#[derive(Debug)]
pub(super) struct Target {
    addresses: Vec<SocketAddr>,
    host: HeaderValue,
    path: Uri,
    /// Sent with each request.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Target {
    pub(super) async fn resolve(url: &Url) -> Result<Self, CliError> {
        let wrong = |why: &dyn std::fmt::Display| CliError::Usage(format!("{url}: {why}"));
        let path = url.path.parse().map_err(|e| wrong(&e))?;
        let host = url.authority.parse().map_err(|e| wrong(&e))?;
        let found = lookup_host(&url.authority).await.map_err(|e| wrong(&e))?;
        Ok(Self {
            addresses: found.collect(),
            host,
            path,
            header: None,
        })
    }

    /// Sends this header with each request.
    pub(super) fn with(mut self, header: (HeaderName, HeaderValue)) -> Self {
        self.header = Some(header);
        self
    }

    /// A new connection.
    pub(super) async fn stream(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&*self.addresses).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The page that is there, where it is 200 and a text.
    pub(super) async fn get(&self) -> Option<String> {
        let mut open = self.connect().await.ok()?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        let response = open.sender.send_request(request).await.ok()?;
        let found = response.status() == 200;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        String::from_utf8(body.into()).ok().filter(|_| found)
    }

    /// A request's bytes as they go over the wire.
    pub(super) fn as_sent(&self, payload: &Payload) -> Vec<u8> {
        let request = self.request(payload);
        let mut text = format!("POST {} HTTP/1.1\r\n", self.path).into_bytes();
        let length = (CONTENT_LENGTH, HeaderValue::from(payload.bytes.len()));
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in headers.chain([length]) {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&payload.bytes);
        text
    }
}

/// A connection that is opened when it is first needed, and again when it was lost.
#[derive(Debug)]
pub(super) struct Client {
    target: Rc<Target>,
    /// How long a request may take from opening the connection to the answer's last byte.
    patience: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes the socket; aborted when dropped.
    _driver: JoinSet<()>,
}

impl Client {
    pub(super) fn new(target: Rc<Target>, patience: Duration) -> Self {
        Self {
            target,
            patience,
            open: None,
        }
    }

    /// Sends a POST and reads the answer to its end.
    pub(super) async fn ask(&mut self, payload: &Payload) -> Outcome {
        let exchanged = timeout(self.patience, self.exchange(payload)).await;
        let outcome = exchanged.unwrap_or(Outcome::Timeout);
        if outcome.status().is_none() {
            self.open = None;
        }
        outcome
    }

    async fn exchange(&mut self, payload: &Payload) -> Outcome {
        let request = self.target.request(payload);
        let Ok(sender) = self.sender().await else {
            return Outcome::ConnectError;
        };
        let answered = match sender.send_request(request).await {
            Ok(response) => read(response).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or(Outcome::ProtocolError)
    }

    /// Of a connection that takes a request.
    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
        let kept = match self.open.take() {
            // It is not ready where the server has closed it after the last answer.
            Some(mut open) => open.sender.ready().await.is_ok().then_some(open),
            None => None,
        };
        let open = match kept {
            Some(open) => open,
            None => self.target.connect().await?,
        };
        Ok(&mut self.open.insert(open).sender)
    }
}

impl Target {
    async fn connect(&self) -> Result<Open, Box<dyn std::error::Error>> {
        let (sender, connection) = handshake(TokioIo::new(self.stream().await?)).await?;
        let mut driver = JoinSet::new();
        driver.spawn_local(async {
            // Its error is the error of the request in flight.
            let _ = connection.await;
        });
        Ok(Open {
            sender,
            _driver: driver,
        })
    }

    fn request(&self, payload: &Payload) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(payload.bytes.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, payload.content_type.clone());
        if let Some((name, value)) = self.header.clone() {
            headers.insert(name, value);
        }
        request
    }
}

/// What a refusal tells beside its status.
const EXPLAINED: [HeaderName; 3] = [
    RETRY_AFTER,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
];

/// The status, once the body has been read and thrown away.
async fn read(mut response: Response<Incoming>) -> hyper::Result<Outcome> {
    while let Some(frame) = response.frame().await {
        frame?;
    }
    let headers = response.headers();
    let explained = || EXPLAINED.iter().all(|name| headers.contains_key(name));
    Ok(match response.status().as_u16() {
        429 if !explained() => Outcome::Unexplained,
        status => Outcome::Answered(status),
    })
}
