//! The SQL catalog: SQLite or Postgres, in the tables that Java's JdbcCatalog and PyIceberg's SqlCatalog use.
//!
//! A table is a row that points to a metadata file; a change is one `UPDATE … WHERE metadata_location = <base's>`, so
//! that of several writers with the same base exactly one wins. The statement is sent once: whether to try again is
//! the committer's decision.

mod address;
mod failure;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};
use sqlx::any::{AnyArguments, AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Row};

use self::address::{database_url, make_folder, signed_in};
use self::failure::{connection_lost, said};
use super::error::one_line;
use super::metadata::{self, Next};
use super::storage::Storage;
use super::{Catalog, Creation, Error, Result, TableChange};
use crate::config;
use crate::telemetry::metrics::Requests;

/// Connections of this process; commits of one table follow one another anyway.
const CONNECTIONS_MAX: u32 = 4;
/// How long a free connection is waited for, a new one included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long SQLite waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer is waited for; longer than SQLite's lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(40);

/// As JdbcCatalog's schema V1, which is V0 and a column. PyIceberg leaves the column alone.
const CREATE_TABLES: &str = "CREATE TABLE IF NOT EXISTS iceberg_tables (\
     catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, \
     metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5), \
     PRIMARY KEY (catalog_name, table_namespace, table_name))";
const CREATE_PROPERTIES: &str = "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (\
     catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL, \
     property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key))";

/// Which columns `iceberg_tables` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Older tables of Java and PyIceberg: no views, no `iceberg_type`.
    V0,
    V1,
}

pub struct Sql {
    name: String,
    warehouse: String,
    trust_mirror: bool,
    commit_together: bool,
    storage: Storage,
    requests: Requests,
    pool: AnyPool,
    version: Version,
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool's options hold the password.
        f.debug_struct("Sql").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One table's pointer from one metadata file to the next.
struct Swap<'a> {
    ident: &'a TableIdent,
    from: &'a str,
    to: &'a str,
}

impl Sql {
    /// Connects, and creates the catalog's tables (and for SQLite the file and its folder) if they are missing.
    pub async fn open(config: &config::Catalog, requests: Requests) -> Result<Sql> {
        let uri = super::required(config, "uri")?;
        let warehouse = super::required(config, "warehouse")?;
        let jdbc = |key: &str| config.properties.get(key).map(String::as_str);
        let url = database_url(uri)
            .and_then(|url| signed_in(&url, jdbc("jdbc.user"), jdbc("jdbc.password")))
            .map_err(|reason| Error::Refused(format!("catalog {}: {reason}", config.name)))?;
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        if sqlite {
            make_folder(&config.name, uri).await?;
        }
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if sqlite {
                        let pragma = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
                        connection.execute(pragma.as_str()).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await
            .map_err(|error| said(&config.name, "cannot connect", error))?;
        let mut catalog = Sql {
            name: config.name.clone(),
            warehouse: warehouse.to_owned(),
            trust_mirror: super::flag(config, super::TRUST_MIRROR, false)?,
            commit_together: super::flag(config, super::COMMIT_TOGETHER, true)?,
            storage: Storage::counted(config.properties.clone(), requests.clone()),
            requests,
            pool,
            version: Version::V1,
        };
        catalog.version = catalog.prepare().await?;
        Ok(catalog)
    }

    async fn prepare(&self) -> Result<Version> {
        for statement in [CREATE_TABLES, CREATE_PROPERTIES] {
            // Two Postgres clients that create a table at once: one gets a unique violation, though it says IF NOT
            // EXISTS. The second time it exists.
            if self.execute(sqlx::query(statement)).await.is_err() {
                self.execute(sqlx::query(statement)).await?;
            }
        }
        match self.rows(sqlx::query("SELECT iceberg_type FROM iceberg_tables WHERE 1 = 0")).await {
            Ok(_) => Ok(Version::V1),
            Err(Error::Refused(_)) => Ok(Version::V0),
            Err(error) => Err(error),
        }
    }

    /// The condition that leaves out views.
    fn tables_only(&self) -> &'static str {
        match self.version {
            Version::V0 => "",
            Version::V1 => " AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)",
        }
    }

    async fn connection(&self) -> Result<PoolConnection<Any>> {
        self.pool.acquire().await.map_err(|error| said(&self.name, "cannot connect", error))
    }

