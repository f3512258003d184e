//! Glue's JSON protocol: one signed POST a request, and what its refusals and silences mean.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::catalog::aws::Signer;
use crate::catalog::error::{clip, one_line};
use crate::catalog::{Error, Result};
use crate::telemetry::metrics::Requests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// Older services of AWS say a refusal's type here instead of in its body.
const ERROR_TYPE: &str = "x-amzn-errortype";
const REQUEST_ID: &str = "x-amzn-requestid";

/// Refusals that time heals; nothing was done.
const PASSING: &[&str] = &[
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "SlowDown",
    "PriorRequestNotComplete",
    "BandwidthLimitExceeded",
    "ResourceNotReadyException",
    "FederationSourceRetryableException",
];

pub(super) struct Client {
    /// The catalog's, for messages.
    name: String,
    http: reqwest::Client,
    endpoint: Url,
    signer: Signer,
    /// The account whose catalog it is, unless the caller's own.
    id: Option<String>,
    requests: Requests,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint.as_str())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Whether a request may be sent twice without harm.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Read,
    Write,
}

impl Client {
    pub(super) fn new(
        name: &str,
        endpoint: Url,
        signer: Signer,
        id: Option<String>,
        requests: Requests,
    ) -> std::result::Result<Client, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("calve/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|error| format!("cannot make an HTTP client: {}", one_line(&error)))?;
        Ok(Client { name: name.to_owned(), http, endpoint, signer, id, requests })
    }

    /// For requests that change nothing.
    pub(super) async fn read(&self, action: &'static str, body: Value) -> Result<Value> {
        self.call(action, body, Effect::Read).await
    }

    /// For requests that change something: no answer, or one that makes no sense, is [`Error::Unknown`].
    pub(super) async fn write(&self, action: &'static str, body: Value) -> Result<Value> {
        self.call(action, body, Effect::Write).await
    }

    async fn call(&self, action: &'static str, mut body: Value, effect: Effect) -> Result<Value> {
        if let Some(id) = &self.id {
            body["CatalogId"] = json!(id);
        }
        let at = |reason: String| clip(format!("catalog {}: {action}: {reason}", self.name));
        let lost = |reason: String| match effect {
            Effect::Read => Error::Unavailable(at(reason)),
            Effect::Write => Error::Unknown(at(reason)),
        };
        let body = Bytes::from(body.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        let target = HeaderValue::from_str(&format!("AWSGlue.{action}")).expect("an action is a word");
        headers.insert(TARGET, target);
        let signed = self.signer.sign(&Method::POST, &self.endpoint, &headers, &body).await;
        headers.extend(signed.map_err(|error| error.at(format_args!("catalog {}", self.name)))?);
        self.requests.catalog(action);
        let sent = self.http.post(self.endpoint.clone()).headers(headers).body(body).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                let what = if error.is_timeout() { "no answer in time" } else { "no answer" };
                let unsent = error.is_connect() || error.is_builder();
                let reason = format!("{what}: {}", one_line(&error.without_url()));
                return Err(if unsent { Error::Unavailable(at(reason)) } else { lost(reason) });
            }
        };
        let status = answer.status();
        let kind = answer.headers().get(ERROR_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let signed_by_aws = answer.headers().contains_key(REQUEST_ID);
        let body = match answer.bytes().await {
            Ok(body) => body,
            Err(error) => return Err(lost(format!("half an answer: {}", one_line(&error.without_url())))),
        };
        if status.is_success() {
            return match serde_json::from_slice(&body) {
                Ok(answer @ Value::Object(_)) => Ok(answer),
                // Glue has nothing to say to a change that it made, but signs its answers; a gateway does not.
                _ if body.is_empty() && signed_by_aws => Ok(json!({})),
                _ => Err(lost("an answer that makes no sense".to_owned())),
            };
        }
        let refusal = Refusal::new(status, kind, &body);
        if refusal.keys_expired() && self.signer.renew().await {
            return Err(Error::Unavailable(at(format!("{refusal}; the credentials are fetched anew"))));
        }
        Err(refusal.error(effect, at))
    }
}

