//! Errors of dependencies, turned into [`Error`] once and onto one line.

use std::error::Error as StdError;
use std::fmt::Write;

use iceberg::ErrorKind;

use super::Error;

/// Answers may hold whole HTML pages; nobody reads further than this.
const LINE_CHARS_MAX: usize = 600;

/// An error and its causes on one line, each said once.
pub(super) fn one_line(error: &dyn StdError) -> String {
    let mut line = squeeze(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = squeeze(&error.to_string());
        if !line.contains(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    clip(line)
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn clip(mut line: String) -> String {
    if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
}

impl From<iceberg::Error> for Error {
    /// For everything but the request that swaps a table's metadata: nothing was changed.
    fn from(error: iceberg::Error) -> Self {
        let mut line = squeeze(error.message());
        let mut cause = StdError::source(&error);
        while let Some(error) = cause {
            let text = squeeze(&error.to_string());
            if !line.contains(&text) {
                let _ = write!(line, ": {text}");
            }
            cause = error.source();
        }
        let line = clip(line);
        match error.kind() {
            ErrorKind::CatalogCommitConflicts => Error::Conflict(line),
            ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound => Error::NotFound(line),
            ErrorKind::TableAlreadyExists | ErrorKind::NamespaceAlreadyExists => Error::AlreadyExists(line),
            _ if error.retryable() => Error::Unavailable(line),
            _ => Error::Refused(line),
        }
    }
}

impl Error {
    /// The same error, said of `what`.
    pub fn at(self, what: impl std::fmt::Display) -> Self {
        let put = |line: String| format!("{what}: {line}");
        match self {
            Error::Conflict(line) => Error::Conflict(put(line)),
            Error::Unknown(line) => Error::Unknown(put(line)),
            Error::Unavailable(line) => Error::Unavailable(put(line)),
            Error::NotFound(line) => Error::NotFound(put(line)),
            Error::AlreadyExists(line) => Error::AlreadyExists(put(line)),
            Error::Refused(line) => Error::Refused(put(line)),
        }
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Conflict(_) | Error::Unknown(_) | Error::Unavailable(_) => {
                crate::error::Error::retry(error.to_string())
            }
            Error::NotFound(_) | Error::AlreadyExists(_) | Error::Refused(_) => {
                crate::error::Error::halt(error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once_and_on_one_line() {
        let inner = std::io::Error::other("disk\n  on fire");
        let error = iceberg::Error::new(ErrorKind::Unexpected, "cannot write").with_source(inner).with_retryable(true);
        let error = Error::from(error).at("table a.b");
        assert_eq!(error.to_string(), "unavailable: table a.b: cannot write: disk on fire");
        assert!(crate::error::Error::from(error).is_retry());
        assert!(clip("x".repeat(5000)).chars().count() <= LINE_CHARS_MAX + 1);
    }
}
