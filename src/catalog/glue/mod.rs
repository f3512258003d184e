//! AWS Glue's Data Catalog, with what Java's GlueCatalog and PyIceberg's keep there.
//!
//! A table is an entry whose parameters point to a metadata file; a change is one `UpdateTable` that names the version
//! it was made from, so that of several writers with the same base exactly one wins. A request is sent once: whether to
//! try again is the committer's decision.

mod client;
mod table;

use std::fmt;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};
use serde_json::{Value, json};
use url::Url;

use self::client::Client;
use super::aws::{Credentials, Signer, region};
use super::metadata::{self, Next};
use super::storage::Storage;
use super::{Catalog, Creation, Error, Result};
use crate::config;
use crate::telemetry::metrics::Requests;

/// Of Glue's own names.
const NAME_CHARS_MAX: usize = 255;

pub struct Glue {
    name: String,
    client: Client,
    warehouse: Option<String>,
    /// Whether Glue forgets the version of a table that a commit replaces. It keeps a limited number of them, which
    /// commits every few seconds would soon exhaust.
    skip_archive: bool,
    skip_name_validation: bool,
    trust_mirror: bool,
    storage: Storage,
}

impl fmt::Debug for Glue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Glue").field("name", &self.name).field("client", &self.client).finish_non_exhaustive()
    }
}

/// A table's entry.
struct Found {
    entry: Value,
    metadata_location: String,
}

impl Glue {
    /// Finds the region and credentials; Glue itself is not asked before it is needed.
    pub async fn open(config: &config::Catalog, requests: Requests) -> Result<Glue> {
        let refuse = |reason: String| Error::Refused(format!("catalog {}: {reason}", config.name));
        let get = |key: &str| config.properties.get(key).filter(|value| !value.is_empty());
        let region = region("glue", &config.properties).await.ok_or_else(|| {
            refuse("no AWS region is known; set \"glue.region\", or AWS_REGION in the environment".to_owned())
        })?;
        let endpoint = match get("glue.endpoint") {
            Some(endpoint) => endpoint.clone(),
            None if region.starts_with("cn-") => format!("https://glue.{region}.amazonaws.com.cn"),
            None => format!("https://glue.{region}.amazonaws.com"),
        };
        let endpoint =
            Url::parse(&endpoint).map_err(|error| refuse(format!("glue.endpoint is no address: {error}")))?;
        let credentials = Credentials::new("glue", &config.properties);
        credentials.keys().await.map_err(|error| error.at(format_args!("catalog {}", config.name)))?;
        let signer = Signer::new(credentials, "glue", &region);
        let mut properties = config.properties.clone();
        // Buckets are mostly where the catalog is; what the file says of them wins.
        properties.entry("client.region".to_owned()).or_insert(region);
        Ok(Glue {
            name: config.name.clone(),
            client: Client::new(&config.name, endpoint, signer, get("glue.id").cloned(), requests.clone())
                .map_err(refuse)?,
            warehouse: get("warehouse").cloned(),
            skip_archive: get("glue.skip-archive").is_none_or(|value| value != "false"),
            skip_name_validation: get("glue.skip-name-validation").is_some_and(|value| value == "true"),
            trust_mirror: super::flag(config, super::TRUST_MIRROR, false)?,
            storage: Storage::counted(properties, requests),
        })
    }

    /// The database that a namespace is.
    fn database<'a>(&self, namespace: &'a NamespaceIdent) -> Result<&'a str> {
        match namespace.as_ref().as_slice() {
            [one] => {
                self.valid(one).map_err(|reason| Error::Refused(format!("namespace {namespace}: {reason}")))?;
                Ok(one)
            }
            _ => Err(Error::Refused(format!(
                "namespace {namespace} in catalog {}: Glue has databases of one level only; write one name without dots",
                self.name
            ))),
        }
    }

    fn names<'a>(&self, ident: &'a TableIdent) -> Result<(&'a str, &'a str)> {
        let database = self.database(ident.namespace())?;
        self.valid(&ident.name).map_err(|reason| Error::Refused(format!("table {ident}: {reason}")))?;
        Ok((database, ident.name.as_str()))
    }

    /// Glue folds names to lower case and Athena reads no others than these.
    fn valid(&self, name: &str) -> std::result::Result<(), String> {
        let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !(plain || self.skip_name_validation) {
            return Err(format!(
                "{name:?} is no name for Glue, which takes 1 to {NAME_CHARS_MAX} lower-case letters, digits and \
                 underscores; choose another, or set \"glue.skip-name-validation\" = \"true\" in catalogs/{}.toml",
                self.name
            ));
        }
        Ok(())
    }

    async fn find(&self, ident: &TableIdent) -> Result<Found> {
        let (database, name) = self.names(ident)?;
        let answer = self.client.read("GetTable", json!({ "DatabaseName": database, "Name": name })).await;
        let mut answer = answer.map_err(|error| error.at(format_args!("table {ident}")))?;
        let entry = answer["Table"].take();
        match table::metadata_location(&entry) {
            Ok(location) => Ok(Found { metadata_location: location.to_owned(), entry }),
            Err(reason) => Err(Error::Refused(format!("table {ident} in catalog {}: {reason}", self.name))),
        }
    }

    async fn load_at(&self, ident: &TableIdent, location: String) -> Result<Table> {
        let file_io = self.storage.file_io();
        let metadata = TableMetadata::read_from(&file_io, &location)
            .await
            .map_err(|error| Error::from(error).at(format_args!("metadata of table {ident}")))?;
        metadata::table(ident, metadata, Some(location), file_io)
    }

    /// Where a new table goes: below its database's location, else below the warehouse as Java has it.
    async fn location(&self, database: &str, name: &str) -> Result<String> {
        let answer = self.client.read("GetDatabase", json!({ "Name": database })).await;
        let answer = answer.map_err(|error| error.at(format_args!("namespace {database}")))?;
        if let Some(location) = answer["Database"]["LocationUri"].as_str().filter(|location| !location.is_empty()) {
            return Ok(format!("{}/{name}", location.trim_end_matches('/')));
        }
        let Some(warehouse) = &self.warehouse else {
            return Err(Error::Refused(format!(
                "catalog {}: no place for table {database}.{name}: set warehouse in catalogs/{}.toml, or give the \
                 database a location",
                self.name, self.name
            )));
        };
        Ok(metadata::default_location(
            warehouse,
            &TableIdent::new(NamespaceIdent::new(format!("{database}.db")), name.to_owned()),
        ))
    }

    /// All pages of a listing.
    async fn pages(&self, action: &'static str, body: Value, items: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut page = body.clone();
            if let Some(token) = &token {
                page["NextToken"] = json!(token);
            }
            let mut answer = self.client.read(action, page).await?;
            if let Value::Array(items) = answer[items].take() {
                all.extend(items);
            }
            match answer["NextToken"].as_str() {
                Some(next) if !next.is_empty() && token.as_deref() != Some(next) => token = Some(next.to_owned()),
                _ => return Ok(all),
            }
        }
    }
}

