//! Whether an image can be decoded, asked without a prediction.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::item::refused;
use super::{Failure, Predictor};
use crate::batcher::ItemError;
use crate::preprocess::{ImageError, decode, header};
use crate::queueing::Asker;

impl Predictor {
    /// Decodes an image on a thread of the decode pool, within its limits, and drops it.
    ///
    /// # Errors
    ///
    /// What is wrong with the image; a pool that is full or closed; a deadline that passed.
    pub async fn verify(&self, image: Bytes, deadline: Instant) -> Result<(), Failure> {
        let limits = self.limits;
        let bytes = header(&image, &limits)?.memory_bytes;
        let (reply, answer) = oneshot::channel();
        let job = move || {
            if reply.is_closed() {
                return;
            }
            let decoded = decode(&image, &limits).map(drop);
            // Nobody waits any more where the caller has hung up.
            let _ = reply.send(decoded);
        };
        self.pool.submit(Asker::default(), bytes, job).map_err(refused)?;
        let answer = timeout_at(deadline.into(), answer).await;
        let answer = answer.map_err(|_elapsed| ItemError::DeadlinePassed)?;
        Ok(answer.unwrap_or(Err(ImageError::Panicked))?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::predict::fixture::{Workbench, png};

    #[tokio::test]
    async fn what_decodes_is_told_from_what_does_not() {
        let mut bench = Workbench::new(9, 9);
        let _running = bench.run();
        let check = async |bytes: Vec<u8>, expected: Result<(), &str>| {
            let found = bench.predictor.verify(bytes.into(), soon()).await;
            match (found.map_err(|failure| failure.to_string()), expected) {
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
            }
        };
        check(png(1), Ok(())).await;
        check(png(1)[..40].to_vec(), Err("the image is broken")).await;
        check(Vec::new(), Err("the image is empty")).await;
        check(b"text".to_vec(), Err("the bytes are none of")).await;
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    #[tokio::test]
    async fn who_waits_for_a_decoder_waits_until_the_deadline() {
        let bench = Workbench::new(9, 9);
        let late = bench.predictor.verify(png(1).into(), Instant::now()).await;
        assert_eq!(late, Err(Failure::Item(ItemError::DeadlinePassed)));
    }

    #[tokio::test]
    async fn a_full_or_closed_pool_refuses() {
        let bench = Workbench::new(0, 0);
        let full = bench.predictor.verify(png(1).into(), soon()).await.unwrap_err();
        assert!(matches!(full, Failure::Item(ItemError::Refused(_))), "{full}");
        bench.pool.close();
        let closed = bench.predictor.verify(png(1).into(), soon()).await;
        assert_eq!(closed, Err(Failure::Item(ItemError::Closed)));
    }
}
