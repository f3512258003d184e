//! OAuth2's client credentials (RFC 6749, 4.4), as Iceberg's clients use them: one token for all requests, asked for
//! again before it expires and when the catalog does not take it any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::answer::{self, Failure};
use super::renewed::Renewed;
use super::secrets::Secrets;
use super::{encode, secret_header};

const DEFAULT_SCOPE: &str = "catalog";
/// How long a token lives whose server does not say; Java's default.
const UNSAID_LIFE: Duration = Duration::from_secs(3600);

pub(super) struct OAuth2 {
    catalog: String,
    http: reqwest::Client,
    uri: String,
    /// The catalog's own headers, where it is the token server too.
    headers: HeaderMap,
    form: String,
    tokens: Renewed<HeaderValue>,
    secrets: Arc<Secrets>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
    error_description: Option<String>,
}

impl OAuth2 {
    /// `uri`: the catalog's. `get` looks a property up.
    pub(super) fn new<'a>(
        catalog: &str,
        http: reqwest::Client,
        uri: &str,
        headers: &HeaderMap,
        get: impl Fn(&str) -> Option<&'a String>,
        secrets: Arc<Secrets>,
    ) -> Result<OAuth2, String> {
        let Some(credential) = get("credential") else { return Err("credential is missing".to_owned()) };
        let server = match get("oauth2-server-uri") {
            Some(server) if server.contains("://") => server.clone(),
            // As Java has it: a path is the catalog's.
            Some(path) => format!("{uri}/{}", path.trim_start_matches('/')),
            None => format!("{uri}/v1/oauth/tokens"),
        };
        let mut form = vec![("grant_type", "client_credentials")];
        match credential.split_once(':') {
            Some((id, secret)) => form.extend([("client_id", id), ("client_secret", secret)]),
            None => form.push(("client_secret", credential)),
        }
        form.push(("scope", get("scope").map_or(DEFAULT_SCOPE, String::as_str)));
        for key in ["audience", "resource"] {
            form.extend(get(key).map(|value| (key, value.as_str())));
        }
        let form: Vec<String> = form.into_iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let origin = |address: &str| url::Url::parse(address).map(|url| url.origin());
        let headers = match (origin(uri), origin(&server)) {
            (Ok(ours), Ok(theirs)) if ours == theirs => headers.clone(),
            (_, Ok(_)) => HeaderMap::new(),
            (_, Err(error)) => return Err(format!("oauth2-server-uri is no address: {error}")),
        };
        let tokens = Renewed::default();
        if let Some(token) = get("token") {
            let header = bearer(token).ok_or("token holds characters that a header cannot")?;
            tokens.put(header, expiry_within(token));
        }
        Ok(OAuth2 { catalog: catalog.to_owned(), http, uri: server, headers, form: form.join("&"), tokens, secrets })
    }

    /// The header, and the number of the token in it.
    pub(super) async fn header(&self) -> Result<(u64, HeaderValue), Failure> {
        let complain = |failure: &Failure| {
            tracing::warn!(catalog = %self.catalog, "{}; going on with the old token while it lasts", failure.line);
        };
        self.tokens.get(self.ask(), complain).await
    }

    /// The catalog did not take the token of this number.
    pub(super) fn expire(&self, number: u64) {
        self.tokens.expire(number);
    }

    async fn ask(&self) -> Result<(HeaderValue, Option<SystemTime>), Failure> {
        let asked = SystemTime::now();
        let request = self
            .http
            .post(&self.uri)
            .headers(self.headers.clone())
            .header(ACCEPT, "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(self.form.clone());
        let place = format!("catalog {}: the token server {}", self.catalog, self.uri);
        let response = request.send().await.map_err(|error| {
            let line = format!("{place} gave no answer: {}", crate::catalog::error::one_line(&error.without_url()));
            Failure { heals: true, ..Failure::unsent(self.secrets.hide(line)) }
        })?;
        let status = response.status();
        let body = answer::limited(response).await;
        if !status.is_success() {
            return Err(self.denied(&place, status, &body));
        }
        let broken = |why: &str| {
            let line = format!("{place} gave an answer that makes no sense: {why}");
            let remedy = format!("is oauth2-server-uri in catalogs/{}.toml right?", self.catalog);
            Failure::refused(self.secrets.hide(format!("{line}; {remedy}")))
        };
        let granted: Granted = serde_json::from_slice(&body).map_err(|error| broken(&error.to_string()))?;
        if granted.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(broken("its token is no bearer token"));
        }
        self.secrets.learn(&granted.access_token);
        let header = bearer(&granted.access_token).ok_or_else(|| broken("its token cannot stand in a header"))?;
        let life = granted.expires_in.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let life = life.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // The end may lie beyond what a clock can say.
        let end = life.map_or_else(
            || expiry_within(&granted.access_token).or_else(|| asked.checked_add(UNSAID_LIFE)),
            |life| asked.checked_add(life),
        );
        Ok((header, end))
    }

    fn denied(&self, place: &str, status: StatusCode, body: &[u8]) -> Failure {
        let code = status.as_u16();
        let file = format!("catalogs/{}.toml", self.catalog);
        let (said, remedy) = match serde_json::from_slice::<Denied>(body) {
            Ok(Denied { error, error_description }) => {
                let remedy = match error.as_str() {
                    "invalid_client" => format!("mend credential (CLIENT-ID:CLIENT-SECRET) in {file}"),
                    "unauthorized_client" => {
                        format!("the client of credential in {file} must be allowed the grant client_credentials")
                    }
                    "invalid_scope" => format!("mend scope in {file}"),
                    "invalid_target" => format!("mend audience or resource in {file}"),
                    "access_denied" => format!("the client of credential in {file} needs permission"),
                    _ => format!("mend oauth2-server-uri, credential or scope in {file}"),
                };
                let description = error_description.map(|text| format!(": {text}")).unwrap_or_default();
                (format!(" {error}{description}"), remedy)
            }
            Err(_) => (answer::told(body), format!("mend oauth2-server-uri or credential in {file}")),
        };
        let line = format!("{place} answered {code}{said}");
        match answer::passing(status) {
            true => Failure { heals: true, ..Failure::unsent(self.secrets.hide(line)) },
            false => Failure::refused(self.secrets.hide(format!("{line}; {remedy}"))),
        }
    }
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_header(&format!("Bearer {token}")).ok()
}

/// When a JSON Web Token says that it expires. It is not for us to check it.
fn expiry_within(token: &str) -> Option<SystemTime> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&claims).ok()?;
    let seconds = claims.get("exp")?.as_u64()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_may_say_when_they_expire() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"x","exp":1795000000}"#);
        let wanted = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        assert_eq!(expiry_within(&format!("e30.{claims}.sig")), Some(wanted));
        for opaque in ["", "abc", "a.b.c", "a.e30.c"] {
            assert_eq!(expiry_within(opaque), None, "{opaque}");
        }
    }
}
