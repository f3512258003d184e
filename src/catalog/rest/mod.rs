//! The REST catalog: our client for Iceberg's REST protocol (rest-catalog-open-api.yaml), without auth or with a
//! bearer token.
//!
//! A request is sent once. What an answer to a commit means is decided by the safe side: only a refusal that says so
//! itself leaves the table unchanged, everything else (5xx, time-outs, a cut connection, an answer that makes no
//! sense, a gateway's 408 or 429) may hide a commit that was applied.

mod answer;
mod idempotency;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use self::answer::{
    CommittedTable, ErrorAnswer, ErrorModel, Failure, LoadedTable, Page, ServerConfig, page_title, settled,
};
use super::error::{clip, one_line};
use super::storage::Storage;
use super::{Catalog, Creation, Error, Result, metadata};
use crate::config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer is waited for, unless [`SOCKET_TIMEOUT`] says otherwise. A server writes metadata to its store
/// before it answers a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Java's property for it.
const SOCKET_TIMEOUT: &str = "rest.client.socket-timeout-ms";
/// How much of an error's body is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Namespaces below one another that a listing follows.
const NAMESPACE_LEVELS_MAX: usize = 16;

pub struct Rest {
    name: String,
    http: reqwest::Client,
    /// `<uri>/v1`, with the server's prefix where it has one.
    root: String,
    /// Between a namespace's levels in a path, already percent-encoded.
    separator: String,
    /// The server promises to answer a repeated `Idempotency-Key` with the first answer.
    idempotent: bool,
    trust_mirror: bool,
    storage: Storage,
    /// What the server vended for a table last, so that loading it again keeps the connections.
    vended: Mutex<HashMap<TableIdent, (HashMap<String, String>, Storage)>>,
    /// Never to be seen in a message, though a server may echo them.
    secrets: Vec<String>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("name", &self.name).field("root", &self.root).finish_non_exhaustive()
    }
}

