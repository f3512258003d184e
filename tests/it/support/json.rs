//! Protobuf JSON of a message as buffa's reflection decodes it, with mapping version 1's rules for what JSON cannot
//! say; where buffa writes JSON itself, both must agree.

use std::fmt::Write;

use base64::Engine;
use buffa_descriptor::reflect::{DynamicMessage, MapKey, Value};
use calve::schema::model::{Cardinality, Field, Kind, MessageId, Presence};

use super::cells::Cell;
use super::oracle::{Notes, Oracle};
use super::{needs, wire};

pub fn cell(oracle: &Oracle<'_>, id: MessageId, message: &DynamicMessage, notes: &mut Notes) -> Cell {
    let text = self::message(oracle, id, message, notes);
    if notes.refused.is_none()
        && let Ok(theirs) = serde_json::to_string(message)
    {
        let ours = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let theirs = serde_json::from_str(&theirs).expect("buffa writes JSON");
        assert!(same(&ours, &theirs), "ours is {ours}, buffa's {theirs}");
    }
    if notes.refused.is_some() { Cell::Null } else { Cell::json(&text) }
}

/// Equal, floats as far as 32 bits go: buffa writes a float's digits as a double's.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => a == b || a.as_f64().map(|a| a as f32) == b.as_f64().map(|b| b as f32),
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn message(oracle: &Oracle<'_>, id: MessageId, message: &DynamicMessage, notes: &mut Notes) -> String {
    notes.raw |= !message.unknown_fields().is_empty();
    let definition = oracle.pool.message(id);
    let of = |number: u32| (definition.field(number).expect("a well-known field"), message.field_by_number(number));
    let number = |field: u32| match message.field_by_number(field) {
        Some(Value::I64(value)) => *value,
        Some(Value::I32(value)) => (*value).into(),
        _ => 0,
    };
    match definition.full_name.as_str() {
        name @ ("google.protobuf.Timestamp" | "google.protobuf.Duration") => {
            let text = time(name, number(1), number(2));
            if text.is_none() {
                notes.refused = Some(format!("{name} out of range"));
            }
            quoted(&text.unwrap_or_default())
        }
        "google.protobuf.FieldMask" => {
            let Some(Value::List(paths)) = message.field_by_number(1) else { return quoted("") };
            let paths: Vec<String> = paths.iter().map(|path| camel(path, notes)).collect();
            quoted(&paths.join(","))
        }
        "google.protobuf.Struct" => {
            let (field, value) = of(1);
            value.map_or("{}".into(), |value| self::value(oracle, field, value, notes))
        }
        "google.protobuf.ListValue" => {
            let (field, value) = of(1);
            value.map_or("[]".into(), |value| self::value(oracle, field, value, notes))
        }
        "google.protobuf.Value" => match (1..=6).map(of).find_map(|(field, value)| Some((field, value?))) {
            None => {
                notes.raw = true;
                "null".into()
            }
            Some((field, value)) => {
                notes.raw |= matches!(value, Value::F64(number) if !number.is_finite());
                one(oracle, field.kind, value, notes)
            }
        },
        "google.protobuf.Any" => any(oracle, message, notes),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let (field, value) = of(1);
            match value {
                Some(value) => one(oracle, field.kind, value, notes),
                None => default(field.kind),
            }
        }
        _ => format!("{{{}}}", members(oracle, id, message, notes).join(",")),
    }
}

fn members(oracle: &Oracle<'_>, id: MessageId, message: &DynamicMessage, notes: &mut Notes) -> Vec<String> {
    let mut members = Vec::new();
    for field in &oracle.pool.message(id).fields {
        let Some(value) = message.field_by_number(wire::alias(field.number)) else {
            if field.cardinality == Cardinality::Singular(Presence::Required) {
                notes.refused = Some(format!("{} is required", field.name));
            }
            continue;
        };
        let text = self::value(oracle, field, value, notes);
        let implicit = field.cardinality == Cardinality::Singular(Presence::Implicit);
        let empty = !matches!(field.cardinality, Cardinality::Singular(_)) && (text == "[]" || text == "{}");
        let null = matches!(value, Value::EnumNumber(0));
        if !empty && !(implicit && (null || is_default(value))) {
            members.push(format!("{}:{text}", quoted(&field.json_name)));
        }
    }
    members
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::F32(value) => value.to_bits() == 0,
        Value::F64(value) => value.to_bits() == 0,
        Value::Bool(value) => !value,
        Value::I32(value) => *value == 0,
        Value::I64(value) => *value == 0,
        Value::U32(value) => *value == 0,
        Value::U64(value) => *value == 0,
        Value::String(value) => value.is_empty(),
        Value::Bytes(value) => value.is_empty(),
        _ => false,
    }
}

fn value(oracle: &Oracle<'_>, field: &Field, value: &Value, notes: &mut Notes) -> String {
    match value {
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(|value| one(oracle, field.kind, value, notes)).collect();
            format!("[{}]", values.join(","))
        }
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| {
                let key = match key {
                    MapKey::Bool(key) => key.to_string(),
                    MapKey::I32(key) => key.to_string(),
                    MapKey::I64(key) => key.to_string(),
                    MapKey::U32(key) => key.to_string(),
                    MapKey::U64(key) => key.to_string(),
                    MapKey::String(key) => key.clone(),
                };
                format!("{}:{}", quoted(&key), one(oracle, field.kind, value, notes))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        value => one(oracle, field.kind, value, notes),
    }
}

