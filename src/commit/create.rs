//! Tables made by themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{Operation, Schema, SortOrder, UnboundPartitionSpec};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement};
use uuid::Uuid;

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
    /// Rather without partitions than not at all, where a catalog refuses them.
    pub partitions_may_go: bool,
    pub sort_order: SortOrder,
    /// The user's table properties; those of the mapping come on top.
    pub properties: HashMap<String, String>,
    /// Which Protobuf field fills which of the schema's columns.
    pub mapping: Option<Mapping>,
    /// Make the table with an empty first snapshot, for catalogs that do not fence the first commit (Nessie does not
    /// enforce `assert-ref-snapshot-id: null`: of two racing first appends one would be lost, and its ledger with it).
    pub first_snapshot: bool,
}

/// The table, made if it is missing, namespace included. Somebody else making it at the same time is no failure.
///
/// The catalog may have assigned other field ids than asked for: read the schema of what is returned. `calve.columns`
/// tells the table's own from its first snapshot on; without one, names do, as nothing was written by id.
pub async fn ensure_table(catalog: &Arc<dyn Catalog>, ident: &TableIdent, wanted: Wanted) -> Result<Table> {
    let table = match catalog.load(ident).await {
        Ok(table) => table,
        Err(catalog::Error::NotFound(_)) => create(&**catalog, ident, &wanted).await?,
        Err(error) => return Err(failed(&**catalog, ident, "loading it", error)),
    };
    // Made by somebody else, or by a catalog that cannot make it with a snapshot.
    if wanted.first_snapshot && table.metadata().current_snapshot_id().is_none() {
        let mut committer = Committer::new(catalog.clone(), table, None);
        let properties = adopted(&**catalog, committer.table(), &wanted)?;
        // False: somebody else gave it a first snapshot, which serves as well.
        committer.commit_ledger(Ledger::default(), None, BTreeMap::new(), properties).await?;
        return committer::load(&**catalog, ident).await;
    }
    Ok(table)
}

/// What a mapping's properties become where the catalog gave a new table other field ids than it was asked for; nothing
/// where they are right, or where the table is not the one that was asked for.
fn adopted(catalog: &dyn Catalog, table: &Table, wanted: &Wanted) -> Result<HashMap<String, String>> {
    let Some(mapping) = &wanted.mapping else { return Ok(HashMap::new()) };
    let (asked, metadata) = (mapping.properties(), table.metadata());
    let as_asked = metadata.properties().get(ColumnMap::PROPERTY) == asked.get(ColumnMap::PROPERTY);
    if !as_asked || metadata.current_schema().as_struct() == mapping.iceberg.as_struct() {
        return Ok(HashMap::new());
    }
    let adopted = mapping.adopt(metadata.current_schema()).map_err(|error| {
        let (ident, catalog) = (table.identifier(), catalog.name());
        Error::halt(format!("table {ident}: the catalog {catalog} made another table than asked for")).caused_by(error)
    })?;
    Ok(adopted.properties().into_iter().collect())
}

async fn create(catalog: &dyn Catalog, ident: &TableIdent, wanted: &Wanted) -> Result<Table> {
    let levels: &[String] = ident.namespace().as_ref();
    let mut denied = None;
    for depth in 1..=levels.len() {
        let namespace = NamespaceIdent::from_strs(&levels[..depth]).map_err(|error| {
            Error::halt(format!("table {ident}: its namespace is not a name")).caused_by(anyhow::anyhow!("{error}"))
        })?;
        match catalog.create_namespace(&namespace).await {
            Ok(()) | Err(catalog::Error::AlreadyExists(_)) => {}
            // Who may not make namespaces is told so before it is looked whether this one is there.
            Err(error @ catalog::Error::Refused(_)) => denied = Some(error),
            Err(error) => return Err(failed(catalog, ident, "creating its namespace", error)),
        }
    }
    let mut properties: HashMap<String, String> =
        DEFAULTS.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    properties.extend(wanted.properties.clone());
    properties.extend(wanted.mapping.iter().flat_map(Mapping::properties));
    let creation = Creation {
        schema: wanted.schema.clone(),
        partition_spec: wanted.partition_spec.clone(),
        sort_order: wanted.sort_order.clone(),
        properties,
    };
    let made = match wanted.first_snapshot {
        true => create_with_snapshot(catalog, ident, creation, wanted).await?,
        false => catalog.create(ident, creation).await,
    };
    match made {
        Ok(table) => Ok(table),
        Err(catalog::Error::NotFound(_)) if let Some(error) = denied => {
            Err(failed(catalog, ident, "creating its namespace", error))
        }
        // Somebody was faster, or our own first request was, and its answer got lost.
        Err(catalog::Error::AlreadyExists(_) | catalog::Error::Conflict(_)) => committer::load(catalog, ident).await,
        Err(catalog::Error::Unknown(why)) => match catalog.load(ident).await {
            Ok(table) => Ok(table),
            Err(_) => Err(Error::retry(format!("table {ident}: whether it was created is not known: {why}"))),
        },
        Err(error @ catalog::Error::Refused(_)) if wanted.partitions_may_go && partitions_inside_structs(wanted) => {
            let catalog_name = catalog.name();
            tracing::warn!(table = %ident, "catalog {catalog_name} refuses its partitions, it is made without: {error}");
            let partition_spec = UnboundPartitionSpec::builder().build();
            Box::pin(create(catalog, ident, &Wanted { partition_spec, ..wanted.clone() })).await
        }
        Err(error @ catalog::Error::Refused(_)) if partitions_inside_structs(wanted) => Err(Error::halt(format!(
            "table {ident}: creating it in catalog {} failed: {error}; if it is no grant that is lacking: it is partitioned by a \
             column inside of a struct, which some catalogs refuse (Nessie): name others in the topic's partition_by, or none ([])",
            catalog.name()
        ))),
        Err(error) => Err(failed(catalog, ident, "creating it", error)),
    }
}

fn partitions_inside_structs(wanted: &Wanted) -> bool {
    let outermost = wanted.schema.as_struct();
    wanted.partition_spec.fields().iter().any(|field| outermost.field_by_id(field.source_id).is_none())
}

async fn create_with_snapshot(
    catalog: &dyn Catalog,
    ident: &TableIdent,
    creation: Creation,
    wanted: &Wanted,
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
        properties: adopted(catalog, &staged, wanted)?,
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
