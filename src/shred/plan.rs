//! What the interpreter works by: one flat table of fields for every place of the row that a message stands in, and
//! one tree that says how the columns are put together again. `compile` makes it.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields};

use super::enums::Enumeration;
use super::json;
use super::unchecked::{self, SlotAt};
use super::wire;

/// Why a mapping cannot be shredded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A construct of Protobuf that this version does not shred.
    #[error("{path}: {what} cannot be shredded")]
    Unsupported { path: String, what: String },
    /// The mapping, its schema, and its Arrow types do not agree.
    #[error("{path}: the column does not fit the field: {what}")]
    Mismatch { path: String, what: String },
}

/// No field, no oneof.
pub const NONE: u16 = u16::MAX;

/// A column by kind and index into [`Columns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRef {
    Bool(u32),
    I32(u32),
    I64(u32),
    I128(u32),
    F32(u32),
    F64(u32),
    Text(u32),
    Struct(u32),
    List(u32),
}

/// What the interpreter does with a field's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    // Varints.
    Bool,
    Int32,
    Sint32,
    Int64,
    Sint64,
    Uint32,
    Uint64,
    Uint64Long,
    EnumOpen,
    EnumClosed,
    // Four and eight bytes.
    Fixed32,
    Sfixed32,
    Float,
    Fixed64,
    Fixed64Long,
    Sfixed64,
    Double,
    // Length-delimited.
    String,
    Bytes,
    Message,
    Timestamp,
    Duration,
    Date,
    Wrapper,
    /// A message that is text.
    Json,
    /// A message in delimited encoding; [`Field::content`] says what it is.
    Group,
    /// An item of a MessageSet: a group of a type's number and a message's bytes.
    Item,
    /// Elements one by one, each with its own tag; [`Field::element`] says how.
    Repeated,
    /// Elements of a scalar type in one length-delimited value.
    Packed,
    Map,
    /// A member of a oneof; [`Field::element`] says what it is.
    Member,
    // Values that no column is wanted of, by their wire types: skipped. Only members of oneofs, since they clear the
    // others; any other field without a column is as good as unknown.
    SkipVarint,
    SkipFixed64,
    SkipLength,
    SkipGroup,
    SkipFixed32,
    /// Of a time: its column has milliseconds.
    Millis,
    /// The end of a node's declared fields: matches no tag.
    End,
}

impl Op {
    pub fn wire(self) -> u32 {
        match self {
            Op::Bool
            | Op::Int32
            | Op::Sint32
            | Op::Int64
            | Op::Sint64
            | Op::Uint32
            | Op::Uint64
            | Op::Uint64Long
            | Op::EnumOpen
            | Op::EnumClosed
            | Op::SkipVarint => wire::VARINT,
            Op::Fixed32 | Op::Sfixed32 | Op::Float | Op::SkipFixed32 => wire::FIXED32,
            Op::Fixed64 | Op::Fixed64Long | Op::Sfixed64 | Op::Double | Op::SkipFixed64 => wire::FIXED64,
            Op::SkipGroup => wire::START_GROUP,
            Op::String
            | Op::Bytes
            | Op::Message
            | Op::Timestamp
            | Op::Duration
            | Op::Date
            | Op::Wrapper
            | Op::Json
            | Op::Repeated
            | Op::Packed
            | Op::Map
            | Op::Member
            | Op::SkipLength
            | Op::Millis
            | Op::End => wire::LENGTH,
            Op::Group | Op::Item => wire::START_GROUP,
        }
    }

    /// What skips values like this one.
    pub fn skip(self) -> Op {
        match self.wire() {
            wire::VARINT => Op::SkipVarint,
            wire::FIXED64 => Op::SkipFixed64,
            wire::FIXED32 => Op::SkipFixed32,
            wire::START_GROUP => Op::SkipGroup,
            _ => Op::SkipLength,
        }
    }

