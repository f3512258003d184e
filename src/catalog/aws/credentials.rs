//! Credentials: keys that are written down, or AWS's chain (environment, profiles with the roles that they assume, web
//! identity, container and instance metadata), fetched when first needed and again before they expire.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::http::Http;
use crate::catalog::error::one_line;
use crate::catalog::{Error, Result};

/// Keys are fetched again when they have less than this to live …
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
/// … and when they say nothing of their end, as often as this: the file that they stand in may have changed.
const REFRESH_UNDATED: Duration = Duration::from_secs(15 * 60);
/// A fetch that failed while the old keys are still good is repeated after this.
const REFRESH_AGAIN: Duration = Duration::from_secs(30);
/// How long the whole chain may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Where keys come from, and the last ones; clones share them.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    cached: Mutex<Option<Cached>>,
}

enum Source {
    Fixed(Keys),
    Chain { chain: Chain, provider: OnceCell<SharedCredentialsProvider> },
}

#[derive(Default)]
struct Chain {
    profile: Option<String>,
    region: Option<String>,
    /// A role that the chain's keys are exchanged for, and the name of the session.
    role: Option<(String, String)>,
}

struct Cached {
    keys: Keys,
    fetch_at: Instant,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.inner.source {
            Source::Fixed(_) => "Credentials(fixed)",
            Source::Chain { .. } => "Credentials(chain)",
        })
    }
}

impl Credentials {
    /// As a catalog's properties have them under `<service>.` or, for all services of AWS, `client.`: keys
    /// (`access-key-id`, `secret-access-key`, `session-token`), else the chain, with a profile (`profile-name`) and a
    /// role to assume (`role-arn`, `role-session-name`) if there are such.
    pub fn new(service: &str, properties: &BTreeMap<String, String>) -> Credentials {
        let said = |key: &str| said(service, key, properties);
        let source = match (said("access-key-id"), said("secret-access-key")) {
            (Some(id), Some(secret)) => {
                Source::Fixed(Keys::new(id, secret, said("session-token").map(str::to_owned), None, "properties"))
            }
            _ => {
                let session = said("role-session-name").unwrap_or("calve");
                let chain = Chain {
                    profile: said("profile-name").map(str::to_owned),
                    region: said("region").map(str::to_owned),
                    role: said("role-arn").map(|arn| (arn.to_owned(), session.to_owned())),
                };
                Source::Chain { chain, provider: OnceCell::new() }
            }
        };
        Credentials { inner: Arc::new(Inner { source, cached: Mutex::default() }) }
    }

    /// Keys that are good for some minutes. [`Error::Refused`] when there are none to be had, [`Error::Unavailable`]
    /// when who gives them does not answer.
    pub async fn keys(&self) -> Result<Keys> {
        let (chain, provider) = match &self.inner.source {
            Source::Fixed(keys) => return Ok(keys.clone()),
            Source::Chain { chain, provider } => (chain, provider),
        };
        // Whoever comes while keys are fetched waits for them.
        let mut cached = self.inner.cached.lock().await;
        if let Some(cached) = cached.as_ref()
            && Instant::now() < cached.fetch_at
        {
            return Ok(cached.keys.clone());
        }
        let fetch = async {
            let provider = provider.get_or_init(|| chain.provider()).await;
            provider.provide_credentials().await.map_err(|error| failed(&error))
        };
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch).await.unwrap_or_else(|_| {
            Err(Error::Unavailable(format!("AWS credentials: no answer within {FETCH_TIMEOUT:?}")))
        });
        match (fetched, cached.as_mut()) {
            (Ok(keys), _) => {
                let fetch_at = Instant::now() + fresh_for(&keys, SystemTime::now());
                *cached = Some(Cached { keys: keys.clone(), fetch_at });
                Ok(keys)
            }
            (Err(error), Some(cached)) if lives(&cached.keys, SystemTime::now() + REFRESH_AGAIN) => {
                tracing::warn!(%error, "AWS credentials could not be renewed; the last ones are still good");
                cached.fetch_at = Instant::now() + REFRESH_AGAIN;
                Ok(cached.keys.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// A service says that the keys are no longer good: the next ones are fetched. False if there can be no others.
    pub async fn renew(&self) -> bool {
        *self.inner.cached.lock().await = None;
        matches!(self.inner.source, Source::Chain { .. })
    }
}

impl Chain {
    async fn provider(&self) -> SharedCredentialsProvider {
        let mut loader = loader();
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            // A profile that is named here wins over keys in the environment, as everywhere at AWS.
            let region = self.region.clone().map(Region::new);
            let config = ProviderConfig::without_region().with_region(region).with_http_client(Http);
            let provider = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build();
            loader = loader.profile_name(profile).credentials_provider(provider);
        }
        let config: SdkConfig = loader.load().await;
        let provider = config.credentials_provider().expect("the loader was not told to have none");
        match &self.role {
            None => provider,
            Some((arn, session)) => {
                let role = AssumeRoleProvider::builder(arn).session_name(session).configure(&config);
                SharedCredentialsProvider::new(role.build_from_provider(provider).await)
            }
        }
    }
}

fn loader() -> aws_config::ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest()).http_client(Http)
}

