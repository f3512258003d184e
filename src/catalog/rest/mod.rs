//! The REST catalog: our client for Iceberg's REST protocol (rest-catalog-open-api.yaml), as anybody, with a bearer
//! token, or by OAuth2.
//!
//! A request is sent once. What an answer to a commit means is decided by the safe side: only a refusal that says so
//! itself leaves the table unchanged, everything else (5xx, time-outs, a cut connection, an answer that makes no
//! sense, a gateway's 408 or 429) may hide a commit that was applied.

mod answer;
mod auth;
mod client;
mod creation;
mod endpoints;
mod idempotency;
mod oauth2;
mod renewed;
mod secrets;
mod token_file;
mod vended;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::{UnboundPartitionField, UnboundPartitionSpec};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use self::answer::{CommittedTable, Failure, LoadedTable, ServerConfig, settled};
use self::auth::Auth;
use self::client::{Call, Client, Transport};
use self::endpoints::{Endpoint, Offered};
use self::oauth2::bearer;
use self::secrets::Secrets;
use self::vended::{Given, TableStore};
use super::aws::{self, Credentials, Signer};
use super::storage::Storage;
use super::{Catalog, Creation, Error, Result, TableChange, metadata};
use crate::config;
use crate::telemetry::metrics::Requests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer is waited for. A server writes metadata to its store before it answers a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Java's properties for these.
const CONNECTION_TIMEOUT_KEY: &str = "rest.client.connection-timeout-ms";
const SOCKET_TIMEOUT_KEY: &str = "rest.client.socket-timeout-ms";
/// Of the first partition field (spec, "Partitioning").
const PARTITION_FIELD_ID_MIN: i32 = 1000;
/// Namespaces below one another that a listing follows.
const NAMESPACE_LEVELS_MAX: usize = 16;

/// Properties that say who we are; where the server overrides one, we begin anew with it.
const IDENTITY: [&str; 7] = ["uri", "token", "credential", "scope", "audience", "resource", "oauth2-server-uri"];
/// Properties that name files here: a server has no say in what we read and send.
const OURS: [&str; 2] = ["token-file", "ssl.cabundle"];

pub struct Rest {
    client: Arc<Client>,
    /// Between a namespace's levels in a path, already percent-encoded.
    separator: String,
    /// The server promises to answer a repeated `Idempotency-Key` with the first answer.
    idempotent: bool,
    trust_mirror: bool,
    /// Until the server says that it does not after all.
    commit_together: AtomicBool,
    storage: Storage,
    stores: Mutex<HashMap<TableIdent, TableStore>>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("name", &self.client.name).field("root", &self.client.root).finish_non_exhaustive()
    }
}

/// What a file or a server says of the catalog.
type Properties = BTreeMap<String, String>;

fn said<'a>(properties: &'a Properties, key: &str) -> Option<&'a String> {
    properties.get(key).filter(|value| !value.is_empty())
}

