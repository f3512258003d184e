//! Waiting out what passes: a broker, catalog or store that does not answer.

use std::pin::pin;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::error::{Error, Result};
use crate::source::{Stall, Stalled};
use crate::telemetry::{Board, TopicState};

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// An attempt that takes longer is said to wait: a catalog that hangs may have minutes before it counts as failed.
const LONG: Duration = Duration::from_secs(10);

/// How a topic's loop waits: it says so on the board, once in the log for each new reason, and tries again for ever or
/// for as long as it was told.
#[derive(Clone, Debug)]
pub struct Patience {
    pub topic: String,
    pub board: Board,
    /// Give up after so long without success; a daemon does not.
    pub limit: Option<Duration>,
    /// Told of waits, once there are events.
    pub stall: Option<Stall>,
}

impl Patience {
    pub fn begin(&self) -> Waiting<'_> {
        Waiting { patience: self, started: Instant::now(), backoff: BACKOFF_MIN, said: String::new(), stalled: None }
    }
}

/// One wait of a [`Patience`]; see [`patiently`].
pub struct Waiting<'a> {
    patience: &'a Patience,
    started: Instant,
    backoff: Duration,
    said: String,
    stalled: Option<Stalled>,
}

impl Waiting<'_> {
    /// Awaits an attempt, and says so if that takes long.
    pub async fn attempt<T>(&mut self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let mut attempt = pin!(attempt);
        match tokio::time::timeout(LONG, &mut attempt).await {
            Ok(ended) => ended,
            Err(_) => {
                self.say(format!("no answer from catalog, store or broker for {} s", LONG.as_secs()), "still waiting");
                attempt.await
            }
        }
    }

    fn say(&mut self, reason: String, next: &str) {
        let Patience { topic, board, stall, .. } = self.patience;
        self.stalled = self.stalled.take().or_else(|| stall.as_ref().map(Stall::hold));
        if reason != self.said {
            tracing::warn!(topic = %topic, "{reason}; {next}");
            board.set(topic, TopicState::Retrying, Some(reason.clone()));
            self.said = reason;
        }
    }

    /// Waits before the next attempt; gives the error back if there must not be one.
    pub async fn pause(&mut self, error: Error) -> Result<()> {
        let limit = self.patience.limit;
        if !error.is_retry() || limit.is_some_and(|limit| self.started.elapsed() >= limit) {
            return Err(error);
        }
        self.say(error.to_string(), "trying again");
        // Jitter, so that many topics do not come back in step.
        let jittered = rand::rng().random_range(self.backoff / 2..=self.backoff);
        tokio::time::sleep(jittered).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }

    /// It has succeeded.
    pub fn end(&self) {
        let Patience { topic, board, .. } = self.patience;
        if !self.said.is_empty() {
            tracing::info!(topic = %topic, waited_seconds = self.started.elapsed().as_secs(), "going on");
            board.set(topic, TopicState::Running, None);
        }
    }
}

/// `patiently!(patience, attempt)` awaits `attempt`, made anew each time, until it succeeds, must not be tried again, or
/// patience ends. A macro, because an async closure over borrowed state is not known to be `Send`.
macro_rules! patiently {
    ($patience:expr, $attempt:expr) => {{
        let mut waiting = $patience.begin();
        loop {
            match waiting.attempt($attempt).await {
                Ok(value) => {
                    waiting.end();
                    break crate::error::Result::Ok(value);
                }
                Err(error) => {
                    if let Err(error) = waiting.pause(error).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
pub(crate) use patiently;
