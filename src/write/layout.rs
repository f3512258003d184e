//! How a batch's columns lie in the file: the Arrow schema that the file is written with, and its leaves.
//!
//! A Parquet file's leaf columns are the schema's primitive fields in depth-first order, so leaf *i* here is column *i*
//! of every row group.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use iceberg::spec::{NestedField, PrimitiveType, Schema, StructType, Type};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use crate::error::{Error, Result};

/// A primitive column of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    pub field_id: i32,
    pub primitive: PrimitiveType,
    /// Below a list or a map: counted, but without bounds.
    pub repeated: bool,
    /// Dotted name as Parquet has it (`tags.list.element`), which is how writer properties name a column.
    pub parquet_path: Vec<String>,
    /// Dotted name as Iceberg has it (`tags.element`), which is how table properties name a column.
    pub name: String,
}

/// The schema that files are written with.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The batch's types under Iceberg's names and field ids.
    pub arrow: SchemaRef,
    pub leaves: Vec<Leaf>,
}

impl Layout {
    /// Matches `batch` to `schema` by position. Strings and binaries may have any Arrow layout; everything else must be
    /// what Iceberg's type is in Arrow.
    pub fn new(schema: &Schema, batch: &ArrowSchema) -> Result<Layout> {
        let mut leaves = Vec::new();
        let mut walk = Walk { leaves: &mut leaves, parquet_path: Vec::new(), name: Vec::new(), repeated: false };
        let fields = walk.structure(schema.as_struct(), batch.fields())?;
        Ok(Layout { arrow: Arc::new(ArrowSchema::new(fields)), leaves })
    }
}

struct Walk<'a> {
    leaves: &'a mut Vec<Leaf>,
    parquet_path: Vec<String>,
    name: Vec<String>,
    repeated: bool,
}

impl Walk<'_> {
    fn structure(&mut self, columns: &StructType, fields: &Fields) -> Result<Fields> {
        let columns = columns.fields();
        if columns.len() != fields.len() {
            return Err(self.mismatch(&format!("{} columns", columns.len()), &format!("{} columns", fields.len())));
        }
        columns
            .iter()
            .zip(fields)
            .map(|(column, field)| {
                if column.name != *field.name() {
                    return Err(self.mismatch(&format!("column {}", column.name), &format!("column {}", field.name())));
                }
                self.field(column, field, &column.name, &[])
            })
            .collect()
    }

    /// `groups` are the Parquet groups between the parent and this field (`list`, `key_value`).
    fn field(&mut self, column: &NestedField, field: &FieldRef, name: &str, groups: &[&str]) -> Result<FieldRef> {
        self.parquet_path.extend(groups.iter().map(|group| group.to_string()));
        self.parquet_path.push(name.to_string());
        self.name.push(name.to_string());
        let data_type = self.data_type(column, field.data_type())?;
        self.name.pop();
        self.parquet_path.truncate(self.parquet_path.len() - 1 - groups.len());
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), column.id.to_string())]);
        Ok(Arc::new(Field::new(name, data_type, field.is_nullable()).with_metadata(id)))
    }

    fn data_type(&mut self, column: &NestedField, arrow: &DataType) -> Result<DataType> {
        let repeated = self.repeated;
        Ok(match (column.field_type.as_ref(), arrow) {
            (Type::Primitive(primitive), arrow) => {
                if !matches(primitive, arrow) {
                    return Err(self.mismatch(&primitive.to_string(), &arrow.to_string()));
                }
                self.leaves.push(Leaf {
                    field_id: column.id,
                    primitive: primitive.clone(),
                    repeated,
                    parquet_path: self.parquet_path.clone(),
                    name: self.name.join("."),
                });
                arrow.clone()
            }
            (Type::Struct(columns), DataType::Struct(fields)) => DataType::Struct(self.structure(columns, fields)?),
            (Type::List(list), DataType::List(element) | DataType::LargeList(element)) => {
                self.repeated = true;
                let element = self.field(&list.element_field, element, "element", &["list"])?;
                self.repeated = repeated;
                if matches!(arrow, DataType::LargeList(_)) {
                    DataType::LargeList(element)
                } else {
                    DataType::List(element)
                }
            }
            (Type::Map(map), DataType::Map(entries, sorted)) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(self.mismatch("map", &arrow.to_string()));
                };
                let [key, value] = pair.as_ref() else { return Err(self.mismatch("map", &arrow.to_string())) };
                self.repeated = true;
                let key = self.field(&map.key_field, key, "key", &["key_value"])?;
                let value = self.field(&map.value_field, value, "value", &["key_value"])?;
                self.repeated = repeated;
                let pair = DataType::Struct(Fields::from(vec![key, value]));
                DataType::Map(Arc::new(Field::new("key_value", pair, false)), *sorted)
            }
            (other, arrow) => return Err(self.mismatch(&other.to_string(), &arrow.to_string())),
        })
    }

    fn mismatch(&self, table: &str, batch: &str) -> Error {
        let place = if self.name.is_empty() { "the row".to_string() } else { self.name.join(".") };
        Error::halt(format!(
            "cannot write the batch: {place} is {table} in the table's schema and {batch} in the batch"
        ))
    }
}

