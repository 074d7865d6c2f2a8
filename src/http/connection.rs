//! One connection, from its accept to its close.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::Service;

use super::activity::{Activity, Limits, Watched};
use super::client::Caller;
use super::stream::Stream;
use super::tls::Tls;
use super::{Phase, State};
use crate::telemetry::Metrics;
use crate::telemetry::access::Handshake;

/// How every connection is served.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    http: http1::Builder,
    router: Router,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    /// Where connections begin with a handshake.
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
}

/// While the server closes, a peer that keeps it waiting for this long more is let go.
const CLOSING_STALL: Duration = Duration::from_secs(2);

/// How long a closed connection still reads: bytes left unread would make the kernel reset the connection, and the peer
/// would lose the answer that says why (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);

impl Manner {
    /// As configured; `router` answers, after a handshake where there is `tls`.
    pub(super) fn new(state: &State, router: Router, tls: Option<Arc<Tls>>) -> Self {
        let config = &state.config;
        let mut http = http1::Builder::new();
        http.max_buf_size(config.max_head_bytes).header_read_timeout(None);
        Self {
            http,
            router,
            limits: Limits::new(config),
            phase: state.phase.clone(),
            tls,
            metrics: Arc::clone(&state.metrics),
        }
    }

    /// Answers the peer's requests until it closes, stalls, or the server closes.
    pub(super) async fn serve(mut self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        // Unknown where the peer is gone already.
        let peer = stream.peer_addr().ok().map(|address| address.ip());
        // A handshake has the time of a head, and what follows has what is left of it.
        let activity = Arc::new(Activity::new(Instant::now()));
        let Some(stream) = self.shake_hands(stream).await else {
            return;
        };
        let caller = Caller {
            peer,
            certificate: stream.peer_certificate(),
            id: None,
        };
        let watched = Watched {
            stream,
            activity: Arc::clone(&activity),
        };
        if let Some(watched) = self.converse(watched, &activity, caller).await {
            linger(watched.stream).await;
        }
    }

    /// The stream, in TLS where that is asked for; `None` where the peer does not come to it.
    async fn shake_hands(&mut self, stream: TcpStream) -> Option<Stream> {
        let Some(tls) = self.tls.take() else {
            return Some(Stream::Plain(stream));
        };
        let closing = async {
            reached(&mut self.phase, Phase::Closing).await;
            sleep(CLOSING_STALL).await;
        };
        // A handshake that is done wins over its deadline.
        let shaken = tokio::select! {
            biased;
            shaken = tls.accept(stream) => Some(shaken),
            () = sleep(self.limits.head) => None,
            () = closing => None,
        };
        let (stream, outcome) = match shaken {
            Some(Ok(stream)) => (Some(Stream::Tls(Box::new(stream))), Handshake::Done),
            Some(Err(error)) => {
                tracing::debug!(%error, "a handshake failed");
                (None, Handshake::Failed)
            }
            None => (None, Handshake::Late),
        };
        self.metrics.access.handshake(outcome);
        stream
    }

    /// The stream once HTTP is done with it; `None` where the peer stalled or is gone.
    async fn converse(
        mut self,
        watched: Watched<Stream>,
        activity: &Arc<Activity>,
        caller: Caller,
    ) -> Option<Watched<Stream>> {
        let router = self.router;
        let answer = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            let handling = activity.handle();
            let answer = router.clone().call(request);
            Box::pin(async move {
                let answer = answer.await;
                drop(handling);
                answer
            })
        });
        let mut connection = self.http.serve_connection(TokioIo::new(watched), answer);
        let mut look = pin!(sleep(self.limits.shorter()));
        let mut closing = false;
        loop {
            // An answer that is ready goes out before anything ends the connection.
            tokio::select! {
                biased;
                done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                    if let Err(error) = done {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return Some(connection.into_parts().io.into_inner());
                }
                () = reached(&mut self.phase, Phase::Closing), if !closing => {
                    closing = true;
                    self.limits = self.limits.at_most(CLOSING_STALL);
                    look.as_mut().reset(Instant::now() + self.limits.shorter());
                    // A fresh connection's first request may be on its way: it is answered, with `Connection: close`.
                    if !activity.is_fresh() {
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                }
                () = look.as_mut() => if is_stalled(activity, self.limits, look.as_mut()) {
                    return None;
                }
            }
        }
    }
}

/// Whether the deadline has passed; if not, sets the next look.
fn is_stalled(activity: &Activity, limits: Limits, look: Pin<&mut Sleep>) -> bool {
    let now = Instant::now();
    let next = now + limits.shorter();
    let deadline = activity.deadline(limits);
    look.reset(deadline.map_or(next, |at| at.min(next)));
    deadline.is_some_and(|at| at <= now)
}

/// Returns once the phase is `phase` or later, or nobody moves it any more.
pub(super) async fn reached(now: &mut watch::Receiver<Phase>, phase: Phase) {
    // An error says that the sender is gone, which ends the server as well.
    let _ = now.wait_for(|now| *now >= phase).await;
}

/// Says that no more is coming, then reads on until the peer has said so too.
async fn linger(mut stream: Stream) {
    let rest = async {
        stream.shutdown().await?;
        let mut unread = vec![0; 8192];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, the connection is over.
    let _ = timeout(LINGER, rest).await;
}
