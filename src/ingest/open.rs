//! A topic's table, ready to be written to: its schema resolved, the table made if it is missing, the mapping agreed
//! with what the table has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::TableIdent;
use iceberg::table::Table;
use tokio::sync::Mutex;

use crate::batch::{RawBatch, Reject};
use crate::catalog::{self, Catalog};
use crate::commit::create::{Wanted, ensure_table};
use crate::commit::{SchemaChange, blame};
use crate::config::{self, Topic};
use crate::error::{Error, Result};
use crate::quarantine::{self, Quarantine};
use crate::schema::column_map::ColumnMap;
use crate::schema::evolve::Existing;
use crate::schema::mapping::{Fault, Mapping, Options};
use crate::schema::model::{MessageId, Pool};
use crate::schema::{partition, sort};
use crate::shred;

/// The table as the writers see it. Made anew when somebody changes the table's schema, spec or properties.
#[derive(Debug)]
pub struct Opened {
    pub table: Table,
    pub mapping: Mapping,
    pub shred: shred::Options,
    /// Goes with the first data that needs it.
    pub change: Option<SchemaChange>,
}

impl Opened {
    /// The message's full name.
    pub fn message(&self) -> &str {
        &self.mapping.pool.message(self.mapping.message).full_name
    }

    /// Whether writers made for this table still fit `now`.
    pub fn fits(&self, now: &Table) -> bool {
        let (then, now) = (self.table.metadata(), now.metadata());
        then.uuid() == now.uuid()
            && then.current_schema_id() == now.current_schema_id()
            && then.default_partition_spec_id() == now.default_partition_spec_id()
            && then.default_sort_order_id() == now.default_sort_order_id()
            && writing_properties(then.properties()) == writing_properties(now.properties())
    }
}

/// The properties that a writer goes by: not ours, which change with every commit.
fn writing_properties(properties: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    let kept = properties.iter().filter(|(key, _)| key.starts_with("write."));
    kept.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// A topic's schema: the pool, and the message in it.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub pool: Arc<Pool>,
    pub message: MessageId,
}

/// Reads the topic's schema source and finds its message.
pub fn resolve(topic: &Topic) -> anyhow::Result<Resolved> {
    let pool = crate::schema::load(&topic.schema)?;
    let Some(name) = &topic.message else {
        anyhow::bail!("{}: topic {} names no message; set `message` to its full name", topic.place, topic.name);
    };
    match pool.find(name) {
        Some(message) => Ok(Resolved { pool, message }),
        None => {
            let nearest = pool
                .messages
                .iter()
                .map(|message| (strsim::jaro_winkler(name, &message.full_name), &message.full_name))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = nearest.map_or(String::new(), |(_, nearest)| format!("; did you mean {nearest}?"));
            anyhow::bail!("{}: message {name} of topic {} is not in its schema{hint}", topic.place, topic.name)
        }
    }
}

/// Opens the topic's table, made if it is missing.
pub async fn open(topic: &Topic, resolved: &Resolved, catalog: &Arc<dyn Catalog>) -> Result<Opened> {
    let ident = catalog::ident(&topic.table)?;
    let table = match catalog.load(&ident).await {
        Ok(table) => table,
        Err(crate::catalog::Error::NotFound(_)) => create(topic, resolved, catalog, &ident).await?,
        Err(error) => return Err(error.at(format!("topic {}: loading table {ident}", topic.name)).into()),
    };
    match fit(topic, resolved, table.clone()) {
        Err(error) if !error.is_retry() => match blame::schema_change(&table).await {
            Some(who) => Err(Error { message: format!("{}; {who}", error.message), ..error }),
            None => Err(error),
        },
        fitted => fitted,
    }
}

/// The topic's mapping onto a table as it is. Changes nothing: what has to change is told in [`Opened::change`].
pub fn fit(topic: &Topic, resolved: &Resolved, table: Table) -> Result<Opened> {
    let (mapping, schema_changed, map_changed) = agree(topic, resolved, &Options::from(topic), &table)?;
    let change = (schema_changed || map_changed).then(|| SchemaChange {
        base_schema_id: table.metadata().current_schema_id(),
        schema: (*mapping.iceberg).clone(),
        properties: HashMap::from([(ColumnMap::PROPERTY.to_string(), mapping.column_map.to_json())]),
    });
    let shred = shred::Options { framing: framing(topic), tombstones: tombstones(topic) };
    Ok(Opened { table, mapping, shred, change })
}

fn framing(topic: &Topic) -> shred::Framing {
    match topic.framing {
        config::Framing::None => shred::Framing::None,
        config::Framing::LengthDelimited => shred::Framing::LengthDelimited,
        config::Framing::Confluent => shred::Framing::Confluent,
        config::Framing::Header => shred::Framing::Header,
    }
}

fn tombstones(topic: &Topic) -> shred::Tombstones {
    match topic.tombstones {
        config::Tombstones::Row => shred::Tombstones::Row,
        config::Tombstones::Skip => shred::Tombstones::Skip,
    }
}

