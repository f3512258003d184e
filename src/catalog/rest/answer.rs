//! What a REST server says: its answers' shapes, and what a refusal or a silence means.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
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
    #[serde(default)]
    pub(super) endpoints: Option<Vec<String>>,
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
#[serde(rename_all = "kebab-case")]
pub(super) struct Credentials {
    pub(super) storage_credentials: Vec<StorageCredential>,
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
struct ErrorAnswer {
    error: ErrorModel,
}

#[derive(Deserialize)]
struct ErrorModel {
    message: Option<String>,
    r#type: Option<String>,
}

/// How much of an error's body is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// `None`: no answer.
    pub(super) status: Option<StatusCode>,
    /// Whether the server may have seen it.
    pub(super) sent: bool,
    /// A refusal that may pass by itself.
    pub(super) heals: bool,
    /// Somebody in between has answered, an ingress without a backend for instance.
    pub(super) foreign: bool,
    pub(super) line: String,
}

impl Failure {
    /// It never went out; trying again may help.
    pub(super) fn unsent(line: String) -> Failure {
        Failure { status: None, sent: false, heals: true, foreign: false, line }
    }

    /// It never went out, and a person must do something.
    pub(super) fn refused(line: String) -> Failure {
        Failure { status: Some(StatusCode::UNAUTHORIZED), sent: false, heals: false, foreign: false, line }
    }

    /// The server itself says that it does not know us (any more), and has done nothing.
    pub(super) fn is_unauthorized(&self) -> bool {
        // 419 is the protocol's "credentials have timed out".
        self.sent && self.status.is_some_and(|status| matches!(status.as_u16(), 401 | 419))
    }

    /// The same, or that we may not do what we asked for.
    pub(super) fn is_denied(&self) -> bool {
        self.is_unauthorized() || self.sent && self.status == Some(StatusCode::FORBIDDEN)
    }

    /// AWS says that our signature is of another time.
    pub(super) fn clock_is_off(&self) -> bool {
        self.sent && ["Signature expired", "Signature not yet current"].iter().any(|word| self.line.contains(word))
    }

    /// AWS says that the keys were good once.
    pub(super) fn keys_are_old(&self) -> bool {
        const WORDS: [&str; 3] =
            ["ExpiredToken", "security token included in the request is expired", "RequestExpired"];
        let refused = self.status.is_some_and(|status| matches!(status.as_u16(), 400 | 403));
        self.sent && refused && WORDS.iter().any(|word| self.line.contains(word))
    }

    /// For requests that change nothing, or may be repeated.
    pub(super) fn plain(self) -> Error {
        match self.status {
            None => Error::Unavailable(self.line),
            Some(_) if self.foreign => Error::Unavailable(self.line),
            Some(StatusCode::NOT_FOUND) => Error::NotFound(self.line),
            Some(StatusCode::CONFLICT) => Error::AlreadyExists(self.line),
            Some(status) if self.heals || passing(status) => Error::Unavailable(self.line),
            Some(_) => Error::Refused(self.line),
        }
    }

    pub(super) fn commit(self) -> Error {
        match self.status {
            None if !self.sent => Error::Unavailable(self.line),
            None => Error::Unknown(self.line),
            Some(_) if self.foreign => Error::Unknown(self.line),
            Some(StatusCode::CONFLICT) => Error::Conflict(self.line),
            Some(StatusCode::NOT_FOUND) => Error::NotFound(self.line),
            Some(_) if self.heals => Error::Unavailable(self.line),
            Some(status) if status.is_client_error() && !passing(status) => Error::Refused(self.line),
            Some(_) => Error::Unknown(self.line),
        }
    }

    /// Like a commit, but a conflict says that the name is taken.
    pub(super) fn create(self) -> Error {
        match self.status {
            Some(StatusCode::CONFLICT) if !self.foreign => Error::AlreadyExists(self.line),
            _ => self.commit(),
        }
    }
}

/// What an error's body says, to go behind the status; empty where it says nothing.
pub(super) fn told(body: &[u8]) -> String {
    let line = match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(ErrorAnswer { error: ErrorModel { message, r#type } }) => format!(
            "{}{}",
            r#type.map(|kind| format!(" {kind}")).unwrap_or_default(),
            message.map(|message| format!(": {message}")).unwrap_or_default()
        ),
        Err(_) => format!(": {}", page_title(&String::from_utf8_lossy(body))),
    };
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches([':', ' ']);
    match line.starts_with(':') || line.is_empty() {
        true => line.to_owned(),
        false => format!(" {line}"),
    }
}

/// Whether an error's body is no catalog's: text or HTML. One that says nothing may be.
pub(super) fn is_page(body: &[u8]) -> bool {
    !body.is_empty() && serde_json::from_slice::<HashMap<String, serde_json::Value>>(body).is_err()
}

/// As much of an error's body as anybody wants to read.
pub(super) async fn limited(mut response: reqwest::Response) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BYTES_MAX {
            break;
        }
    }
    body.freeze()
}

/// What a web server's error page says; other text as it is.
fn page_title(body: &str) -> &str {
    let title = body.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map_or(body, |(title, _)| title)
}

/// Statuses that time may heal.
pub(super) fn passing(status: StatusCode) -> bool {
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
        Failure { status, sent, heals: false, foreign: false, line: String::new() }
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
        // A token that may be taken again: nothing was done, and it may be tried again.
        let late = Failure { heals: true, ..failure(Some(401), true) };
        assert!(late.is_unauthorized() && matches!(late.commit(), Error::Unavailable(_)));
        assert!(!Failure::refused(String::new()).is_unauthorized());
        assert!(matches!(Failure::refused(String::new()).commit(), Error::Refused(_)));
    }

    #[test]
    fn answers_of_every_kind_are_one_line() {
        for (body, wanted) in [
            (
                r#"{"error":{"message":"no such\n table","type":"NoSuchTableException","code":404}}"#,
                " NoSuchTableException: no such table",
            ),
            (r#"{"error":{"message":"odd"}}"#, ": odd"),
            ("<html><title>502 Bad\nGateway</title></html>", ": 502 Bad Gateway"),
            ("", ""),
        ] {
            assert_eq!(told(body.as_bytes()), wanted);
        }
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
