//! Tables made by themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{Operation, Schema, SortOrder, UnboundPartitionSpec};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};
use uuid::Uuid;

use super::ancestry;
use super::attempt::{self, Work};
use super::committer::{self, Committer};
use super::ledger::Ledger;
use super::manifests::Manifests;
use crate::catalog::{self, Catalog, Creation};
use crate::error::{Error, Result};
use crate::schema::column_map::ColumnMap;
use crate::schema::mapping::Mapping;

/// What calve sets on a table that it creates, unless the user's properties say otherwise.
///
/// Many small commits are the rule here: time travel comes from tags (see [`super::expire`]), so that the metadata file
/// stays small, and old metadata files go.
const DEFAULTS: [(&str, &str); 4] = [
    ("history.expire.min-snapshots-to-keep", "50"),
    ("history.expire.max-snapshot-age-ms", "1"),
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "50"),
];

/// A table as it should be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub schema: Schema,
    pub partition_spec: UnboundPartitionSpec,
    pub sort_order: SortOrder,
    /// The user's table properties and calve's own (`calve.mapping`, `calve.columns`, `calve.message`).
    pub properties: HashMap<String, String>,
    /// Make the table with an empty first snapshot, for catalogs that do not fence the first commit (Nessie does not
    /// enforce `assert-ref-snapshot-id: null`: of two racing first appends one would be lost, and its ledger with it).
    pub first_snapshot: bool,
}

/// The table, made if it is missing, namespace included. Somebody else making it at the same time is no failure.
///
/// The catalog may have assigned other field ids than asked for: read the schema of what is returned.
pub async fn ensure_table(catalog: &Arc<dyn Catalog>, ident: &TableIdent, wanted: Wanted) -> Result<Table> {
    let table = match catalog.load(ident).await {
        Ok(table) => table,
        Err(catalog::Error::NotFound(_)) => create(&**catalog, ident, &wanted).await?,
        Err(error) => return Err(failed(&**catalog, ident, "loading it", error)),
    };
    // Made by somebody else, or by a catalog that cannot make it with a snapshot.
    if wanted.first_snapshot && table.metadata().current_snapshot_id().is_none() {
        let mut committer = Committer::new(catalog.clone(), table, None);
        // False: somebody else gave it a first snapshot, which serves as well.
        committer.commit_ledger(Ledger::default(), None, BTreeMap::new(), HashMap::new()).await?;
        return committer::load(&**catalog, ident).await;
    }
    Ok(table)
}

/// The table of a mapping, made if it is missing, with the properties that a later writer needs. Where the catalog
/// assigned other field ids than asked for, `calve.columns` is made to tell the table's own: read the mapping of the
/// returned table from it, as for any table that is already there.
pub async fn ensure_mapped_table(
    catalog: &Arc<dyn Catalog>,
    ident: &TableIdent,
    mapping: &Mapping,
    partition_spec: UnboundPartitionSpec,
    properties: &BTreeMap<String, String>,
    first_snapshot: bool,
) -> Result<Table> {
    let mut all: HashMap<String, String> = properties.clone().into_iter().collect();
    all.extend(mapping.properties());
    let schema = mapping.iceberg.as_ref().clone();
    let sort_order = SortOrder::unsorted_order();
    let wanted = Wanted { schema, partition_spec, sort_order, properties: all, first_snapshot };
    let table = ensure_table(catalog, ident, wanted).await?;
    // Whoever made the table may have died before it got here, so this is looked at in any table that is still empty.
    let metadata = table.metadata();
    let asked = mapping.properties();
    let as_asked = metadata.properties().get(ColumnMap::PROPERTY) == asked.get(ColumnMap::PROPERTY);
    let empty = metadata.current_snapshot().is_none_or(|head| {
        head.parent_snapshot_id().is_none()
            && ancestry::count(&head.summary().additional_properties, "total-records") == 0
    });
    if !as_asked || !empty || metadata.current_schema().as_struct() == mapping.iceberg.as_struct() {
        return Ok(table);
    }
    let adopted = mapping.adopt(metadata.current_schema()).map_err(|error| {
        Error::halt(format!("table {ident}: the catalog {} made another table than asked for", catalog.name()))
            .caused_by(error)
    })?;
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
    ];
    let updates = vec![TableUpdate::SetProperties { updates: adopted.properties().into_iter().collect() }];
    match catalog.commit(&table, requirements, updates).await {
        Ok(table) => Ok(table),
        Err(error) => Err(Error::retry(format!(
            "table {ident}: setting its properties in catalog {} failed: {error}",
            catalog.name()
        ))),
    }
}

