//! A table's definition as other engines would write it, for a person to read, compare or paste.

use std::fmt::Write;

use iceberg::spec::{NestedField, PrimitiveType, Schema, Transform, Type, UnboundPartitionSpec};

/// Whose SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Trino,
    Snowflake,
    Spark,
}

/// `CREATE TABLE` for the table, ending in a semicolon and a newline.
pub fn create_table(dialect: Dialect, table: &str, schema: &Schema, spec: &UnboundPartitionSpec) -> String {
    let head = match dialect {
        Dialect::Trino | Dialect::Spark => "CREATE TABLE",
        Dialect::Snowflake => "CREATE ICEBERG TABLE",
    };
    let name = table.split('.').map(|part| quote(dialect, part)).collect::<Vec<_>>().join(".");
    let columns: Vec<String> = schema.as_struct().fields().iter().map(|field| column(dialect, field)).collect();
    let mut text = format!("{head} {name} (\n{}\n)", columns.join(",\n"));
    let partitions: Vec<String> = spec
        .fields()
        .iter()
        .filter_map(|field| Some(partition(dialect, schema.name_by_field_id(field.source_id)?, field.transform)))
        .collect();
    match dialect {
        Dialect::Trino => {
            let mut properties = vec!["format = 'PARQUET'".to_string()];
            if !partitions.is_empty() {
                let list: Vec<String> = partitions.iter().map(|partition| string(dialect, partition)).collect();
                properties.push(format!("partitioning = ARRAY[{}]", list.join(", ")));
            }
            let _ = write!(text, "\nWITH (\n  {}\n)", properties.join(",\n  "));
        }
        Dialect::Snowflake => {
            if !partitions.is_empty() {
                let _ = write!(text, "\nPARTITION BY ({})", partitions.join(", "));
            }
            text.push_str("\nCATALOG = 'SNOWFLAKE'\nEXTERNAL_VOLUME = '<volume>'\nBASE_LOCATION = '<folder>'");
        }
        Dialect::Spark => {
            text.push_str("\nUSING iceberg");
            if !partitions.is_empty() {
                let _ = write!(text, "\nPARTITIONED BY ({})", partitions.join(", "));
            }
        }
    }
    text.push_str(";\n");
    text
}

fn column(dialect: Dialect, field: &NestedField) -> String {
    let required = if field.required { " NOT NULL" } else { "" };
    let comment = match &field.doc {
        Some(doc) => format!(" COMMENT {}", string(dialect, doc)),
        None => String::new(),
    };
    format!("  {} {}{required}{comment}", quote(dialect, &field.name), type_name(dialect, &field.field_type))
}

fn type_name(dialect: Dialect, kind: &Type) -> String {
    match (dialect, kind) {
        (_, Type::Primitive(primitive)) => primitive_name(dialect, primitive),
        (_, Type::Struct(fields)) => {
            let fields: Vec<String> = fields.fields().iter().map(|field| member(dialect, field)).collect();
            match dialect {
                Dialect::Trino => format!("ROW({})", fields.join(", ")),
                Dialect::Snowflake => format!("OBJECT({})", fields.join(", ")),
                Dialect::Spark => format!("STRUCT<{}>", fields.join(", ")),
            }
        }
        (_, Type::List(list)) => {
            let element = type_name(dialect, &list.element_field.field_type);
            match dialect {
                Dialect::Trino | Dialect::Snowflake => format!("ARRAY({element})"),
                Dialect::Spark => format!("ARRAY<{element}>"),
            }
        }
        (_, Type::Map(map)) => {
            let key = type_name(dialect, &map.key_field.field_type);
            let value = type_name(dialect, &map.value_field.field_type);
            match dialect {
                Dialect::Trino | Dialect::Snowflake => format!("MAP({key}, {value})"),
                Dialect::Spark => format!("MAP<{key}, {value}>"),
            }
        }
    }
}

fn member(dialect: Dialect, field: &NestedField) -> String {
    let name = quote(dialect, &field.name);
    let kind = type_name(dialect, &field.field_type);
    match dialect {
        Dialect::Trino | Dialect::Snowflake => format!("{name} {kind}"),
        Dialect::Spark => format!("{name}: {kind}"),
    }
}

