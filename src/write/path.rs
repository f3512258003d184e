//! Where a data file goes: `<data location>/<partition path>/<uuid7>.parquet`, or, in tables that are laid out for
//! object stores, behind a hash of that (Java's `ObjectStoreLocationProvider`), since such stores share out their
//! throughput by the beginnings of names.
//!
//! The partition path is for people; readers take partition values from the manifest. It is spelled as Java's
//! `PartitionSpec.partitionToPath` spells it, so that tools which look at folders find what they expect.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::temporal_conversions::{date32_to_datetime, timestamp_ms_to_datetime};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iceberg::spec::{Literal, PartitionField, PrimitiveLiteral, PrimitiveType, Transform, Type};

/// Bits of the hash that go into a name, in folders of this many.
const HASH_BITS: usize = 20;
const HASH_FOLDERS: [usize; 4] = [4, 4, 4, 8];

/// Where a table's data files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `write.data.path`, else `data` under the table's location.
    folder: String,
    objects: Option<Objects>,
}

/// `write.object-storage.enabled`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Objects {
    /// The table's name and the one above it, in files that lie outside of its location.
    context: Option<String>,
    /// Whether names hold partition values.
    partitioned: bool,
}

impl Places {
    pub fn new(location: &str, properties: &HashMap<String, String>) -> Places {
        let location = location.trim_end_matches('/');
        let yes =
            |key: &str, default: bool| properties.get(key).map_or(default, |value| value.eq_ignore_ascii_case("true"));
        let enabled = yes("write.object-storage.enabled", false);
        let mut keys = ["write.data.path", "write.object-storage.path", "write.folder-storage.path"].into_iter();
        let configured =
            keys.find_map(|key| properties.get(key).filter(|_| enabled || key != "write.object-storage.path"));
        let folder = match configured {
            Some(path) => path.trim_end_matches('/').to_string(),
            None => format!("{location}/data"),
        };
        let objects = enabled.then(|| Objects {
            context: (!folder.starts_with(location)).then(|| {
                let from = location.rmatch_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
                location[from..].to_string()
            }),
            partitioned: yes("write.object-storage.partitioned-paths", true),
        });
        Places { folder, objects }
    }

    /// The location of a file in these folders of a partition, empty for a table without partitions.
    pub fn file(&self, folders: &str, name: &str) -> String {
        let slash = if folders.is_empty() { "" } else { "/" };
        let Places { folder, objects } = self;
        let Some(Objects { context, partitioned }) = objects else { return format!("{folder}/{folders}{slash}{name}") };
        let name = if *partitioned { format!("{folders}{slash}{name}") } else { name.to_string() };
        let hash = hash(&name);
        match context {
            Some(context) => format!("{folder}/{hash}/{context}/{name}"),
            None if *partitioned => format!("{folder}/{hash}/{name}"),
            None => format!("{folder}/{hash}-{name}"),
        }
    }
}

/// The lowest bits of a name's Murmur3, as folders: `1001/1001/1001/10011001`.
fn hash(name: &str) -> String {
    let hash = murmur3::murmur3_32(&mut name.as_bytes(), 0).expect("bytes in memory can be read");
    let bits = format!("{hash:032b}").split_off(32 - HASH_BITS);
    let mut folders = String::with_capacity(HASH_BITS + HASH_FOLDERS.len());
    let mut at = 0;
    for length in HASH_FOLDERS {
        folders.push_str(if at == 0 { "" } else { "/" });
        folders.push_str(&bits[at..at + length]);
        at += length;
    }
    folders
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

    fn places(location: &str, properties: &[(&str, &str)]) -> Places {
        Places::new(location, &properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn the_data_location_is_a_property() {
        assert_eq!(places("s3://b/t/", &[]).file("", "x"), "s3://b/t/data/x");
        assert_eq!(
            places("s3://b/t/", &[("write.object-storage.path", "s3://o")]).file("p=1/q=2", "x"),
            "s3://b/t/data/p=1/q=2/x"
        );
        assert_eq!(places("s3://b/t", &[("write.data.path", "s3://other/x/")]).file("p=1", "x"), "s3://other/x/p=1/x");
    }

    #[test]
    fn names_for_object_stores_are_javas() {
        // Java's TestLocationProvider.
        for (name, hash) in [
            ("a", "0101/0110/1001/10110010"),
            ("b", "1110/0111/1110/00000011"),
            ("c", "0010/1101/0110/01011111"),
            ("d", "1001/0001/0100/01110011"),
        ] {
            let on = ("write.object-storage.enabled", "true");
            assert_eq!(places("s3://b/w/db/t", &[on]).file("", name), format!("s3://b/w/db/t/data/{hash}/{name}"));
            let flat = ("write.object-storage.partitioned-paths", "false");
            assert_eq!(
                places("s3://b/w/db/t", &[on, flat]).file("p=1", name),
                format!("s3://b/w/db/t/data/{hash}-{name}")
            );
            let other = ("write.data.path", "s3://other");
            assert_eq!(places("s3://b/w/db/t", &[on, other]).file("", name), format!("s3://other/{hash}/db/t/{name}"));
        }
        // The partition is hashed with the name.
        let on = places("s3://b/t", &[("write.object-storage.enabled", "true")]).file("p=1", "x");
        assert_eq!(on, format!("s3://b/t/data/{}/p=1/x", hash("p=1/x")));
    }
}
