//! The conversation with a server: requests under our identity, each sent once, and what came of them.
//!
//! The one request that is sent again is one that was refused with 401 (or the protocol's 419): the server has done
//! nothing, and there is a newer token to show. A table's own token may be refused with 403 as well, and then the
//! catalog's is shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{self, Failure, Page};
use super::auth::{Auth, Shown};
use super::encode;
use super::endpoints::{Endpoint, Offered};
use super::secrets::Secrets;
use crate::catalog::aws::Signer;
use crate::catalog::error::{clip, one_line};
use crate::catalog::{Error, Result};
use crate::telemetry::metrics::Requests;

/// Redirects within a server that are followed, one after the other.
const REDIRECTS_MAX: usize = 5;

pub(super) struct Client {
    pub(super) name: String,
    pub(super) http: reqwest::Client,
    pub(super) headers: HeaderMap,
    pub(super) auth: Auth,
    /// Signs every request (SigV4).
    pub(super) signer: Option<Signer>,
    pub(super) secrets: Arc<Secrets>,
    /// `<uri>/v1`, with the server's prefix where it has one.
    pub(super) root: String,
    pub(super) offered: Offered,
    /// How many entries a page of a listing shall have; none: the server decides whether there are pages.
    pub(super) page_size: Option<u32>,
    pub(super) requests: Requests,
    /// Those that the server gave with tables, by the tables' paths.
    pub(super) tokens: Mutex<HashMap<String, HeaderValue>>,
    /// The catalog has taken our word before, so that a refusal may be a passing one.
    pub(super) known: std::sync::atomic::AtomicBool,
}

/// A request, ready to be sent, and sent again.
pub(super) struct Call {
    endpoint: Option<Endpoint>,
    method: Method,
    path: String,
    body: Option<Bytes>,
    headers: HeaderMap,
    /// A table's token is shown instead of the catalog's, where the server gave one.
    of_table: bool,
}

impl Call {
    pub(super) fn new(endpoint: Endpoint, path: impl Into<String>) -> Call {
        let method = match endpoint.text().split(' ').next() {
            Some("POST") => Method::POST,
            Some("DELETE") => Method::DELETE,
            _ => Method::GET,
        };
        Call {
            endpoint: Some(endpoint),
            method,
            path: path.into(),
            body: None,
            headers: HeaderMap::new(),
            of_table: false,
        }
    }

    /// `/v1/config`, which every server has.
    pub(super) fn config(query: &str) -> Call {
        let path = format!("/config{query}");
        Call { endpoint: None, method: Method::GET, path, body: None, headers: HeaderMap::new(), of_table: false }
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Call> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Refused(format!("a request as JSON: {error}")))?;
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Some(body.into());
        Ok(self)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Call {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// One that changes the table whose path this is.
    pub(super) fn of_table(self) -> Call {
        Call { of_table: true, ..self }
    }
}

/// How the HTTP client is set up.
pub(super) struct Transport {
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
    /// PEM certificates that are trusted beside the usual ones.
    pub(super) authorities: Option<Vec<u8>>,
}

impl Transport {
    pub(super) fn client(&self) -> std::result::Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("calve/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .timeout(self.answer_timeout)
            .redirect(Policy::custom(redirect));
        if let Some(pem) = &self.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("ssl.cabundle holds no PEM certificates: {}", one_line(&error)))?;
            if authorities.is_empty() {
                return Err("ssl.cabundle holds no PEM certificates".to_owned());
            }
            for authority in authorities {
                builder = builder.add_root_certificate(authority);
            }
        }
        builder.build().map_err(|error| format!("cannot make an HTTP client: {}", one_line(&error)))
    }
}

