//! Protobuf types, resolved: what the rest of calve knows of a schema, wherever it came from.
//!
//! Editions features, proto2 and proto3 rules are already applied: a field says its own presence, packing, encoding
//! and openness. Nothing here refers to a descriptor crate.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::ColumnOptions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnumId(pub u32);

/// All types of a topic's schema.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    /// Full name without a leading dot → message.
    pub message_by_name: HashMap<String, MessageId>,
}

impl Pool {
    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    pub fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    pub fn find(&self, full_name: &str) -> Option<MessageId> {
        self.message_by_name.get(full_name.trim_start_matches('.')).copied()
    }

    /// The message that an Any's type URL names: what stands behind its last slash, to the letter.
    pub fn find_by_url(&self, type_url: &str) -> Option<MessageId> {
        self.message_by_name.get(type_url.rsplit('/').next()?).copied()
    }
}

#[derive(Clone, Debug)]
pub struct Message {
    pub full_name: String,
    /// In declaration order; the pool's extensions of this message after them, by number.
    pub fields: Vec<Field>,
    pub oneofs: Vec<Oneof>,
    /// `message_set_wire_format`.
    pub message_set: bool,
    /// The leading comment in the source, where the schema source has comments.
    pub doc: Option<String>,
    pub place: Place,
    pub table: Option<TableOptions>,
}

/// What `(calve.v1.table)` says of the table that a message is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    pub name: Option<String>,
    pub partition_by: Vec<String>,
    pub sort_by: Vec<String>,
    pub description: Option<String>,
}

/// Where a message is declared: what the message indexes of a registry's framing count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Import path.
    pub file: Arc<str>,
    /// Position among the file's messages, then among those nested in that one, and so on down; from 0.
    pub index: Vec<u32>,
    /// The same without the entry types that the compiler makes of map fields. Descriptors have them, a `.proto` file's
    /// text has not, and some clients count the one (Go, Python), some the other (Java).
    pub written: Vec<u32>,
}

impl Message {
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// A oneof that the user declared; the synthetic ones of proto3 `optional` are resolved into [`Presence::Explicit`].
#[derive(Clone, Debug)]
pub struct Oneof {
    pub name: String,
    pub doc: Option<String>,
    /// `(calve.v1.oneof).case_column`.
    pub case_column: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// For an extension its full name.
    pub name: String,
    pub json_name: String,
    pub number: u32,
    pub kind: Kind,
    pub cardinality: Cardinality,
    /// Index into [`Message::oneofs`].
    pub oneof: Option<usize>,
    pub extension: bool,
    /// Repeated scalars: how this schema's writers encode them. Readers take both.
    pub packed: bool,
    pub doc: Option<String>,
    /// `(calve.v1.column)`.
    pub options: ColumnOptions,
}

impl Field {
    /// The field's column is called like the field; an extension's like its full name, with dots as underscores.
    pub fn column_name(&self) -> Cow<'_, str> {
        if self.extension { self.name.replace('.', "_").into() } else { self.name.as_str().into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    Singular(Presence),
    Repeated,
    /// Key and value live in the entry type that [`Field::kind`] does *not* name: it names the value's kind.
    Map {
        key: Kind,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// proto3 without `optional`: absent and default are the same.
    Implicit,
    /// Absent is told apart from default: `optional`, proto2, editions, oneof members, messages.
    Explicit,
    /// proto2 `required`, editions `LEGACY_REQUIRED`.
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Bool,
    Int32,
    Sint32,
    Sfixed32,
    Int64,
    Sint64,
    Sfixed64,
    Uint32,
    Fixed32,
    Uint64,
    Fixed64,
    Float,
    Double,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
    /// A message in delimited encoding: proto2 `group`, editions `DELIMITED`.
    Group(MessageId),
}

impl Kind {
    /// As a `.proto` file spells it: a scalar's keyword, a type's full name.
    pub fn name(self, pool: &Pool) -> &str {
        match self {
            Kind::Bool => "bool",
            Kind::Int32 => "int32",
            Kind::Sint32 => "sint32",
            Kind::Sfixed32 => "sfixed32",
            Kind::Int64 => "int64",
            Kind::Sint64 => "sint64",
            Kind::Sfixed64 => "sfixed64",
            Kind::Uint32 => "uint32",
            Kind::Fixed32 => "fixed32",
            Kind::Uint64 => "uint64",
            Kind::Fixed64 => "fixed64",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(id) => &pool.enumeration(id).full_name,
            Kind::Message(id) | Kind::Group(id) => &pool.message(id).full_name,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Enum {
    pub full_name: String,
    /// Closed (proto2, editions `CLOSED`): a number without a name is an unknown field.
    pub closed: bool,
    /// In declaration order, aliases included; the first of a number is its name.
    pub values: Vec<EnumValue>,
}

#[derive(Clone, Debug)]
pub struct EnumValue {
    pub name: String,
    pub number: i32,
}
