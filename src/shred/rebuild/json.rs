//! Protobuf's JSON text (<https://protobuf.dev/programming-guides/json/>) as the message that it stands for.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;

use super::text::{Json, parse};
use super::{is_foreign_zero, put_delimited, put_tag, seconds_and_nanos, wire, wire_type};
use crate::schema::model::{Cardinality, EnumId, Field, Kind, MessageId, Pool, Presence};
use crate::schema::well_known::{JsonForm, json_form};
use crate::shred::message_set::{begin_item, end_item};
use crate::shred::wire::put_varint;

/// The bytes of the message that the text stands for, encoded as the schema's own writers do.
///
/// Names may be camel case or as declared; an Any's type must be in the pool, unless its value is base64. Fails, with a
/// reason in one line, on what is not JSON and on names and values that the message has not.
pub fn message(pool: &Pool, id: MessageId, text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    Reader { pool }.message(id, &parse(text)?, &mut out)?;
    Ok(out)
}

/// Its recursion is bounded by the text's depth, which [`parse`] bounds.
struct Reader<'a> {
    pool: &'a Pool,
}

/// In an Any it is the member `value`, like a type with a form of its own; some writers leave that out.
const EMPTY: &str = "google.protobuf.Empty";

type Members<'a> = [(Cow<'a, str>, Json<'a>)];

