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

    /// One atomic change. `base` is the table that `updates` were made for; if the catalog's table differs from it in
    /// a way that `requirements` name, the answer is [`Error::Conflict`]. Never retries by itself.
    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table>;

    /// Forgets the table; its files stay.
    async fn drop_table(&self, table: &TableIdent) -> Result<()>;
}

/// Connects to a configured catalog. [`Error::Unavailable`] when it cannot be reached now, [`Error::Refused`] when it
/// never will be: a property that is missing or wrong, credentials that do not pass.
pub async fn open(config: &config::Catalog) -> Result<Arc<dyn Catalog>> {
    match config.kind {
        CatalogKind::Sql => Ok(Arc::new(sql::Sql::open(config).await?)),
        CatalogKind::Rest => Ok(Arc::new(rest::Rest::open(config).await?)),
        CatalogKind::Glue => Ok(Arc::new(glue::Glue::open(config).await?)),
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

fn trust_mirror(config: &config::Catalog) -> Result<bool> {
    match config.properties.get("calve.trust-mirror").map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(Error::Refused(format!("catalog {}: calve.trust-mirror is {other:?}, not true or false", config.name)))
        }
    }
}
