//! Clients that send a request and are gone before its answer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::client::Target;
use super::super::payload::Payload;

/// At once.
const CLIENTS: usize = 64;

/// How a client goes.
#[derive(Clone, Copy)]
enum Way {
    /// After the whole request; its socket is reset.
    Reset,
    /// After the whole request; it says that it is done.
    Closed,
    /// In the middle of the body.
    Midway,
}

/// Of every ten, how each goes, and for how many milliseconds it waits before. Most are reset, since one that closes in order keeps
/// its port for a minute; the first are gone before they are let in, the last in the middle of their answer.
const WAYS: [(Way, u64); 10] = [
    (Way::Reset, 0),
    (Way::Reset, 1),
    (Way::Midway, 2),
    (Way::Reset, 3),
    (Way::Reset, 5),
    (Way::Midway, 5),
    (Way::Reset, 8),
    (Way::Reset, 12),
    (Way::Midway, 20),
    (Way::Closed, 1),
];

/// Lets so many clients hang up; how many of them were connected.
pub(super) async fn all(count: u32, target: &Rc<Target>, payload: &Payload) -> u64 {
    let (next, sent) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let request: Rc<[u8]> = target.as_sent(payload).into();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (next, sent) = (Rc::clone(&next), Rc::clone(&sent));
        let (target, request) = (Rc::clone(target), Rc::clone(&request));
        clients.spawn_local(async move {
            while next.get() < count {
                let way = WAYS[next.replace(next.get() + 1) as usize % WAYS.len()];
                if one(&target, &request, way).await.is_ok() {
                    sent.set(sent.get() + 1);
                }
            }
        });
    }
    clients.join_all().await;
    sent.get()
}

async fn one(target: &Target, request: &[u8], (way, wait_ms): (Way, u64)) -> std::io::Result<()> {
    let mut stream = target.stream().await?;
    if !matches!(way, Way::Closed) {
        stream.set_zero_linger()?;
    }
    let length = match way {
        // Most of a request is its body.
        Way::Midway => request.len() - 1,
        Way::Reset | Way::Closed => request.len(),
    };
    // Refused in the middle, it hangs up all the same.
    let _ = stream.write_all(&request[..length]).await;
    sleep(Duration::from_millis(wait_ms)).await;
    Ok(())
}