impl Reader<'_> {
    /// Appends a message's fields.
    fn message(&self, id: MessageId, json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        let definition = self.pool.message(id);
        let name = &definition.full_name;
        let only_field = || definition.field(1).ok_or_else(|| format!("{name} has no field 1"));
        match (json_form(self.pool, id), json) {
            (JsonForm::Object, Json::Object(members)) => {
                for (key, value) in members {
                    self.member(id, key, value, out)?;
                }
            }
            (JsonForm::Timestamp, Json::String(text)) => {
                let time = DateTime::parse_from_rfc3339(text).map_err(|_| format!("{text:?} is not a time"))?;
                seconds_and_nanos(time.timestamp().into(), time.timestamp_subsec_nanos().into(), out);
            }
            (JsonForm::Duration, Json::String(text)) => {
                let (seconds, nanos) = duration(text).ok_or_else(|| format!("{text:?} is not a duration"))?;
                seconds_and_nanos(seconds, nanos, out);
            }
            (JsonForm::FieldMask, Json::String(text)) => {
                for path in text.split(',').filter(|path| !path.is_empty()) {
                    put_tag(1, wire::LENGTH, out);
                    put_delimited(snake_case(path).as_bytes(), out);
                }
            }
            (JsonForm::Wrapper | JsonForm::Struct | JsonForm::ListValue, _) => self.field(only_field()?, json, out)?,
            (JsonForm::Value, _) => self.value(&definition.fields, json, out)?,
            (JsonForm::Any, Json::Object(members)) => self.any(members, out)?,
            _ => return Err(format!("{json:?} is not a {name}")),
        }
        Ok(())
    }

    fn member(&self, id: MessageId, key: &str, json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        let definition = self.pool.message(id);
        // An extension's JSON name is its full name in brackets.
        let field = definition.fields.iter().find(|field| field.json_name == key || field.name == key);
        let field = field.ok_or_else(|| format!("{} has no field {key}", definition.full_name))?;
        if definition.message_set {
            let (Kind::Message(item) | Kind::Group(item)) = field.kind else {
                return Err(format!("{key} is no item of a MessageSet"));
            };
            let mut body = Vec::new();
            self.message(item, json, &mut body)?;
            put_set_item(field.number, &body, out);
            return Ok(());
        }
        // null is an absent field, unless it is a value of its own.
        if *json == Json::Null && !self.has_null(field.kind) {
            return Ok(());
        }
        self.field(field, json, out).map_err(|error| format!("{key}: {error}"))
    }

    fn has_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Enum(id) => self.pool.enumeration(id).full_name == "google.protobuf.NullValue",
            Kind::Message(id) | Kind::Group(id) => json_form(self.pool, id) == JsonForm::Value,
            _ => false,
        }
    }

    fn field(&self, field: &Field, json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        match (field.cardinality, json) {
            (Cardinality::Singular(presence), json) => {
                let start = out.len();
                let value = self.occurrence(field.number, field.kind, json, out)?;
                // A default is encoded as zeros, and nothing else is.
                let is_message = matches!(field.kind, Kind::Message(_) | Kind::Group(_));
                if presence == Presence::Implicit && !is_message && out[value..].iter().all(|byte| *byte == 0) {
                    out.truncate(start);
                }
                Ok(())
            }
            (Cardinality::Repeated, Json::Array(elements)) => {
                if field.packed && wire_type(field.kind) != wire::LENGTH && !elements.is_empty() {
                    let mut packed = Vec::new();
                    elements.iter().try_for_each(|element| self.scalar(field.kind, element, &mut packed))?;
                    put_tag(field.number, wire::LENGTH, out);
                    put_delimited(&packed, out);
                    return Ok(());
                }
                elements
                    .iter()
                    .try_for_each(|element| self.occurrence(field.number, field.kind, element, out).map(|_| ()))
            }
            (Cardinality::Map { key: key_kind }, Json::Object(members)) => {
                for (key, value) in members {
                    let key = match (key_kind, key.as_ref()) {
                        (Kind::Bool, "true") => Json::Bool(true),
                        (Kind::Bool, "false") => Json::Bool(false),
                        (_, key) => Json::String(key.into()),
                    };
                    let mut entry = Vec::new();
                    self.occurrence(1, key_kind, &key, &mut entry)?;
                    let end = entry.len();
                    let start = self.occurrence(2, field.kind, value, &mut entry)?;
                    if is_foreign_zero(self.pool, field.kind, &entry[start..]) {
                        entry.truncate(end);
                    }
                    put_tag(field.number, wire::LENGTH, out);
                    put_delimited(&entry, out);
                }
                Ok(())
            }
            _ => Err(format!("{json:?} is not repeated")),
        }
    }

    /// One tag and value; where the value starts.
    fn occurrence(&self, number: u32, kind: Kind, json: &Json, out: &mut Vec<u8>) -> Result<usize, String> {
        put_tag(number, wire_type(kind), out);
        let value = out.len();
        match kind {
            Kind::Message(id) => {
                let mut body = Vec::new();
                self.message(id, json, &mut body)?;
                put_delimited(&body, out);
            }
            Kind::Group(id) => {
                self.message(id, json, out)?;
                put_tag(number, wire::END_GROUP, out);
            }
            scalar => self.scalar(scalar, json, out)?,
        }
        Ok(value)
    }

    fn scalar(&self, kind: Kind, json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        let wrong = || format!("{json:?} is not a value of type {}", kind.name(self.pool));
        let digits = match json {
            Json::Number(digits) => digits,
            Json::String(digits) => digits.as_ref(),
            _ => "",
        };
        match (kind, json) {
            (Kind::Bool, Json::Bool(value)) => out.push((*value).into()),
            (Kind::Int32, _) => put_varint(out, i64::from(digits.parse::<i32>().map_err(|_| wrong())?) as u64),
            (Kind::Int64, _) => put_varint(out, digits.parse::<i64>().map_err(|_| wrong())? as u64),
            (Kind::Uint32, _) => put_varint(out, digits.parse::<u32>().map_err(|_| wrong())?.into()),
            (Kind::Uint64, _) => put_varint(out, digits.parse().map_err(|_| wrong())?),
            // Zigzag is the same for 32 and 64 bits.
            (Kind::Sint32 | Kind::Sint64, _) => {
                let value = digits.parse::<i64>().map_err(|_| wrong())?;
                put_varint(out, (value << 1 ^ value >> 63) as u64);
            }
            (Kind::Sfixed32, _) => out.extend(digits.parse::<i32>().map_err(|_| wrong())?.to_le_bytes()),
            (Kind::Sfixed64, _) => out.extend(digits.parse::<i64>().map_err(|_| wrong())?.to_le_bytes()),
            (Kind::Fixed32, _) => out.extend(digits.parse::<u32>().map_err(|_| wrong())?.to_le_bytes()),
            (Kind::Fixed64, _) => out.extend(digits.parse::<u64>().map_err(|_| wrong())?.to_le_bytes()),
            // Rust reads NaN and ±Infinity by Protobuf's names for them.
            (Kind::Float, _) => out.extend(digits.parse::<f32>().map_err(|_| wrong())?.to_le_bytes()),
            (Kind::Double, _) => out.extend(digits.parse::<f64>().map_err(|_| wrong())?.to_le_bytes()),
            (Kind::String, Json::String(text)) => put_delimited(text.as_bytes(), out),
            (Kind::Bytes, Json::String(text)) => {
                put_delimited(&STANDARD.decode(text.as_bytes()).map_err(|_| wrong())?, out);
            }
            (Kind::Enum(id), _) => put_varint(out, i64::from(self.number(id, json).ok_or_else(wrong)?) as u64),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn number(&self, id: EnumId, json: &Json) -> Option<i32> {
        match json {
            Json::Null => Some(0),
            Json::Number(digits) => digits.parse().ok(),
            Json::String(name) => {
                self.pool.enumeration(id).values.iter().find(|value| value.name == *name).map(|value| value.number)
            }
            _ => None,
        }
    }

    /// The one member of a google.protobuf.Value's oneof that the JSON is.
    fn value(&self, fields: &[Field], json: &Json, out: &mut Vec<u8>) -> Result<(), String> {
        let number = match json {
            Json::Null => 1,
            Json::Number(_) => 2,
            Json::String(_) => 3,
            Json::Bool(_) => 4,
            Json::Object(_) => 5,
            Json::Array(_) => 6,
        };
        let field = fields.iter().find(|field| field.number == number);
        let field = field.ok_or_else(|| format!("google.protobuf.Value has no field {number}"))?;
        self.occurrence(number, field.kind, json, out).map(|_| ())
    }

    fn any(&self, members: &Members, out: &mut Vec<u8>) -> Result<(), String> {
        let Some((_, Json::String(url))) = members.iter().find(|(key, _)| key == "@type") else {
            // An Any without a type is empty.
            return if members.is_empty() { Ok(()) } else { Err("an Any without @type".into()) };
        };
        let value = members.iter().find(|(key, _)| key == "value").map(|(_, value)| value);
        let name = url.rsplit('/').next().unwrap_or_default();
        let mut body = Vec::new();
        match (self.pool.find_by_url(url), value) {
            (Some(id), Some(value)) if json_form(self.pool, id) != JsonForm::Object || name == EMPTY => {
                self.message(id, value, &mut body)?;
            }
            (Some(id), _) => {
                for (key, value) in members.iter().filter(|(key, _)| key != "@type") {
                    self.member(id, key, value, &mut body)?;
                }
            }
            (None, Some(Json::String(text))) => {
                body = STANDARD.decode(text.as_bytes()).map_err(|_| format!("{text:?} is not base64"))?;
            }
            (None, _) => return Err(format!("the type {name} is not in the schema")),
        }
        for (number, bytes) in [(1, url.as_bytes()), (2, body.as_slice())] {
            if !bytes.is_empty() {
                put_tag(number, wire::LENGTH, out);
                put_delimited(bytes, out);
            }
        }
        Ok(())
    }
}

/// An item of a MessageSet.
pub fn put_set_item(number: u32, body: &[u8], out: &mut Vec<u8>) {
    begin_item(out, number);
    put_delimited(body, out);
    end_item(out);
}

/// Seconds and nanoseconds of `-1.5s`.
fn duration(text: &str) -> Option<(i128, i128)> {
    let text = text.strip_suffix('s')?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > 9 || !all_digits(seconds) || !all_digits(fraction) {
        return None;
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some((sign * seconds.parse::<i128>().ok()?, sign * nanos))
}

/// A FieldMask's path as the message has it.
fn snake_case(path: &str) -> String {
    path.chars().fold(String::new(), |mut snake, letter| {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        snake
    })
}
