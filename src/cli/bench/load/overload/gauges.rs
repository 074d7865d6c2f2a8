//! What a server's metrics say of its state.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::super::super::CliError;
use super::super::client::Target;

/// A server's state at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Gauges {
    /// Resident, in bytes; 0 where the server does not tell it.
    #[serde(rename = "memory_bytes")]
    pub(super) memory: f64,
    /// The one that asks is among them.
    pub(super) connections: f64,
    pub(super) items_in_flight: f64,
    pub(super) queued: f64,
    pub(super) decoding_bytes: f64,
}

/// Looks at a server's memory until it is told to end.
pub(super) struct Watch {
    seen: Rc<RefCell<Vec<f64>>>,
    task: JoinHandle<()>,
}

const EVERY: Duration = Duration::from_millis(200);
/// A page of metrics comes at once, or the server does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Gauges {
    /// Asks for them.
    pub(super) async fn of(series: &Target) -> Result<Self, CliError> {
        let page = tokio::time::timeout(TIMEOUT, series.get()).await;
        let unread = || {
            CliError::Failed("the server's series cannot be read; --metrics tells where they are".to_owned())
        };
        let page = page.ok().flatten().ok_or_else(unread)?;
        Ok(Self::read(&page))
    }

    fn read(page: &str) -> Self {
        let sum = |name: &str| {
            let values = page.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let labels = rest.starts_with('{') || rest.starts_with(' ');
                labels.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
            });
            values.sum::<f64>()
        };
        Self {
            memory: sum("process_resident_memory_bytes"),
            connections: sum("sconce_http_connections"),
            items_in_flight: sum("sconce_items_in_flight"),
            queued: sum("sconce_queue_depth"),
            decoding_bytes: sum("sconce_decode_in_flight_bytes"),
        }
    }

    /// Whether nobody is there but the one that asks.
    pub(super) fn is_idle(&self) -> bool {
        let nothing = [self.items_in_flight, self.queued, self.decoding_bytes];
        self.connections <= 1.0 && nothing.iter().all(|&value| value == 0.0)
    }
}

impl Watch {
    /// Within a `LocalSet`.
    pub(super) fn start(series: &Rc<Target>) -> Self {
        let all = Rc::new(RefCell::new(Vec::new()));
        let (seen, series) = (Rc::clone(&all), Rc::clone(series));
        let look = async move {
            loop {
                // One look that fails is one sample less.
                if let Ok(now) = Gauges::of(&series).await {
                    seen.borrow_mut().push(now.memory);
                }
                sleep(EVERY).await;
            }
        };
        Self {
            seen: all,
            task: tokio::task::spawn_local(look),
        }
    }

    /// The most that was seen in the first half of the time, and in the second: what a full queue holds is in both.
    pub(super) fn end(self) -> [f64; 2] {
        self.task.abort();
        let seen = self.seen.borrow();
        let (first, second) = seen.split_at(seen.len() / 2);
        [first, second].map(|half| half.iter().copied().fold(0.0, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_its_names() {
        let page = "# HELP sconce_queue_depth Images waiting.\nsconce_queue_depth{model=\"a\"} 3\n\
                    sconce_queue_depth{model=\"b\"} 4\nsconce_queue_depths 9\n\
                    process_resident_memory_bytes 1048576\nsconce_http_connections 1\n";
        let gauges = Gauges::read(page);
        assert_eq!(
            (gauges.queued, gauges.memory, gauges.connections),
            (7.0, 1_048_576.0, 1.0)
        );
        assert!(!gauges.is_idle());
        assert!(
            Gauges {
                queued: 0.0,
                ..gauges
            }
            .is_idle()
        );
    }
}
