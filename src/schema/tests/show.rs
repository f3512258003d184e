//! A mapping as rows: which field fills which column, under which id and type.

use std::collections::HashMap;

use iceberg::spec::{NestedField, NestedFieldRef, Type};

use super::super::mapping::Mapping;

/// A column or a part of one; parts follow what they are part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Dotted, with `element`, `key` and `value` where Iceberg has them.
    pub column: String,
    /// How deep the column lies: 0 for a column of the table.
    pub depth: usize,
    /// The path of field numbers, `7.2`; none for columns that no field fills.
    pub number: Option<String>,
    pub id: i32,
    /// `struct`, `list` and `map` for what has parts.
    pub kind: String,
}

pub fn rows(mapping: &Mapping) -> Vec<Row> {
    let numbers = mapping.column_map.iter().map(|(path, entry)| (entry.id, path.to_string())).collect();
    let mut rows = Vec::new();
    push_all(mapping.iceberg.as_struct().fields(), "", 0, &numbers, &mut rows);
    rows
}

fn push_all(
    fields: &[NestedFieldRef],
    prefix: &str,
    depth: usize,
    numbers: &HashMap<i32, String>,
    rows: &mut Vec<Row>,
) {
    for field in fields {
        push(field, prefix, depth, numbers, rows);
    }
}

fn push(field: &NestedField, prefix: &str, depth: usize, numbers: &HashMap<i32, String>, rows: &mut Vec<Row>) {
    let column = if prefix.is_empty() { field.name.clone() } else { format!("{prefix}.{}", field.name) };
    let kind = match field.field_type.as_ref() {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "struct".to_string(),
        Type::List(_) => "list".to_string(),
        Type::Map(_) => "map".to_string(),
    };
    rows.push(Row { column: column.clone(), depth, number: numbers.get(&field.id).cloned(), id: field.id, kind });
    match field.field_type.as_ref() {
        Type::Primitive(_) => {}
        Type::Struct(inner) => push_all(inner.fields(), &column, depth + 1, numbers, rows),
        Type::List(list) => push(&list.element_field, &column, depth + 1, numbers, rows),
        Type::Map(map) => {
            push(&map.key_field, &column, depth + 1, numbers, rows);
            push(&map.value_field, &column, depth + 1, numbers, rows);
        }
    }
}
