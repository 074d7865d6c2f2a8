//! One keep-alive connection to a server.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
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
        })
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
        if !matches!(outcome, Outcome::Answered(_)) {
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
        answered.map_or(Outcome::ProtocolError, Outcome::Answered)
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
        let stream = TcpStream::connect(&*self.addresses).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
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
        request
    }
}

/// The status, once the body has been read and thrown away.
async fn read(mut response: Response<Incoming>) -> hyper::Result<u16> {
    while let Some(frame) = response.frame().await {
        frame?;
    }
    Ok(response.status().as_u16())
}