/// Only redirects that keep the method and stay on the host: after the others a commit would have become a question,
/// and its answer would look like a commit's.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let from = attempt.previous().last();
    let stays = from.is_some_and(|from| {
        let upgraded = from.scheme() == "http" && attempt.url().scheme() == "https";
        from.host() == attempt.url().host() && (from.origin() == attempt.url().origin() || upgraded)
    });
    match keeps && stays && attempt.previous().len() <= REDIRECTS_MAX {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

impl Client {
    pub(super) async fn send(&self, call: &Call) -> std::result::Result<Bytes, Failure> {
        use std::sync::atomic::Ordering;
        if let Some(endpoint) = call.endpoint.filter(|endpoint| !self.offered.has(*endpoint)) {
            let line = format!("catalog {}: the server does not offer {}", self.name, endpoint.text());
            return Err(Failure::refused(line));
        }
        let mut token = if call.of_table { self.token_of(&call.path) } else { None };
        let (mut shown, mut answer) = self.once(call, token.as_ref()).await?;
        if token.is_some() && answer.as_ref().is_err_and(Failure::is_denied) {
            self.keep_token(&call.path, None);
            token = None;
            (shown, answer) = self.once(call, None).await?;
        }
        let again = match &answer {
            Err(failure) if failure.is_unauthorized() => self.auth.renew(&shown).await,
            Err(failure) if failure.keys_are_old() => match &self.signer {
                Some(signer) => signer.renew().await,
                None => false,
            },
            _ => false,
        };
        if again {
            (_, answer) = self.once(call, token.as_ref()).await?;
        }
        match answer {
            Ok(body) => {
                self.known.store(true, Ordering::Relaxed);
                Ok(body)
            }
            Err(mut failure) => {
                // Who has never heard of the catalog may have come to somebody else.
                failure.foreign &= self.known.load(Ordering::Relaxed);
                if failure.clock_is_off() {
                    failure.heals = true;
                    failure.line += "; this host's clock is off: synchronize it (NTP), and it goes on by itself";
                }
                if failure.is_unauthorized() {
                    // What was good enough before may be so again: a key server that is away, a late rotation.
                    failure.heals = self.auth.renews() && self.known.load(Ordering::Relaxed);
                    failure.line = format!("{}; {} (catalogs/{}.toml)", failure.line, self.auth.remedy(), self.name);
                }
                Err(failure)
            }
        }
    }

    fn token_of(&self, path: &str) -> Option<HeaderValue> {
        self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(path).cloned()
    }

    /// A table's token from now on; none: the catalog's.
    pub(super) fn keep_token(&self, path: &str, token: Option<HeaderValue>) {
        let mut tokens = self.tokens.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match token {
            Some(token) => tokens.insert(path.to_owned(), token),
            None => tokens.remove(path),
        };
    }

    async fn once(
        &self,
        call: &Call,
        token: Option<&HeaderValue>,
    ) -> std::result::Result<(Shown, std::result::Result<Bytes, Failure>), Failure> {
        let mut headers = self.headers.clone();
        headers.extend(call.headers.clone());
        let shown = match token {
            Some(token) => {
                // As in Java's client, a header that the user gave goes before.
                headers.entry(AUTHORIZATION).or_insert_with(|| token.clone());
                Shown::Nothing
            }
            None => self.auth.authorize(&mut headers).await?,
        };
        let mut request =
            self.http.request(call.method.clone(), format!("{}{}", self.root, call.path)).headers(headers);
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let request = request.build();
        let mut request = request.map_err(|error| Failure::refused(self.say("no request", &error.without_url())))?;
        if let Some(signer) = &self.signer {
            self.sign(signer, &mut request).await?;
        }
        self.requests.catalog(call.endpoint.map_or("GET /v1/config", Endpoint::text));
        Ok((shown, self.exchange(request).await))
    }

    /// Where a token is shown too, it makes room for the signature as Java's client has it.
    async fn sign(&self, signer: &Signer, request: &mut reqwest::Request) -> std::result::Result<(), Failure> {
        if let Some(token) = request.headers_mut().remove(AUTHORIZATION) {
            request.headers_mut().insert("original-authorization", token);
        }
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let signed = signer.sign(request.method(), request.url(), request.headers(), body).await;
        let signed = signed.map_err(|error| {
            let line = |line: String| self.secrets.hide(format!("catalog {}: {line}", self.name));
            match error {
                Error::Unavailable(why) => Failure::unsent(line(why)),
                error => Failure::refused(line(error.to_string())),
            }
        })?;
        request.headers_mut().extend(signed);
        Ok(())
    }

    async fn exchange(&self, request: reqwest::Request) -> std::result::Result<Bytes, Failure> {
        let fail = |error: reqwest::Error| {
            let what = if error.is_timeout() { "no answer in time" } else { "no answer" };
            Failure {
                status: None,
                sent: !(error.is_connect() || error.is_builder()),
                heals: false,
                foreign: false,
                line: self.say(what, &error.without_url()),
            }
        };
        let response = self.http.execute(request).await.map_err(fail)?;
        let status = response.status();
        if status.is_success() {
            return response.bytes().await.map_err(fail);
        }
        let moved = response.headers().get("location").and_then(|to| to.to_str().ok()).map(|to| format!(" to {to}"));
        let body = answer::limited(response).await;
        let said = match status.is_redirection() {
            true => format!(": a redirect{} that is not followed", moved.unwrap_or_default()),
            false => answer::told(&body),
        };
        let line = clip(format!("catalog {}: the server answered {}{said}", self.name, status.as_u16()));
        let foreign = status.is_client_error() && answer::is_page(&body);
        Err(Failure { status: Some(status), sent: true, heals: false, foreign, line: self.secrets.hide(line) })
    }

    fn say(&self, what: &str, error: &reqwest::Error) -> String {
        let line = one_line(error);
        let remedy = match line.contains("UnknownIssuer") {
            true => "; name the PEM file of the authority that issued it in ssl.cabundle",
            false => "",
        };
        self.secrets.hide(format!("catalog {}: {what}: {line}{remedy}", self.name))
    }

    /// What makes no sense is a gateway's word in between, if the catalog has made sense before.
    pub(super) async fn get<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        let known = self.known.load(std::sync::atomic::Ordering::Relaxed);
        let body = self.send(call).await.map_err(Failure::plain)?;
        self.parse(&body).map_err(if known { Error::Unavailable } else { Error::Refused })
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> std::result::Result<T, String> {
        serde_json::from_slice(body).map_err(|error| {
            self.secrets.hide(format!("catalog {}: an answer that makes no sense: {error}", self.name))
        })
    }

    /// All of a listing, in however many pages it comes.
    pub(super) async fn pages<T: DeserializeOwned>(&self, endpoint: Endpoint, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        // Pages are asked for with an empty token.
        let mut token = self.page_size.map(|_| String::new());
        loop {
            let mut path = path.to_owned();
            let mut query = |key: &str, value: &str| {
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str(&format!("{key}={}", encode(value)));
            };
            if let Some(token) = &token {
                query("pageToken", token);
            }
            if let Some(size) = self.page_size {
                query("pageSize", &size.to_string());
            }
            let mut page: Page<T> = self.get(&Call::new(endpoint, path)).await?;
            items.append(&mut page.items);
            match page.next {
                Some(next) if !next.is_empty() && Some(&next) != token.as_ref() => token = Some(next),
                _ => return Ok(items),
            }
        }
    }
}