    pub fn is_skip(self) -> bool {
        matches!(self, Op::SkipVarint | Op::SkipFixed64 | Op::SkipLength | Op::SkipGroup | Op::SkipFixed32)
    }

    /// Whether a later occurrence on the wire merges with an earlier one.
    pub fn is_message(self) -> bool {
        matches!(self, Op::Message | Op::Group) || self.is_leaf_message()
    }

    /// A message that is one value of a column.
    pub fn is_leaf_message(self) -> bool {
        matches!(self, Op::Timestamp | Op::Duration | Op::Date | Op::Wrapper | Op::Json)
    }
}

/// What the interpreter's loop does with a field: an op that it does itself, or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Of the width that the interpreter's jump takes.
#[repr(u32)]
pub enum Step {
    Bool,
    Int32,
    Sint32,
    Int64,
    Sint64,
    Uint32,
    Uint64,
    Fixed32,
    Sfixed32,
    Float,
    Fixed64,
    Sfixed64,
    Double,
    /// A string or bytes.
    Text,
    /// A message of its own columns.
    Message,
    /// The same, an element of a list.
    Element,
    /// The same, a member of a oneof.
    Member,
    /// Another member of a oneof.
    Choice,
    /// A closed enumeration's number.
    Closed,
    /// Elements one by one that are no messages of their own columns.
    Repeated,
    Packed,
    /// An entry of a map, the first one or one behind others.
    Map,
    Entry,
    /// Entries of a map of texts by texts.
    Texts,
    Timestamp,
    /// Another message that is one value of a column.
    Leaf,
    /// One value of a rarer op.
    Other,
    /// A look at the other bytes of a tag.
    Wide,
    /// A look for the field whose tag it is.
    Find,
}

impl Step {
    pub fn new(op: Op, element: Op) -> Step {
        match (op, element) {
            (Op::Bool, _) => Step::Bool,
            (Op::Int32 | Op::EnumOpen, _) => Step::Int32,
            (Op::Sint32, _) => Step::Sint32,
            (Op::Int64, _) => Step::Int64,
            (Op::Sint64, _) => Step::Sint64,
            (Op::Uint32, _) => Step::Uint32,
            (Op::Uint64, _) => Step::Uint64,
            (Op::Fixed32, _) => Step::Fixed32,
            (Op::Sfixed32, _) => Step::Sfixed32,
            (Op::Float, _) => Step::Float,
            (Op::Fixed64, _) => Step::Fixed64,
            (Op::Sfixed64, _) => Step::Sfixed64,
            (Op::Double, _) => Step::Double,
            (Op::String | Op::Bytes, _) => Step::Text,
            (Op::Message, _) => Step::Message,
            (Op::Repeated, Op::Message) => Step::Element,
            (Op::Member, Op::Message) => Step::Member,
            (Op::Member, _) => Step::Choice,
            (Op::EnumClosed, _) => Step::Closed,
            (Op::Repeated, _) => Step::Repeated,
            (Op::Packed, _) => Step::Packed,
            (Op::Map, _) => Step::Map,
            (Op::Timestamp, _) => Step::Timestamp,
            (op, _) if op.is_leaf_message() => Step::Leaf,
            _ => Step::Other,
        }
    }
}