fn one(oracle: &Oracle<'_>, kind: Kind, value: &Value, notes: &mut Notes) -> String {
    let special = |value: f64| match value {
        value if value.is_nan() => quoted("NaN"),
        value if value > 0.0 => quoted("Infinity"),
        _ => quoted("-Infinity"),
    };
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::I64(value) => quoted(&value.to_string()),
        Value::U64(value) => quoted(&value.to_string()),
        Value::F32(value) if value.is_finite() => format!("{value:?}"),
        Value::F64(value) if value.is_finite() => format!("{value:?}"),
        Value::F32(number) => {
            notes.raw |= needs::is_unusual_nan(value);
            special((*number).into())
        }
        Value::F64(number) => {
            notes.raw |= needs::is_unusual_nan(value);
            special(*number)
        }
        Value::String(value) => quoted(value),
        Value::Bytes(value) => quoted(&base64::engine::general_purpose::STANDARD.encode(value)),
        Value::EnumNumber(number) => {
            let Kind::Enum(id) = kind else { panic!("{kind:?} is not an enumeration") };
            let definition = oracle.pool.enumeration(id);
            if definition.full_name == "google.protobuf.NullValue" {
                notes.raw |= *number != 0;
                return "null".into();
            }
            let name = definition.values.iter().find(|value| value.number == *number);
            name.map_or_else(|| number.to_string(), |value| quoted(&value.name))
        }
        Value::Message(inner) => {
            let (Kind::Message(id) | Kind::Group(id)) = kind else { panic!("{kind:?} is not a message") };
            message(oracle, id, inner, notes)
        }
        Value::List(_) | Value::Map(_) => panic!("a list or map where one value was expected"),
    }
}

fn default(kind: Kind) -> String {
    match kind {
        Kind::Bool => "false".into(),
        Kind::Int64 | Kind::Uint64 => quoted("0"),
        Kind::Float | Kind::Double => "0.0".into(),
        Kind::String | Kind::Bytes => quoted(""),
        _ => "0".into(),
    }
}

fn any(oracle: &Oracle<'_>, any: &DynamicMessage, notes: &mut Notes) -> String {
    let url = any.field_by_number(1).map_or("", |url| match url {
        Value::String(url) => url.as_str(),
        other => panic!("{other:?} is no type_url"),
    });
    let bytes = any.field_by_number(2).map_or([].as_slice(), |bytes| match bytes {
        Value::Bytes(bytes) => bytes.as_slice(),
        other => panic!("{other:?} is no value"),
    });
    if url.is_empty() && bytes.is_empty() {
        return "{}".into();
    }
    let mut parts = vec![format!("\"@type\":{}", quoted(url))];
    let name = url.rsplit('/').next().unwrap_or_default();
    match oracle.pool.find_by_url(url).zip(oracle.descriptors.message_index(name)) {
        None => {
            notes.raw = true;
            let value = base64::engine::general_purpose::STANDARD.encode(bytes);
            parts.push(format!("\"value\":{}", quoted(&value)));
        }
        Some((id, index)) => match DynamicMessage::decode(oracle.descriptors.clone(), index, bytes) {
            Err(error) => notes.refused = Some(error.to_string()),
            Ok(inner) if name.starts_with("google.protobuf.") && name != "google.protobuf.Empty" => {
                parts.push(format!("\"value\":{}", message(oracle, id, &inner, notes)));
            }
            Ok(inner) => {
                notes.raw |= !inner.unknown_fields().is_empty();
                parts.extend(members(oracle, id, &inner, notes));
            }
        },
    }
    format!("{{{}}}", parts.join(","))
}

/// RFC 3339, or seconds; none out of range.
fn time(name: &str, seconds: i64, nanos: i64) -> Option<String> {
    let fraction = |nanos: u64| match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1000) => format!(".{:06}", nanos / 1000),
        _ => format!(".{nanos:09}"),
    };
    if name == "google.protobuf.Timestamp" {
        let time = chrono::DateTime::from_timestamp(seconds, 0)?;
        let valid = (-62_135_596_800..=253_402_300_799).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
        return valid.then(|| format!("{}{}Z", time.format("%Y-%m-%dT%H:%M:%S"), fraction(nanos as u64)));
    }
    let valid = (-315_576_000_000..=315_576_000_000).contains(&seconds)
        && nanos.abs() < 1_000_000_000
        && seconds.signum() * nanos.signum() >= 0;
    let mut text = String::new();
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let _ = write!(text, "{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs()));
    valid.then_some(text)
}

fn camel(path: &Value, notes: &mut Notes) -> String {
    let Value::String(path) = path else { panic!("{path:?} is no path") };
    let mut text = String::new();
    let mut upper = false;
    for letter in path.chars() {
        match letter {
            '_' if !upper => upper = true,
            'a'..='z' if upper => {
                text.push(letter.to_ascii_uppercase());
                upper = false;
            }
            'A'..='Z' => notes.refused = Some(format!("the path {path:?} has no JSON")),
            _ if upper => notes.refused = Some(format!("the path {path:?} has no JSON")),
            letter => text.push(letter),
        }
    }
    if upper {
        notes.refused = Some(format!("the path {path:?} has no JSON"));
    }
    notes.raw |= path.is_empty() || path.contains(',');
    text
}
