//! A table as Glue keeps it: what Java's GlueCatalog writes (IcebergToGlueConverter), for consoles, crawlers and Athena's
//! lists; the truth is the metadata file that a parameter points to.

use std::collections::HashSet;

use iceberg::spec::{NestedField, PrimitiveType, TableMetadata, Type};
use serde_json::{Map, Value, json};

const TABLE_TYPE: &str = "table_type";
pub(super) const METADATA_LOCATION: &str = "metadata_location";
const PREVIOUS_METADATA_LOCATION: &str = "previous_metadata_location";
/// Glue's limits; it refuses the whole table for what is longer.
const COMMENT_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 2048;
const TYPE_CHARS_MAX: usize = 131_072;
/// Table properties that name further places of a table's files.
const LOCATIONS: &[&str] =
    &["write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path"];

/// Where the metadata of a table is, as `GetTable` gave it; else why it is not one of ours.
pub(super) fn metadata_location(table: &Value) -> Result<&str, String> {
    let parameters = &table["Parameters"];
    match parameters[TABLE_TYPE].as_str() {
        Some(kind) if kind.eq_ignore_ascii_case("iceberg") => {}
        Some(kind) => return Err(format!("it is a table of type {kind}, not an Iceberg table")),
        None => return Err("it is not an Iceberg table (no table_type among its parameters)".to_owned()),
    }
    parameters[METADATA_LOCATION].as_str().ok_or_else(|| format!("it has no {METADATA_LOCATION} among its parameters"))
}

/// The `TableInput` of a table's metadata. `existing` is what Glue has of it now, whose parameters, owner and comments
/// of others stay.
pub(super) fn input(name: &str, metadata: &TableMetadata, location: &str, existing: Option<&Value>) -> Value {
    let mut parameters = match existing.map(|table| &table["Parameters"]) {
        Some(Value::Object(parameters)) => parameters.clone(),
        _ => Map::new(),
    };
    if let Some(previous) = parameters.get(METADATA_LOCATION).cloned() {
        parameters.insert(PREVIOUS_METADATA_LOCATION.to_owned(), previous);
    }
    parameters.insert(TABLE_TYPE.to_owned(), json!("ICEBERG"));
    parameters.insert(METADATA_LOCATION.to_owned(), json!(location));
    let properties = metadata.properties();
    let mut storage = json!({ "Columns": columns(metadata, existing), "Location": metadata.location() });
    let elsewhere: HashSet<&str> = LOCATIONS.iter().filter_map(|key| Some(properties.get(*key)?.as_str())).collect();
    if !elsewhere.is_empty() {
        let mut elsewhere: Vec<&str> = elsewhere.into_iter().collect();
        elsewhere.sort_unstable();
        storage["AdditionalLocations"] = json!(elsewhere);
    }
    let mut input =
        json!({ "Name": name, "TableType": "EXTERNAL_TABLE", "Parameters": parameters, "StorageDescriptor": storage });
    let described = properties.get("comment").map(|text| json!(one_line(text, DESCRIPTION_CHARS_MAX)));
    let kept = |key: &str| existing.map(|table| table[key].clone()).filter(|value| !value.is_null());
    if let Some(description) = described.or_else(|| kept("Description")) {
        input["Description"] = description;
    }
    if let Some(owner) = kept("Owner") {
        input["Owner"] = owner;
    }
    input
}

/// The columns of the current schema, then those that only older schemas had.
fn columns(metadata: &TableMetadata, existing: Option<&Value>) -> Vec<Value> {
    let comments = existing.and_then(|table| table["StorageDescriptor"]["Columns"].as_array());
    let comment = |name: &str| {
        let same = comments?.iter().find(|column| column["Name"] == name && column["Comment"].is_string())?;
        same["Comment"].as_str().map(str::to_owned)
    };
    let current = metadata.current_schema();
    let mut older: Vec<_> =
        metadata.schemas_iter().filter(|schema| schema.schema_id() != current.schema_id()).collect();
    older.sort_by_key(|schema| schema.schema_id());
    let mut names = HashSet::new();
    let mut columns = Vec::new();
    for (schema, is_current) in std::iter::once((current, true)).chain(older.into_iter().map(|schema| (schema, false)))
    {
        for field in schema.as_struct().fields() {
            if !names.insert(field.name.clone()) {
                continue;
            }
            let mut column = column(field, is_current);
            let doc = field.doc.as_deref().filter(|doc| !doc.is_empty()).map(|doc| one_line(doc, COMMENT_CHARS_MAX));
            if let Some(comment) = doc.or_else(|| comment(&field.name)) {
                column["Comment"] = json!(comment);
            }
            columns.push(column);
        }
    }
    columns
}

fn column(field: &NestedField, current: bool) -> Value {
    let mut kind = String::new();
    type_string(&field.field_type, &mut kind);
    if kind.len() > TYPE_CHARS_MAX {
        // Longer than Glue takes; nobody reads data by it.
        kind = "string".to_owned();
    }
    json!({
        "Name": field.name,
        "Type": kind,
        "Parameters": {
            "iceberg.field.id": field.id.to_string(),
            "iceberg.field.optional": (!field.required).to_string(),
            "iceberg.field.current": current.to_string(),
        },
    })
}