/// One way to write a field on the wire. A repeated scalar has two of them: packed and one by one.
#[derive(Clone, Debug)]
pub struct Field {
    /// The tag as it is encoded, and the bits of an eight-byte load that it takes.
    pub tag: u64,
    pub mask: u64,
    pub tag_bytes: u8,
    /// The tag's first byte, and what is done behind it: `step`, or a look at the tag's other bytes.
    pub first: u8,
    pub lead: Step,
    /// What is done behind the tag; follows from `op` and `element`.
    pub step: Step,
    pub op: Op,
    /// Of an element, or of a member of a oneof; otherwise as `op`.
    pub element: Op,
    /// Of a wrapper's value; of a time, [`Op::Millis`] where its column has these; of a skipped enum, what it is.
    pub inner: Op,
    /// What the message of a group is; otherwise as [`value_op`](Self::value_op).
    pub content: Op,
    /// The field that most likely comes next.
    pub next: u16,
    /// Index into [`Columns::oneofs`].
    pub oneof: u16,
    /// Index into the columns of the op's kind: the elements' for repeated ones, the key's for maps.
    pub column: u32,
    /// The same among the columns of all kinds: [`Columns::slot`].
    pub slot: SlotAt,
    /// Index into [`Columns::lists`].
    pub list: u32,
    /// Of a map, index into [`Node::entries`].
    pub entry: u16,
    /// Of a message, its [`Node`]; of a map, the entry's. Of an enum, its [`Enumeration`]; of JSON, its type.
    pub node: u32,
    pub number: u32,
    /// The node that it is a field of, and its index there.
    pub home: u32,
    pub index: u16,
}

impl Field {
    /// What one value is: an element of a list, a member of a oneof, or the field itself.
    pub fn value_op(&self) -> Op {
        if matches!(self.op, Op::Repeated | Op::Member) { self.element } else { self.op }
    }

    /// Whether a value is a message of its own columns.
    pub fn is_struct(&self) -> bool {
        self.content == Op::Message
    }

    /// The column of the field's value, or of its elements' values.
    pub fn value_column(&self) -> ColumnRef {
        let op = if matches!(self.op, Op::Repeated | Op::Packed | Op::Member) { self.element } else { self.op };
        let op = if op == Op::Group { self.content } else { op };
        let op = if op == Op::Wrapper { self.inner } else { op };
        let index = self.column;
        match op {
            Op::Bool => ColumnRef::Bool(index),
            Op::Int32 | Op::Sint32 | Op::Sfixed32 | Op::EnumOpen | Op::EnumClosed | Op::Date => ColumnRef::I32(index),
            Op::Int64
            | Op::Sint64
            | Op::Sfixed64
            | Op::Uint32
            | Op::Fixed32
            | Op::Uint64Long
            | Op::Fixed64Long
            | Op::Timestamp
            | Op::Duration => ColumnRef::I64(index),
            Op::Uint64 | Op::Fixed64 => ColumnRef::I128(index),
            Op::Float => ColumnRef::F32(index),
            Op::Double => ColumnRef::F64(index),
            Op::String | Op::Bytes | Op::Wrapper | Op::Json => ColumnRef::Text(index),
            Op::Message => ColumnRef::Struct(index),
            Op::Group
            | Op::Item
            | Op::Repeated
            | Op::Packed
            | Op::Map
            | Op::Member
            | Op::SkipVarint
            | Op::SkipFixed64
            | Op::SkipLength
            | Op::SkipGroup
            | Op::SkipFixed32
            | Op::Millis
            | Op::End => ColumnRef::List(self.list),
        }
    }
}

/// What becomes of a map entry's value that the wire does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// The value's default is right as it is.
    Plain,
    /// The message in this struct column has required fields, so that its default is not a valid message.
    Incomplete(u32),
    /// A date that is not set is null, which `_raw` explains.
    Date(u32),
    /// The text of an empty message, in this text column.
    Json(u32),
}

/// What is left to do behind a message's last field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rest {
    Nothing,
    /// A look at required fields.
    Required,
    /// Of a map's entry: a look at the keys, behind the last one.
    Keys,
    /// The same behind a look at the value's [`Default`].
    DefaultAndKeys,
}

impl Rest {
    pub fn new(node: &Node) -> Rest {
        match node.key {
            None if node.required.is_empty() => Rest::Nothing,
            None => Rest::Required,
            Some(_) if node.default == Default::Plain => Rest::Keys,
            Some(_) => Rest::DefaultAndKeys,
        }
    }
}