fn said<'a>(service: &str, key: &str, properties: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let get = |name: &str| properties.get(&format!("{name}.{key}")).filter(|value| !value.is_empty());
    get(service).or_else(|| get("client")).map(String::as_str)
}

/// The region of a service: `<service>.region` or `client.region`, else where AWS's tools look (`AWS_REGION`, the
/// profile, the instance).
pub async fn region(service: &str, properties: &BTreeMap<String, String>) -> Option<String> {
    if let Some(region) = said(service, "region", properties) {
        return Some(region.to_owned());
    }
    let mut loader = loader();
    if let Some(profile) = said(service, "profile-name", properties) {
        loader = loader.profile_name(profile);
    }
    loader.load().await.region().map(|region| region.as_ref().to_owned())
}

fn lives(keys: &Keys, until: SystemTime) -> bool {
    keys.expiry().is_none_or(|expiry| expiry > until)
}

/// How long keys are used before they are fetched again.
fn fresh_for(keys: &Keys, now: SystemTime) -> Duration {
    let Some(expiry) = keys.expiry() else { return REFRESH_UNDATED };
    let left = expiry.duration_since(now).unwrap_or_default();
    // Keys that live hardly longer than the margin are fetched again halfway.
    left.saturating_sub(REFRESH_BEFORE).max(left / 2)
}

fn failed(error: &CredentialsError) -> Error {
    let line = one_line(error);
    match error {
        CredentialsError::CredentialsNotLoaded(_) => Error::Refused(format!(
            "no AWS credentials are to be had: give keys in the catalog's file, or what AWS's own tools read \
             (AWS_ACCESS_KEY_ID, a profile, a role of the container or instance): {line}"
        )),
        CredentialsError::InvalidConfiguration(_) => Error::Refused(format!("AWS credentials: {line}")),
        // A role that may not be assumed stays so until a person acts; whatever else went wrong may pass.
        _ if line.contains("AccessDenied") || line.contains("not authorized") => {
            Error::Refused(format!("AWS credentials: {line}"))
        }
        _ => Error::Unavailable(format!("AWS credentials: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_services_own_keys_win_and_are_never_shown() {
        let both = properties(&[
            ("client.access-key-id", "theirs"),
            ("client.secret-access-key", "planted-secret"),
            ("glue.access-key-id", "ours"),
            ("glue.secret-access-key", "planted-secret"),
        ]);
        let glue = Credentials::new("glue", &both);
        assert_eq!(glue.keys().await.unwrap().access_key_id(), "ours");
        assert_eq!(Credentials::new("s3", &both).keys().await.unwrap().access_key_id(), "theirs");
        assert!(!format!("{glue:?}").contains("planted-secret"));
        assert!(!glue.renew().await, "there are no other keys than those that are written down");
        assert_eq!(region("glue", &properties(&[("client.region", "eu-west-1")])).await.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn keys_are_fetched_before_their_end() {
        let now = SystemTime::now();
        let keys = |left: u64| Keys::new("id", "secret", None, Some(now + Duration::from_secs(left)), "test");
        assert_eq!(fresh_for(&keys(3600), now), Duration::from_secs(3300));
        assert_eq!(fresh_for(&keys(300), now), Duration::from_secs(150));
        assert_eq!(fresh_for(&keys(2), now), Duration::from_secs(1));
        assert!(!lives(&keys(10), now + REFRESH_AGAIN) && lives(&keys(60), now + REFRESH_AGAIN));
    }
}