/// The type as Hive would call it; both kinds of timestamps are one there.
fn type_string(of: &Type, text: &mut String) {
    match of {
        Type::Primitive(primitive) => match primitive {
            PrimitiveType::Boolean => text.push_str("boolean"),
            PrimitiveType::Int => text.push_str("int"),
            PrimitiveType::Long => text.push_str("bigint"),
            PrimitiveType::Float => text.push_str("float"),
            PrimitiveType::Double => text.push_str("double"),
            PrimitiveType::Date => text.push_str("date"),
            PrimitiveType::Time | PrimitiveType::String | PrimitiveType::Uuid => text.push_str("string"),
            PrimitiveType::Timestamp | PrimitiveType::Timestamptz => text.push_str("timestamp"),
            PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => text.push_str("timestamp_nano"),
            PrimitiveType::Fixed(_) | PrimitiveType::Binary => text.push_str("binary"),
            PrimitiveType::Decimal { precision, scale } => text.push_str(&format!("decimal({precision},{scale})")),
        },
        Type::Struct(fields) => {
            text.push_str("struct<");
            for (index, field) in fields.fields().iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                text.push_str(&field.name);
                text.push(':');
                type_string(&field.field_type, text);
            }
            text.push('>');
        }
        Type::List(list) => {
            text.push_str("array<");
            type_string(&list.element_field.field_type, text);
            text.push('>');
        }
        Type::Map(map) => {
            text.push_str("map<");
            type_string(&map.key_field.field_type, text);
            text.push(',');
            type_string(&map.value_field.field_type, text);
            text.push('>');
        }
    }
}

fn one_line(text: &str, chars: usize) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::spec::{ListType, MapType, Schema, SortOrder, StructType, UnboundPartitionSpec};

    use super::*;
    use crate::catalog::{Creation, metadata};

    fn metadata(properties: &[(&str, &str)]) -> TableMetadata {
        let primitive = |id, name: &str, of| NestedField::optional(id, name, Type::Primitive(of)).into();
        let inner =
            StructType::new(vec![primitive(4, "a b", PrimitiveType::Int), primitive(5, "t", PrimitiveType::Time)]);
        let list = ListType::new(NestedField::list_element(6, Type::Struct(inner), true).into());
        let map = MapType::new(
            NestedField::map_key_element(8, Type::Primitive(PrimitiveType::String)).into(),
            NestedField::map_value_element(9, Type::List(list), false).into(),
        );
        let schema = Schema::builder()
            .with_fields([
                NestedField::required(1, "at", Type::Primitive(PrimitiveType::Timestamptz))
                    .with_doc(format!("when\n {}", "x".repeat(400)))
                    .into(),
                primitive(2, "amount", PrimitiveType::Decimal { precision: 20, scale: 0 }),
                NestedField::optional(3, "items", Type::Map(map)).into(),
            ])
            .build()
            .unwrap();
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let creation = Creation {
            schema,
            partition_spec: UnboundPartitionSpec::default(),
            sort_order: SortOrder::unsorted_order(),
            properties,
        };
        metadata::create("s3://lake/t", creation).unwrap().metadata
    }

    #[test]
    fn a_table_is_written_as_java_writes_it() {
        let made = input("orders", &metadata(&[("comment", "our\norders")]), "s3://lake/t/metadata/0.json", None);
        assert_eq!(made["TableType"], "EXTERNAL_TABLE");
        assert_eq!(made["Description"], "our orders");
        assert_eq!(
            made["Parameters"],
            json!({ "table_type": "ICEBERG", "metadata_location": "s3://lake/t/metadata/0.json" })
        );
        assert_eq!(made["StorageDescriptor"]["Location"], "s3://lake/t");
        let columns = &made["StorageDescriptor"]["Columns"];
        let types: Vec<_> = columns.as_array().unwrap().iter().map(|column| column["Type"].as_str().unwrap()).collect();
        assert_eq!(types, ["timestamp", "decimal(20,0)", "map<string,array<struct<a b:int,t:string>>>"]);
        let parameters = |id: &str, optional: &str| json!({ "iceberg.field.id": id, "iceberg.field.optional": optional, "iceberg.field.current": "true" });
        assert_eq!(columns[0]["Parameters"], parameters("1", "false"));
        assert_eq!(columns[1]["Parameters"], parameters("2", "true"));
        let comment = columns[0]["Comment"].as_str().unwrap();
        assert!(comment.starts_with("when x") && comment.len() == 255, "{comment}");
        assert!(columns[1]["Comment"].is_null());
    }

    #[test]
    fn what_others_wrote_stays() {
        let existing = json!({
            "Owner": "somebody",
            "Description": "theirs",
            "Parameters": { "table_type": "iceberg", "metadata_location": "one", "classification": "x" },
            "StorageDescriptor": { "Columns": [{ "Name": "amount", "Comment": "by hand" }, { "Name": "at", "Comment": "old" }] },
        });
        assert_eq!(metadata_location(&existing), Ok("one"));
        let made = input("orders", &metadata(&[("write.data.path", "s3://other/d")]), "two", Some(&existing));
        let expected = json!({
            "table_type": "ICEBERG", "metadata_location": "two", "previous_metadata_location": "one", "classification": "x"
        });
        assert_eq!(made["Parameters"], expected);
        assert_eq!((&made["Owner"], &made["Description"]), (&json!("somebody"), &json!("theirs")));
        assert_eq!(made["StorageDescriptor"]["AdditionalLocations"], json!(["s3://other/d"]));
        let columns = &made["StorageDescriptor"]["Columns"];
        assert_eq!(columns[1]["Comment"], "by hand");
        assert!(columns[0]["Comment"].as_str().unwrap().starts_with("when"));
    }

    #[test]
    fn other_tables_are_not_ours() {
        let none: HashMap<String, String> = HashMap::new();
        for (parameters, words) in [
            (json!(none), "no table_type"),
            (json!({ "table_type": "hudi" }), "of type hudi"),
            (json!({ "table_type": "ICEBERG" }), "no metadata_location"),
        ] {
            let error = metadata_location(&json!({ "Parameters": parameters })).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