/// A message at one place of the row.
#[derive(Clone, Debug)]
pub struct Node {
    /// Declared fields by number, [`Op::End`], then the other encodings of repeated scalars.
    pub fields: Vec<Field>,
    /// Names beside `fields`.
    pub names: Vec<Arc<str>>,
    /// Of the maps among `fields`, [`Field::entry`]: what most likely follows an entry is another one.
    pub entries: Vec<Field>,
    /// Tag → index into `fields`, at least for every tag of one byte.
    pub dense: Vec<u16>,
    /// The same for tags past the end of `dense`, sorted.
    pub sparse: Vec<(u32, u16)>,
    /// A MessageSet: its fields (index into `fields`) by number, which items name; sorted. Those whose number fits a tag
    /// may also stand as ordinary fields.
    pub items: Option<Vec<(u32, u16)>>,
    /// Fields (index into `fields`) that every occurrence must have, with their columns.
    pub required: Vec<(u16, ColumnRef)>,
    /// Of a map's entry.
    pub default: Default,
    /// Of a map's entry: the key's column.
    pub key: Option<ColumnRef>,
    /// What is left to do behind its last field; follows from `required`, `default` and `key`.
    pub rest: Rest,
    /// Where it stands, by field names; empty for the record's own message.
    pub path: String,
}

impl Node {
    /// Of a map's entry: texts by texts.
    pub fn is_texts(&self) -> bool {
        matches!(self.fields[..2], [Field { op: Op::String, .. }, Field { op: Op::String | Op::Bytes, .. }])
    }

    /// The field of a tag; `None` for a field that is unknown, or known with another wire type.
    pub fn find(&self, tag: u32) -> Option<usize> {
        let index = match self.dense.get(tag as usize) {
            Some(index) => *index,
            None => match self.sparse.binary_search_by_key(&tag, |(tag, _)| *tag) {
                Ok(found) => self.sparse[found].1,
                Err(_) => NONE,
            },
        };
        (index != NONE).then_some(index as usize)
    }

    /// The field of a MessageSet that an item of a type's number is.
    pub fn find_item(&self, type_id: u32) -> Option<usize> {
        let items = self.items.as_deref()?;
        let found = items.binary_search_by_key(&type_id, |(number, _)| *number).ok()?;
        Some(items[found].1 as usize)
    }

    pub fn field_path(&self, field: usize) -> String {
        let name = self.names.get(field).map_or("", |name| name);
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// How columns become an array.
#[derive(Clone, Debug)]
pub enum Output {
    Values {
        column: ColumnRef,
        data_type: DataType,
    },
    EnumName {
        column: u32,
        enumeration: u32,
    },
    Struct {
        column: u32,
        fields: Fields,
        children: Vec<Output>,
    },
    List {
        list: u32,
        element: FieldRef,
        values: Box<Output>,
    },
    Map {
        list: u32,
        entries: FieldRef,
        key: Box<Output>,
        value: Box<Output>,
    },
    /// True wherever the parent is present.
    Present,
    Null {
        data_type: DataType,
    },
}

/// What a record's bytes are.
#[derive(Clone, Debug)]
pub enum Root {
    /// A message whose fields are the table's columns.
    Message(u32),
    /// A message that is one column: its struct column and node.
    Struct(u32, u32),
    /// A well-known type that is one column; the field has no number.
    Leaf(Box<Field>),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub root: Root,
    pub nodes: Vec<Node>,
    pub enums: Vec<Enumeration>,
    /// Messages that become text.
    pub json: json::Types,
    /// Columns of [`Columns::i32s`] that become names of the enumeration.
    pub enum_columns: Vec<(u32, u32)>,
    /// Where each of [`Columns::texts`] stands, by field names.
    pub text_paths: Vec<String>,
    /// The message's columns in order.
    pub outputs: Vec<Output>,
}

impl Plan {
    /// The names of an enumeration that a field's values are of.
    #[inline(always)]
    pub fn names(&self, field: &Field) -> &Enumeration {
        unchecked::get(&self.enums, field.node as usize)
    }
}
