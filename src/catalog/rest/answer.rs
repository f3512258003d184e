//! What a REST server says: its answers' shapes, and what a refusal or a silence means.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::TableMetadata;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::catalog::Error;

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ServerConfig {
    #[serde(default)]
    pub(super) defaults: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(super) overrides: BTreeMap<String, Option<String>>,
    pub(super) idempotency_key_lifetime: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LoadedTable {
    pub(super) metadata_location: Option<String>,
    pub(super) metadata: TableMetadata,
    #[serde(default)]
    pub(super) config: Option<HashMap<String, String>>,
    #[serde(default)]
    pub(super) storage_credentials: Option<Vec<StorageCredential>>,
}

#[derive(Deserialize)]
pub(super) struct StorageCredential {
    pub(super) prefix: String,
    pub(super) config: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct CommittedTable {
    #[serde(rename = "metadata-location")]
    pub(super) metadata_location: String,
    pub(super) metadata: TableMetadata,
}

#[derive(Deserialize)]
pub(super) struct Page<T> {
    #[serde(alias = "namespaces", alias = "identifiers", default = "Vec::new")]
    pub(super) items: Vec<T>,
    #[serde(rename = "next-page-token")]
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) error: ErrorModel,
}

#[derive(Deserialize)]
pub(super) struct ErrorModel {
    pub(super) message: Option<String>,
    pub(super) r#type: Option<String>,
}

/// A request that did not succeed.
pub(super) struct Failure {
    /// `None`: no answer.
    pub(super) status: Option<StatusCode>,
    /// Whether the server may have seen it.
    pub(super) sent: bool,
    pub(super) line: String,
}

impl Failure {
    /// For requests that change nothing, or may be repeated.
    pub(super) fn plain(self) -> Error {
        match self.status {
            None => Error::Unavailable(self.line),
            Some(StatusCode::NOT_FOUND) => Error::NotFound(self.line),
            Some(StatusCode::CONFLICT) => Error::AlreadyExists(self.line),
            Some(status) if passing(status) => Error::Unavailable(self.line),
            Some(_) => Error::Refused(self.line),
        }
    }

    pub(super) fn commit(self) -> Error {
        match self.status {
            None if !self.sent => Error::Unavailable(self.line),
            None => Error::Unknown(self.line),
            Some(StatusCode::CONFLICT) => Error::Conflict(self.line),
            Some(StatusCode::NOT_FOUND) => Error::NotFound(self.line),
            Some(status) if status.is_client_error() && !passing(status) => Error::Refused(self.line),
            Some(_) => Error::Unknown(self.line),
        }
    }

    /// Like a commit, but a conflict says that the name is taken.
    pub(super) fn create(self) -> Error {
        match self.status {
            Some(StatusCode::CONFLICT) => Error::AlreadyExists(self.line),
            _ => self.commit(),
        }
    }
}

/// What a web server's error page says; other text as it is.
pub(super) fn page_title(body: &str) -> &str {
    let title = body.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map_or(body, |(title, _)| title)
}

/// Statuses that time may heal.
fn passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

pub(super) fn settled(properties: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    properties.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: Option<u16>, sent: bool) -> Failure {
        let status = status.map(|status| StatusCode::from_u16(status).unwrap());
        Failure { status, sent, line: String::new() }
    }

    #[test]
    fn a_commit_is_unknown_unless_it_was_refused() {
        for status in [408, 425, 429, 500, 501, 502, 503, 504, 507, 302] {
            assert!(matches!(failure(Some(status), true).commit(), Error::Unknown(_)), "{status}");
        }
        for status in [400, 401, 403, 405, 406, 413, 419, 422] {
            assert!(matches!(failure(Some(status), true).commit(), Error::Refused(_)), "{status}");
        }
        assert!(matches!(failure(Some(409), true).commit(), Error::Conflict(_)));
        assert!(matches!(failure(Some(409), true).create(), Error::AlreadyExists(_)));
        assert!(matches!(failure(Some(404), true).commit(), Error::NotFound(_)));
        assert!(matches!(failure(None, true).commit(), Error::Unknown(_)));
        assert!(matches!(failure(None, false).commit(), Error::Unavailable(_)));
    }

    #[test]
    fn reads_are_unavailable_while_it_may_pass() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(failure(Some(status), true).plain(), Error::Unavailable(_)), "{status}");
        }
        assert!(matches!(failure(Some(401), true).plain(), Error::Refused(_)));
        assert!(matches!(failure(Some(404), true).plain(), Error::NotFound(_)));
        assert!(matches!(failure(None, true).plain(), Error::Unavailable(_)));
    }
}
