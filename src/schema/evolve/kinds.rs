//! What a column held and what a field would put there: whether the one can follow the other, and both in words.

use iceberg::spec::{PrimitiveType, Type};

use crate::schema::mapping::{self, Leaf, Shape};

/// A column map's kind without its encoding, and whether that is the delimited one.
pub(super) fn split_group(kind: Option<&str>) -> (Option<&str>, bool) {
    match kind.and_then(|kind| kind.strip_prefix(mapping::GROUP)) {
        Some("") => (None, true),
        Some(rest) if rest.starts_with(' ') => (Some(&rest[1..]), true),
        _ => (kind, false),
    }
}

/// Whether the wire carries messages for it, one by one.
pub(super) fn is_message(shape: &Shape) -> bool {
    match shape {
        Shape::Struct(_) => true,
        Shape::Leaf(leaf) => leaf.message().is_some(),
        Shape::List(element) => is_message(element),
        Shape::Map { .. } => false,
    }
}

/// Iceberg's promotions (spec, "Schema Evolution") that format version 2 allows.
pub(super) fn widens(from: &PrimitiveType, to: &PrimitiveType) -> bool {
    match (from, to) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        (
            PrimitiveType::Decimal { precision: from, scale: from_scale },
            PrimitiveType::Decimal { precision: to, scale: to_scale },
        ) => from < to && from_scale == to_scale,
        _ => false,
    }
}

/// Whether bytes that a field of kind `old` was written with give the same values when read as `new`.
pub(super) fn reads(old: &str, new: &str) -> bool {
    const WIDER: [(&str, &str); 5] = [
        ("int32", "int64"),
        ("uint32", "int64"),
        ("sint32", "sint64"),
        ("google.protobuf.Int32Value", "google.protobuf.Int64Value"),
        ("google.protobuf.UInt32Value", "google.protobuf.Int64Value"),
    ];
    old == new || WIDER.contains(&(old, new))
}

/// Whether a kind of the column map is a message as JSON, which no text of another kind goes with.
pub(super) fn is_json(kind: &str) -> bool {
    const WELL_KNOWN: [&str; 3] = ["google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"];
    kind == mapping::JSON || WELL_KNOWN.contains(&kind)
}

pub(super) fn held(kind: &str) -> String {
    if is_json(kind) { "JSON text of a message".to_string() } else { kind.to_string() }
}

pub(super) fn describe(shape: &Shape) -> String {
    match shape {
        Shape::Leaf(Leaf::Json(_)) => "JSON text (json, json_below, or a message inside itself)".to_string(),
        Shape::Leaf(leaf) => leaf.iceberg_type().map_or_else(|| "a leaf".to_string(), |kind| kind.to_string()),
        Shape::Struct(_) => "a message".to_string(),
        Shape::List(_) => "repeated".to_string(),
        Shape::Map { .. } => "a map".to_string(),
    }
}

pub(super) fn describe_type(kind: &Type) -> String {
    match kind {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "a struct".to_string(),
        Type::List(_) => "a list".to_string(),
        Type::Map(_) => "a map".to_string(),
    }
}
