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
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
    Struct(Vec<(String, Cell)>),
}

impl Cell {
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
