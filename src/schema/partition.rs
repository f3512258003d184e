//! Partition fields as a person writes them, `bucket[16](customer.id)`, bound to a table's columns.

use iceberg::spec::{NestedField, Schema, StructType, Transform, Type, UnboundPartitionSpec};

use super::mapping::Fault;

/// Parses the fields of `partition_by` against a table's schema; an empty list is the unpartitioned spec. All faults
/// come at once, each with the text that it is about as its path.
///
/// A field is `transform(path)` or a bare path, which is its identity; the transforms are Iceberg's: `identity`,
/// `bucket[N]`, `truncate[N]`, `year`, `month`, `day`, `hour`. Partition fields are named as Java's
/// `PartitionSpec.Builder` names them, with underscores for dots: `_kafka_timestamp_day`, `customer_id_bucket`,
/// `name_trunc`, and an identity like its column.
pub fn parse(fields: &[String], schema: &Schema) -> Result<UnboundPartitionSpec, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut parsed: Vec<Parsed> = Vec::new();
    for text in fields {
        match parse_one(text, schema, &parsed) {
            Ok(field) => parsed.push(field),
            Err(message) => faults.push(Fault::new(format!("partition field {text:?}"), message)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let all = |message: String| vec![Fault::new("partition_by", message)];
    let mut builder = UnboundPartitionSpec::builder().with_spec_id(0);
    for field in parsed {
        builder = builder
            .add_partition_field(field.source, field.name, field.transform)
            .map_err(|e| all(e.message().to_string()))?;
    }
    let spec = builder.build();
    // What is left to object to is a partition field named like a column.
    spec.clone().bind(schema.clone()).map_err(|e| all(e.message().to_string()))?;
    Ok(spec)
}

struct Parsed {
    source: i32,
    name: String,
    transform: Transform,
}

fn parse_one(text: &str, schema: &Schema, others: &[Parsed]) -> Result<Parsed, String> {
    let (transform, path) = split(text)?;
    let source = leaf(schema, path)?;
    if transform.result_type(&source.field_type).is_err() {
        return Err(format!("the transform {transform} does not take {path}, which is of type {}", source.field_type));
    }
    let mut name = name(path, transform);
    // Columns and partition fields share one namespace; only an identity may be named like its column.
    let taken = |name: &str| {
        let column = schema.field_by_name(name);
        column.is_some_and(|column| column.id != source.id || transform != Transform::Identity)
            || others.iter().any(|other| other.name == name && other.source != source.id)
    };
    while taken(&name) {
        name.push('_');
    }
    let same = |other: &&Parsed| {
        other.name == name || (other.source == source.id && other.transform.dedup_name() == transform.dedup_name())
    };
    if let Some(other) = others.iter().find(same) {
        return Err(format!("says the same as the partition field {}; keep one of them", other.name));
    }
    Ok(Parsed { source: source.id, name, transform })
}

pub(super) fn split(text: &str) -> Result<(Transform, &str), String> {
    let text = text.trim();
    let Some((transform, rest)) = text.split_once('(') else {
        return match text {
            "" => Err("is empty".to_string()),
            path => Ok((Transform::Identity, path)),
        };
    };
    let path = rest.strip_suffix(')').ok_or("has no closing parenthesis; write transform(path)")?.trim();
    if path.is_empty() || path.contains(['(', ')', ',']) {
        return Err("takes one column; write transform(path), the transform's number in brackets".to_string());
    }
    Ok((transform_of(transform.trim())?, path))
}

fn transform_of(text: &str) -> Result<Transform, String> {
    let (word, number) = match text.split_once('[') {
        Some((word, rest)) => (word.trim(), Some(rest.strip_suffix(']').ok_or("has no closing bracket")?.trim())),
        None => (text, None),
    };
    let positive = || match number.map(str::parse::<u32>) {
        Some(Ok(number)) if (1..=i32::MAX as u32).contains(&number) => Ok(number),
        _ => Err(format!("{word} needs a number above 0 in brackets: {word}[16](path)")),
    };
    let transform = match word.to_ascii_lowercase().as_str() {
        "bucket" => return Ok(Transform::Bucket(positive()?)),
        "truncate" => return Ok(Transform::Truncate(positive()?)),
        "identity" => Transform::Identity,
        "year" => Transform::Year,
        "month" => Transform::Month,
        "day" => Transform::Day,
        "hour" => Transform::Hour,
        _ => {
            return Err(format!(
                "{text:?} is no transform; there are identity, bucket[N], truncate[N], year, month, day and hour"
            ));
        }
    };
    match number {
        Some(_) => Err(format!("{word} takes no number")),
        None => Ok(transform),
    }
}

fn name(path: &str, transform: Transform) -> String {
    let name = match transform {
        Transform::Bucket(_) => format!("{path}_bucket"),
        Transform::Truncate(_) => format!("{path}_trunc"),
        Transform::Identity => path.to_string(),
        other => format!("{path}_{other}"),
    };
    identifier(&name)
}

/// The name of an Avro field, which a manifest makes of it: iceberg writes it there as it is, and DuckDB refuses
/// manifests with any other.
fn identifier(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let start = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    format!("{start}{}", name.chars().map(fits).collect::<String>())
}

/// The leaf column at a dotted path through structs; Iceberg partitions and sorts by nothing inside a list or a map.
pub(super) fn leaf<'a>(schema: &'a Schema, path: &str) -> Result<&'a NestedField, String> {
    let mut fields = schema.as_struct();
    let mut parts = path.split('.').map(str::trim).peekable();
    while let Some(part) = parts.next() {
        let Some(field) = fields.fields().iter().find(|field| field.name == part) else {
            return Err(format!("there is no column {path:?}{}", nearest(schema, path)));
        };
        match (field.field_type.as_ref(), parts.peek()) {
            (Type::Primitive(_), None) => return Ok(field),
            (Type::Struct(inner), Some(_)) => fields = inner,
            (Type::Struct(_), None) => {
                return Err(format!("{path} is a struct; name one of its leaves{}", nearest(schema, path)));
            }
            (Type::Primitive(_), Some(_)) => {
                return Err(format!("there is no column {path:?}: {part} is a leaf{}", nearest(schema, path)));
            }
            (Type::List(_) | Type::Map(_), _) => {
                return Err(format!("{path} lies in a list or map, which no table can be partitioned or sorted by"));
            }
        }
    }
    Err("names no column".to_string())
}

fn nearest(schema: &Schema, path: &str) -> String {
    let mut leaves = Vec::new();
    collect(schema.as_struct(), "", &mut leaves);
    let nearest = leaves.iter().map(|leaf| (strsim::damerau_levenshtein(leaf, path), leaf)).min();
    nearest.map(|(_, leaf)| format!("; did you mean {leaf}?")).unwrap_or_default()
}

fn collect(fields: &StructType, prefix: &str, leaves: &mut Vec<String>) {
    for field in fields.fields() {
        match field.field_type.as_ref() {
            Type::Primitive(_) => leaves.push(format!("{prefix}{}", field.name)),
            Type::Struct(inner) => collect(inner, &format!("{prefix}{}.", field.name), leaves),
            Type::List(_) | Type::Map(_) => {}
        }
    }
}
