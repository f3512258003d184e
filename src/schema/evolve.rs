//! A message against a table that exists: what the table's columns become, and which fields fill them from now on.
//!
//! A column is a path of field numbers. So a rename is a rename, a reorder nothing, and a deleted field's column stays
//! where it is and turns null. Nothing is dropped, and no column changes its meaning.
//!
//! Others may change the table's columns too. What they renamed keeps its name, what they widened stays wide, what they
//! added stays null; a column that they dropped, narrowed or closed to nulls is refused.

use std::collections::HashSet;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata, Type,
};

use super::build::Build;
use super::choices::Choices;
use super::column_map::{ColumnMap, Entry, NumberPath};
use super::mapping::{self, CASE, Column, Fault, IN_MILLIS, Leaf, Mapping, Options, Shape, Struct};
use super::metadata::{self, Ids};
use super::model::{MessageId, Pool};
use super::names::{self, Claim};
use super::{check, columns};
use crate::config::OnIncompatible;

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

/// A column type that a field cannot go into.
struct Mismatch(String);

struct Merge<'a> {
    options: &'a Options,
    table: &'a Existing,
    build: Build<'a>,
    path: Vec<String>,
    changes: Vec<Change>,
}

/// A place in a level's new order.
struct Slot {
    field: NestedFieldRef,
    column: Column,
    /// The name that the schema wants, for a column that a field fills.
    wanted: Option<String>,
    /// Whether the table has it already.
    existing: bool,
}