#[async_trait]
impl Catalog for Glue {
    fn name(&self) -> &str {
        &self.name
    }

    fn trust_mirror(&self) -> bool {
        self.trust_mirror
    }

    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let body = json!({ "DatabaseInput": { "Name": self.database(namespace)?, "Parameters": {} } });
        let made = self.client.write("CreateDatabase", body).await;
        made.map_err(|error| error.at(format_args!("namespace {namespace}")))?;
        Ok(())
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let databases = self.pages("GetDatabases", json!({}), "DatabaseList").await?;
        let names = databases.iter().filter_map(|database| database["Name"].as_str());
        let mut names: Vec<_> = names.map(|name| NamespaceIdent::new(name.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        let body = json!({ "DatabaseName": self.database(namespace)? });
        let tables = self.pages("GetTables", body, "TableList").await;
        let tables = tables.map_err(|error| error.at(format_args!("namespace {namespace}")))?;
        // Hive tables and views are there too.
        let ours = tables.iter().filter(|entry| table::metadata_location(entry).is_ok());
        let names = ours.filter_map(|entry| entry["Name"].as_str());
        let mut names: Vec<_> = names.map(|name| TableIdent::new(namespace.clone(), name.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let location = self.find(ident).await?.metadata_location;
        match self.load_at(ident, location.clone()).await {
            Ok(table) => Ok(table),
            // Between the two reads the table may have moved on and its old metadata file been deleted.
            Err(error) => match self.find(ident).await?.metadata_location {
                now if now != location => self.load_at(ident, now).await,
                _ => Err(error),
            },
        }
    }

    async fn create(&self, ident: &TableIdent, creation: Creation) -> Result<Table> {
        let (database, name) = self.names(ident)?;
        let location = self.location(database, name).await?;
        let next = metadata::create(&location, creation)?;
        let file_io = self.storage.file_io();
        match self.find(ident).await {
            Ok(_) => return Err(Error::AlreadyExists(format!("table {ident} in catalog {}", self.name))),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        next.write(&file_io).await?;
        let input = table::input(name, &next.metadata, &next.location, None);
        let made = self.client.write("CreateTable", json!({ "DatabaseName": database, "TableInput": input })).await;
        match made.map_err(|error| error.at(format_args!("table {ident}"))) {
            Ok(_) => next.committed(ident, &file_io),
            // The entry may point to the new file.
            Err(error @ Error::Unknown(_)) => Err(error),
            Err(error) => {
                next.discard(&file_io).await;
                Err(error)
            }
        }
    }

    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let ident = base.identifier();
        let (database, name) = self.names(ident)?;
        let next: Next = metadata::update(base, &requirements, updates)?;
        // Only the entry says which version it is.
        let found = self.find(ident).await?;
        if found.metadata_location != base.metadata_location_result()? {
            return Err(Error::Conflict(format!("catalog {}: table {ident} was changed meanwhile", self.name)));
        }
        let Some(version) = found.entry["VersionId"].as_str() else {
            return Err(Error::Refused(format!(
                "catalog {}: table {ident} has no VersionId, without which a commit could undo somebody else's",
                self.name
            )));
        };
        next.write(base.file_io()).await?;
        let request = json!({
            "DatabaseName": database,
            "TableInput": table::input(name, &next.metadata, &next.location, Some(&found.entry)),
            "SkipArchive": self.skip_archive,
            "VersionId": version,
        });
        match self.client.write("UpdateTable", request).await.map_err(|error| error.at(format_args!("table {ident}"))) {
            Ok(_) => next.committed(ident, base.file_io()),
            // The entry may point to the new file.
            Err(error @ Error::Unknown(_)) => Err(error),
            Err(error) => {
                next.discard(base.file_io()).await;
                Err(error)
            }
        }
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<()> {
        let (database, name) = self.names(ident)?;
        let dropped = self.client.write("DeleteTable", json!({ "DatabaseName": database, "Name": name })).await;
        dropped.map_err(|error| error.at(format_args!("table {ident}")))?;
        Ok(())
    }
}
