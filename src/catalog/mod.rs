//! Iceberg catalogs: SQL (SQLite, Postgres), REST and Glue behind one trait, and the object store that tables lie in.
//!
//! A catalog here is only the last hop: load, create, and swap a table's metadata under stated requirements. What a
//! change consists of, and whether it may be tried again, is decided in [`crate::commit`].

pub mod aws;
mod error;
mod glue;
mod metadata;
mod rest;
mod sql;
pub mod storage;
pub mod vectors;

use std::sync::Arc;

use async_trait::async_trait;
use iceberg::spec::{Schema, SortOrder, UnboundPartitionSpec};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};

use crate::config::{self, CatalogKind, TableName};
use crate::telemetry::metrics::Requests;

/// What came of a request to change a table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A requirement did not hold: the table is no longer what the change was based on. Nothing was changed.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The catalog's answer was lost (time-out, 5xx, reset): the change may or may not have been applied.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Not reachable or overloaded, nothing was changed; trying again may help.
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("no such table or namespace: {0}")]
    NotFound(String),
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The catalog says no (credentials, permissions, an invalid change); trying again does not help.
    #[error("refused: {0}")]
    Refused(String),
}

/// A table's name as Iceberg's.
pub fn ident(name: &TableName) -> crate::error::Result<TableIdent> {
    let namespace = NamespaceIdent::from_vec(name.namespace.clone())
        .map_err(|error| crate::error::Error::halt(format!("table {name}: {}", error.message())))?;
    Ok(TableIdent::new(namespace, name.name.clone()))
}

pub type Result<T> = std::result::Result<T, Error>;

/// A new table, as its creator wants it.
#[derive(Debug)]
pub struct Creation {
    pub schema: Schema,
    pub partition_spec: UnboundPartitionSpec,
    pub sort_order: SortOrder,
    pub properties: std::collections::HashMap<String, String>,
}

/// A change of one table: `updates` made for `base`, to be refused if its `requirements` do not hold any more.
#[derive(Debug)]
pub struct TableChange<'a> {
    pub base: &'a Table,
    pub requirements: Vec<TableRequirement>,
    pub updates: Vec<TableUpdate>,
}

#[async_trait]
pub trait Catalog: Send + Sync + std::fmt::Debug {
    /// The name it is configured under.
    fn name(&self) -> &str;

    /// Whether a table's mirror of the ledger may be trusted without proof of descent (`calve.trust-mirror`; for
    /// catalogs that keep only the newest snapshot).
    fn trust_mirror(&self) -> bool {
        false
    }

    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()>;

    async fn namespaces(&self) -> Result<Vec<NamespaceIdent>>;

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>>;

    /// The table as it is now; its FileIO reads and writes through our object store.
    async fn load(&self, table: &TableIdent) -> Result<Table>;

    /// Creates the table, with field ids as given in `creation.schema`. [`Error::AlreadyExists`] if somebody was faster.
    async fn create(&self, table: &TableIdent, creation: Creation) -> Result<Table>;

    /// The table as [`create`](Self::create) would make it, with its place and the keys for it, but not made: a
    /// [`commit`](Self::commit) onto it that requires [`TableRequirement::NotExist`] makes it, with that commit's snapshot.
    /// None where the catalog has no such thing.
    async fn stage(&self, _table: &TableIdent, _creation: &Creation) -> Result<Option<Table>> {
        Ok(None)
    }

    /// One atomic change. `base` is the table that `updates` were made for; if the catalog's table differs from it in
    /// a way that `requirements` name, the answer is [`Error::Conflict`]. Never retries by itself.
    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table>;

    /// Whether the catalog takes changes of several tables as one.
    fn commits_together(&self) -> bool {
        false
    }

    /// Whether it surely does, and never changes but some of them.
    fn is_atomic(&self) -> bool {
        true
    }

    /// As [`commit`](Self::commit), of several tables: all are changed, or none. Only for a catalog that
    /// [commits together](Self::commits_together).
    async fn commit_together(&self, _changes: Vec<TableChange<'_>>) -> Result<Vec<Table>> {
        Err(Error::Refused(format!("catalog {} changes one table at a time", self.name())))
    }

    /// Forgets the table; its files stay.
    async fn drop_table(&self, table: &TableIdent) -> Result<()>;
}

/// Connects to a configured catalog. [`Error::Unavailable`] when it cannot be reached now, [`Error::Refused`] when it
/// never will be: a property that is missing or wrong, credentials that do not pass.
pub async fn open(config: &config::Catalog) -> Result<Arc<dyn Catalog>> {
    open_counted(config, Requests::default()).await
}

/// The same, for who wants to know of the requests.
pub async fn open_counted(config: &config::Catalog, requests: Requests) -> Result<Arc<dyn Catalog>> {
    match config.kind {
        CatalogKind::Sql => Ok(Arc::new(sql::Sql::open(config, requests).await?)),
        CatalogKind::Rest => Ok(Arc::new(rest::Rest::open(config, requests).await?)),
        CatalogKind::Glue => Ok(Arc::new(glue::Glue::open(config, requests).await?)),
    }
}

fn required<'a>(config: &'a config::Catalog, key: &str) -> Result<&'a str> {
    match config.properties.get(key).map(String::as_str) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Error::Refused(format!(
            "catalog {}: property {key} is missing; set it in catalogs/{}.toml",
            config.name, config.name
        ))),
    }
}

/// A property that is true or false; `default` where nothing is said.
fn flag(config: &config::Catalog, key: &str, default: bool) -> Result<bool> {
    match config.properties.get(key).map(String::as_str) {
        None => Ok(default),
        Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::Refused(format!("catalog {}: {key} is {other:?}, not true or false", config.name))),
    }
}

const TRUST_MIRROR: &str = "calve.trust-mirror";
const COMMIT_TOGETHER: &str = "calve.commit-together";