fn matches(primitive: &PrimitiveType, arrow: &DataType) -> bool {
    match (primitive, arrow) {
        (PrimitiveType::Boolean, DataType::Boolean)
        | (PrimitiveType::Int, DataType::Int32)
        | (PrimitiveType::Long, DataType::Int64)
        | (PrimitiveType::Float, DataType::Float32)
        | (PrimitiveType::Double, DataType::Float64)
        | (PrimitiveType::Date, DataType::Date32)
        | (PrimitiveType::Time, DataType::Time64(TimeUnit::Microsecond))
        | (PrimitiveType::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, None))
        | (PrimitiveType::TimestampNs, DataType::Timestamp(TimeUnit::Nanosecond, None))
        | (PrimitiveType::String, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        | (PrimitiveType::Binary, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        | (PrimitiveType::Uuid, DataType::FixedSizeBinary(16)) => true,
        (PrimitiveType::Timestamptz, DataType::Timestamp(TimeUnit::Microsecond, Some(zone)))
        | (PrimitiveType::TimestamptzNs, DataType::Timestamp(TimeUnit::Nanosecond, Some(zone))) => {
            matches!(zone.as_ref(), "+00:00" | "UTC")
        }
        (PrimitiveType::Decimal { precision, scale }, DataType::Decimal128(p, s)) => {
            u32::from(*p) == *precision && i64::from(*s) == i64::from(*scale)
        }
        (PrimitiveType::Fixed(length), DataType::FixedSizeBinary(size)) => u64::try_from(*size) == Ok(*length),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::fixtures;

    #[test]
    fn leaves_are_the_parquet_columns_in_order() {
        let schema = fixtures::schema();
        let arrow = iceberg::arrow::schema_to_arrow_schema(&schema).unwrap();
        let layout = Layout::new(&schema, &arrow).unwrap();
        let parquet = parquet::arrow::ArrowSchemaConverter::new().convert(&layout.arrow).unwrap();
        assert_eq!(layout.leaves.len(), parquet.num_columns());
        for (leaf, column) in layout.leaves.iter().zip(parquet.columns()) {
            assert_eq!(leaf.parquet_path, column.path().parts(), "{}", leaf.name);
            assert_eq!(leaf.field_id, column.self_type().get_basic_info().id(), "{}", leaf.name);
            assert_eq!(leaf.repeated, column.max_rep_level() > 0, "{}", leaf.name);
        }
    }

    #[test]
    fn a_batch_of_another_shape_is_refused_with_the_column() {
        let schema = fixtures::schema();
        let arrow = iceberg::arrow::schema_to_arrow_schema(&schema).unwrap();
        let mut fields = arrow.fields().to_vec();
        fields[0] = Arc::new(Field::new("id", DataType::Int32, true));
        let error = Layout::new(&schema, &ArrowSchema::new(fields.clone())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write the batch: id is long in the table's schema and Int32 in the batch"
        );
        fields.remove(0);
        let error = Layout::new(&schema, &ArrowSchema::new(fields)).unwrap_err();
        assert!(error.to_string().contains("the row is"), "{error}");
    }
}
