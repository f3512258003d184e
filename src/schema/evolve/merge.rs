//! Column by column: each that a message wants against the one that the table has, by number path.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, StructType, Type};

use super::kinds::{describe, describe_type, held, is_json, is_message, reads, split_group, widens};
use super::{Change, Existing, Verdict};
use crate::config::OnIncompatible;
use crate::schema::build::Build;
use crate::schema::column_map::{Entry, NumberPath};
use crate::schema::columns;
use crate::schema::mapping::{CASE, Column, IN_MILLIS, Leaf, Options, Shape, Struct};
use crate::schema::names::{self, Claim};

/// A column type that a field cannot go into.
struct Mismatch(String);

/// The columns that a message wants, put together with those that its table has.
pub(super) struct Merge<'a> {
    pub(super) options: &'a Options,
    pub(super) table: &'a Existing,
    pub(super) build: Build<'a>,
    pub(super) path: Vec<String>,
    pub(super) changes: Vec<Change>,
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
    pub(super) fn level(
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
        let is_present = |column: &Column| column.shape == Shape::Leaf(Leaf::Present);
        let dropped = entry.is_some() && wanted.iter().any(is_present);
        wanted.retain(|column| !is_present(column));
        if there || dropped {
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
        let again = slots.iter().find(|slot| slot.wanted.is_none() && slot.field.name == column.name);
        let again = again.map_or_else(String::new, |slot| {
            format!("; the column of that name that it has now is another one (field id {})", slot.field.id)
        });
        self.note(
            Verdict::Refused,
            format!(
                "somebody else dropped its column (field id {id}) from the table{again}; leave the field out with `exclude`, or have a new column for it with on_incompatible = \"new_column\""
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
                    format!("the name {wanted} is taken by another column: its field is gone, or somebody else added it or named it so; give the field another name, or set on_incompatible = \"new_column\""),
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
