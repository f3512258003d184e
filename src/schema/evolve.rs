//! A message against a table that exists: what the table's columns become, and which fields fill them from now on.
//!
//! A column is a path of field numbers. So a rename is a rename, a reorder nothing, and a deleted field's column stays
//! where it is and turns null. Nothing is dropped, and no column changes its meaning.
//!
//! Others may change the table's columns too. What they renamed keeps its name, what they widened stays wide, what they
//! added stays null; a column that they dropped, narrowed or closed to nulls is refused.

mod kinds;
mod merge;

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{NestedField, NestedFieldRef, Schema, TableMetadata, Type};

use self::merge::Merge;
use super::build::Build;
use super::choices::Choices;
use super::column_map::{ColumnMap, NumberPath};
use super::mapping::{self, Fault, Mapping, Options};
use super::metadata::{self, Ids};
use super::model::{MessageId, Pool};
use super::{check, columns};

/// A table, as far as its columns go.
#[derive(Clone, Debug)]
pub struct Existing {
    pub schema: Arc<Schema>,
    pub column_map: ColumnMap,
    /// The highest field id that the table ever had.
    pub last_column_id: i32,
    /// The topic's message, as the table's properties name it.
    pub message: String,
    /// The schema that calve last wrote with, as far as it is known: what differs from it others have changed.
    pub written: Option<Arc<Schema>>,
}

impl Existing {
    /// Reads what calve keeps in a table's properties. An error if calve did not make the table, or a version of it
    /// with another mapping did.
    pub fn of(table: &TableMetadata) -> anyhow::Result<Self> {
        let property = |name: &str| {
            table.properties().get(name).ok_or_else(|| {
                anyhow::anyhow!(
                    "the table has no property {name}: calve did not create it; name another table for the topic"
                )
            })
        };
        let version = property(mapping::VERSION_PROPERTY)?;
        if version != mapping::VERSION {
            anyhow::bail!(
                "the table was made with mapping version {version}, this calve writes version {}; use a calve that knows it",
                mapping::VERSION
            );
        }
        Ok(Existing {
            schema: table.current_schema().clone(),
            column_map: ColumnMap::from_json(property(ColumnMap::PROPERTY)?)?,
            last_column_id: table.last_column_id(),
            message: property(mapping::MESSAGE_PROPERTY)?.clone(),
            written: written(table),
        })
    }
}

/// The summary key of a snapshot of ours that others changed the schema under: the id of the one that it was written
/// with.
pub const WRITTEN_SCHEMA: &str = "calve.schema-id";

/// The schema that the newest snapshot of ours on main was written with.
fn written(table: &TableMetadata) -> Option<Arc<Schema>> {
    let mut at = table.current_snapshot();
    for _ in 0..=table.snapshots().len() {
        let snapshot = at?;
        let summary = &snapshot.summary().additional_properties;
        if summary.keys().any(|key| key.starts_with("calve.")) {
            let written = summary.get(WRITTEN_SCHEMA).and_then(|id| id.parse().ok());
            return written.or(snapshot.schema_id()).and_then(|id| table.schema_by_id(id)).cloned();
        }
        at = snapshot.parent_snapshot_id().and_then(|parent| table.snapshot_by_id(parent));
    }
    None
}

/// What happens to a field or its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the commit of the first data that needs it.
    Applied,
    /// The topic halts.
    Refused,
    /// The table stays as it is.
    Ignored,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Applied => "applied",
            Verdict::Refused => "refused",
            Verdict::Ignored => "ignored",
        }
    }
}

/// One difference between a message and its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub verdict: Verdict,
    /// As in [`Fault::path`].
    pub path: String,
    pub what: String,
}

/// A message's mapping onto an existing table.
#[derive(Clone, Debug)]
pub struct Evolution {
    /// For writing to the table from now on; its schema is the table's, or the one to change the table's to.
    pub mapping: Mapping,
    /// Whether the mapping's schema has to become the table's before data is written.
    pub schema_changed: bool,
    /// Whether the property [`ColumnMap::PROPERTY`] has to be rewritten.
    pub column_map_changed: bool,
    pub changes: Vec<Change>,
}

impl Mapping {
    /// The mapping for writing a message to a table that exists, with what has to change in the table first. The
    /// refused changes are the faults.
    pub fn evolve(
        pool: Arc<Pool>,
        message: MessageId,
        options: &Options,
        table: &Existing,
    ) -> Result<Evolution, Vec<Fault>> {
        let comparison = compare(pool, message, options, table);
        comparison.evolution.ok_or_else(|| {
            let refused = comparison.changes.into_iter().filter(|change| change.verdict == Verdict::Refused);
            refused.map(|change| Fault::new(change.path, change.what)).collect()
        })
    }
}

/// All differences, for `calve schema check`; the evolution is there if none of them is refused.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub changes: Vec<Change>,
    pub evolution: Option<Evolution>,
}