impl Rest {
    /// Asks the server for its configuration, whose overrides win over ours and ours over its defaults.
    pub async fn open(config: &config::Catalog, requests: Requests) -> Result<Rest> {
        let refuse = |reason: String| Error::Refused(format!("catalog {}: {reason}", config.name));
        let ours = &config.properties;
        let uri = super::required(config, "uri")?.trim_end_matches('/').to_owned();
        let transport = transport(ours).map_err(refuse)?;
        let mut secrets = Secrets::default();
        remember(&mut secrets, ours);
        let secrets = Arc::new(secrets);
        let http = transport.client().map_err(refuse)?;
        let headers = headers(ours).map_err(refuse)?;
        let auth = Auth::new(&config.name, &http, &uri, &headers, |key| said(ours, key), &secrets).map_err(refuse)?;
        let page_size = match said(ours, "rest-page-size").map(|size| size.parse()) {
            None => None,
            Some(Ok(size)) if size > 0 => Some(size),
            Some(_) => return Err(refuse("rest-page-size is no number above 0".to_owned())),
        };
        let mut client = Client {
            name: config.name.clone(),
            http,
            headers,
            auth,
            signer: signer(ours).await.map_err(refuse)?,
            secrets,
            root: format!("{uri}/v1"),
            offered: Offered::default(),
            page_size,
            requests: requests.clone(),
            tokens: Mutex::default(),
            known: AtomicBool::new(false),
        };
        let query = said(ours, "warehouse").map(|warehouse| format!("?warehouse={}", encode(warehouse)));
        let server: ServerConfig = client.get(&Call::config(&query.unwrap_or_default())).await?;
        let mut properties: Properties = settled(server.defaults);
        properties.extend(ours.clone());
        properties.extend(settled(server.overrides));
        for key in OURS {
            match ours.get(key) {
                Some(value) => properties.insert(key.to_owned(), value.clone()),
                None => properties.remove(key),
            };
        }
        client.offered = Offered::new(server.endpoints.unwrap_or_default());
        client.configure(ours, &properties).map_err(refuse)?;
        if ours.iter().filter(|(key, _)| is_signing(key)).ne(properties.iter().filter(|(key, _)| is_signing(key))) {
            client.signer = signer(&properties).await.map_err(refuse)?;
        }
        let separator = match said(&properties, "namespace-separator") {
            None => "%1F".to_owned(),
            // Servers give it percent-encoded; a bare character means the same.
            Some(separator) if separator.starts_with('%') => separator.clone(),
            Some(separator) => encode(separator),
        };
        Ok(Rest {
            client: Arc::new(client),
            separator,
            idempotent: server.idempotency_key_lifetime.is_some(),
            trust_mirror: super::flag(config, super::TRUST_MIRROR, false)?,
            commit_together: super::flag(config, super::COMMIT_TOGETHER, true)?.into(),
            storage: Storage::counted(properties, requests),
            stores: Mutex::default(),
        })
    }

    fn namespace_path(&self, namespace: &NamespaceIdent) -> String {
        namespace.iter().map(|level| encode(level)).collect::<Vec<_>>().join(&self.separator)
    }

    fn table_path(&self, ident: &TableIdent) -> String {
        format!("/namespaces/{}/tables/{}", self.namespace_path(ident.namespace()), encode(&ident.name))
    }