/// What Glue says when it does not do what it was asked to.
struct Refusal {
    status: StatusCode,
    kind: String,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = |text: &str| if text.is_empty() { "" } else { " " };
        write!(f, "Glue answered {}{}{}", self.status.as_u16(), space(&self.kind), self.kind)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Refusal {
    fn new(status: StatusCode, header: Option<String>, body: &[u8]) -> Refusal {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |keys: &[&str]| keys.iter().find_map(|key| json[*key].as_str()).map(str::to_owned);
        // `com.amazonaws.glue#EntityNotFoundException`, `EntityNotFoundException:http://…`
        let kind = header.or_else(|| text(&["__type", "code", "Code"])).unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let kind = kind.split(':').next().unwrap_or_default().to_owned();
        let message = text(&["Message", "message"]).unwrap_or_else(|| match json.is_null() {
            true => String::from_utf8_lossy(body).into_owned(),
            false => String::new(),
        });
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Refusal { status, kind, message: clip(message) }
    }

    fn keys_expired(&self) -> bool {
        matches!(self.kind.as_str(), "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException")
    }

    fn error(&self, effect: Effect, at: impl Fn(String) -> String) -> Error {
        let line = |remedy: &str| at(if remedy.is_empty() { self.to_string() } else { format!("{self}; {remedy}") });
        match self.kind.as_str() {
            "EntityNotFoundException" => return Error::NotFound(line("")),
            "AlreadyExistsException" => return Error::AlreadyExists(line("")),
            "ConcurrentModificationException" => return Error::Conflict(line("")),
            kind if PASSING.contains(&kind) => return Error::Unavailable(line("")),
            // The service gave up on it, and does not say where.
            "OperationTimeoutException" if effect == Effect::Write => return Error::Unknown(line("")),
            "OperationTimeoutException" => return Error::Unavailable(line("")),
            _ => {}
        }
        if !self.kind.is_empty() && self.message.starts_with("Rate exceeded") {
            return Error::Unavailable(line(""));
        }
        // Without the name of a refusal it is a gateway's word, which does not know what Glue did.
        if self.status.is_server_error() || matches!(self.status.as_u16(), 408 | 425 | 429) {
            return match effect {
                Effect::Read => Error::Unavailable(line("")),
                Effect::Write => Error::Unknown(line("")),
            };
        }
        if !self.status.is_client_error() {
            return match effect {
                Effect::Read => Error::Refused(line("")),
                Effect::Write => Error::Unknown(line("")),
            };
        }
        Error::Refused(line(self.remedy()))
    }

    /// What a person must do about it.
    fn remedy(&self) -> &'static str {
        let says = |text: &str| self.message.contains(text);
        if says("Lake Formation") {
            "grant this permission to calve's role in Lake Formation (or let IAM decide alone for this database and table)"
        } else if says("Signature expired") || says("Signature not yet current") || self.kind == "RequestTimeTooSkewed"
        {
            "this host's clock is off: synchronize it (NTP)"
        } else {
            match self.kind.as_str() {
                "AccessDeniedException" | "AccessDenied" => {
                    "allow this action on the catalog, the database and the table in the IAM policy of calve's role"
                }
                "ExpiredTokenException" | "ExpiredToken" => {
                    "the session token has expired: give a new one, or let AWS's chain fetch it"
                }
                "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "IncompleteSignatureException"
                | "MissingAuthenticationTokenException" => {
                    "check the access key, its secret and the region (glue.region)"
                }
                "ResourceNumberLimitExceededException" => {
                    "too many tables or table versions: set \"glue.skip-archive\" = \"true\", or have the limit raised"
                }
                _ => "",
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str, effect: Effect) -> Error {
        Refusal::new(StatusCode::from_u16(status).unwrap(), None, body.as_bytes()).error(effect, |line| line)
    }

    #[test]
    fn refusals_are_sorted() {
        let said = |kind: &str, message: &str| format!(r#"{{"__type":"{kind}","Message":"{message}"}}"#);
        let write = |status, kind: &str| error(status, &said(kind, "m"), Effect::Write);
        assert!(matches!(write(400, "com.amazonaws.glue#EntityNotFoundException"), Error::NotFound(_)));
        assert!(matches!(write(400, "AlreadyExistsException:http://internal"), Error::AlreadyExists(_)));
        assert!(matches!(write(400, "ConcurrentModificationException"), Error::Conflict(_)));
        assert!(matches!(write(400, "ThrottlingException"), Error::Unavailable(_)));
        assert!(matches!(write(400, "OperationTimeoutException"), Error::Unknown(_)));
        assert!(matches!(write(500, "InternalServiceException"), Error::Unknown(_)));
        assert!(matches!(write(503, ""), Error::Unknown(_)));
        assert!(matches!(write(302, ""), Error::Unknown(_)));
        assert!(matches!(write(400, "InvalidInputException"), Error::Refused(_)));
        assert!(matches!(error(400, &said("x", "Rate exceeded"), Effect::Write), Error::Unavailable(_)));
        assert!(matches!(error(500, "<html>oops</html>", Effect::Read), Error::Unavailable(_)));
        assert!(matches!(error(429, "", Effect::Write), Error::Unknown(_)));
        assert!(matches!(error(429, "", Effect::Read), Error::Unavailable(_)));
        assert!(matches!(write(429, "ThrottlingException"), Error::Unavailable(_)));
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (kind, message, wanted) in [
            (
                "AccessDeniedException",
                "Insufficient Lake Formation permission(s): Required Alter on orders",
                "Required Alter on orders; grant this permission",
            ),
            (
                "AccessDeniedException",
                "User: arn is not authorized to perform: glue:UpdateTable",
                "glue:UpdateTable; allow this action",
            ),
            (
                "InvalidSignatureException",
                "Signature expired: 20261122T000000Z is now earlier than 2026",
                "clock is off",
            ),
            ("InvalidSignatureException", "The request signature we calculated does not match", "check the access key"),
            (
                "ExpiredTokenException",
                "The security token included in the request is expired",
                "expired: give a new one",
            ),
            ("ResourceNumberLimitExceededException", "Number of TABLE_VERSION resources exceeds", "glue.skip-archive"),
        ] {
            let body = format!(r#"{{"__type":"{kind}","message":"{message}"}}"#);
            let error = error(400, &body, Effect::Write);
            assert!(matches!(&error, Error::Refused(line) if line.contains(wanted) && !line.contains('\n')), "{error}");
        }
    }
}