/// The mapping for writing to `table` now; whether its schema, and whether its column map, have to change.
fn agree(topic: &Topic, resolved: &Resolved, options: &Options, table: &Table) -> Result<(Mapping, bool, bool)> {
    let metadata = table.metadata();
    let existing = Existing::of(metadata).map_err(|error| {
        Error::halt(format!("topic {}: table {} cannot be written to", topic.name, table.identifier())).caused_by(error)
    })?;
    // A catalog may give a new table other field ids than it was asked for; as long as no data is in it, names tell.
    if metadata.current_snapshot_id().is_none()
        && let Ok(mapping) = Mapping::create(resolved.pool.clone(), resolved.message, options)
        && let Ok(mapping) = mapping.adopt(metadata.current_schema())
    {
        let map_changed = mapping.column_map.to_json() != existing.column_map.to_json();
        return Ok((mapping, false, map_changed));
    }
    let evolution = Mapping::evolve(resolved.pool.clone(), resolved.message, options, &existing).map_err(|faults| {
        refused(&format!("topic {}: table {} cannot take its message", topic.name, table.identifier()), faults)
    })?;
    for change in &evolution.changes {
        tracing::info!(topic = %topic.name, table = %table.identifier(), field = %change.path, "{}: {}", change.verdict.as_str(), change.what);
    }
    Ok((evolution.mapping, evolution.schema_changed, evolution.column_map_changed))
}

async fn create(topic: &Topic, resolved: &Resolved, catalog: &Arc<dyn Catalog>, ident: &TableIdent) -> Result<Table> {
    let wanted = wanted(topic, resolved, catalog.trust_mirror())?;
    let table = ensure_table(catalog, ident, wanted).await?;
    tracing::info!(topic = %topic.name, table = %ident, location = table.metadata().location(), "table created");
    Ok(table)
}

/// The table that a topic's message becomes where there is none.
pub fn wanted(topic: &Topic, resolved: &Resolved, first_snapshot: bool) -> Result<Wanted> {
    let mapping = Mapping::create(resolved.pool.clone(), resolved.message, &Options::from(topic))
        .map_err(|faults| refused(&format!("topic {}: its message cannot be a table", topic.name), faults))?;
    let partition_spec = partition::parse(&topic.partition_by, &mapping.iceberg)
        .map_err(|faults| refused(&format!("topic {}: partition_by", topic.name), faults))?;
    let sort_order = sort::parse(&topic.sort_by, &mapping.iceberg)
        .map_err(|faults| refused(&format!("topic {}: sort_by", topic.name), faults))?;
    Ok(Wanted {
        schema: (*mapping.iceberg).clone(),
        partition_spec,
        partitions_may_go: false,
        sort_order,
        properties: topic.properties.clone().into_iter().collect(),
        mapping: Some(mapping),
        first_snapshot,
    })
}

fn refused(what: &str, faults: Vec<Fault>) -> Error {
    let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Error::halt(format!("{what}: {}", all.join("; ")))
}

/// The quarantine table, made with the first reject.
#[derive(Debug)]
pub struct Rejects {
    pub ident: TableIdent,
    quarantine: Quarantine,
    catalog: Arc<dyn Catalog>,
    /// As last seen.
    table: Mutex<Option<Table>>,
}

impl Rejects {
    pub fn new(ident: TableIdent, message: &str, catalog: Arc<dyn Catalog>) -> Result<Self> {
        Ok(Rejects { ident, quarantine: Quarantine::new(message)?, catalog, table: Mutex::default() })
    }

    /// One row for each reject, in the columns that `table` has.
    pub fn rows(&self, batch: &RawBatch, rejects: &[Reject], table: &Table) -> Result<RecordBatch> {
        let rows = self.quarantine.rows(batch, rejects, chrono::Utc::now().timestamp_micros())?;
        quarantine::in_columns_of(table, rows)
    }

    /// Whether the table exists already.
    pub async fn exists(&self) -> Result<bool> {
        match self.catalog.load(&self.ident).await {
            Ok(table) => {
                self.renew(table).await;
                Ok(true)
            }
            Err(crate::catalog::Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error.at(format!("loading quarantine table {}", self.ident)).into()),
        }
    }

    pub async fn table(&self) -> Result<Table> {
        let mut known = self.table.lock().await;
        if known.is_none() {
            let creation = self.quarantine.creation(HashMap::new())?;
            let wanted = Wanted {
                schema: creation.schema,
                partition_spec: creation.partition_spec,
                partitions_may_go: true,
                sort_order: creation.sort_order,
                properties: creation.properties,
                mapping: None,
                first_snapshot: self.catalog.trust_mirror(),
            };
            *known = Some(ensure_table(&self.catalog, &self.ident, wanted).await?);
        }
        Ok(known.clone().expect("it was made above"))
    }

    /// The table as it is now: somebody may have changed how it is to be written.
    pub async fn renew(&self, table: Table) {
        *self.table.lock().await = Some(table);
    }
}
