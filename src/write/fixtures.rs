//! A table with a column of every kind, for this module's tests.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::spec::{
    ListType, MapType, NestedField, PrimitiveType, Schema, SortOrder, StructType, TableMetadataBuilder, Transform,
    Type, UnboundPartitionSpec,
};
use iceberg::table::Table;
use iceberg::{TableCreation, TableIdent};
use tempfile::TempDir;

use crate::catalog::storage::Storage;

fn primitive(id: i32, name: &str, primitive: PrimitiveType) -> Arc<NestedField> {
    NestedField::optional(id, name, Type::Primitive(primitive)).into()
}

/// Field ids are those that creation assigns: breadth first.
pub fn schema() -> Schema {
    use PrimitiveType::{Binary, Boolean, Date, Decimal, Double, Float, Int, Long, String, Timestamptz};
    let place = StructType::new(vec![primitive(15, "city", String), primitive(16, "score", Double)]);
    let point = StructType::new(vec![primitive(18, "x", Double), primitive(19, "label", String)]);
    let points = ListType { element_field: NestedField::list_element(17, Type::Struct(point), false).into() };
    let attributes = MapType {
        key_field: NestedField::map_key_element(20, Type::Primitive(String)).into(),
        value_field: NestedField::map_value_element(21, Type::Primitive(Long), false).into(),
    };
    Schema::builder()
        .with_fields(vec![
            primitive(1, "id", Long),
            primitive(2, "name", String),
            primitive(3, "flag", Boolean),
            primitive(4, "small", Int),
            primitive(5, "ratio", Float),
            primitive(6, "weight", Double),
            primitive(7, "amount", Decimal { precision: 20, scale: 0 }),
            primitive(8, "price", Decimal { precision: 9, scale: 2 }),
            primitive(9, "day", Date),
            primitive(10, "at", Timestamptz),
            primitive(11, "blob", Binary),
            NestedField::optional(12, "place", Type::Struct(place)).into(),
            NestedField::optional(13, "points", Type::List(points)).into(),
            NestedField::optional(14, "attributes", Type::Map(attributes)).into(),
        ])
        .build()
        .unwrap()
}

pub fn arrow_schema(table: &Table) -> ArrowSchemaRef {
    Arc::new(iceberg::arrow::schema_to_arrow_schema(table.metadata().current_schema()).unwrap())
}

/// A table in a folder that goes when the test does.
pub fn table(partition_by: &[(&str, Transform)], properties: &[(&str, &str)]) -> (TempDir, Table) {
    let folder = TempDir::new().unwrap();
    let schema = schema();
    let mut spec = UnboundPartitionSpec::builder();
    for (column, transform) in partition_by {
        let kind = transform.to_string();
        let name = format!("{column}_{}", kind.split('[').next().unwrap());
        spec = spec.add_partition_field(schema.field_id_by_name(column).unwrap(), name, *transform).unwrap();
    }
    let spec: UnboundPartitionSpec = spec.build();
    let creation = TableCreation::builder()
        .name("t".into())
        .location(format!("file://{}", folder.path().display()))
        .schema(schema)
        .partition_spec(spec)
        .sort_order(SortOrder::unsorted_order())
        .properties(
            properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<HashMap<_, _>>(),
        )
        .build();
    let metadata = TableMetadataBuilder::from_table_creation(creation).unwrap().build().unwrap().metadata;
    let table = Table::builder()
        .metadata(metadata)
        .identifier(TableIdent::from_strs(["ns", "t"]).unwrap())
        .file_io(Storage::default().file_io())
        .runtime(iceberg::Runtime::try_current().unwrap())
        .build()
        .unwrap();
    (folder, table)
}

/// Rows given as JSON, one object each; binaries in hex.
pub fn batch(schema: &ArrowSchemaRef, rows: &[serde_json::Value]) -> RecordBatch {
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.serialize(rows).unwrap();
    decoder.flush().unwrap().unwrap()
}