fn primitive_name(dialect: Dialect, primitive: &PrimitiveType) -> String {
    use Dialect::{Snowflake, Spark, Trino};
    use PrimitiveType as P;
    let name = match (primitive, dialect) {
        (P::Decimal { precision, scale }, _) => return format!("DECIMAL({precision}, {scale})"),
        (P::Fixed(length), Snowflake | Spark) => return format!("BINARY({length})"),
        (P::Boolean, _) => "BOOLEAN",
        (P::Int, Trino) => "INTEGER",
        (P::Int, _) => "INT",
        (P::Long, Snowflake) => "LONG",
        (P::Long, _) => "BIGINT",
        (P::Float, Trino) => "REAL",
        (P::Float, _) => "FLOAT",
        (P::Double, _) => "DOUBLE",
        (P::Date, _) => "DATE",
        (P::Time, Spark) => "STRING",
        (P::Time, _) => "TIME(6)",
        (P::Timestamp, Spark) => "TIMESTAMP_NTZ",
        (P::Timestamp, Trino) => "TIMESTAMP(6)",
        (P::Timestamp, Snowflake) => "TIMESTAMP_NTZ(6)",
        (P::Timestamptz, Spark) => "TIMESTAMP",
        (P::Timestamptz, Trino) => "TIMESTAMP(6) WITH TIME ZONE",
        (P::Timestamptz, Snowflake) => "TIMESTAMP_LTZ(6)",
        (P::TimestampNs, Trino) => "TIMESTAMP(9)",
        (P::TimestampNs, Snowflake) => "TIMESTAMP_NTZ(9)",
        (P::TimestampNs, Spark) => "TIMESTAMP_NTZ",
        (P::TimestamptzNs, Trino) => "TIMESTAMP(9) WITH TIME ZONE",
        (P::TimestamptzNs, Snowflake) => "TIMESTAMP_LTZ(9)",
        (P::TimestamptzNs, Spark) => "TIMESTAMP",
        (P::String, Trino) => "VARCHAR",
        (P::String, _) => "STRING",
        (P::Uuid, Trino) => "UUID",
        (P::Uuid, _) => "BINARY(16)",
        (P::Fixed(_) | P::Binary, Trino) => "VARBINARY",
        (P::Binary, _) => "BINARY",
    };
    name.to_string()
}

fn partition(dialect: Dialect, column: &str, transform: Transform) -> String {
    let column = match dialect {
        // Trino takes a nested column as one quoted name.
        Dialect::Trino if column.contains('.') => quote(dialect, column),
        Dialect::Trino => column.to_string(),
        Dialect::Snowflake | Dialect::Spark => {
            column.split('.').map(|part| quote(dialect, part)).collect::<Vec<_>>().join(".")
        }
    };
    match (transform, dialect) {
        (Transform::Identity, _) => column,
        (Transform::Bucket(n), Dialect::Trino) => format!("bucket({column}, {n})"),
        (Transform::Truncate(n), Dialect::Trino) => format!("truncate({column}, {n})"),
        (Transform::Bucket(n), _) => format!("bucket({n}, {column})"),
        (Transform::Truncate(n), _) => format!("truncate({n}, {column})"),
        (Transform::Year | Transform::Month | Transform::Day | Transform::Hour, Dialect::Spark) => {
            format!("{transform}s({column})")
        }
        (other, _) => format!("{other}({column})"),
    }
}

fn quote(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::Trino | Dialect::Snowflake => format!("\"{}\"", name.replace('"', "\"\"")),
        Dialect::Spark => format!("`{}`", name.replace('`', "``")),
    }
}

/// Spark and Snowflake read backslashes as escapes, standard SQL does not.
fn string(dialect: Dialect, text: &str) -> String {
    match dialect {
        Dialect::Trino => format!("'{}'", text.replace('\'', "''")),
        Dialect::Snowflake => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n")),
        Dialect::Spark => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")),
    }
}
