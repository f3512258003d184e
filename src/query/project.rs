//! Columns by field id: from a Parquet file's schema to the table's, at every depth.
//!
//! The table's schema says which ids are wanted and what they are called today; the file says where its ids lie. What
//! the file has under another name is renamed, what it lacks is null, what was widened is cast
//! (Iceberg spec, "Column Projection" and "Schema Evolution").

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{
    Array, ArrayRef, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

type Result<T> = std::result::Result<T, ArrowError>;

/// The Iceberg id that a field carries; `None` in a file whose writer knew none.
pub fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

/// What makes two columns the same one.
#[derive(Clone, Copy)]
enum By {
    Id,
    Name,
}

/// The sibling that is the same column; by name in a file without ids too (an imported one).
fn find(siblings: &Fields, wanted: &Field, by: By) -> Option<usize> {
    if matches!(by, By::Name) || siblings.iter().all(|field| field_id(field).is_none()) {
        return siblings.iter().position(|field| field.name() == wanted.name());
    }
    let id = field_id(wanted)?;
    siblings.iter().position(|field| field_id(field) == Some(id))
}

/// Which leaf columns of a file `wanted` needs: indexes in depth-first order, which is Parquet's own.
///
/// A struct of which the file has none of the wanted fields still needs one leaf, to tell a null struct from others.
pub fn leaves(file: &Fields, wanted: &Fields) -> Vec<usize> {
    let mut found = Vec::new();
    struct_leaves(file, wanted, 0, &mut found);
    found.sort_unstable();
    found
}

fn struct_leaves(file: &Fields, wanted: &Fields, first: usize, found: &mut Vec<usize>) {
    for want in wanted {
        if let Some(index) = find(file, want, By::Id) {
            let start = first + file[..index].iter().map(|field| leaf_count(field.data_type())).sum::<usize>();
            type_leaves(file[index].data_type(), want.data_type(), start, found);
        }
    }
}

fn type_leaves(file: &DataType, wanted: &DataType, first: usize, found: &mut Vec<usize>) {
    let before = found.len();
    match (file, wanted) {
        (DataType::Struct(file), DataType::Struct(wanted)) => struct_leaves(file, wanted, first, found),
        (DataType::List(file), DataType::List(wanted)) => {
            type_leaves(file.data_type(), wanted.data_type(), first, found)
        }
        (DataType::Map(file, _), DataType::Map(wanted, _)) => {
            if let (Some((file_key, file_value)), Some((key, value))) = (entries(file), entries(wanted)) {
                type_leaves(file_key.data_type(), key.data_type(), first, found);
                let value_first = first + leaf_count(file_key.data_type());
                type_leaves(file_value.data_type(), value.data_type(), value_first, found);
            }
        }
        _ => {}
    }
    if found.len() == before {
        found.push(first);
    }
}

/// A map's key and value, whatever its writer called them.
fn entries(entries: &Field) -> Option<(&Field, &Field)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Some((&fields[0], &fields[1])),
        _ => None,
    }
}

fn leaf_count(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaf_count(field.data_type())).sum(),
        DataType::Map(entries, _) => leaf_count(entries.data_type()),
        DataType::List(element) => leaf_count(element.data_type()),
        _ => 1,
    }
}

/// The batch as the table has it: `schema`'s columns in `schema`'s order, names and types.
///
/// `batch` may hold any part of a file's columns, found by field id; those that it lacks are null.
///
/// # Errors
/// A column whose type in the file is not one that Iceberg lets the table's type grow from.
pub fn project(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    all(batch, schema, By::Id)
}

/// A query's result as a table wants it: `schema`'s columns found by name, at every depth; what the batch lacks is null
/// and what the schema lacks is left out.
///
/// # Errors
/// A value that the column's type cannot hold.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    all(batch, schema, By::Name)
}

fn all(batch: &RecordBatch, schema: &SchemaRef, by: By) -> Result<RecordBatch> {
    let have = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .map(|want| match find(have.fields(), want, by) {
            Some(index) => column(batch.column(index), want, by),
            None => Ok(new_null_array(want.data_type(), batch.num_rows())),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

fn column(array: &ArrayRef, want: &Field, by: By) -> Result<ArrayRef> {
    if array.data_type() == want.data_type() {
        return Ok(array.clone());
    }
    // Other layouts of the same values first become the plain one.
    let plain = match array.data_type() {
        DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => Some(DataType::List(element.clone())),
        DataType::Dictionary(_, values) => Some(values.as_ref().clone()),
        DataType::RunEndEncoded(_, values) => Some(values.data_type().clone()),
        _ => None,
    };
    if let Some(plain) = plain {
        return column(&exact(array, &plain)?, want, by);
    }
    match (array.data_type(), want.data_type()) {
        (DataType::Struct(_), DataType::Struct(wanted)) => {
            let array = array.as_struct();
            let children = wanted
                .iter()
                .map(|want| match find(array.fields(), want, by) {
                    Some(index) => column(array.column(index), want, by),
                    None => Ok(new_null_array(want.data_type(), array.len())),
                })
                .collect::<Result<Vec<_>>>()?;
            let nulls = array.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(wanted.clone(), children, nulls, array.len())?))
        }
        (DataType::List(_), DataType::List(element)) => {
            let array = array.as_list::<i32>();
            let values = column(array.values(), element, by)?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(element.clone(), offsets, values, nulls)?))
        }
        (DataType::Map(..), DataType::Map(wanted_entries, sorted)) => {
            let array = array.as_map();
            let Some((key, value)) = entries(wanted_entries) else {
                return Err(ArrowError::SchemaError(format!("the map {} has no key and value", want.name())));
            };
            let columns = vec![column(array.keys(), key, by)?, column(array.values(), value, by)?];
            let fields = Fields::from(vec![key.clone(), value.clone()]);
            let entries = StructArray::try_new(fields, columns, array.entries().nulls().cloned())?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(wanted_entries.clone(), offsets, entries, nulls, *sorted)?))
        }
        (have, wanted) if have.is_nested() || wanted.is_nested() => {
            Err(ArrowError::SchemaError(format!("column {} is to be {wanted} and the data is {have}", want.name())))
        }
        (_, wanted) => exact(array, wanted),
    }
}

/// A cast that fails where a value does not fit, instead of giving null.
fn exact(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}
