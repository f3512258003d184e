//! A message's columns, before they have ids: the mapping table of version 1, one match arm a row.

use super::mapping::{Column, Leaf, Shape, Struct};
use super::metadata;
use super::model::{Cardinality, Field, Kind, MessageId, Pool};
use super::well_known::{self, WellKnown};

/// The columns of a message that [`super::check`] found no fault with, in declaration order.
pub fn of_topic(pool: &Pool, message: MessageId) -> Vec<Column> {
    match well_known::recognise(pool, message) {
        // No fields to take apart: the message is the one column.
        Some(WellKnown::Leaf(leaf)) => {
            let doc = note(leaf).map(str::to_string);
            vec![Column { name: "value".to_string(), number: 0, shape: Shape::Leaf(leaf), doc }]
        }
        _ => of_message(pool, message),
    }
}

fn of_message(pool: &Pool, id: MessageId) -> Vec<Column> {
    let message = pool.message(id);
    if message.fields.is_empty() {
        return vec![present()];
    }
    message.fields.iter().map(|field| column(pool, field)).collect()
}

/// What an empty message has for a column, so that its presence survives.
pub fn present() -> Column {
    Column {
        name: metadata::PRESENT.to_string(),
        number: 0,
        shape: Shape::Leaf(Leaf::Present),
        doc: Some("true where the message is present".to_string()),
    }
}

fn column(pool: &Pool, field: &Field) -> Column {
    let value = shape(pool, field.kind);
    let doc = match (&field.doc, value.leaf().and_then(note)) {
        (Some(doc), Some(note)) => Some(format!("{doc}\n{note}")),
        (Some(doc), None) => Some(doc.clone()),
        (None, note) => note.map(str::to_string),
    };
    let shape = match field.cardinality {
        Cardinality::Singular(_) => value,
        Cardinality::Repeated => Shape::List(Box::new(value)),
        Cardinality::Map { key } => Shape::Map { key: Leaf::Scalar(key), value: Box::new(value) },
    };
    Column { name: field.name.clone(), number: field.number, shape, doc }
}

/// Depth is bounded by [`super::check::DEPTH_MAX`].
fn shape(pool: &Pool, kind: Kind) -> Shape {
    match kind {
        Kind::Enum(id) => Shape::Leaf(Leaf::EnumName(id)),
        Kind::Message(id) | Kind::Group(id) => match well_known::recognise(pool, id) {
            Some(WellKnown::Leaf(leaf)) => Shape::Leaf(leaf),
            _ => Shape::Struct(Struct { message: id, columns: of_message(pool, id) }),
        },
        scalar => Shape::Leaf(Leaf::Scalar(scalar)),
    }
}

/// What a column's type does not say by itself.
fn note(leaf: Leaf) -> Option<&'static str> {
    match leaf {
        Leaf::Duration(_) => Some("duration in microseconds"),
        _ => None,
    }
}
