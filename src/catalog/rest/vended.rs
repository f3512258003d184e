//! The keys that a server vends with a table, and their renewal: by the table's `/credentials` where the server has it,
//! else by loading the table again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use iceberg::TableIdent;

use super::answer::{Credentials, LoadedTable, StorageCredential};
use super::client::{Call, Client};
use super::endpoints::Endpoint;
use super::renewed::Renewed;
use super::secrets::Secrets;
use crate::catalog::metadata::overrides;
use crate::catalog::storage::{Grant, Storage, Vending};

/// Keys with a session token expire in any case; where the server does not say when, they are taken to live as short
/// as AWS lets them.
const SESSION_LIFE_MIN: Duration = Duration::from_secs(900);

/// What stands for a key, and what says until when. The latter may go on with an account's name.
const KEYS: [&str; 6] = [
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "gcs.oauth2.token",
    "adls.sas-token",
    "adls.account-key",
];
const ENDS: [&str; 4] = [
    "s3.session-token-expires-at-ms",
    "gcs.oauth2.token-expires-at",
    "gcs.oauth2.token-expires-at-ms",
    "adls.sas-token-expires-at-ms",
];

pub(super) struct Vended {
    client: Arc<Client>,
    ident: TableIdent,
    /// The table's path at the server.
    path: String,
    grants: Renewed<Arc<[Grant]>>,
}

impl fmt::Debug for Vended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vended").field("table", &self.ident.to_string()).finish_non_exhaustive()
    }
}

/// A table's store, kept from one load to the next: with its connections, and with keys that later loads bring.
pub(super) struct TableStore {
    /// What the server said of the store beside keys.
    plain: HashMap<String, String>,
    vended: Option<Arc<Vended>>,
    storage: Storage,
}

impl TableStore {
    /// The store for what was vended; the old one, with the new keys, where only those differ.
    pub(super) fn of(
        old: Option<TableStore>,
        storage: &Storage,
        client: &Arc<Client>,
        ident: &TableIdent,
        path: String,
        given: Given,
    ) -> TableStore {
        let Given { plain, grants } = given;
        let end = end_of(&grants);
        if let Some(old) = old.filter(|old| old.plain == plain && old.vended.is_some() != grants.is_empty()) {
            if let Some(vended) = &old.vended {
                vended.grants.put(grants, end);
            }
            return old;
        }
        let with_plain = storage.with(&plain);
        if grants.is_empty() {
            return TableStore { plain, vended: None, storage: with_plain };
        }
        let vended = Vended { client: client.clone(), ident: ident.clone(), path, grants: Renewed::default() };
        vended.grants.put(grants, end);
        let vended = Arc::new(vended);
        TableStore { plain, storage: with_plain.vended(vended.clone()), vended: Some(vended) }
    }

    pub(super) fn storage(&self) -> Storage {
        self.storage.clone()
    }
}

/// What an answer says of the store.
pub(super) struct Given {
    plain: HashMap<String, String>,
    grants: Arc<[Grant]>,
}

impl Given {
    pub(super) fn new(
        config: Option<HashMap<String, String>>,
        credentials: Option<Vec<StorageCredential>>,
        secrets: &Secrets,
    ) -> Given {
        let mut plain = overrides(&config.unwrap_or_default());
        let of_all: HashMap<String, String> = plain.extract_if(|key, _| is_key(key) || is_end(key)).collect();
        let mut grants = grants(credentials.unwrap_or_default());
        if of_all.keys().any(|key| is_key(key)) {
            // Keys outside of the list are for whatever the list does not name.
            grants.push(Grant { prefix: String::new(), properties: of_all });
        }
        for (key, value) in grants.iter().flat_map(|grant| &grant.properties) {
            if is_key(key) && key != "s3.access-key-id" {
                secrets.learn(value);
            }
        }
        Given { plain, grants: grants.into() }
    }
}

fn grants(credentials: Vec<StorageCredential>) -> Vec<Grant> {
    let grant = |given: StorageCredential| Grant { prefix: given.prefix, properties: overrides(&given.config) };
    credentials.into_iter().map(grant).filter(|grant| !grant.properties.is_empty()).collect()
}

fn is_key(key: &str) -> bool {
    KEYS.contains(&key) || ["adls.sas-token.", "adls.account-key."].iter().any(|start| key.starts_with(start))
}

fn is_end(key: &str) -> bool {
    ENDS.contains(&key) || key.starts_with("adls.sas-token-expires-at-ms.")
}

/// When the first of the keys expires.
fn end_of(grants: &[Grant]) -> Option<SystemTime> {
    let now = SystemTime::now();
    let end = |grant: &Grant| {
        let said = grant.properties.iter().filter(|(key, _)| is_end(key)).filter_map(|(_, millis)| millis.parse().ok());
        let end = said.min().and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
        match end {
            // Over already when they came: it is the clocks that differ, and asking with every request would not help.
            Some(end) if end > now => Some(end),
            Some(_) => Some(now + SESSION_LIFE_MIN),
            None => grant.properties.contains_key("s3.session-token").then(|| now + SESSION_LIFE_MIN),
        }
    };
    grants.iter().filter_map(end).min()
}

impl Vended {
    async fn ask(&self) -> Result<(Arc<[Grant]>, Option<SystemTime>), String> {
        let given = match self.client.offered.has(Endpoint::Credentials) {
            true => {
                let call = Call::new(Endpoint::Credentials, format!("{}/credentials", self.path));
                let Credentials { storage_credentials } = self.client.get(&call).await.map_err(|e| e.to_string())?;
                Given::new(None, Some(storage_credentials), &self.client.secrets)
            }
            false => {
                let call = Call::new(Endpoint::LoadTable, format!("{}?snapshots=refs", self.path));
                let loaded: LoadedTable = self.client.get(&call).await.map_err(|error| error.to_string())?;
                Given::new(loaded.config, loaded.storage_credentials, &self.client.secrets)
            }
        };
        if given.grants.is_empty() {
            return Err(format!("catalog {}: the server vends no keys any more", self.client.name));
        }
        let end = end_of(&given.grants);
        Ok((given.grants, end))
    }
}

#[async_trait]
impl Vending for Vended {
    fn last(&self) -> Arc<[Grant]> {
        self.grants.last().unwrap_or_default()
    }

    async fn current(&self) -> Result<Arc<[Grant]>, String> {
        let complain = |why: &String| {
            tracing::warn!(table = %self.ident, "new keys for the table's store: {why}; going on with the old ones while they last");
        };
        let asked = self.grants.get(self.ask(), complain).await;
        asked.map(|(_, grants)| grants).map_err(|why| format!("no keys for the store of table {}: {why}", self.ident))
    }
}
