//! The message types that mapping version 1 does not take apart: they become one leaf.
//!
//! A type counts as well known by its full name *and* its fields, so that a stranger under a familiar name is mapped as
//! the ordinary message that it is.

use super::mapping::Leaf;
use super::model::{Cardinality, Kind, Message, MessageId, Pool};

/// What a message type becomes other than a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    Leaf(Leaf),
    /// Struct, Value, ListValue: JSON text.
    Json,
}

const WRAPPERS: [(&str, Kind); 9] = [
    ("google.protobuf.DoubleValue", Kind::Double),
    ("google.protobuf.FloatValue", Kind::Float),
    ("google.protobuf.Int64Value", Kind::Int64),
    ("google.protobuf.UInt64Value", Kind::Uint64),
    ("google.protobuf.Int32Value", Kind::Int32),
    ("google.protobuf.UInt32Value", Kind::Uint32),
    ("google.protobuf.BoolValue", Kind::Bool),
    ("google.protobuf.StringValue", Kind::String),
    ("google.protobuf.BytesValue", Kind::Bytes),
];

pub fn recognise(pool: &Pool, id: MessageId) -> Option<WellKnown> {
    let message = pool.message(id);
    let name = message.full_name.as_str();
    match name {
        "google.protobuf.Timestamp" if has(message, &[Kind::Int64, Kind::Int32]) => {
            Some(WellKnown::Leaf(Leaf::Timestamp(id)))
        }
        "google.protobuf.Duration" if has(message, &[Kind::Int64, Kind::Int32]) => {
            Some(WellKnown::Leaf(Leaf::Duration(id)))
        }
        "google.type.Date" if has(message, &[Kind::Int32, Kind::Int32, Kind::Int32]) => {
            Some(WellKnown::Leaf(Leaf::Date(id)))
        }
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => Some(WellKnown::Json),
        _ => WRAPPERS
            .iter()
            .find(|(wrapper, kind)| *wrapper == name && has(message, &[*kind]))
            .map(|(_, kind)| WellKnown::Leaf(Leaf::Wrapper(id, *kind))),
    }
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
