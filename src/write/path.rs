//! Where a data file goes: `<data location>/<partition path>/<uuid7>.parquet`.
//!
//! The partition path is for people; readers take partition values from the manifest. It is spelled as Java's
//! `PartitionSpec.partitionToPath` spells it, so that tools which look at folders find what they expect.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::temporal_conversions::{date32_to_datetime, timestamp_ms_to_datetime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iceberg::spec::{Literal, PartitionField, PrimitiveLiteral, PrimitiveType, Transform, Type};

/// The folder that data files go to: `write.data.path`, else `data` under the table's location.
pub fn data_location(location: &str, properties: &HashMap<String, String>) -> String {
    let configured = properties.get("write.data.path").or_else(|| properties.get("write.folder-storage.path"));
    match configured {
        Some(path) => path.trim_end_matches('/').to_string(),
        None => format!("{}/data", location.trim_end_matches('/')),
    }
}

/// One folder of a partition path: `name=value`, both as Java's URLEncoder writes them.
pub fn folder(field: &PartitionField, result: &Type, value: Option<&Literal>) -> String {
    let mut folder = String::new();
    folder.extend(url::form_urlencoded::byte_serialize(field.name.as_bytes()));
    folder.push('=');
    folder.extend(url::form_urlencoded::byte_serialize(human(&field.transform, result, value).as_bytes()));
    folder
}

fn human(transform: &Transform, result: &Type, value: Option<&Literal>) -> String {
    let (Some(Literal::Primitive(value)), Type::Primitive(result)) = (value, result) else {
        return "null".to_string();
    };
    match (transform, result, value) {
        (Transform::Void, _, _) => "null".to_string(),
        (Transform::Year, _, PrimitiveLiteral::Int(years)) => format!("{:04}", i64::from(*years) + 1970),
        (Transform::Month, _, PrimitiveLiteral::Int(months)) => {
            format!("{:04}-{:02}", i64::from(months.div_euclid(12)) + 1970, months.rem_euclid(12) + 1)
        }
        (Transform::Hour, _, PrimitiveLiteral::Int(hours)) => {
            format!("{}-{:02}", date(hours.div_euclid(24)), hours.rem_euclid(24))
        }
        (Transform::Day, _, PrimitiveLiteral::Int(days)) | (_, PrimitiveType::Date, PrimitiveLiteral::Int(days)) => {
            date(*days)
        }
        (_, PrimitiveType::Time, PrimitiveLiteral::Long(micros)) => time(*micros),
        (_, PrimitiveType::Timestamp, PrimitiveLiteral::Long(micros)) => timestamp(*micros),
        (_, PrimitiveType::Timestamptz, PrimitiveLiteral::Long(micros)) => format!("{}+00:00", timestamp(*micros)),
        (_, PrimitiveType::Decimal { scale, .. }, PrimitiveLiteral::Int128(unscaled)) => decimal(*unscaled, *scale),
        (_, PrimitiveType::Uuid, PrimitiveLiteral::UInt128(value)) => uuid::Uuid::from_u128(*value).to_string(),
        (_, _, PrimitiveLiteral::Boolean(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Int(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Long(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Float(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::Double(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::String(value)) => value.clone(),
        (_, _, PrimitiveLiteral::Binary(value)) => STANDARD.encode(value),
        (_, _, PrimitiveLiteral::Int128(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::UInt128(value)) => value.to_string(),
        (_, _, PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin) => "null".to_string(),
    }
}

fn date(days: i32) -> String {
    match date32_to_datetime(days) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        None => days.to_string(),
    }
}

fn time(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    fraction(&mut text, micros);
    text
}

fn timestamp(micros: i64) -> String {
    let Some(time) = timestamp_ms_to_datetime(micros.div_euclid(1000)) else { return micros.to_string() };
    let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    fraction(&mut text, micros);
    text
}

/// As many digits as the fraction of the second has.
fn fraction(text: &mut String, micros: i64) {
    let micros = micros.rem_euclid(1_000_000);
    if micros != 0 {
        let digits = format!("{micros:06}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
}

fn decimal(unscaled: i128, scale: u32) -> String {
    let scale = scale as usize;
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(transform: Transform, primitive: PrimitiveType, value: Option<Literal>, expected: &str) {
        let field =
            PartitionField::builder().source_id(1).field_id(1000).name("p/q".into()).transform(transform).build();
        assert_eq!(folder(&field, &Type::Primitive(primitive), value.as_ref()), format!("p%2Fq={expected}"));
    }

    #[test]
    fn folders_read_as_javas() {
        use PrimitiveType::{Binary, Boolean, Date, Decimal, Int, Long, String, Timestamptz};
        check(Transform::Day, Date, Some(Literal::date(20_779)), "2026-11-22");
        check(Transform::Day, Date, Some(Literal::date(-1)), "1969-12-31");
        check(Transform::Month, Int, Some(Literal::int(682)), "2026-11");
        check(Transform::Month, Int, Some(Literal::int(-1)), "1969-12");
        check(Transform::Year, Int, Some(Literal::int(56)), "2026");
        check(Transform::Hour, Int, Some(Literal::int(20_779 * 24 + 7)), "2026-11-22-07");
        check(Transform::Bucket(16), Int, Some(Literal::int(3)), "3");
        check(Transform::Identity, Boolean, Some(Literal::bool(true)), "true");
        check(Transform::Identity, Long, None, "null");
        check(Transform::Identity, String, Some(Literal::string("a b/ü+*.-_~%")), "a+b%2F%C3%BC%2B*.-_%7E%25");
        check(Transform::Identity, Binary, Some(Literal::binary(vec![0xff, 0, 1])), "%2FwAB");
        check(
            Transform::Identity,
            Timestamptz,
            Some(Literal::timestamptz(-1_500_000)),
            "1969-12-31T23%3A59%3A58.5%2B00%3A00",
        );
        let amount = Decimal { precision: 9, scale: 2 };
        check(Transform::Identity, amount, Some(Literal::Primitive(PrimitiveLiteral::Int128(-5))), "-0.05");
    }

    #[test]
    fn the_data_location_is_a_property() {
        let mut properties = HashMap::new();
        assert_eq!(data_location("s3://b/t/", &properties), "s3://b/t/data");
        properties.insert("write.data.path".to_string(), "s3://other/x/".to_string());
        assert_eq!(data_location("s3://b/t", &properties), "s3://other/x");
    }
}