/// Compares a message with a table that exists; [`Mapping::evolve`] is the same with a refusal as the error.
pub fn compare(pool: Arc<Pool>, message: MessageId, options: &Options, table: &Existing) -> Comparison {
    let refused = |faults: Vec<Fault>| {
        let change = |fault: Fault| Change { verdict: Verdict::Refused, path: fault.path, what: fault.message };
        Comparison { changes: faults.into_iter().map(change).collect(), evolution: None }
    };
    let (choices, mut faults) = match check::choices(&pool, message, options) {
        Ok(choices) => (choices, Vec::new()),
        Err(faults) => (Choices::default(), faults),
    };
    let full_name = &pool.message(message).full_name;
    if table.message != *full_name {
        let message =
            format!("the table holds {}; a topic's table is for one message, name another table", table.message);
        faults.push(Fault::new(full_name, message));
    }
    let (own, kafka, raw) = match split_own(&table.schema) {
        Ok(parts) => parts,
        Err(message) => {
            faults.push(Fault::new(full_name, message));
            return refused(faults);
        }
    };
    if !faults.is_empty() {
        return refused(faults);
    }
    let last = table.column_map.iter().map(|(_, entry)| entry.id).max().unwrap_or(0);
    let last = last.max(table.last_column_id).max(table.schema.highest_field_id());
    let mut merge = Merge {
        options,
        table,
        build: Build { pool: &pool, ids: Ids::after(last), map: table.column_map.clone() },
        path: vec![full_name.clone()],
        changes: Vec::new(),
    };
    let wanted = columns::of_topic(&pool, message, options, &choices);
    let (mut fields, columns) = merge.level(wanted, &own, &NumberPath::default());
    fields.extend([kafka, raw]);
    let Merge { build, changes, .. } = merge;
    let mut column_map = build.map;
    if changes.iter().any(|change| change.verdict == Verdict::Refused) {
        return Comparison { changes, evolution: None };
    }
    // A column that no field filled any more and that somebody dropped: should the field come back, it has a new one.
    let mut ids = HashSet::new();
    fields.iter().for_each(|field| collect_ids(field, &mut ids));
    column_map.retain(|entry| ids.contains(&entry.id));
    let column_map_changed = column_map != table.column_map;
    // Comments alone are no reason to change a table's schema; they come along with the next change.
    let schema_changed = !same_but_docs(&fields, table.schema.as_struct().fields());
    let fields = if schema_changed { fields } else { table.schema.as_struct().fields().to_vec() };
    match Mapping::assemble(pool.clone(), message, columns, fields, column_map) {
        Ok(mut mapping) => {
            if !schema_changed {
                mapping.iceberg = table.schema.clone();
            }
            let evolution = Evolution { mapping, schema_changed, column_map_changed, changes: changes.clone() };
            Comparison { changes, evolution: Some(evolution) }
        }
        Err(faults) => refused(faults),
    }
}

/// The message's columns, `_kafka` and `_raw`. The latter two must be what calve made them.
fn split_own(schema: &Schema) -> Result<(Vec<NestedFieldRef>, NestedFieldRef, NestedFieldRef), String> {
    let fields = schema.as_struct().fields();
    let find = |expected: NestedField| {
        let found = fields.iter().find(|field| field.name == expected.name);
        match found {
            Some(field) if same_shape(&field.field_type, &expected.field_type) => Ok(field.clone()),
            Some(_) => Err(format!("the table's column {} is not of the type that calve gave it", expected.name)),
            None => Err(format!("the table has no column {}; calve cannot write to it without", expected.name)),
        }
    };
    let kafka = find(metadata::kafka(0, &mut Ids::after(0)))?;
    let raw = find(metadata::raw(0))?;
    let own = fields.iter().filter(|field| field.id != kafka.id && field.id != raw.id).cloned().collect();
    Ok((own, kafka, raw))
}

fn collect_ids(field: &NestedField, ids: &mut HashSet<i32>) {
    ids.insert(field.id);
    match field.field_type.as_ref() {
        Type::Primitive(_) => {}
        Type::Struct(inner) => inner.fields().iter().for_each(|field| collect_ids(field, ids)),
        Type::List(list) => collect_ids(&list.element_field, ids),
        Type::Map(map) => [&map.key_field, &map.value_field].into_iter().for_each(|field| collect_ids(field, ids)),
    }
}

/// Equal but for ids and docs.
fn same_shape(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Primitive(a), Type::Primitive(b)) => a == b,
        (Type::Struct(a), Type::Struct(b)) => {
            a.fields().len() == b.fields().len()
                && a.fields()
                    .iter()
                    .zip(b.fields())
                    .all(|(a, b)| a.name == b.name && same_shape(&a.field_type, &b.field_type))
        }
        (Type::List(a), Type::List(b)) => same_shape(&a.element_field.field_type, &b.element_field.field_type),
        (Type::Map(a), Type::Map(b)) => {
            same_shape(&a.key_field.field_type, &b.key_field.field_type)
                && same_shape(&a.value_field.field_type, &b.value_field.field_type)
        }
        _ => false,
    }
}

fn same_but_docs(a: &[NestedFieldRef], b: &[NestedFieldRef]) -> bool {
    fn same(a: &NestedField, b: &NestedField) -> bool {
        let types = match (a.field_type.as_ref(), b.field_type.as_ref()) {
            (Type::Primitive(a), Type::Primitive(b)) => a == b,
            (Type::Struct(a), Type::Struct(b)) => same_but_docs(a.fields(), b.fields()),
            (Type::List(a), Type::List(b)) => same(&a.element_field, &b.element_field),
            (Type::Map(a), Type::Map(b)) => same(&a.key_field, &b.key_field) && same(&a.value_field, &b.value_field),
            _ => false,
        };
        types && a.id == b.id && a.name == b.name && a.required == b.required
    }
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}
