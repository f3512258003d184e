//! Which rows of a batch belong to which partition.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use iceberg::spec::{
    Literal, PartitionField, PartitionSpec, PrimitiveLiteral, PrimitiveType, Schema, Struct, StructType, Type,
};

use super::{path, transform};
use crate::error::{Error, Result};

/// A partition field, and the way to its source column.
#[derive(Debug)]
struct Source {
    field: PartitionField,
    /// Child indexes from the row downwards.
    steps: Vec<usize>,
    result: Type,
}

/// The rows of one partition in a batch.
#[derive(Debug)]
pub struct Group {
    /// Tells partitions apart; equal for equal partition values.
    pub key: Box<[u8]>,
    pub value: Struct,
    /// In the batch's order; `None` is the whole batch.
    pub rows: Option<UInt32Array>,
}

/// Splits batches by the partition spec's values.
#[derive(Debug)]
pub struct Partitioner {
    sources: Vec<Source>,
    converter: Option<(Vec<DataType>, RowConverter)>,
}

impl Partitioner {
    pub fn new(spec: &PartitionSpec, schema: &Schema) -> Result<Partitioner> {
        let sources = spec
            .fields()
            .iter()
            .map(|field| {
                let mut steps = Vec::new();
                let source = schema
                    .field_by_id(field.source_id)
                    .filter(|_| find(schema.as_struct(), field.source_id, &mut steps));
                let source = source.ok_or_else(|| {
                    Error::halt(format!(
                        "cannot partition by {}({}): the column is not in the schema, or lies in a list or map",
                        field.transform,
                        schema.name_by_field_id(field.source_id).unwrap_or(&field.name)
                    ))
                })?;
                let result = field
                    .transform
                    .result_type(&source.field_type)
                    .map_err(|error| Error::halt(format!("cannot partition by {}: {error}", field.name)))?;
                Ok(Source { field: field.clone(), steps, result })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Partitioner { sources, converter: None })
    }

    /// The partitions of a batch that has rows, in order of their first row.
    pub fn split(&mut self, batch: &RecordBatch) -> Result<Vec<Group>> {
        self.try_split(batch).map_err(|error| {
            let fields: Vec<&str> = self.sources.iter().map(|source| source.field.name.as_str()).collect();
            Error::halt(format!("cannot partition a batch by {}", fields.join(", "))).caused_by(error)
        })
    }

    fn try_split(&mut self, batch: &RecordBatch) -> Result<Vec<Group>, ArrowError> {
        if self.sources.is_empty() {
            return Ok(vec![Group { key: Box::default(), value: Struct::empty(), rows: None }]);
        }
        let values = self
            .sources
            .iter()
            .map(|source| transform::apply(source.field.transform, &column(batch, &source.steps)?))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = self.converter(&values)?.convert_columns(&values)?;

        let mut groups: Vec<(&[u8], Vec<u32>)> = Vec::new();
        let mut by_key: HashMap<&[u8], usize> = HashMap::new();
        let mut last = None;
        for (row, key) in rows.iter().map(|row| row.data()).enumerate() {
            let group = match last {
                Some((last_key, group)) if last_key == key => group,
                _ => *by_key.entry(key).or_insert_with(|| {
                    groups.push((key, Vec::new()));
                    groups.len() - 1
                }),
            };
            last = Some((key, group));
            groups[group].1.push(row as u32);
        }
        let single = groups.len() == 1;
        groups
            .into_iter()
            .map(|(key, rows)| {
                let first = rows[0] as usize;
                let value =
                    self.sources.iter().zip(&values).map(|(source, value)| literal(value, first, &source.result));
                let value = Struct::from_iter(value.collect::<Result<Vec<_>, ArrowError>>()?);
                Ok(Group { key: key.into(), value, rows: (!single).then(|| UInt32Array::from(rows)) })
            })
            .collect()
    }

    fn converter(&mut self, values: &[ArrayRef]) -> Result<&mut RowConverter, ArrowError> {
        let types: Vec<DataType> = values.iter().map(|value| value.data_type().clone()).collect();
        let converter = match self.converter.take() {
            Some(known) if known.0 == types => known,
            _ => {
                let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
                (types, RowConverter::new(fields)?)
            }
        };
        Ok(&mut self.converter.insert(converter).1)
    }

    /// The partition's folders below the data location, without slashes at the ends; empty when unpartitioned.
    pub fn folders(&self, value: &Struct) -> String {
        let folders: Vec<String> = self
            .sources
            .iter()
            .zip(value.iter())
            .map(|(source, value)| path::folder(&source.field, &source.result, value))
            .collect();
        folders.join("/")
    }
}

/// The steps from the row to a column, through structs only.
pub(super) fn find(structure: &StructType, id: i32, steps: &mut Vec<usize>) -> bool {
    for (index, field) in structure.fields().iter().enumerate() {
        steps.push(index);
        match field.field_type.as_ref() {
            Type::Primitive(_) if field.id == id => return true,
            Type::Struct(children) if find(children, id, steps) => return true,
            _ => {}
        }
        steps.pop();
    }
    false
}

/// The column at `steps`; null wherever one of its parents is.
pub(super) fn column(batch: &RecordBatch, steps: &[usize]) -> Result<ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError("the batch lacks the partition's source column".into());
    let (first, rest) = steps.split_first().ok_or_else(missing)?;
    let mut array = batch.columns().get(*first).ok_or_else(missing)?.clone();
    let mut parents: Option<NullBuffer> = None;
    for step in rest {
        parents = NullBuffer::union(parents.as_ref(), array.nulls());
        let child = array.as_struct_opt().and_then(|parent| parent.columns().get(*step)).ok_or_else(missing)?.clone();
        array = child;
    }
    if parents.as_ref().is_none_or(|parents| parents.null_count() == 0) {
        return Ok(array);
    }
    let nulls = NullBuffer::union(parents.as_ref(), array.nulls());
    Ok(make_array(array.to_data().into_builder().nulls(nulls).build()?))
}

