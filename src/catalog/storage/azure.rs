//! Azure's Blob Storage and Data Lake Storage: a store per container, built from Iceberg's `adls.*` properties.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureCredentialProvider, MicrosoftAzureBuilder};

use super::failure::{store_error, usage_error};
use super::{object, said};

/// A container as locations name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    pub name: String,
    /// `account.dfs.core.windows.net`, where the location says so.
    pub host: Option<String>,
}

impl Container {
    /// Takes `container@account.dfs.core.windows.net` and `container`.
    pub(super) fn parse(authority: &str) -> Option<Container> {
        let (name, host) = match authority.split_once('@') {
            Some((name, host)) if !host.is_empty() => (name, Some(host.to_owned())),
            Some(_) => return None,
            None => (authority, None),
        };
        (!name.is_empty()).then(|| Container { name: name.to_owned(), host })
    }

    fn account(&self) -> Option<&str> {
        self.host.as_deref()?.split('.').next()
    }
}

/// The store of one container. `vended` credentials win; without any in the properties, Azure's own search is done: the
/// environment, a workload's identity, the instance's.
pub(super) fn open(
    container: &Container,
    properties: &BTreeMap<String, String>,
    vended: Option<AzureCredentialProvider>,
) -> iceberg::Result<Arc<dyn ObjectStore>> {
    let connection = Connection::parse(said(properties, "adls.connection-string").unwrap_or_default());
    let get = |key: &str| said(properties, key).or_else(|| connection.get(key));
    // A location that names its account is in that account.
    let account = container.account().or_else(|| get("adls.account-name"));
    let Some(account) = account.or_else(|| get("adls.account-host")?.split('.').next()) else {
        return Err(usage_error(format!(
            "container {}: no account is known; write abfss://{}@ACCOUNT.dfs.core.windows.net/…, or set adls.account-name",
            container.name, container.name
        )));
    };
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(account)
        .with_container_name(&container.name)
        .with_client_options(object::client())
        .with_retry(object::retry());
    if let Some(endpoint) = endpoint(container, account, &get) {
        builder = builder.with_endpoint(endpoint);
    }
    // Tokens may be for one account of several, as Java writes them.
    let sas = container.host.as_ref().and_then(|host| said(properties, &format!("adls.sas-token.{host}")));
    let sas = sas.or_else(|| said(properties, &format!("adls.sas-token.{account}"))).or_else(|| get("adls.sas-token"));
    let client = (get("adls.client-id"), get("adls.client-secret"), get("adls.tenant-id"));
    builder = if let Some(vended) = vended {
        builder.with_credentials(vended)
    } else if let Some(key) = get("adls.account-key") {
        builder.with_access_key(key)
    } else if let Some(sas) = sas {
        let pairs = url::form_urlencoded::parse(sas.trim_start_matches('?').as_bytes());
        builder.with_sas_authorization(pairs.into_owned().collect::<Vec<_>>())
    } else if let (Some(id), Some(secret), Some(tenant)) = client {
        builder.with_client_secret_authorization(id, secret, tenant)
    } else if let Some(token) = get("adls.token") {
        builder.with_bearer_token_authorization(token)
    } else {
        builder
    };
    let store = builder.build().map_err(|error| store_error(&format!("abfss://{}", container.name), error))?;
    Ok(Arc::new(store))
}

/// The address of the account's Blob service, which Data Lake accounts have too; `None`: Azure's public one.
fn endpoint<'a>(container: &Container, account: &str, get: &impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    if let Some(endpoint) = get("adls.endpoint") {
        return Some(endpoint.trim_end_matches('/').to_owned());
    }
    let scheme = get("adls.blob-storage-scheme").unwrap_or("https");
    if let Some(authority) = get("adls.blob-storage-authority") {
        // An address of several accounts has them in its path.
        let path = if authority.starts_with(account) { String::new() } else { format!("/{account}") };
        return Some(format!("{scheme}://{authority}{path}"));
    }
    let host = container.host.as_deref().or_else(|| get("adls.account-host"))?;
    let (_, domain) = host.split_once('.')?;
    Some(format!("{scheme}://{account}.{}", domain.replacen("dfs.", "blob.", 1)))
}

/// A connection string's parts, under the names of the properties that they stand for.
struct Connection {
    parts: BTreeMap<&'static str, String>,
}

impl Connection {
    fn parse(text: &str) -> Connection {
        let mut said: BTreeMap<String, &str> = BTreeMap::new();
        for (key, value) in text.split(';').filter_map(|part| part.split_once('=')) {
            said.insert(key.trim().to_ascii_lowercase(), value.trim());
        }
        let mut parts = BTreeMap::new();
        for (key, property) in [
            ("accountname", "adls.account-name"),
            ("accountkey", "adls.account-key"),
            ("sharedaccesssignature", "adls.sas-token"),
            ("blobendpoint", "adls.endpoint"),
        ] {
            if let Some(value) = said.get(key) {
                parts.insert(property, (*value).to_owned());
            }
        }
        if let (Some(account), Some(suffix)) = (said.get("accountname"), said.get("endpointsuffix")) {
            let scheme = said.get("defaultendpointsprotocol").copied().unwrap_or("https");
            parts.entry("adls.endpoint").or_insert_with(|| format!("{scheme}://{account}.blob.{suffix}"));
        }
        Connection { parts }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parts.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(authority: &str, properties: &[(&'static str, &'static str)]) -> Option<String> {
        let container = Container::parse(authority).unwrap();
        let get = |key: &str| properties.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        endpoint(&container, container.account().unwrap_or("acc"), &get)
    }

    #[test]
    fn addresses_of_accounts() {
        let say = |text: &str| Some(text.to_owned());
        assert_eq!(address("c@acc.dfs.core.windows.net", &[]), say("https://acc.blob.core.windows.net"));
        assert_eq!(address("c@acc.blob.core.usgovcloudapi.net", &[]), say("https://acc.blob.core.usgovcloudapi.net"));
        assert_eq!(address("c", &[]), None);
        assert_eq!(
            address("c", &[("adls.account-host", "acc.dfs.core.windows.net")]),
            say("https://acc.blob.core.windows.net")
        );
        let emulator = [("adls.blob-storage-authority", "127.0.0.1:10000"), ("adls.blob-storage-scheme", "http")];
        assert_eq!(address("c@acc.dfs.core.windows.net", &emulator), say("http://127.0.0.1:10000/acc"));
        assert_eq!(address("c", &[("adls.endpoint", "http://h/acc/")]), say("http://h/acc"));
    }

    #[test]
    fn connection_strings_are_taken_apart() {
        let parsed = Connection::parse(
            "DefaultEndpointsProtocol=http;AccountName=acc;AccountKey=a2V5==;BlobEndpoint=http://h:1/acc;",
        );
        assert_eq!(parsed.get("adls.account-key"), Some("a2V5=="));
        assert_eq!(parsed.get("adls.endpoint"), Some("http://h:1/acc"));
        let parsed =
            Connection::parse("AccountName=acc;EndpointSuffix=core.windows.net;SharedAccessSignature=sv=1&sig=x");
        assert_eq!(parsed.get("adls.endpoint"), Some("https://acc.blob.core.windows.net"));
        assert_eq!(parsed.get("adls.sas-token"), Some("sv=1&sig=x"));
        assert!(Container::parse("c@").is_none() && Container::parse("@host").is_none());
    }
}
