//! What a failure means for the loop that meets it. Decided once, where a dependency's error is converted.

use std::fmt;

/// What the caller's loop must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passing: the same call may succeed later; wait with jitter and try again.
    Retry,
    /// This topic stops and says so; others go on. A person must act.
    Halt,
}

/// A failure of a stage: one line of what, where and why, with what to do, and its causes.
#[derive(Debug)]
pub struct Error {
    pub verdict: Verdict,
    pub message: String,
    pub source: Option<anyhow::Error>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn retry(message: impl Into<String>) -> Self {
        Error { verdict: Verdict::Retry, message: message.into(), source: None }
    }

    pub fn halt(message: impl Into<String>) -> Self {
        Error { verdict: Verdict::Halt, message: message.into(), source: None }
    }

    pub fn caused_by(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn is_retry(&self) -> bool {
        self.verdict == Verdict::Retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}
