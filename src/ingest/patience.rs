//! Waiting out what passes: a broker, catalog or store that does not answer.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::error::Result;
use crate::telemetry::{Board, TopicState};

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// How a topic's loop waits: it says so on the board, once in the log for each new reason, and tries again for ever or
/// for as long as it was told.
#[derive(Clone, Debug)]
pub struct Patience {
    pub topic: String,
    pub board: Board,
    /// Give up after so long without success; a daemon does not.
    pub limit: Option<Duration>,
}

impl Patience {
    /// Calls `attempt` until it succeeds, must not be tried again, or patience ends.
    pub async fn wait<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let mut backoff = BACKOFF_MIN;
        let mut said = String::new();
        loop {
            match attempt().await {
                Ok(value) => {
                    if !said.is_empty() {
                        tracing::info!(topic = %self.topic, waited_seconds = started.elapsed().as_secs(), "going on");
                        self.board.set(&self.topic, TopicState::Running, None);
                    }
                    return Ok(value);
                }
                Err(error) if error.is_retry() && self.limit.is_none_or(|limit| started.elapsed() < limit) => {
                    let reason = error.to_string();
                    if reason != said {
                        tracing::warn!(topic = %self.topic, "{reason}; trying again");
                        self.board.set(&self.topic, TopicState::Retrying, Some(reason.clone()));
                        said = reason;
                    }
                }
                Err(error) => return Err(error),
            }
            // Full jitter, so that many topics do not come back in step.
            let jittered = rand::rng().random_range(backoff / 2..=backoff);
            tokio::time::sleep(jittered).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}