    /// The request with a name, where the server knows by it what it has done already.
    fn named(&self, call: Call, changes: &[TableChange<'_>]) -> Call {
        match self.idempotent {
            true => call.header("idempotency-key", &idempotency::key(changes).to_string()),
            false => call,
        }
    }

    /// A new table, made or, `staged`, only thought up.
    async fn asked_for(&self, ident: &TableIdent, creation: &Creation, staged: bool) -> Result<Table> {
        let path = format!("/namespaces/{}/tables", self.namespace_path(ident.namespace()));
        let mut body = json!({
            "name": ident.name,
            "schema": creation.schema,
            "partition-spec": numbered(&creation.partition_spec)?,
            "properties": creation.properties,
            "stage-create": staged,
        });
        if !creation.sort_order.fields.is_empty() {
            body["write-order"] = json!(creation.sort_order);
        }
        let at = |failure: Failure| failure.create().at(format_args!("table {ident}"));
        let answer = self.client.send(&Call::new(Endpoint::CreateTable, path).json(&body)?).await.map_err(at)?;
        self.loaded(ident, self.client.parse(&answer).map_err(Error::Unknown)?)
    }

    /// The table as the server gave it, on the store that it vended.
    fn loaded(&self, ident: &TableIdent, loaded: LoadedTable) -> Result<Table> {
        let token = loaded.config.as_ref().and_then(|config| config.get("token")).filter(|token| !token.is_empty());
        token.into_iter().for_each(|token| self.client.secrets.learn(token));
        self.client.keep_token(&self.table_path(ident), token.and_then(|token| bearer(token)));
        let given = Given::new(loaded.config, loaded.storage_credentials, &self.client.secrets);
        let mut stores = self.stores.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let old = stores.remove(ident);
        let store = TableStore::of(old, &self.storage, &self.client, ident, self.table_path(ident), given);
        let file_io = store.storage().file_io();
        stores.insert(ident.clone(), store);
        drop(stores);
        metadata::table(ident, loaded.metadata, loaded.metadata_location, file_io)
    }
}

impl Client {
    /// After the server said what it has to say.
    fn configure(&mut self, ours: &Properties, all: &Properties) -> std::result::Result<(), String> {
        let uri = said(all, "uri").ok_or("uri is missing")?.trim_end_matches('/');
        self.root = format!("{uri}/v1");
        if let Some(prefix) = said(all, "prefix").map(|prefix| prefix.trim_matches('/')).filter(|p| !p.is_empty()) {
            self.root = format!("{}/{prefix}", self.root);
        }
        self.headers = headers(all)?;
        if IDENTITY.iter().any(|key| ours.get(*key) != all.get(*key)) {
            for key in IDENTITY.iter().filter(|key| SECRET.contains(*key)) {
                said(all, key).into_iter().for_each(|secret| self.secrets.learn(secret));
            }
            self.auth = Auth::new(&self.name, &self.http, uri, &self.headers, |key| said(all, key), &self.secrets)?;
        }
        Ok(())
    }
}

/// Java's default.
const SIGNING_NAME: &str = "execute-api";

/// Who signs requests, if they are to be.
async fn signer(properties: &Properties) -> std::result::Result<Option<Signer>, String> {
    if said(properties, "rest.sigv4-enabled").is_none_or(|value| value != "true") {
        return Ok(None);
    }
    let region = match said(properties, "rest.signing-region") {
        Some(region) => Some(region.clone()),
        None => aws::region("rest", properties).await,
    };
    let region = region.ok_or("requests are to be signed, but for which region? set rest.signing-region")?;
    let name = said(properties, "rest.signing-name").map_or(SIGNING_NAME, String::as_str);
    Ok(Some(Signer::new(Credentials::new("rest", properties), name, &region)))
}

fn is_signing(key: &str) -> bool {
    ["rest.", "client."].iter().any(|start| key.starts_with(start))
}

/// Properties whose values nobody may see, beside `header.*`.
const SECRET: [&str; 6] =
    ["token", "credential", "rest.secret-access-key", "rest.session-token", "s3.secret-access-key", "s3.session-token"];

fn remember(secrets: &mut Secrets, properties: &Properties) {
    for (key, value) in properties {
        match key.as_str() {
            "credential" => {
                secrets.add(value);
                secrets.add(value.split_once(':').map_or(value, |(_, secret)| secret));
            }
            key if SECRET.contains(&key) || key.starts_with("header.") => secrets.add(value),
            _ => {}
        }
    }
}

fn headers(properties: &Properties) -> std::result::Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-iceberg-access-delegation", HeaderValue::from_static("vended-credentials"));
    for (key, value) in properties {
        let Some(header) = key.strip_prefix("header.") else { continue };
        let name = HeaderName::from_bytes(header.as_bytes())
            .map_err(|_| format!("{key}: {header:?} is not the name of a header"))?;
        let value = secret_header(value).map_err(|()| format!("{key} holds characters that a header cannot"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn transport(properties: &Properties) -> std::result::Result<Transport, String> {
    let millis = |key: &str, default: Duration| match said(properties, key).map(|millis| (millis, millis.parse())) {
        None => Ok(default),
        Some((_, Ok(millis))) if millis > 0 => Ok(Duration::from_millis(millis)),
        Some((millis, _)) => Err(format!("{key} is {millis:?}, not a number of milliseconds")),
    };
    let authorities = match said(properties, "ssl.cabundle") {
        None => None,
        Some(path) => Some(
            std::fs::read(path)
                .map_err(|error| format!("ssl.cabundle {path} cannot be read: {}", config::plain(&error)))?,
        ),
    };
    Ok(Transport {
        connect_timeout: millis(CONNECTION_TIMEOUT_KEY, CONNECT_TIMEOUT)?,
        answer_timeout: millis(SOCKET_TIMEOUT_KEY, ANSWER_TIMEOUT)?,
        authorities,
    })
}

#[async_trait]
impl Catalog for Rest {
    fn name(&self) -> &str {
        &self.client.name
    }

    fn trust_mirror(&self) -> bool {
        self.trust_mirror
    }

    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let body = json!({ "namespace": namespace.as_ref(), "properties": {} });
        let call = Call::new(Endpoint::CreateNamespace, "/namespaces").json(&body)?;
        self.client.send(&call).await.map_err(|failure| failure.create().at(format_args!("namespace {namespace}")))?;
        Ok(())
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let mut all = Vec::new();
        let mut queue: VecDeque<Option<NamespaceIdent>> = VecDeque::from([None]);
        while let Some(parent) = queue.pop_front() {
            let path = match &parent {
                None => "/namespaces".to_owned(),
                Some(parent) => format!("/namespaces?parent={}", self.namespace_path(parent)),
            };
            let children: Vec<Vec<String>> = match self.client.pages(Endpoint::ListNamespaces, &path).await {
                Ok(children) => children,
                // Servers with one level only refuse the question; a namespace may be dropped meanwhile.
                Err(Error::Refused(_) | Error::NotFound(_)) if parent.is_some() => continue,
                Err(error) => return Err(error),
            };
            for child in children {
                let deeper = parent.as_ref().map_or(0, |parent| parent.len()) < child.len();
                let child = NamespaceIdent::from_vec(child)?;
                // A server that ignores `parent` lists the same again.
                if deeper && child.len() <= NAMESPACE_LEVELS_MAX && !all.contains(&child) {
                    queue.push_back(Some(child.clone()));
                    all.push(child);
                }
            }
        }
        all.sort();
        Ok(all)
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let path = format!("/namespaces/{}/tables", self.namespace_path(namespace));
        let listed = self.client.pages(Endpoint::ListTables, &path).await;
        let mut tables: Vec<TableIdent> = listed.map_err(|error| error.at(format_args!("namespace {namespace}")))?;
        tables.sort();
        Ok(tables)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let call = Call::new(Endpoint::LoadTable, self.table_path(ident));
        let loaded = self.client.get(&call).await.map_err(|error| error.at(format_args!("table {ident}")))?;
        self.loaded(ident, loaded)
    }

    /// The server numbers the fields afresh, in its own order: the answer holds the ids that count.
    async fn create(&self, ident: &TableIdent, creation: Creation) -> Result<Table> {
        self.asked_for(ident, &creation, false).await
    }

    async fn stage(&self, ident: &TableIdent, creation: &Creation) -> Result<Option<Table>> {
        self.asked_for(ident, creation, true).await.map(Some)
    }

    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let ident = base.identifier();
        let makes = requirements.contains(&TableRequirement::NotExist);
        let updates = if makes { creation::updates(base.metadata(), updates) } else { updates };
        let change = TableChange { base, requirements, updates };
        let call = Call::new(Endpoint::UpdateTable, self.table_path(ident)).of_table();
        let call = self.named(call, std::slice::from_ref(&change)).json(&change_body(change))?;
        let at = |failure: Failure| {
            let error = if makes { failure.create() } else { failure.commit() };
            error.at(format_args!("table {ident}"))
        };
        let answer = self.client.send(&call).await.map_err(at)?;
        let table: CommittedTable = self.client.parse(&answer).map_err(Error::Unknown)?;
        metadata::table(ident, table.metadata, Some(table.metadata_location), base.file_io().clone())
            .map_err(|error| Error::Unknown(error.to_string()))
    }

    fn commits_together(&self) -> bool {
        self.commit_together.load(Ordering::Relaxed) && self.client.offered.has(Endpoint::CommitTransaction)
    }

    fn is_atomic(&self) -> bool {
        false
    }

    /// Servers are said to change all tables or none, but there are some that change one after the other, Iceberg's own
    /// test server among them, which also drops a table's change that another writer's came before, and says that all
    /// went well: what a refusal left behind is not known, and what is there has to be looked at.
    async fn commit_together(&self, changes: Vec<TableChange<'_>>) -> Result<Vec<Table>> {
        let idents: Vec<TableIdent> = changes.iter().map(|change| change.base.identifier().clone()).collect();
        let call = self.named(Call::new(Endpoint::CommitTransaction, "/transactions/commit"), &changes);
        let changes: Vec<Value> = changes.into_iter().map(change_body).collect();
        let sent = self.client.send(&call.json(&json!({ "table-changes": changes }))?).await;
        sent.map_err(|failure| match (failure.sent, failure.commit()) {
            (false, error @ Error::Unavailable(_)) => error,
            (_, Error::Refused(why)) => {
                tracing::warn!(catalog = %self.client.name, why, "tables are not changed together any more but one after the other");
                self.commit_together.store(false, Ordering::Relaxed);
                Error::Unknown(why)
            }
            (_, error) => Error::Unknown(error.to_string()),
        })?;
        let mut tables = Vec::with_capacity(idents.len());
        for ident in &idents {
            // Answered without the tables: they are there, but as what?
            tables.push(self.load(ident).await.map_err(|error| Error::Unknown(error.to_string()))?);
        }
        Ok(tables)
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<()> {
        let path = format!("{}?purgeRequested=false", self.table_path(ident));
        let sent = self.client.send(&Call::new(Endpoint::DropTable, path)).await;
        sent.map_err(|failure| failure.plain().at(format_args!("table {ident}")))?;
        self.stores.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(ident);
        self.client.keep_token(&self.table_path(ident), None);
        Ok(())
    }
}

/// With the ids that a new table's partition fields get, which Nessie wants to be told.
fn numbered(spec: &UnboundPartitionSpec) -> Result<UnboundPartitionSpec> {
    let fields = spec.fields().iter().zip(PARTITION_FIELD_ID_MIN..);
    let fields = fields.map(|(field, id)| UnboundPartitionField { field_id: Some(id), ..field.clone() });
    Ok(UnboundPartitionSpec::builder().with_spec_id(0).add_partition_fields(fields)?.build())
}

fn change_body(change: TableChange<'_>) -> Value {
    let TableChange { base, requirements, updates } = change;
    let updates: Vec<Value> =
        with_spec_ids(base, updates).into_iter().map(|update| with_last_column_id(base, update)).collect();
    json!({ "identifier": base.identifier(), "requirements": requirements, "updates": updates })
}

/// Deprecated, and yet Nessie takes no schema without it.
fn with_last_column_id(base: &Table, update: TableUpdate) -> Value {
    let last = match &update {
        TableUpdate::AddSchema { schema } => Some(schema.highest_field_id().max(base.metadata().last_column_id())),
        _ => None,
    };
    let mut update = json!(update);
    if let Some(last) = last {
        update["last-column-id"] = last.into();
    }
    update
}

/// Java's server wants a number on every partition spec, though it goes by the fields.
fn with_spec_ids(base: &Table, updates: Vec<TableUpdate>) -> Vec<TableUpdate> {
    let highest = base.metadata().partition_specs_iter().map(|spec| spec.spec_id()).max().unwrap_or_default();
    let with_id = |update| match update {
        TableUpdate::AddSpec { spec } if spec.spec_id().is_none() => {
            TableUpdate::AddSpec { spec: spec.with_spec_id(highest + 1) }
        }
        other => other,
    };
    updates.into_iter().map(with_id).collect()
}

fn secret_header(value: &str) -> std::result::Result<HeaderValue, ()> {
    let mut value = HeaderValue::from_str(value).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a b/c.d\u{1f}ü"), "a%20b%2Fc.d%1F%C3%BC");
    }
}
