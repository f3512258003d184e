//! Values of a row, comparable whatever they come from: floats by their bits, maps by their sorted entries.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    Float(u32),
    Double(u64),
    Text(String),
    /// JSON text whose spelling does not matter.
    Json(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
    Struct(Vec<(String, Cell)>),
}

impl Cell {
    /// JSON text; objects by their sorted names.
    pub fn json(text: &str) -> Cell {
        fn sorted(value: serde_json::Value) -> serde_json::Value {
            use serde_json::Value;
            match value {
                Value::Object(members) => {
                    let mut members: Vec<_> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
                    members.sort_by(|(a, _), (b, _)| a.cmp(b));
                    Value::Object(members.into_iter().collect())
                }
                Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect()),
                other => other,
            }
        }
        let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text:?} is not JSON: {e}"));
        Cell::Json(sorted(value).to_string())
    }

    /// The same cell with its text as JSON wherever the other one has JSON.
    pub fn json_like(self, other: &Cell) -> Cell {
        match (self, other) {
            (Cell::Text(text), Cell::Json(_)) => Cell::json(&text),
            (Cell::List(cells), Cell::List(others)) if cells.len() == others.len() => {
                Cell::List(cells.into_iter().zip(others).map(|(cell, other)| cell.json_like(other)).collect())
            }
            (Cell::Map(entries), Cell::Map(others)) if entries.len() == others.len() => {
                let entries = entries.into_iter().zip(others);
                Cell::Map(entries.map(|((key, cell), (_, other))| (key, cell.json_like(other))).collect())
            }
            (Cell::Struct(fields), Cell::Struct(others)) if fields.len() == others.len() => {
                let fields = fields.into_iter().zip(others);
                Cell::Struct(fields.map(|((name, cell), (_, other))| (name, cell.json_like(other))).collect())
            }
            (cell, _) => cell,
        }
    }

    pub fn map(mut entries: Vec<(Cell, Cell)>) -> Cell {
        entries.sort();
        Cell::Map(entries)
    }
}

/// A row's columns by name.
pub fn row(batch: &RecordBatch, row: usize) -> Vec<(String, Cell)> {
    let names = batch.schema();
    batch.columns().iter().zip(names.fields()).map(|(array, field)| (field.name().clone(), cell(array, row))).collect()
}

/// The cell of a column, or of a struct's field, by its dotted path.
pub fn column(batch: &RecordBatch, row: usize, path: &str) -> Cell {
    let mut names = path.split('.');
    let first = names.next().unwrap();
    let (_, mut cell) = self::row(batch, row).into_iter().find(|(name, _)| name == first).unwrap();
    for name in names {
        let Cell::Struct(fields) = cell else { panic!("{name} of {cell:?}") };
        cell = fields.into_iter().find(|(field, _)| field == name).unwrap().1;
    }
    cell
}

pub fn text(value: &str) -> Cell {
    Cell::Text(value.into())
}

pub fn cell(array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Date32 => Cell::Int(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp(..) => Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        DataType::Decimal128(..) => Cell::Int(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Float32 => Cell::Float(array.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_owned()),
        DataType::LargeBinary => Cell::Bytes(array.as_binary::<i64>().value(row).to_owned()),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            Cell::List((0..elements.len()).map(|index| cell(&elements, index)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let pairs = (0..entries.len())
                .map(|index| (cell(entries.column(0), index), cell(entries.column(1), index)))
                .collect();
            Cell::map(pairs)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            Cell::Struct(
                fields.iter().zip(columns).map(|(field, array)| (field.name().clone(), cell(array, row))).collect(),
            )
        }
        other => panic!("no column of a table has the type {other}"),
    }
}
