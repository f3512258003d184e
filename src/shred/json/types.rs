//! How each message type is written as JSON: one entry for every type that a JSON column can reach.

use std::collections::HashMap;

use super::super::enums::Enumeration;
use super::super::plan::NONE;
use super::super::wire;
use super::text;
use crate::schema::model::{self, Cardinality, EnumId, Kind, MessageId, Pool, Presence};
use crate::schema::well_known::{JsonForm, json_form};

/// The message types of all JSON columns. A type that contains itself refers to itself.
#[derive(Clone, Debug, Default)]
pub struct Types {
    pub types: Vec<Type>,
    pub enums: Vec<Enumeration>,
    /// Full names, where an Any may name them.
    pub by_name: HashMap<String, u32>,
    /// Bytes of JSON that a byte of the wire becomes at most.
    pub expansion: usize,
    index: HashMap<MessageId, u32>,
    enum_index: HashMap<EnumId, u32>,
}

#[derive(Clone, Debug)]
pub struct Type {
    pub form: JsonForm,
    /// By number. Of a map's entry: the key, the value.
    pub fields: Vec<Field>,
    /// Fields (index into `fields`) that every message must have.
    pub required: Vec<u16>,
    /// Whether it has a oneof.
    pub oneofs: bool,
    pub message_set: bool,
    /// A map's entry.
    pub entry: bool,
    /// Two fields have one JSON name (which proto2 allows), so that the text does not tell them apart.
    pub ambiguous: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub number: u32,
    /// The name as it is written: `"name":`.
    pub key: String,
    pub value: Value,
    pub how: How,
    /// The number of its oneof in the message, or [`NONE`].
    pub oneof: u16,
    /// The wire type of one value.
    pub wire: u32,
}

/// How often a field stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Once; its default is as good as none.
    Implicit,
    /// Once, or not at all.
    Explicit,
    Repeated,
    /// Entries of this type.
    Map(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Scalar(Kind),
    /// Index into [`Types::enums`].
    OpenEnum(u32),
    ClosedEnum(u32),
    /// google.protobuf.NullValue.
    Null,
    /// Index into [`Types::types`].
    Message(u32),
    Group(u32),
}

impl Value {
    pub fn message(self) -> Option<u32> {
        match self {
            Value::Message(index) | Value::Group(index) => Some(index),
            _ => None,
        }
    }

    fn wire(self) -> u32 {
        match self {
            Value::Scalar(Kind::Fixed64 | Kind::Sfixed64 | Kind::Double) => wire::FIXED64,
            Value::Scalar(Kind::Fixed32 | Kind::Sfixed32 | Kind::Float) => wire::FIXED32,
            Value::Scalar(Kind::String | Kind::Bytes) | Value::Message(_) => wire::LENGTH,
            Value::Group(_) => wire::START_GROUP,
            Value::Scalar(_) | Value::OpenEnum(_) | Value::ClosedEnum(_) | Value::Null => wire::VARINT,
        }
    }
}