impl Merge<'_> {
    fn note(&mut self, verdict: Verdict, what: impl Into<String>) {
        self.changes.push(Change { verdict, path: self.path.join("."), what: what.into() });
    }

    /// Merges the columns that a message wants into a struct's (or the table's) fields.
    fn level(
        &mut self,
        mut wanted: Vec<Column>,
        fields: &[NestedFieldRef],
        parent: &NumberPath,
    ) -> (Vec<NestedFieldRef>, Vec<Column>) {
        self.settle_present(&mut wanted, fields, parent);
        self.settle_cases(&mut wanted, fields, parent);
        let mut slots: Vec<Slot> = fields.iter().map(retired).collect();
        // Where the previous declared field's column stands: a new one goes behind it.
        let mut behind: Option<i32> = None;
        for column in wanted {
            self.path.push(column.name.clone());
            let path = parent.child(column.number);
            let known = self.build.map.get(&path).map(|entry| entry.id);
            let at = known.and_then(|id| slots.iter().position(|slot| slot.field.id == id));
            let id = match (at, known) {
                (Some(at), _) => Some(self.existing(column, &mut slots, at, parent)),
                (None, Some(id)) => self.dropped(id, column, &mut slots, behind, parent),
                (None, None) => Some(self.added(column, &mut slots, behind, parent)),
            };
            behind = id.or(behind);
            self.path.pop();
        }
        self.settle_names(&mut slots);
        for slot in &slots {
            self.path.push(slot.field.name.clone());
            if slot.field.required {
                self.note(
                    Verdict::Refused,
                    "the table's column is required (NOT NULL), which calve's columns never are: somebody else made it so; make it optional again (ALTER TABLE … ALTER COLUMN … DROP NOT NULL)",
                );
            } else if slot.wanted.is_none() {
                self.note(Verdict::Ignored, "no field fills the column; it stays, null from now on");
            }
            self.path.pop();
        }
        slots.into_iter().map(|slot| (slot.field, slot.column)).unzip()
    }

    /// `_present` stays alive once it is there, and is not added to a struct that had fields before.
    fn settle_present(&self, wanted: &mut Vec<Column>, fields: &[NestedFieldRef], parent: &NumberPath) {
        let entry = self.build.map.get(&parent.child(0)).filter(|entry| entry.kind.is_none());
        let there = entry.is_some_and(|entry| {
            let boolean = Type::Primitive(PrimitiveType::Boolean);
            fields.iter().any(|field| field.id == entry.id && *field.field_type == boolean)
        });
        wanted.retain(|column| column.shape != Shape::Leaf(Leaf::Present));
        if there {
            wanted.insert(0, columns::present());
        }
    }

    /// A oneof's case column is the one of that name, or else of any of its members: a oneof may be renamed, and its
    /// members may come and go.
    fn settle_cases(&self, wanted: &mut [Column], fields: &[NestedFieldRef], parent: &NumberPath) {
        let mut known: Vec<(u32, &str)> = Vec::new();
        for (path, entry) in self.build.map.iter() {
            if let Some((number, above)) = path.0.split_last()
                && above == parent.0.as_slice()
                && *number > CASE
                && let Some(field) = fields.iter().find(|field| field.id == entry.id)
            {
                known.push((*number, &field.name));
            }
        }
        let pool = self.build.pool;
        let members = |column: &Column| match column.shape {
            Shape::Leaf(Leaf::Case(message, oneof)) => {
                let members = pool.message(message).fields.iter();
                let members = members.filter(|field| field.oneof == Some(oneof as usize)).map(|field| field.number);
                Some(members.collect::<Vec<u32>>())
            }
            _ => None,
        };
        let mut open: Vec<(&mut Column, Vec<u32>)> = Vec::new();
        for column in wanted {
            if let Some(members) = members(column) {
                open.push((column, members));
            }
        }
        open.retain_mut(|(column, _)| {
            let Some(at) = known.iter().position(|(_, name)| *name == column.name) else { return true };
            column.number = known.remove(at).0;
            false
        });
        for (column, members) in open {
            if let Some(at) = known.iter().position(|(number, _)| members.contains(&(number - CASE))) {
                column.number = known.remove(at).0;
            }
        }
    }

    /// A field whose column is at `slots[at]`; answers the id of the column that it fills.
    fn existing(&mut self, column: Column, slots: &mut Vec<Slot>, at: usize, parent: &NumberPath) -> i32 {
        let path = parent.child(column.number);
        let field = slots[at].field.clone();
        let merged = self.encoding(&column, &path).and_then(|()| self.merge(&column.shape, &field.field_type, &path));
        let (shape, field_type) = match merged {
            Ok(merged) => merged,
            Err(Mismatch(why)) => return self.incompatible(column, slots, at, parent, &why),
        };
        let kind = column.wire_kind(self.build.pool);
        let renamed = self.renamed_by_others(&field, &column.name, &path);
        let wanted = Some(if renamed { field.name.clone() } else { column.name.clone() });
        let entry = Entry { renamed: renamed.then(|| column.name.clone()), ..Entry::new(field.id, kind) };
        self.build.map.insert(path, entry);
        let mut changed = NestedField::clone(&field);
        *changed.field_type = field_type;
        if column.doc.is_some() {
            changed.doc = column.doc.clone();
        }
        let id = field.id;
        slots[at] = Slot { field: Arc::new(changed), column: Column { shape, ..column }, wanted, existing: true };
        id
    }

    /// Whether the column has another name than its field because somebody else gave it that.
    fn renamed_by_others(&self, field: &NestedField, name: &str, path: &NumberPath) -> bool {
        if field.name == name {
            return false;
        }
        match self.build.map.get(path).and_then(|entry| entry.renamed.as_deref()) {
            Some(since) => since == name,
            None => {
                let written = self.table.written.as_ref().and_then(|schema| schema.field_by_id(field.id));
                written.is_some_and(|written| written.name == name)
            }
        }
    }

    /// A field whose column somebody else dropped.
    fn dropped(
        &mut self,
        id: i32,
        column: Column,
        slots: &mut Vec<Slot>,
        behind: Option<i32>,
        parent: &NumberPath,
    ) -> Option<i32> {
        if self.options.on_incompatible == OnIncompatible::NewColumn {
            return Some(self.added(column, slots, behind, parent));
        }
        self.note(
            Verdict::Refused,
            format!(
                "somebody else dropped its column (field id {id}) from the table; leave the field out with `exclude`, or have a new column for it with on_incompatible = \"new_column\""
            ),
        );
        None
    }

    /// A message's two encodings do not read each other.
    fn encoding(&mut self, column: &Column, path: &NumberPath) -> Result<(), Mismatch> {
        let (_, delimited) = split_group(self.build.map.get(path).and_then(|entry| entry.kind.as_deref()));
        if delimited == column.delimited || !is_message(&column.shape) {
            return Ok(());
        }
        let name = |delimited| if delimited { "a group (delimited encoding)" } else { "length-prefixed" };
        let what = format!("the message was {} and is {}", name(delimited), name(column.delimited));
        if !self.options.records_name_schema {
            return Err(Mismatch(format!("{what}: records do not name their schema, and older ones would be misread")));
        }
        self.note(Verdict::Applied, format!("{what}, each record read with its own schema"));
        Ok(())
    }

    fn incompatible(
        &mut self,
        column: Column,
        slots: &mut Vec<Slot>,
        at: usize,
        parent: &NumberPath,
        why: &str,
    ) -> i32 {
        let old = slots[at].field.id;
        if self.options.on_incompatible == OnIncompatible::Halt {
            self.note(
                Verdict::Refused,
                format!(
                    "{why}; undo the change, give the field another number, or set on_incompatible = \"new_column\""
                ),
            );
            // Already told: not to be reported as a column without a field as well.
            slots[at].wanted = Some(slots[at].field.name.clone());
            return old;
        }
        self.note(Verdict::Applied, format!("{why}; a new column takes over from {}", slots[at].field.name));
        let path = parent.child(column.number);
        self.build.map.forget_below(&path);
        self.fresh(column, slots, at + 1, parent)
    }

    fn added(&mut self, column: Column, slots: &mut Vec<Slot>, behind: Option<i32>, parent: &NumberPath) -> i32 {
        let path = parent.child(column.number);
        self.build.map.forget_below(&path);
        let at = behind.and_then(|id| slots.iter().position(|slot| slot.field.id == id)).map_or(0, |at| at + 1);
        self.note(Verdict::Applied, "a new column");
        self.fresh(column, slots, at, parent)
    }

    fn fresh(&mut self, column: Column, slots: &mut Vec<Slot>, at: usize, parent: &NumberPath) -> i32 {
        let id = self.build.ids.assign();
        let field = self.build.field(id, &column, parent);
        let wanted = Some(column.name.clone());
        slots.insert(at, Slot { field, column, wanted, existing: false });
        id
    }

    /// The shape and type of a column that a field goes into; the type may have become wider, and structs may have grown.
    fn merge(&mut self, shape: &Shape, table: &Type, path: &NumberPath) -> Result<(Shape, Type), Mismatch> {
        match (shape, table) {
            (Shape::Leaf(leaf), Type::Primitive(table)) => {
                let merged = self.leaf(*leaf, table, path, true)?;
                Ok((shape.clone(), Type::Primitive(merged)))
            }
            (Shape::Struct(inner), Type::Struct(table)) => {
                let (fields, columns) = self.level(inner.columns.clone(), table.fields(), path);
                let shape = Shape::Struct(Struct { message: inner.message, columns });
                Ok((shape, Type::Struct(StructType::new(fields))))
            }
            (Shape::List(inner), Type::List(table)) => {
                let (inner, element) = self.merge(inner, &table.element_field.field_type, path)?;
                let mut field = NestedField::clone(&table.element_field);
                *field.field_type = element;
                Ok((Shape::List(Box::new(inner)), Type::List(ListType::new(Arc::new(field)))))
            }
            (Shape::Map { key, value }, Type::Map(table)) => {
                let Type::Primitive(key_type) = table.key_field.field_type.as_ref() else {
                    return Err(Mismatch("the column's map key is not a leaf".to_string()));
                };
                // Iceberg lets no map key change its type.
                self.leaf(*key, key_type, &path.child(1), false)?;
                let value_path = path.child(2);
                let (value, value_type) = self.merge(value, &table.value_field.field_type, &value_path)?;
                let pool = self.build.pool;
                let kinds = [
                    (path.child(1), table.key_field.id, Shape::Leaf(*key).wire_kind(pool)),
                    (value_path, table.value_field.id, value.wire_kind(pool)),
                ];
                for (path, id, kind) in kinds {
                    self.build.map.insert(path, Entry::new(id, kind));
                }
                let mut field = NestedField::clone(&table.value_field);
                *field.field_type = value_type;
                let merged = Type::Map(MapType::new(table.key_field.clone(), Arc::new(field)));
                Ok((Shape::Map { key: *key, value: Box::new(value) }, merged))
            }
            _ => Err(Mismatch(format!("the field is {}, its column is {}", describe(shape), describe_type(table)))),
        }
    }

    fn leaf(
        &mut self,
        leaf: Leaf,
        table: &PrimitiveType,
        path: &NumberPath,
        widen: bool,
    ) -> Result<PrimitiveType, Mismatch> {
        let wanted = leaf.iceberg_type().expect("a field fills the column");
        let new = Shape::Leaf(leaf).wire_kind(self.build.pool);
        let (old, _) = split_group(self.build.map.get(path).and_then(|entry| entry.kind.as_deref()));
        // The field is what it was, so that somebody else widened the column.
        if widen && widens(&wanted, table) && old.is_some() && old == new.as_deref() {
            return Ok(table.clone());
        }
        if wanted != *table && !(widen && widens(table, &wanted)) {
            return Err(Mismatch(format!("the field's column type is {wanted}, the table's column is {table}")));
        }
        if let (Some(old), Some(new)) = (old.map(str::to_string), new) {
            if is_json(&old) != is_json(&new) {
                return Err(Mismatch(format!("the column held {} and the field is {}", held(&old), held(&new))));
            }
            if old.ends_with(IN_MILLIS) != new.ends_with(IN_MILLIS) {
                return Err(Mismatch(format!("the column was {old} and would be {new}: older rows would be misread")));
            }
            let readable = reads(&old, &new);
            if !readable && !self.options.records_name_schema {
                return Err(Mismatch(format!(
                    "the field was {old} and is {new}: the column type would do, but records do not name their schema, and older ones would be misread"
                )));
            }
            if !readable && wanted == *table {
                self.note(Verdict::Applied, format!("{old} becomes {new}, each record read with its own schema"));
            }
        }
        if wanted != *table {
            self.note(Verdict::Applied, format!("the column widens from {table} to {wanted}"));
        }
        Ok(wanted)
    }

    fn settle_names(&mut self, slots: &mut [Slot]) {
        let claims: Vec<Claim> = slots
            .iter()
            .map(|slot| Claim {
                current: slot
                    .existing
                    .then_some(slot.field.name.as_str())
                    .or(slot.wanted.is_none().then_some(&slot.field.name)),
                wanted: slot.wanted.as_deref(),
            })
            .collect();
        let settled = names::settle(&claims);
        for (slot, name) in slots.iter_mut().zip(settled) {
            let Some(wanted) = &slot.wanted else { continue };
            self.path.push(wanted.clone());
            if name.clashes && self.options.on_incompatible == OnIncompatible::Halt {
                self.note(
                    Verdict::Refused,
                    format!("the name {wanted} is taken by a column that no field fills: its field is gone, or somebody else added it; give the field another name, or set on_incompatible = \"new_column\""),
                );
            } else if slot.field.name != name.name {
                if slot.existing {
                    self.note(Verdict::Applied, format!("the column {} is renamed to {}", slot.field.name, name.name));
                }
                let mut field = NestedField::clone(&slot.field);
                field.name = name.name.clone();
                slot.field = Arc::new(field);
            }
            slot.column.name = slot.field.name.clone();
            self.path.pop();
        }
    }
}