impl Rest {
    /// Asks the server for its configuration, whose overrides win over ours and ours over its defaults.
    pub async fn open(config: &config::Catalog) -> Result<Rest> {
        let refuse = |reason: String| Error::Refused(format!("catalog {}: {reason}", config.name));
        let uri = super::required(config, "uri")?.trim_end_matches('/').to_owned();
        let get = |key: &str| config.properties.get(key).filter(|value| !value.is_empty());
        if get("token").is_none() && get("credential").is_some() {
            return Err(refuse("OAuth2 (credential) is not supported yet; give a bearer token in token".to_owned()));
        }
        if get("rest.sigv4-enabled").is_some_and(|value| value == "true") {
            return Err(refuse("rest.sigv4-enabled is not supported yet".to_owned()));
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-iceberg-access-delegation", HeaderValue::from_static("vended-credentials"));
        let mut secrets = Vec::new();
        if let Some(token) = get("token") {
            headers.insert(
                reqwest::header::AUTHORIZATION,
                secret_header(&format!("Bearer {token}"))
                    .map_err(|()| refuse("token holds characters that a header cannot".to_owned()))?,
            );
            secrets.push(token.clone());
        }
        for (key, value) in &config.properties {
            let Some(header) = key.strip_prefix("header.") else { continue };
            let name = HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| refuse(format!("{key}: {header:?} is not the name of a header")))?;
            let value_ =
                secret_header(value).map_err(|()| refuse(format!("{key} holds characters that a header cannot")))?;
            headers.insert(name, value_);
            secrets.push(value.clone());
        }
        let timeout = match get(SOCKET_TIMEOUT) {
            None => ANSWER_TIMEOUT,
            Some(millis) => match millis.parse() {
                Ok(millis) if millis > 0 => Duration::from_millis(millis),
                _ => return Err(refuse(format!("{SOCKET_TIMEOUT} is {millis:?}, not a number of milliseconds"))),
            },
        };
        // Short values would black out ordinary words.
        secrets.retain(|secret| secret.len() >= 6);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("calve/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .map_err(|error| refuse(format!("cannot make an HTTP client: {}", one_line(&error))))?;
        let mut catalog = Rest {
            name: config.name.clone(),
            http,
            root: format!("{uri}/v1"),
            separator: "%1F".to_owned(),
            idempotent: false,
            trust_mirror: super::trust_mirror(config)?,
            storage: Storage::default(),
            vended: Mutex::default(),
            secrets,
        };
        let warehouse = get("warehouse").map(|warehouse| format!("?warehouse={}", encode(warehouse)));
        let path = format!("/config{}", warehouse.unwrap_or_default());
        let server: ServerConfig = catalog.get(&path).await?;
        let mut properties: BTreeMap<String, String> = settled(server.defaults);
        properties.extend(config.properties.clone());
        properties.extend(settled(server.overrides));
        if let Some(uri) = properties.get("uri") {
            catalog.root = format!("{}/v1", uri.trim_end_matches('/'));
        }
        if let Some(prefix) = properties.get("prefix").map(|prefix| prefix.trim_matches('/')).filter(|p| !p.is_empty())
        {
            catalog.root = format!("{}/{prefix}", catalog.root);
        }
        if let Some(separator) = properties.get("namespace-separator").filter(|separator| !separator.is_empty()) {
            // Servers give it percent-encoded; a bare character means the same.
            catalog.separator = if separator.starts_with('%') { separator.clone() } else { encode(separator) };
        }
        catalog.idempotent = server.idempotency_key_lifetime.is_some();
        catalog.storage = Storage::new(properties);
        Ok(catalog)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.root))
    }

    async fn send(&self, request: RequestBuilder) -> std::result::Result<Bytes, Failure> {
        let fail = |error: reqwest::Error| Failure {
            status: None,
            sent: !(error.is_connect() || error.is_builder()),
            line: self.say(if error.is_timeout() { "no answer in time" } else { "no answer" }, &error.without_url()),
        };
        let mut response = request.send().await.map_err(fail)?;
        let status = response.status();
        if status.is_success() {
            return response.bytes().await.map_err(fail);
        }
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        let line = match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(ErrorAnswer { error: ErrorModel { message, r#type } }) => format!(
                "{}{}",
                r#type.map(|kind| format!(" {kind}")).unwrap_or_default(),
                message.map(|message| format!(": {message}")).unwrap_or_default()
            ),
            Err(_) => format!(": {}", page_title(&String::from_utf8_lossy(&body))),
        };
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let space = if line.starts_with(':') { "" } else { " " };
        let line =
            self.scrub(clip(format!("catalog {}: the server answered {}{space}{line}", self.name, status.as_u16())));
        Err(Failure { status: Some(status), sent: true, line: line.trim_end_matches([':', ' ']).to_owned() })
    }

    fn say(&self, what: &str, error: &reqwest::Error) -> String {
        self.scrub(format!("catalog {}: {what}: {}", self.name, one_line(error)))
    }

    fn scrub(&self, mut line: String) -> String {
        for secret in &self.secrets {
            line = line.replace(secret, "***");
        }
        line
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.send(self.request(Method::GET, path)).await.map_err(Failure::plain)?;
        self.parse(&body).map_err(Error::Refused)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> std::result::Result<T, String> {
        serde_json::from_slice(body)
            .map_err(|error| self.scrub(format!("catalog {}: an answer that makes no sense: {error}", self.name)))
    }

    /// All pages of a listing.
    async fn pages<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        // An empty token asks for pages; a server that has none ignores it.
        let mut token = String::new();
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let mut page: Page<T> = self.get(&format!("{path}{mark}pageToken={}", encode(&token))).await?;
            items.append(&mut page.items);
            match page.next {
                Some(next) if !next.is_empty() && next != token => token = next,
                _ => return Ok(items),
            }
        }
    }

    fn namespace_path(&self, namespace: &NamespaceIdent) -> String {
        namespace.iter().map(|level| encode(level)).collect::<Vec<_>>().join(&self.separator)
    }

    fn table_path(&self, ident: &TableIdent) -> String {
        format!("/namespaces/{}/tables/{}", self.namespace_path(ident.namespace()), encode(&ident.name))
    }

    /// The table as the server gave it, on the store that it vended.
    fn loaded(&self, ident: &TableIdent, loaded: LoadedTable) -> Result<Table> {
        let mut overrides = metadata::overrides(&loaded.config.unwrap_or_default());
        let location = loaded.metadata.location();
        let credentials = loaded.storage_credentials.unwrap_or_default();
        let best = credentials.iter().filter(|credential| location.starts_with(&credential.prefix));
        if let Some(best) = best.max_by_key(|credential| credential.prefix.len()) {
            overrides.extend(metadata::overrides(&best.config));
        }
        let storage = self.storage_for(ident, overrides);
        metadata::table(ident, loaded.metadata, loaded.metadata_location, storage.file_io())
    }

    fn storage_for(&self, ident: &TableIdent, overrides: HashMap<String, String>) -> Storage {
        if overrides.is_empty() {
            return self.storage.clone();
        }
        let mut vended = self.vended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((known, storage)) = vended.get(ident)
            && *known == overrides
        {
            return storage.clone();
        }
        let storage = self.storage.with(&overrides);
        vended.insert(ident.clone(), (overrides, storage.clone()));
        storage
    }
}

