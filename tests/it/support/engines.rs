//! Engines that we did not write, and the canonical rows that they are compared by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use serde_json::{Value, json};

use super::cells::Cell;

/// The Python that has the engines; installs them on first use. Fails with the script's own words.
pub fn python() -> PathBuf {
    let output = Command::new("bash").arg(super::parts::script("engines")).output().expect("bash runs");
    assert!(output.status.success(), "the engines cannot be had: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
}

/// A script of `tests/engines/`, ready to be started.
pub fn command(script: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines").join(script);
    let mut command = Command::new(python());
    command.arg(&path).args(arguments);
    command
}

/// What a script of `tests/engines/` prints.
pub fn run(script: &str, arguments: &[&str]) -> String {
    let output = command(script, arguments).output().expect("python runs");
    assert!(output.status.success(), "{script} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// All rows of the table as an engine reads them, canonical and sorted. `metadata` is the table's metadata location.
pub fn rows(engine: &str, metadata: &str) -> Vec<String> {
    rows_of_all(engine, &[metadata]).remove(0)
}

/// The same for many tables; an engine is started once.
pub fn rows_of_all(engine: &str, tables: &[&str]) -> Vec<Vec<String>> {
    let output = run("readback.py", &[&["rows", engine], tables].concat());
    let mut all = vec![Vec::new()];
    for line in output.lines() {
        match line {
            "" => all.push(Vec::new()),
            row => {
                let row = sorted(serde_json::from_str(row).expect("a row")).to_string();
                all.last_mut().expect("there is one").push(row);
            }
        }
    }
    // An empty line ends each table, the last one too.
    assert_eq!(all.pop(), Some(Vec::new()), "{engine} did not end its last table");
    assert_eq!(all.len(), tables.len());
    all.iter_mut().for_each(|rows| rows.sort());
    all
}

/// Fails with the first rows that one side lacks.
pub fn assert_same_rows(engine: &str, read: &[String], written: &[String]) {
    let lacks = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|row| other.binary_search(row).is_err()).take(3).cloned().collect()
    };
    let (missing, foreign) = (lacks(written, read), lacks(read, written));
    assert!(
        missing.is_empty() && foreign.is_empty() && read.len() == written.len(),
        "{engine} read {} rows of {}; not read, first of them:\n{}\nnot written, first of them:\n{}",
        read.len(),
        written.len(),
        missing.join("\n"),
        foreign.join("\n")
    );
}

/// The rows of batches in the same canonical form as `readback.py`'s, sorted.
pub fn canonical_rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let columns = schema.fields().iter().zip(batch.columns());
            let object: serde_json::Map<String, Value> =
                columns.map(|(field, column)| (field.name().clone(), canonical(column, row))).collect();
            rows.push(sorted(Value::Object(object)).to_string());
        }
    }
    rows.sort();
    rows
}

fn canonical(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let list = |values: &ArrayRef| Value::Array((0..values.len()).map(|index| canonical(values, index)).collect());
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float32 => match array.as_primitive::<Float32Type>().value(row) {
            value if value.is_nan() => "nan".into(),
            value => format!("{:08x}", value.to_bits()).into(),
        },
        DataType::Float64 => match array.as_primitive::<Float64Type>().value(row) {
            value if value.is_nan() => "nan".into(),
            value => format!("{:016x}", value.to_bits()).into(),
        },
        DataType::Decimal128(_, _) => format!("decimal {}", array.as_primitive::<Decimal128Type>().value(row)).into(),
        DataType::Date32 => format!("days {}", array.as_primitive::<Date32Type>().value(row)).into(),
        DataType::Timestamp(_, _) => {
            format!("micros {}", array.as_primitive::<TimestampMicrosecondType>().value(row)).into()
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            Value::Object(columns.map(|(field, column)| (field.name().clone(), canonical(column, row))).collect())
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(row);
            let mut pairs: Vec<Value> = (0..entries.len())
                .map(|index| json!([canonical(entries.column(0), index), canonical(entries.column(1), index)]))
                .collect();
            pairs.sort_by_key(|pair| pair[0].to_string());
            Value::Array(pairs)
        }
        other => panic!("a column of type {other} has no canonical form"),
    }
}

/// What canonical JSON begins with, in a column that holds JSON.
const JSON: &str = "json ";