fn retired(field: &NestedFieldRef) -> Slot {
    let column = Column {
        name: field.name.clone(),
        number: 0,
        shape: Shape::Leaf(Leaf::Retired),
        delimited: false,
        doc: field.doc.clone(),
    };
    Slot { field: field.clone(), column, wanted: None, existing: true }
}

/// A column map's kind without its encoding, and whether that is the delimited one.
fn split_group(kind: Option<&str>) -> (Option<&str>, bool) {
    match kind.and_then(|kind| kind.strip_prefix(mapping::GROUP)) {
        Some("") => (None, true),
        Some(rest) if rest.starts_with(' ') => (Some(&rest[1..]), true),
        _ => (kind, false),
    }
}

/// Whether the wire carries messages for it, one by one.
fn is_message(shape: &Shape) -> bool {
    match shape {
        Shape::Struct(_) => true,
        Shape::Leaf(leaf) => leaf.message().is_some(),
        Shape::List(element) => is_message(element),
        Shape::Map { .. } => false,
    }
}

/// Iceberg's promotions (spec, "Schema Evolution") that format version 2 allows.
fn widens(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    match (from, to) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision: from, scale: from_scale },
            PrimitiveType::Decimal { precision: to, scale: to_scale },
        ) => from < to && from_scale == to_scale,
        _ => false,
    }
}

