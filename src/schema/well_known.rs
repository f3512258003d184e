//! The message types that mapping version 1 does not take apart, and those that Protobuf's JSON writes in a form of
//! their own.
//!
//! A type counts as well known by its full name *and* its fields, so that a stranger under a familiar name is mapped as
//! the ordinary message that it is.

use super::mapping::Leaf;
use super::model::{Cardinality, Kind, Message, MessageId, Pool};

/// How Protobuf's JSON writes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// An object of its fields.
    Object,
    Timestamp,
    Duration,
    FieldMask,
    Wrapper,
    Struct,
    Value,
    ListValue,
    Any,
}

const WRAPPERS: [(&str, Kind); 9] = [
    ("DoubleValue", Kind::Double),
    ("FloatValue", Kind::Float),
    ("Int64Value", Kind::Int64),
    ("UInt64Value", Kind::Uint64),
    ("Int32Value", Kind::Int32),
    ("UInt32Value", Kind::Uint32),
    ("BoolValue", Kind::Bool),
    ("StringValue", Kind::String),
    ("BytesValue", Kind::Bytes),
];

/// The leaf that a message type becomes wherever it stands.
pub fn recognise(pool: &Pool, id: MessageId) -> Option<Leaf> {
    let message = pool.message(id);
    match json_form(pool, id) {
        JsonForm::Timestamp => Some(Leaf::Timestamp(id)),
        JsonForm::Duration => Some(Leaf::Duration(id)),
        JsonForm::Struct | JsonForm::Value | JsonForm::ListValue => Some(Leaf::Json(id)),
        JsonForm::Wrapper => message.field(1).map(|field| Leaf::Wrapper(id, field.kind)),
        _ if message.full_name == "google.type.Date" && has(message, &[Kind::Int32, Kind::Int32, Kind::Int32]) => {
            Some(Leaf::Date(id))
        }
        JsonForm::Object | JsonForm::FieldMask | JsonForm::Any => None,
    }
}

pub fn json_form(pool: &Pool, id: MessageId) -> JsonForm {
    let message = pool.message(id);
    let Some(name) = message.full_name.strip_prefix("google.protobuf.") else { return JsonForm::Object };
    match name {
        "Timestamp" if has(message, &[Kind::Int64, Kind::Int32]) => JsonForm::Timestamp,
        "Duration" if has(message, &[Kind::Int64, Kind::Int32]) => JsonForm::Duration,
        "Any" if has(message, &[Kind::String, Kind::Bytes]) => JsonForm::Any,
        "FieldMask" if is_list(message, Kind::String) => JsonForm::FieldMask,
        "Struct" if is_struct(pool, message) => JsonForm::Struct,
        "ListValue" if named(pool, "Value").is_some_and(|value| is_list(message, Kind::Message(value))) => {
            JsonForm::ListValue
        }
        "Value" if is_value(pool, message) => JsonForm::Value,
        _ if WRAPPERS.iter().any(|(wrapper, kind)| *wrapper == name && has(message, &[*kind])) => JsonForm::Wrapper,
        _ => JsonForm::Object,
    }
}

fn named(pool: &Pool, name: &str) -> Option<MessageId> {
    pool.find(&format!("google.protobuf.{name}"))
}

/// Whether the one field is a list of this kind.
fn is_list(message: &Message, kind: Kind) -> bool {
    let [field] = message.fields.as_slice() else { return false };
    (field.number, field.cardinality, field.kind) == (1, Cardinality::Repeated, kind)
}

/// Whether the one field is a map of strings to google.protobuf.Value.
fn is_struct(pool: &Pool, message: &Message) -> bool {
    let ([field], Some(value)) = (message.fields.as_slice(), named(pool, "Value")) else { return false };
    (field.number, field.cardinality, field.kind) == (1, Cardinality::Map { key: Kind::String }, Kind::Message(value))
}

/// Whether the fields are the kinds of a google.protobuf.Value, all in one oneof.
fn is_value(pool: &Pool, message: &Message) -> bool {
    let (Some(fields), Some(list)) = (named(pool, "Struct"), named(pool, "ListValue")) else { return false };
    let kinds = [Kind::Double, Kind::String, Kind::Bool, Kind::Message(fields), Kind::Message(list)];
    message.fields.len() == 6
        && message.fields.iter().all(|field| field.oneof == Some(0))
        && message.field(1).is_some_and(|null| matches!(null.kind, Kind::Enum(_)))
        && (2..).zip(kinds).all(|(number, kind)| message.field(number).is_some_and(|field| field.kind == kind))
}

/// Whether the fields are singular, numbered from 1, and of these kinds.
fn has(message: &Message, kinds: &[Kind]) -> bool {
    message.fields.len() == kinds.len()
        && (1..).zip(kinds).all(|(number, kind)| {
            message
                .field(number)
                .is_some_and(|field| field.kind == *kind && matches!(field.cardinality, Cardinality::Singular(_)))
        })
}