/// A cell of this type in the same canonical form. With `null_as_empty`, as PyIceberg 0.11 reads it: a null list or map
/// of structs is an empty one.
pub fn canonical_cell(cell: &Cell, data_type: &DataType, null_as_empty: bool) -> Value {
    let inner = |cell: &Cell, data_type: &DataType| canonical_cell(cell, data_type, null_as_empty);
    let of_structs = |field: &arrow::datatypes::FieldRef| matches!(field.data_type(), DataType::Struct(_));
    match (cell, data_type) {
        (Cell::Null, DataType::List(element)) if null_as_empty && of_structs(element) => json!([]),
        (Cell::Null, DataType::Map(entries, _)) if null_as_empty && of_structs(&entry(entries).1) => json!([]),
        (Cell::Null, _) => Value::Null,
        (Cell::Bool(value), DataType::Boolean) => (*value).into(),
        (Cell::Int(value), DataType::Int32 | DataType::Int64) => i64::try_from(*value).expect("a long").into(),
        (Cell::Int(value), DataType::Decimal128(_, _)) => format!("decimal {value}").into(),
        (Cell::Int(value), DataType::Date32) => format!("days {value}").into(),
        (Cell::Int(value), DataType::Timestamp(_, _)) => format!("micros {value}").into(),
        (Cell::Float(bits), DataType::Float32) if f32::from_bits(*bits).is_nan() => "nan".into(),
        (Cell::Float(bits), DataType::Float32) => format!("{bits:08x}").into(),
        (Cell::Double(bits), DataType::Float64) if f64::from_bits(*bits).is_nan() => "nan".into(),
        (Cell::Double(bits), DataType::Float64) => format!("{bits:016x}").into(),
        (Cell::Text(text), DataType::Utf8 | DataType::LargeUtf8) => text.as_str().into(),
        (Cell::Json(text), DataType::Utf8 | DataType::LargeUtf8) => format!("{JSON}{text}").into(),
        (Cell::Bytes(bytes), DataType::Binary | DataType::LargeBinary) => hex(bytes),
        (Cell::List(cells), DataType::List(element)) => {
            cells.iter().map(|cell| inner(cell, element.data_type())).collect()
        }
        (Cell::Map(pairs), DataType::Map(entries, _)) => {
            let (key, value) = entry(entries);
            let mut pairs: Vec<Value> =
                pairs.iter().map(|(k, v)| json!([inner(k, key.data_type()), inner(v, value.data_type())])).collect();
            pairs.sort_by_key(|pair| pair[0].to_string());
            Value::Array(pairs)
        }
        (Cell::Struct(cells), DataType::Struct(fields)) => {
            assert_eq!(cells.len(), fields.len(), "{cells:?} is not {fields:?}");
            let cells = cells.iter().zip(fields);
            let cells = cells.map(|((name, cell), field)| {
                assert_eq!(name, field.name());
                (name.clone(), inner(cell, field.data_type()))
            });
            sorted(Value::Object(cells.collect()))
        }
        (cell, data_type) => panic!("{cell:?} is not of type {data_type}"),
    }
}

/// What an engine read, with its text in the order of names wherever `wanted` has JSON.
pub fn json_like(read: Value, wanted: &Value) -> Value {
    match (read, wanted) {
        (Value::String(text), Value::String(wanted)) if wanted.starts_with(JSON) => match Cell::json(&text) {
            Cell::Json(text) => format!("{JSON}{text}").into(),
            other => panic!("{other:?} is not JSON"),
        },
        (Value::Array(read), Value::Array(wanted)) if read.len() == wanted.len() => {
            read.into_iter().zip(wanted).map(|(read, wanted)| json_like(read, wanted)).collect()
        }
        (Value::Object(read), Value::Object(wanted)) => {
            let read = read.into_iter();
            let read = read.map(|(name, read)| match wanted.get(&name) {
                Some(wanted) => (name, json_like(read, wanted)),
                None => (name, read),
            });
            Value::Object(read.collect())
        }
        (read, _) => read,
    }
}

/// The key and the value of a map's entries.
fn entry(entries: &arrow::datatypes::FieldRef) -> (arrow::datatypes::FieldRef, arrow::datatypes::FieldRef) {
    match entries.data_type() {
        DataType::Struct(fields) => (fields[0].clone(), fields[1].clone()),
        other => panic!("a map's entries are {other}"),
    }
}

fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// With the keys of all objects in order.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<String, Value> =
                object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}