async fn create(catalog: &dyn Catalog, ident: &TableIdent, wanted: &Wanted) -> Result<Table> {
    let levels: &[String] = ident.namespace().as_ref();
    for depth in 1..=levels.len() {
        let namespace = NamespaceIdent::from_strs(&levels[..depth]).map_err(|error| {
            Error::halt(format!("table {ident}: its namespace is not a name")).caused_by(anyhow::anyhow!("{error}"))
        })?;
        match catalog.create_namespace(&namespace).await {
            Ok(()) | Err(catalog::Error::AlreadyExists(_)) => {}
            // Who may not create the outer levels may still create the last, or find it there.
            Err(catalog::Error::Refused(_)) if depth < levels.len() => {}
            Err(error) => return Err(failed(catalog, ident, "creating its namespace", error)),
        }
    }
    let mut properties: HashMap<String, String> =
        DEFAULTS.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    properties.extend(wanted.properties.clone());
    let creation = Creation {
        schema: wanted.schema.clone(),
        partition_spec: wanted.partition_spec.clone(),
        sort_order: wanted.sort_order.clone(),
        properties,
    };
    let made = match wanted.first_snapshot {
        true => create_with_snapshot(catalog, ident, creation).await?,
        false => catalog.create(ident, creation).await,
    };
    match made {
        Ok(table) => Ok(table),
        // Somebody was faster, or our own first request was, and its answer got lost.
        Err(catalog::Error::AlreadyExists(_) | catalog::Error::Conflict(_)) => committer::load(catalog, ident).await,
        Err(catalog::Error::Unknown(why)) => match catalog.load(ident).await {
            Ok(table) => Ok(table),
            Err(_) => Err(Error::retry(format!("table {ident}: whether it was created is not known: {why}"))),
        },
        Err(error) => Err(failed(catalog, ident, "creating it", error)),
    }
}

async fn create_with_snapshot(
    catalog: &dyn Catalog,
    ident: &TableIdent,
    creation: Creation,
) -> Result<catalog::Result<Table>> {
    let staged = match catalog.stage(ident, &creation).await {
        Ok(Some(staged)) => staged,
        Ok(None) => return Ok(catalog.create(ident, creation).await),
        Err(error) => return Ok(Err(error)),
    };
    let work = Work {
        commit_id: Uuid::now_v7(),
        operation: Operation::Append,
        files: &[],
        spec_id: staged.metadata().default_partition_spec_id(),
        schema: None,
        ledger: Some(Ledger::default()),
        summary: &BTreeMap::new(),
        properties: HashMap::new(),
    };
    let prepared = attempt::prepare(&staged, work, &mut Manifests::default(), &BTreeSet::new()).await?;
    Ok(catalog.commit(&staged, vec![TableRequirement::NotExist], prepared.updates).await)
}

fn failed(catalog: &dyn Catalog, ident: &TableIdent, what: &str, error: catalog::Error) -> Error {
    let message = format!("table {ident}: {what} in catalog {} failed: {error}", catalog.name());
    match error {
        catalog::Error::Unavailable(_) | catalog::Error::Unknown(_) | catalog::Error::Conflict(_) => {
            Error::retry(message)
        }
        _ => Error::halt(format!("{message}; grant what is lacking, or have it made, and start calve again")),
    }
}