impl Type {
    /// Index into `fields`.
    pub fn find(&self, number: u32) -> Option<usize> {
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|field| field.number == number) {
            return Some(guess);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

impl Types {
    /// The type's index, once it and all that it reaches are known.
    pub fn add(&mut self, pool: &Pool, id: MessageId) -> u32 {
        let mut open = Vec::new();
        let index = self.reserve(id, &mut open);
        while let Some((id, index)) = open.pop() {
            self.types[index as usize] = self.build(pool, id, &mut open);
            if self.types[index as usize].form == JsonForm::Any && self.by_name.is_empty() {
                // What an Any may name is every message of the schema.
                for (id, message) in (0..).map(MessageId).zip(&pool.messages) {
                    let index = self.reserve(id, &mut open);
                    self.by_name.insert(message.full_name.clone(), index);
                }
            }
        }
        let fields = self.types.iter().flat_map(|of| &of.fields).map(|field| field.key.len()).max().unwrap_or(0);
        let names = self.enums.iter().map(|names| names.name_bytes_max + 2).max().unwrap_or(0);
        // A field takes two bytes on the wire at least, an element of a packed list one; with a comma each.
        let shortest = names.max("\"1970-01-01T00:00:00Z\"".len());
        self.expansion = (fields + shortest + 1).div_ceil(2).max(names + 1).max(text::ESCAPE_BYTES_MAX);
        index
    }

    fn reserve(&mut self, id: MessageId, open: &mut Vec<(MessageId, u32)>) -> u32 {
        *self.index.entry(id).or_insert_with(|| {
            let index = self.types.len() as u32;
            self.types.push(Type::default());
            open.push((id, index));
            index
        })
    }

    fn build(&mut self, pool: &Pool, id: MessageId, open: &mut Vec<(MessageId, u32)>) -> Type {
        let message = pool.message(id);
        let mut sources: Vec<&model::Field> = message.fields.iter().collect();
        sources.sort_by_key(|field| field.number);
        let fields: Vec<Field> = sources.iter().map(|field| self.field(pool, field, open)).collect();
        let required = sources.iter().zip(0..);
        let required = required.filter(|(field, _)| field.cardinality == Cardinality::Singular(Presence::Required));
        let mut keys: Vec<&str> = fields.iter().map(|field| field.key.as_str()).collect();
        keys.sort_unstable();
        Type {
            form: json_form(pool, id),
            required: required.map(|(_, index)| index).collect(),
            oneofs: !message.oneofs.is_empty(),
            message_set: message.message_set,
            entry: false,
            ambiguous: keys.windows(2).any(|pair| pair[0] == pair[1]),
            fields,
        }
    }

    fn field(&mut self, pool: &Pool, source: &model::Field, open: &mut Vec<(MessageId, u32)>) -> Field {
        let value = self.value(pool, source.kind, open);
        let (how, value) = match source.cardinality {
            Cardinality::Singular(Presence::Implicit) => (How::Implicit, value),
            Cardinality::Singular(_) => (How::Explicit, value),
            Cardinality::Repeated => (How::Repeated, value),
            Cardinality::Map { key } => {
                let part = |number, value: Value| Field {
                    number,
                    key: String::new(),
                    value,
                    how: How::Explicit,
                    oneof: NONE,
                    wire: value.wire(),
                };
                let fields = vec![part(1, Value::Scalar(key)), part(2, value)];
                self.types.push(Type { fields, entry: true, ..Type::default() });
                let entry = self.types.len() as u32 - 1;
                (How::Map(entry), Value::Message(entry))
            }
        };
        let mut key = Vec::new();
        text::put_string(&mut key, source.json_name.as_bytes());
        key.push(b':');
        let key = String::from_utf8_lossy(&key).into_owned();
        let oneof = source.oneof.and_then(|oneof| u16::try_from(oneof).ok()).unwrap_or(NONE);
        Field { number: source.number, key, value, how, oneof, wire: value.wire() }
    }

    fn value(&mut self, pool: &Pool, kind: Kind, open: &mut Vec<(MessageId, u32)>) -> Value {
        match kind {
            Kind::Enum(id) if pool.enumeration(id).full_name == "google.protobuf.NullValue" => Value::Null,
            Kind::Enum(id) => {
                let definition = pool.enumeration(id);
                let index = *self.enum_index.entry(id).or_insert_with(|| {
                    self.enums.push(Enumeration::new(definition));
                    self.enums.len() as u32 - 1
                });
                if definition.closed { Value::ClosedEnum(index) } else { Value::OpenEnum(index) }
            }
            Kind::Message(id) => Value::Message(self.reserve(id, open)),
            Kind::Group(id) => Value::Group(self.reserve(id, open)),
            scalar => Value::Scalar(scalar),
        }
    }
}

impl Default for Type {
    fn default() -> Self {
        Type {
            form: JsonForm::Object,
            fields: Vec::new(),
            required: Vec::new(),
            oneofs: false,
            message_set: false,
            entry: false,
            ambiguous: false,
        }
    }
}