fn literal(array: &ArrayRef, row: usize, result: &Type) -> Result<Option<Literal>, ArrowError> {
    if array.is_null(row) {
        return Ok(None);
    }
    let value = match array.data_type() {
        DataType::Null => return Ok(None),
        DataType::Boolean => PrimitiveLiteral::Boolean(array.as_boolean().value(row)),
        DataType::Int32 => PrimitiveLiteral::Int(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => PrimitiveLiteral::Long(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => PrimitiveLiteral::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => PrimitiveLiteral::Double(array.as_primitive::<Float64Type>().value(row).into()),
        DataType::Date32 => PrimitiveLiteral::Int(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time64(TimeUnit::Microsecond) => {
            PrimitiveLiteral::Long(array.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            PrimitiveLiteral::Long(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            PrimitiveLiteral::Long(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        DataType::Decimal128(_, _) => PrimitiveLiteral::Int128(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => PrimitiveLiteral::String(array.as_string::<i32>().value(row).to_string()),
        DataType::LargeUtf8 => PrimitiveLiteral::String(array.as_string::<i64>().value(row).to_string()),
        DataType::Utf8View => PrimitiveLiteral::String(array.as_string_view().value(row).to_string()),
        DataType::Binary => PrimitiveLiteral::Binary(array.as_binary::<i32>().value(row).to_vec()),
        DataType::LargeBinary => PrimitiveLiteral::Binary(array.as_binary::<i64>().value(row).to_vec()),
        DataType::BinaryView => PrimitiveLiteral::Binary(array.as_binary_view().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(row);
            match (result, <[u8; 16]>::try_from(bytes)) {
                (Type::Primitive(PrimitiveType::Uuid), Ok(bytes)) => {
                    PrimitiveLiteral::UInt128(u128::from_be_bytes(bytes))
                }
                _ => PrimitiveLiteral::Binary(bytes.to_vec()),
            }
        }
        other => return Err(ArrowError::NotYetImplemented(format!("a partition value of type {other}"))),
    };
    Ok(Some(Literal::Primitive(value)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringViewArray, StructArray};
    use arrow::datatypes::Field;
    use iceberg::spec::{NestedField, Transform};

    use super::*;

    fn batch() -> RecordBatch {
        let place = StructArray::new(
            vec![Field::new("city", DataType::Utf8View, true), Field::new("zip", DataType::Int64, true)].into(),
            vec![
                Arc::new(StringViewArray::from(vec![Some("b"), Some("a"), Some("b"), None, Some("hidden")])),
                Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
            ],
            Some(NullBuffer::from(vec![true, true, true, true, false])),
        );
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])) as ArrayRef),
            ("place", Arc::new(place) as ArrayRef),
        ])
        .unwrap()
    }

    fn schema() -> Schema {
        let place = StructType::new(vec![
            NestedField::optional(3, "city", Type::Primitive(PrimitiveType::String)).into(),
            NestedField::optional(4, "zip", Type::Primitive(PrimitiveType::Long)).into(),
        ]);
        Schema::builder()
            .with_fields(vec![
                NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long)).into(),
                NestedField::optional(2, "place", Type::Struct(place)).into(),
            ])
            .build()
            .unwrap()
    }

    #[test]
    fn a_nested_leaf_is_null_where_its_parent_is() {
        let spec = PartitionSpec::builder(schema())
            .add_partition_field("place.city", "city", Transform::Identity)
            .unwrap()
            .build()
            .unwrap();
        let mut partitioner = Partitioner::new(&spec, &schema()).unwrap();
        let groups = partitioner.split(&batch()).unwrap();
        let shown: Vec<(String, Vec<u32>)> = groups
            .iter()
            .map(|group| (partitioner.folders(&group.value), group.rows.as_ref().unwrap().values().to_vec()))
            .collect();
        assert_eq!(
            shown,
            [("city=b".into(), vec![0, 2]), ("city=a".into(), vec![1]), ("city=null".into(), vec![3, 4])]
        );
        // The same partition has the same key in the next batch.
        let next = partitioner.split(&batch().slice(1, 1)).unwrap();
        assert_eq!(next[0].key, groups[1].key);
        assert!(next[0].rows.is_none(), "one partition takes the batch as it is");
    }

    #[test]
    fn several_fields_make_one_key() {
        let spec = PartitionSpec::builder(schema())
            .add_partition_field("id", "id_cut", Transform::Truncate(2))
            .unwrap()
            .add_partition_field("place.zip", "zip_bucket", Transform::Bucket(1))
            .unwrap()
            .build()
            .unwrap();
        let mut partitioner = Partitioner::new(&spec, &schema()).unwrap();
        let folders: Vec<String> =
            partitioner.split(&batch()).unwrap().iter().map(|group| partitioner.folders(&group.value)).collect();
        assert_eq!(
            folders,
            ["id_cut=0/zip_bucket=0", "id_cut=2/zip_bucket=0", "id_cut=4/zip_bucket=0", "id_cut=4/zip_bucket=null"]
        );
    }
}