/// Whether bytes that a field of kind `old` was written with give the same values when read as `new`.
fn reads(old: &str, new: &str) -> bool {
    const WIDER: [(&str, &str); 5] = [
        ("int32", "int64"),
        ("uint32", "int64"),
        ("sint32", "sint64"),
        ("google.protobuf.Int32Value", "google.protobuf.Int64Value"),
        ("google.protobuf.UInt32Value", "google.protobuf.Int64Value"),
    ];
    old == new || WIDER.contains(&(old, new))
}

/// Whether a kind of the column map is a message as JSON, which no text of another kind goes with.
fn is_json(kind: &str) -> bool {
    const WELL_KNOWN: [&str; 3] = ["google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"];
    kind == mapping::JSON || WELL_KNOWN.contains(&kind)
}

fn held(kind: &str) -> String {
    if is_json(kind) { "JSON text of a message".to_string() } else { kind.to_string() }
}

fn describe(shape: &Shape) -> String {
    match shape {
        Shape::Leaf(Leaf::Json(_)) => "JSON text (json, json_below, or a message inside itself)".to_string(),
        Shape::Leaf(leaf) => leaf.iceberg_type().map_or_else(|| "a leaf".to_string(), |kind| kind.to_string()),
        Shape::Struct(_) => "a message".to_string(),
        Shape::List(_) => "repeated".to_string(),
        Shape::Map { .. } => "a map".to_string(),
    }
}

fn describe_type(kind: &Type) -> String {
    match kind {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "a struct".to_string(),
        Type::List(_) => "a list".to_string(),
        Type::Map(_) => "a map".to_string(),
    }
}
