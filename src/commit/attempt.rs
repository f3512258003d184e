//! One attempt at a commit: everything it consists of is prepared for one base, then sent once. Whether it may be tried
//! again is the committer's decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iceberg::spec::{MAIN_BRANCH, Operation, SchemaRef, SnapshotRef, TableMetadataBuilder};
use iceberg::table::Table;
use iceberg::{TableRequirement, TableUpdate};
use uuid::Uuid;

use super::change::SchemaChange;
use super::committer;
use super::expire::{self, Policy, Refs};
use super::ledger::{KEY, Ledger, Mirror};
use super::manifests::Manifests;
use super::snapshot::{self, Delta, Produced};
use crate::catalog::{self, Catalog, TableChange};
use crate::error::{Error, Result};
use crate::schema::evolve::WRITTEN_SCHEMA;
use iceberg::spec::DataFile;

/// Stands, in a property's value, for the id of the snapshot that the property is committed with: a mirror of that
/// snapshot's summary says so which one it repeats.
pub const SNAPSHOT_ID: &str = "${snapshot-id}";

/// What is to be committed, once the fence has let it pass.
#[derive(Debug)]
pub struct Work<'a> {
    pub commit_id: Uuid,
    pub operation: Operation,
    pub files: &'a [DataFile],
    pub spec_id: i32,
    pub schema: Option<&'a SchemaChange>,
    /// The ledger as it is after this commit; none for a table that no topic feeds.
    pub ledger: Option<Ledger>,
    pub summary: &'a BTreeMap<String, String>,
    pub properties: HashMap<String, String>,
}

/// A commit that is ready to be sent onto `base`, and onto nothing else.
#[derive(Debug)]
pub struct Prepared {
    pub base: Table,
    pub requirements: Vec<TableRequirement>,
    pub updates: Vec<TableUpdate>,
    pub produced: Produced,
    pub removed: Vec<SnapshotRef>,
    pub ledger: Option<Ledger>,
}

/// What came of sending.
#[derive(Debug)]
pub enum Sent {
    Applied(Box<Table>),
    /// The table is no longer the base; nothing was changed.
    Conflict(String),
    /// Applied or not, or still to be applied.
    Unknown(String),
    /// Nothing was changed.
    Unavailable(String),
    Refused(Error),
}

/// Writes the snapshot's files and puts the whole change together.
pub async fn prepare(
    base: &Table,
    work: Work<'_>,
    manifests: &mut Manifests,
    needed: &BTreeSet<i64>,
) -> Result<Prepared> {
    fail::fail_point!("commit::before_manifests");
    let metadata = base.metadata();
    let now_ms = chrono::Utc::now().timestamp_millis();
    let mut requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch {
            r#ref: MAIN_BRANCH.to_owned(),
            snapshot_id: metadata.current_snapshot_id(),
        },
        // Somebody else's change of the schema moves no snapshot.
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
    ];
    let mut updates = Vec::new();
    let mut properties = work.properties;
    let mut schema = metadata.current_schema().clone();
    if let Some(change) = work.schema {
        schema = changed_schema(base, change)?;
        requirements
            .push(TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() });
        if schema.schema_id() != metadata.current_schema_id() {
            updates.push(TableUpdate::AddSchema { schema: schema.as_ref().clone() });
            updates.push(TableUpdate::SetCurrentSchema { schema_id: TableMetadataBuilder::LAST_ADDED });
        }
        properties.extend(change.properties.clone());
    }

    let mut summary = work.summary.clone();
    // Only said where it is not what the snapshot says anyway.
    if summary.get(WRITTEN_SCHEMA).is_some_and(|id| *id == schema.schema_id().to_string()) {
        summary.remove(WRITTEN_SCHEMA);
    }
    if let Some(ledger) = &work.ledger {
        summary.insert(KEY.to_owned(), ledger.to_json());
    }
    let delta = Delta {
        operation: work.operation,
        added: work.files,
        spec_id: work.spec_id,
        commit_id: work.commit_id,
        summary: &summary,
    };
    let produced = snapshot::produce(base, schema, manifests, &delta, now_ms).await?;
    fail::fail_point!("commit::after_manifests");

    let snapshot_id = produced.snapshot.snapshot_id();
    if let Some(ledger) = &work.ledger {
        let mirror = Mirror { snapshot: snapshot_id, ledger: ledger.clone() };
        properties.insert(KEY.to_owned(), mirror.to_json());
    }
    for value in properties.values_mut().filter(|value| value.contains(SNAPSHOT_ID)) {
        *value = value.replace(SNAPSHOT_ID, &snapshot_id.to_string());
    }
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    let refs = Refs::of(metadata)?;
    updates.push(TableUpdate::AddSnapshot { snapshot: produced.snapshot.clone() });
    updates
        .push(TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: refs.main_at(snapshot_id) });
    let plan = expire::plan(metadata, &refs, &produced.snapshot, needed, &Policy::of(metadata), now_ms);
    updates.extend(plan.updates);
    Ok(Prepared { base: base.clone(), requirements, updates, produced, removed: plan.removed, ledger: work.ledger })
}

