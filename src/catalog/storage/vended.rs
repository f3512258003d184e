//! Keys that a catalog vends for one table and that expire: a store asks for them with each request, so that they are
//! renewed in the middle of a long upload too.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use object_store::azure::AzureCredential;
use object_store::gcp::GcpCredential;

use super::location::Bucket;

/// Properties (keys among them) with which the files below a prefix are read and written.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    pub prefix: String,
    pub properties: HashMap<String, String>,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Who vends.
#[async_trait]
pub trait Vending: Send + Sync + fmt::Debug {
    /// What was granted last, good or not.
    fn last(&self) -> Arc<[Grant]>;

    /// What is granted now, asked for anew when its end is near. The error says in one line why there is nothing good.
    async fn current(&self) -> Result<Arc<[Grant]>, String>;
}

/// The grant for a location: the one of the longest prefix.
pub fn best<'a>(grants: &'a [Grant], location: &str) -> Option<&'a Grant> {
    let location = plain_scheme(location);
    let fits = |grant: &&Grant| location.starts_with(plain_scheme(&grant.prefix).as_ref());
    grants.iter().filter(fits).max_by_key(|grant| grant.prefix.len())
}

/// Hadoop's names for S3 are S3.
fn plain_scheme(location: &str) -> std::borrow::Cow<'_, str> {
    match location.split_once("://") {
        Some(("s3a" | "s3n", rest)) => format!("s3://{rest}").into(),
        _ => location.into(),
    }
}

/// The keys of one grant, as a store wants them: now, and not from when it was made.
#[derive(Debug)]
pub(super) struct Keys {
    vending: Arc<dyn Vending>,
    /// Of the grant; a later list may cut the prefixes otherwise.
    prefix: String,
    bucket: Bucket,
    /// A file that the store is for.
    location: String,
}

impl Keys {
    /// `None` where the grant has no keys for such a store.
    pub(super) fn new(vending: Arc<dyn Vending>, grant: &Grant, bucket: &Bucket, location: &str) -> Option<Keys> {
        let has = match bucket {
            Bucket::S3(_) => grant.properties.contains_key("s3.access-key-id"),
            Bucket::Gcs(_) => grant.properties.contains_key("gcs.oauth2.token"),
            Bucket::Azure(_) => sas_token(&grant.properties, bucket).is_some(),
        };
        let (prefix, location) = (grant.prefix.clone(), location.to_owned());
        has.then(|| Keys { vending, prefix, bucket: bucket.clone(), location })
    }

    async fn properties(&self, store: &'static str) -> object_store::Result<HashMap<String, String>> {
        let grants = self.vending.current().await;
        let grants = grants.map_err(|why| object_store::Error::Generic { store, source: why.into() })?;
        let same = grants.iter().find(|grant| grant.prefix == self.prefix);
        let grant = same.or_else(|| best(&grants, &self.location));
        grant.map(|grant| grant.properties.clone()).ok_or_else(|| self.none(store))
    }

    fn none(&self, store: &'static str) -> object_store::Error {
        let source = format!("the catalog vends no keys for {} any more", self.location).into();
        object_store::Error::Generic { store, source }
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut properties = self.properties("S3").await?;
        let keys = properties.remove("s3.access-key-id").zip(properties.remove("s3.secret-access-key"));
        let (key_id, secret_key) = keys.ok_or_else(|| self.none("S3"))?;
        Ok(Arc::new(AwsCredential { key_id, secret_key, token: properties.remove("s3.session-token") }))
    }
}

/// [`Keys`] of Google's.
#[derive(Debug)]
pub(super) struct Token(pub(super) Keys);

#[async_trait]
impl CredentialProvider for Token {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let mut properties = self.0.properties("GCS").await?;
        let bearer = properties.remove("gcs.oauth2.token").ok_or_else(|| self.0.none("GCS"))?;
        Ok(Arc::new(GcpCredential { bearer }))
    }
}

/// [`Keys`] of Azure's.
#[derive(Debug)]
pub(super) struct Sas(pub(super) Keys);

#[async_trait]
impl CredentialProvider for Sas {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let properties = self.0.properties("Azure").await?;
        let token = sas_token(&properties, &self.0.bucket).ok_or_else(|| self.0.none("Azure"))?;
        let pairs = url::form_urlencoded::parse(token.trim_start_matches('?').as_bytes());
        Ok(Arc::new(AzureCredential::SASToken(pairs.into_owned().collect())))
    }
}

/// The token for the container's account: under its host, its name, or under none.
fn sas_token<'a>(properties: &'a HashMap<String, String>, bucket: &Bucket) -> Option<&'a String> {
    const KEY: &str = "adls.sas-token";
    let Bucket::Azure(container) = bucket else { return None };
    let host = container.host.as_deref();
    let account = host.and_then(|host| host.split('.').next());
    let named = [host, account].into_iter().flatten().find_map(|name| properties.get(&format!("{KEY}.{name}")));
    named.or_else(|| properties.get(KEY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let grant = |prefix: &str| Grant { prefix: prefix.to_owned(), properties: HashMap::new() };
        let grants = [grant("s3"), grant("s3://lake/t"), grant("s3://lake/t/metadata"), grant("s3a://logs")];
        for (location, wanted) in [
            ("s3://lake/t/metadata/x", Some("s3://lake/t/metadata")),
            ("s3a://lake/t/data/x", Some("s3://lake/t")),
            ("s3://logs/x", Some("s3a://logs")),
            ("s3://other/x", Some("s3")),
            ("gs://other/x", None),
        ] {
            assert_eq!(best(&grants, location).map(|grant| grant.prefix.as_str()), wanted, "{location}");
        }
    }
}