    /// For reads and for writes that may be repeated: a failure means that nothing is known to have changed.
    async fn rows<'q>(&self, query: Query<'q, Any, AnyArguments<'q>>) -> Result<Vec<AnyRow>> {
        self.requests.catalog("query");
        let mut connection = self.connection().await?;
        match tokio::time::timeout(STATEMENT_TIMEOUT, query.fetch_all(&mut *connection)).await {
            Ok(result) => result.map_err(|error| said(&self.name, "a query failed", error)),
            Err(_) => {
                // Its answer may still come; such a connection must not go back to the pool.
                drop(connection.detach());
                Err(Error::Unavailable(format!("catalog {}: no answer within {STATEMENT_TIMEOUT:?}", self.name)))
            }
        }
    }

    async fn execute<'q>(&self, query: Query<'q, Any, AnyArguments<'q>>) -> Result<u64> {
        self.requests.catalog("statement");
        let mut connection = self.connection().await?;
        match tokio::time::timeout(STATEMENT_TIMEOUT, query.execute(&mut *connection)).await {
            Ok(result) => {
                result.map(|done| done.rows_affected()).map_err(|error| said(&self.name, "a statement failed", error))
            }
            Err(_) => {
                drop(connection.detach());
                Err(Error::Unavailable(format!("catalog {}: no answer within {STATEMENT_TIMEOUT:?}", self.name)))
            }
        }
    }

    /// Where the table's metadata is.
    async fn location(&self, ident: &TableIdent) -> Result<Option<String>> {
        let statement = format!(
            "SELECT metadata_location FROM iceberg_tables \
             WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3{}",
            self.tables_only()
        );
        let rows = self
            .rows(sqlx::query(&statement).bind(&self.name).bind(joined(ident.namespace())?).bind(&ident.name))
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let location: Option<String> = self.column(row, 0)?;
        match location {
            Some(location) => Ok(Some(location)),
            None => Err(Error::Refused(format!("catalog {}: table {ident} has no metadata location", self.name))),
        }
    }

    fn column(&self, row: &AnyRow, index: usize) -> Result<Option<String>> {
        row.try_get(index).map_err(|error| said(&self.name, "a row of an unexpected type", error))
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> Result<bool> {
        let name = joined(namespace)?;
        let rows = self
            .rows(
                sqlx::query(
                    "SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = $1 AND namespace = $2 \
                     UNION SELECT 1 FROM iceberg_tables WHERE catalog_name = $3 AND table_namespace = $4",
                )
                .bind(&self.name)
                .bind(&name)
                .bind(&self.name)
                .bind(&name),
            )
            .await?;
        Ok(!rows.is_empty())
    }

    /// Moves all pointers or none. One table needs no transaction; several share one.
    async fn swap(&self, swaps: &[Swap<'_>]) -> Result<()> {
        self.requests.catalog("swap");
        let mut connection = self.connection().await?;
        let result = tokio::time::timeout(STATEMENT_TIMEOUT, async {
            match swaps {
                [swap] => self.swap_one(&mut connection, swap).await,
                _ => {
                    let mut transaction = connection.begin().await.map_err(|error| self.swap_failed(error))?;
                    for swap in swaps {
                        self.swap_one(&mut transaction, swap).await?;
                    }
                    transaction.commit().await.map_err(|error| self.swap_failed(error))
                }
            }
        })
        .await;
        match result {
            Ok(Err(error @ Error::Unknown(_))) => {
                drop(connection.detach());
                Err(error)
            }
            Ok(result) => result,
            Err(_) => {
                drop(connection.detach());
                Err(Error::Unknown(format!("catalog {}: no answer within {STATEMENT_TIMEOUT:?}", self.name)))
            }
        }
    }

    async fn swap_one(&self, connection: &mut AnyConnection, swap: &Swap<'_>) -> Result<()> {
        let statement = format!(
            "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2 \
             WHERE catalog_name = $3 AND table_namespace = $4 AND table_name = $5 AND metadata_location = $6{}",
            self.tables_only()
        );
        let done = sqlx::query(&statement)
            .bind(swap.to)
            .bind(swap.from)
            .bind(&self.name)
            .bind(joined(swap.ident.namespace())?)
            .bind(&swap.ident.name)
            .bind(swap.from)
            .execute(connection)
            .await
            .map_err(|error| self.swap_failed(error))?;
        match done.rows_affected() {
            0 => Err(Error::Conflict(format!("catalog {}: table {} was changed meanwhile", self.name, swap.ident))),
            _ => Ok(()),
        }
    }

    /// A swap was sent and failed: unless the database itself says that it did nothing, nobody knows.
    fn swap_failed(&self, error: sqlx::Error) -> Error {
        match &error {
            sqlx::Error::Database(refusal) if !connection_lost(refusal.as_ref()) => {
                said(&self.name, "the commit failed", error)
            }
            _ => Error::Unknown(format!("catalog {}: the commit's answer was lost: {}", self.name, one_line(&error))),
        }
    }

    async fn load_at(&self, ident: &TableIdent, location: String) -> Result<Table> {
        let file_io = self.storage.file_io();
        let metadata = TableMetadata::read_from(&file_io, &location)
            .await
            .map_err(|error| Error::from(error).at(format_args!("metadata of table {ident}")))?;
        metadata::table(ident, metadata, Some(location), file_io)
    }
}

#[async_trait]
impl Catalog for Sql {
    fn name(&self) -> &str {
        &self.name
    }

    fn trust_mirror(&self) -> bool {
        self.trust_mirror
    }

    async fn create_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        if self.namespace_exists(namespace).await? {
            return Err(Error::AlreadyExists(format!("namespace {namespace} in catalog {}", self.name)));
        }
        // The row that Java and PyIceberg write for a namespace without properties.
        self.execute(
            sqlx::query(
                "INSERT INTO iceberg_namespace_properties (catalog_name, namespace, property_key, property_value) \
                 VALUES ($1, $2, 'exists', 'true')",
            )
            .bind(&self.name)
            .bind(joined(namespace)?),
        )
        .await
        .map_err(|error| match error {
            Error::AlreadyExists(_) => Error::AlreadyExists(format!("namespace {namespace} in catalog {}", self.name)),
            other => other,
        })?;
        Ok(())
    }

    async fn namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        let rows = self
            .rows(
                sqlx::query(
                    "SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = $1 \
                     UNION SELECT table_namespace FROM iceberg_tables WHERE catalog_name = $2",
                )
                .bind(&self.name)
                .bind(&self.name),
            )
            .await?;
        let mut names = BTreeSet::new();
        for row in &rows {
            if let Some(name) = self.column(row, 0)? {
                names.insert(name);
            }
        }
        names.iter().map(|name| Ok(NamespaceIdent::from_strs(name.split('.'))?)).collect()
    }

    async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        if !self.namespace_exists(namespace).await? {
            return Err(Error::NotFound(format!("namespace {namespace} in catalog {}", self.name)));
        }
        let statement = format!(
            "SELECT table_name FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2{} \
             ORDER BY table_name",
            self.tables_only()
        );
        let rows = self.rows(sqlx::query(&statement).bind(&self.name).bind(joined(namespace)?)).await?;
        let mut tables = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(name) = self.column(row, 0)? {
                tables.push(TableIdent::new(namespace.clone(), name));
            }
        }
        Ok(tables)
    }

    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let Some(location) = self.location(ident).await? else {
            return Err(Error::NotFound(format!("table {ident} in catalog {}", self.name)));
        };
        match self.load_at(ident, location.clone()).await {
            Ok(table) => Ok(table),
            // Between the two reads the table may have moved on and its old metadata file been deleted.
            Err(error) => match self.location(ident).await? {
                Some(now) if now != location => self.load_at(ident, now).await,
                Some(_) => Err(error),
                None => Err(Error::NotFound(format!("table {ident} in catalog {}", self.name))),
            },
        }
    }

    async fn create(&self, ident: &TableIdent, creation: Creation) -> Result<Table> {
        let exists = || Error::AlreadyExists(format!("table {ident} in catalog {}", self.name));
        if !self.namespace_exists(ident.namespace()).await? {
            return Err(Error::NotFound(format!("namespace {} in catalog {}", ident.namespace(), self.name)));
        }
        if self.location(ident).await?.is_some() {
            return Err(exists());
        }
        let next = metadata::create(&metadata::default_location(&self.warehouse, ident), creation)?;
        let file_io = self.storage.file_io();
        next.write(&file_io).await?;
        let (columns, values) = match self.version {
            Version::V0 => ("", ""),
            Version::V1 => (", iceberg_type", ", 'TABLE'"),
        };
        let statement = format!(
            "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location{columns}) \
             VALUES ($1, $2, $3, $4{values})"
        );
        let inserted = self
            .execute(
                sqlx::query(&statement)
                    .bind(&self.name)
                    .bind(joined(ident.namespace())?)
                    .bind(&ident.name)
                    .bind(&next.location),
            )
            .await;
        match inserted {
            Ok(_) => next.committed(ident, &file_io),
            Err(Error::AlreadyExists(_)) => {
                next.discard(&file_io).await;
                Err(exists())
            }
            Err(error) => Err(error),
        }
    }

    async fn commit(
        &self,
        base: &Table,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> Result<Table> {
        let mut tables = self.commit_together(vec![TableChange { base, requirements, updates }]).await?;
        tables.pop().ok_or_else(|| Error::Unknown(format!("catalog {}: no table came of a commit", self.name)))
    }

    fn commits_together(&self) -> bool {
        self.commit_together
    }

    async fn commit_together(&self, changes: Vec<TableChange<'_>>) -> Result<Vec<Table>> {
        let mut next: Vec<(&Table, Next)> = Vec::with_capacity(changes.len());
        let moved = async {
            for TableChange { base, requirements, updates } in changes {
                let made = metadata::update(base, &requirements, updates)?;
                made.write(base.file_io()).await?;
                next.push((base, made));
            }
            let mut swaps = Vec::with_capacity(next.len());
            for (base, made) in &next {
                swaps.push(Swap {
                    ident: base.identifier(),
                    from: base.metadata_location_result()?,
                    to: &made.location,
                });
            }
            self.swap(&swaps).await
        };
        match moved.await {
            Ok(()) => next.into_iter().map(|(base, made)| made.committed(base.identifier(), base.file_io())).collect(),
            // The rows may point to the new files.
            Err(error @ Error::Unknown(_)) => Err(error),
            Err(error) => {
                for (base, made) in next {
                    made.discard(base.file_io()).await;
                }
                Err(error)
            }
        }
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<()> {
        let statement = format!(
            "DELETE FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3{}",
            self.tables_only()
        );
        let dropped = self
            .execute(sqlx::query(&statement).bind(&self.name).bind(joined(ident.namespace())?).bind(&ident.name))
            .await?;
        match dropped {
            0 => Err(Error::NotFound(format!("table {ident} in catalog {}", self.name))),
            _ => Ok(()),
        }
    }
}

/// A namespace as one string, as Java and PyIceberg write it; a dot inside a level would read back as two levels.
fn joined(namespace: &NamespaceIdent) -> Result<String> {
    if let Some(level) = namespace.iter().find(|level| level.contains('.') || level.is_empty()) {
        return Err(Error::Refused(format!("namespace {namespace}: level {level:?} is empty or has a dot in it")));
    }
    Ok(namespace.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_must_read_back() {
        assert_eq!(joined(&NamespaceIdent::from_strs(["a", "b"]).unwrap()).unwrap(), "a.b");
        assert!(matches!(joined(&NamespaceIdent::new("a.b".to_owned())), Err(Error::Refused(_))));
    }

    #[tokio::test]
    async fn several_tables_move_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let properties = [("uri", format!("sqlite:///{}/c.db", folder.path().display())), ("warehouse", "/w".into())];
        let config = config::Catalog {
            name: "local".to_owned(),
            kind: config::CatalogKind::Sql,
            properties: properties.map(|(key, value)| (key.to_owned(), value)).into(),
        };
        let catalog = Sql::open(&config, Requests::default()).await.unwrap();
        let [main, quarantine] = ["main", "quarantine"].map(|name| TableIdent::from_strs(["n", name]).unwrap());
        for ident in [&main, &quarantine] {
            let insert = "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location) \
                          VALUES ('local', 'n', $1, 'one')";
            catalog.execute(sqlx::query(insert).bind(&ident.name)).await.unwrap();
        }
        let swap = |ident, from, to| Swap { ident, from, to };
        let late = catalog.swap(&[swap(&main, "one", "two"), swap(&quarantine, "not there any more", "two")]).await;
        assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
        assert_eq!(catalog.location(&main).await.unwrap().as_deref(), Some("one"));
        catalog.swap(&[swap(&main, "one", "two"), swap(&quarantine, "one", "two")]).await.unwrap();
        for ident in [&main, &quarantine] {
            assert_eq!(catalog.location(ident).await.unwrap().as_deref(), Some("two"));
        }
    }
}