/// The table's schema after the change, with the id that it will have.
fn changed_schema(base: &Table, change: &SchemaChange) -> Result<SchemaRef> {
    let wrong = |error: iceberg::Error| {
        Error::halt(format!("table {}: the new schema does not fit the table", base.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    };
    let built = TableMetadataBuilder::new_from_metadata(base.metadata().clone(), None)
        .add_current_schema(change.schema.clone())
        .and_then(TableMetadataBuilder::build)
        .map_err(wrong)?;
    Ok(built.metadata.current_schema().clone())
}

/// Sends once. The requirements are those of the base that was checked, never re-derived ones.
pub async fn send(catalog: &dyn Catalog, prepared: &Prepared) -> Sent {
    let answer = catalog.commit(&prepared.base, prepared.requirements.clone(), prepared.updates.clone()).await;
    let answer = lose(answer);
    match answer {
        Ok(table) => Sent::Applied(Box::new(table)),
        Err(catalog::Error::Conflict(why)) => Sent::Conflict(why),
        Err(catalog::Error::Unknown(why)) => Sent::Unknown(why),
        Err(catalog::Error::Unavailable(why)) => Sent::Unavailable(why),
        Err(error @ catalog::Error::NotFound(_)) => {
            Sent::Refused(committer::not_loaded(catalog, prepared.base.identifier(), error))
        }
        Err(error @ (catalog::Error::AlreadyExists(_) | catalog::Error::Refused(_))) => {
            let (name, catalog) = (prepared.base.identifier(), catalog.name());
            Sent::Refused(Error::halt(format!(
                "table {name}: catalog {catalog} does not take the commit: {error}; if it is its credentials or grants, \
                 mend them and start calve again, which reads again what was not committed"
            )))
        }
    }
}

/// Sends two tables' changes as one, once.
pub async fn send_together(catalog: &dyn Catalog, both: [&Prepared; 2]) -> catalog::Result<[Table; 2]> {
    let changes = both.map(|prepared| TableChange {
        base: &prepared.base,
        requirements: prepared.requirements.clone(),
        updates: prepared.updates.clone(),
    });
    let tables = lose(catalog.commit_together(changes.into()).await)?;
    tables.try_into().map_err(|_| catalog::Error::Unknown("not as many tables as were changed".to_owned()))
}

/// The edge behind which a commit may have happened without our knowing: with the failpoint `commit::sent=return` the
/// answer is lost.
fn lose<T>(answer: catalog::Result<T>) -> catalog::Result<T> {
    fail::fail_point!("commit::sent", |_| Err(catalog::Error::Unknown("the failpoint commit::sent".to_owned())));
    answer
}