#[async_trait]
impl Catalog for Rest {
    fn name(&self) -> &str {
        &self.name
    }

    fn trust_mirror(&self) -> bool {
        self.trust_mirror
    }

    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let body = json!({ "namespace": namespace.as_ref(), "properties": {} });
        let request = self.request(Method::POST, "/namespaces").json(&body);
        self.send(request).await.map_err(|failure| failure.create().at(format_args!("namespace {namespace}")))?;
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
            let children: Vec<Vec<String>> = match self.pages(&path).await {
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
        let mut tables: Vec<TableIdent> =
            self.pages(&path).await.map_err(|error| error.at(format_args!("namespace {namespace}")))?;
        tables.sort();
        Ok(tables)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let loaded: LoadedTable =
            self.get(&self.table_path(ident)).await.map_err(|error| error.at(format_args!("table {ident}")))?;
        self.loaded(ident, loaded)
    }

    /// The server numbers the fields afresh, in its own order: the answer holds the ids that count.
    async fn create(&self, ident: &TableIdent, creation: Creation) -> Result<Table> {
        let path = format!("/namespaces/{}/tables", self.namespace_path(ident.namespace()));
        let mut body = json!({
            "name": ident.name,
            "schema": creation.schema,
            "partition-spec": creation.partition_spec.with_spec_id(0),
            "properties": creation.properties,
            "stage-create": false,
        });
        if !creation.sort_order.fields.is_empty() {
            body["write-order"] = json!(creation.sort_order);
        }
        let request = self.request(Method::POST, &path).json(&body);
        let at = |failure: Failure| failure.create().at(format_args!("table {ident}"));
        let answer = self.send(request).await.map_err(at)?;
        self.loaded(ident, self.parse(&answer).map_err(Error::Unknown)?)
    }

    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let ident = base.identifier();
        let mut request = self.request(Method::POST, &self.table_path(ident));
        if self.idempotent {
            request = request.header("Idempotency-Key", idempotency::key(base, &updates).to_string());
        }
        let updates = with_spec_ids(base, updates);
        let request = request.json(&json!({ "identifier": ident, "requirements": requirements, "updates": updates }));
        let at = |failure: Failure| failure.commit().at(format_args!("table {ident}"));
        let answer = self.send(request).await.map_err(at)?;
        let table: CommittedTable = self.parse(&answer).map_err(Error::Unknown)?;
        metadata::table(ident, table.metadata, Some(table.metadata_location), base.file_io().clone())
            .map_err(|error| Error::Unknown(error.to_string()))
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<()> {
        let path = format!("{}?purgeRequested=false", self.table_path(ident));
        let request = self.request(Method::DELETE, &path);
        self.send(request).await.map_err(|failure| failure.plain().at(format_args!("table {ident}")))?;
        Ok(())
    }
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
