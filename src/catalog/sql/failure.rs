//! What a database's refusal or silence means.

use crate::catalog::Error;
use crate::catalog::error::one_line;

/// Postgres's classes for a connection that ended: what the statement did is not known.
pub(super) fn connection_lost(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
}

/// A database's answer, sorted by what it means for the caller when nothing depends on the statement's outcome.
pub(super) fn said(catalog: &str, what: &str, error: sqlx::Error) -> Error {
    let line = format!("catalog {catalog}: {what}: {}", one_line(&error));
    match &error {
        sqlx::Error::Database(refusal) => {
            if refusal.is_unique_violation() {
                return Error::AlreadyExists(line);
            }
            let code = refusal.code();
            let code = code.as_deref().unwrap_or_default();
            // SQLite's extended codes keep the primary one in their low byte: 5 busy, 6 locked, 13 a full disk.
            let sqlite_passing =
                code.parse::<u32>().is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 5 | 6 | 13))
                    && code.len() < 5;
            // Postgres: serialization failures and deadlocks (40), no resources (53), shut down or starting (57P).
            let passing = sqlite_passing
                || connection_lost(refusal.as_ref())
                || (code.len() == 5 && (code.starts_with("40") || code.starts_with("53")));
            if passing { Error::Unavailable(line) } else { Error::Refused(line) }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Error::Unavailable(line),
        _ => Error::Refused(line),
    }
}
