//! The columns of a table: what each field of a message becomes (mapping version 1).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{NestedFieldRef, PrimitiveType, Schema, SchemaRef as IcebergSchemaRef};

use super::build::Build;
use super::column_map::ColumnMap;
use super::metadata::Ids;
use super::model::{EnumId, Kind, MessageId, Pool};
use super::well_known::{self, JsonForm};
use super::{check, columns};
use crate::config::{ColumnOptions, OnIncompatible, SchemaSource, Topic};

/// The table property that pins how columns are to be read, and the version that this code writes.
pub const VERSION_PROPERTY: &str = "calve.mapping";
pub const VERSION: &str = "1";
/// The table property that names the topic's message.
pub const MESSAGE_PROPERTY: &str = "calve.message";

/// A message's table: its columns, and the whole schema with `_kafka` and `_raw` in Iceberg's and Arrow's terms.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub pool: Arc<Pool>,
    pub message: MessageId,
    /// The message's own columns, in the table's order.
    pub columns: Vec<Column>,
    /// All columns, field ids assigned.
    pub iceberg: IcebergSchemaRef,
    /// The same for Arrow, each field with its `PARQUET:field_id`: message columns, `_kafka`, `_raw`. Binary columns are
    /// LargeBinary, times are microseconds in "+00:00".
    pub arrow: ArrowSchemaRef,
    /// Which Iceberg field each field path fills.
    pub column_map: ColumnMap,
}

/// What a topic's configuration says about its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A message with more leaf columns is refused.
    pub columns_max: usize,
    /// Fields of messages that become JSON, by the dotted names from the topic's message down.
    pub json: Vec<String>,
    /// Messages nested deeper than this become JSON: with 1, all that the topic's message holds.
    pub json_below: Option<usize>,
    pub on_incompatible: OnIncompatible,
    /// Whether every record is read with the schema that it was written with.
    pub records_name_schema: bool,
    /// What is said of single columns, by path, as in [`Topic::columns`].
    pub columns: BTreeMap<String, ColumnOptions>,
    /// Paths of the columns that are wanted; all if there is none.
    pub include: Vec<String>,
    /// Paths of what of these is not wanted.
    pub exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            columns_max: 2000,
            json: Vec::new(),
            json_below: None,
            on_incompatible: OnIncompatible::Halt,
            records_name_schema: false,
            columns: BTreeMap::new(),
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

impl From<&Topic> for Options {
    fn from(topic: &Topic) -> Self {
        Options {
            columns_max: topic.columns_max,
            json: topic.json.clone(),
            json_below: topic.json_below,
            on_incompatible: topic.on_incompatible,
            // A schema id alone does not do: without the registry all records are read with the one schema.
            records_name_schema: topic.schema == SchemaSource::Registry,
            columns: topic.columns.clone(),
            include: topic.include.clone(),
            exclude: topic.exclude.clone(),
        }
    }
}

/// Why a message cannot be a table, or not this one; one place of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The message's full name and the field's path in it: `shop.v1.Order.customer.name`.
    pub path: String,
    pub message: String,
    /// The topic's key in calve.toml that it is about, its parts from the outside in; none if it is about the message.
    pub key: Vec<String>,
}

impl Fault {
    /// A fault of the message.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { path: path.into(), message: message.into(), key: Vec::new() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for Fault {}

impl Mapping {
    /// The table that a message becomes where there is none yet: every fault, or the columns with fresh ids.
    pub fn create(pool: Arc<Pool>, message: MessageId, options: &Options) -> Result<Mapping, Vec<Fault>> {
        let choices = check::choices(&pool, message, options)?;
        let columns = columns::of_topic(&pool, message, options, &choices);
        let mut build = Build { pool: &pool, ids: Ids::after(0), map: ColumnMap::default() };
        let fields = build.table(&columns);
        let column_map = build.map;
        Mapping::assemble(pool, message, columns, fields, column_map)
    }

    /// What a table must hold as properties to be written to later: mapping version, message, column map.
    pub fn properties(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (VERSION_PROPERTY.to_string(), VERSION.to_string()),
            (MESSAGE_PROPERTY.to_string(), self.pool.message(self.message).full_name.clone()),
            (ColumnMap::PROPERTY.to_string(), self.column_map.to_json()),
        ])
    }

    pub(super) fn assemble(
        pool: Arc<Pool>,
        message: MessageId,
        columns: Vec<Column>,
        fields: Vec<NestedFieldRef>,
        column_map: ColumnMap,
    ) -> Result<Mapping, Vec<Fault>> {
        let schema = Schema::builder().with_fields(fields).build();
        let both = schema.and_then(|schema| Ok((schema_to_arrow_schema(&schema)?, schema)));
        match both {
            Ok((arrow, iceberg)) => {
                let (iceberg, arrow) = (Arc::new(iceberg), Arc::new(arrow));
                Ok(Mapping { pool, message, columns, iceberg, arrow, column_map })
            }
            Err(e) => Err(vec![Fault::new(
                &pool.message(message).full_name,
                format!("its columns are not an Iceberg schema: {}", e.message()),
            )]),
        }
    }
}

/// One column (or struct field) that a Protobuf field fills.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The field's number in its message; `0` for a column that no field fills (`_present`, a dropped field's column,
    /// the `value` of a topic whose message is itself a well-known type). Of a oneof's case column, [`CASE`] and the
    /// number of a member.
    pub number: u32,
    pub shape: Shape,
    /// On the wire, the field's values are groups: messages in delimited encoding.
    pub delimited: bool,
    pub doc: Option<String>,
}

impl Column {
    /// What the wire carries, as the column map keeps it.
    pub(super) fn wire_kind(&self, pool: &Pool) -> Option<String> {
        match (self.shape.wire_kind(pool), self.delimited) {
            (kind, false) => kind,
            (None, true) => Some(GROUP.to_string()),
            (Some(kind), true) => Some(format!("{GROUP} {kind}")),
        }
    }
}

/// In the column map: a message in delimited encoding, which no reader takes for a length-prefixed one.
pub(super) const GROUP: &str = "group";

/// Added to the number of the member that a oneof's case column goes by in paths: above all field numbers.
pub const CASE: u32 = 1 << 29;

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Leaf(Leaf),
    Struct(Struct),
    List(Box<Shape>),
    Map { key: Leaf, value: Box<Shape> },
}

/// A message as a struct. Absent → null.
#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    pub message: MessageId,
    /// Never empty: a message without fields has one boolean column `_present`, number 0.
    pub columns: Vec<Column>,
}

/// A primitive column and how the wire gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The column type that the table of mapping version 1 gives this scalar kind (uint64 → decimal(20,0)).
    Scalar(Kind),
    /// uint64/fixed64 as long; above 2^63−1 the record is out of range.
    UnsignedAsLong(Kind),
    /// The value's name; open: digits when it has none.
    EnumName(EnumId),
    EnumNumber(EnumId),
    /// google.protobuf.Timestamp → timestamptz, µs.
    Timestamp(MessageId),
    /// The same as µs, or floored ms, since 1970 → long.
    TimestampLong(MessageId, Unit),
    /// google.protobuf.Duration → long, µs.
    Duration(MessageId),
    /// The same as floored ms → long.
    DurationMillis(MessageId),
    /// One of the nine wrappers → its scalar.
    Wrapper(MessageId, Kind),
    /// google.protobuf.UInt64Value as long, as [`UnsignedAsLong`](Leaf::UnsignedAsLong).
    WrapperAsLong(MessageId),
    /// google.type.Date → date.
    Date(MessageId),
    /// A message as Protobuf JSON → string: google.protobuf.Struct, Value and ListValue, a message inside itself, and
    /// what the configuration says.
    Json(MessageId),
    /// The boolean that says that an empty message was there.
    Present,
    /// The name of the member that is set, of a oneof (index into [`Message::oneofs`](super::model::Message::oneofs)).
    Case(MessageId, u32),
    /// A column that no field of the message fills any more: always null. Its type is the table's.
    Retired,
}

/// In the column map, behind the kind of a column that counts milliseconds.
pub(super) const IN_MILLIS: &str = " in milliseconds";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Micros,
    Millis,
}

impl Shape {
    /// The leaf of a leaf column, or of a list of leaves or a map to leaves.
    pub fn leaf(&self) -> Option<Leaf> {
        match self {
            Shape::Leaf(leaf) => Some(*leaf),
            Shape::List(inner) | Shape::Map { value: inner, .. } => inner.leaf(),
            Shape::Struct(_) => None,
        }
    }

    /// What the wire carries for a leaf or a list of leaves, as the column map keeps it.
    pub(super) fn wire_kind(&self, pool: &Pool) -> Option<String> {
        match self {
            Shape::Leaf(leaf) => leaf.wire_kind(pool),
            Shape::List(element) => element.wire_kind(pool),
            Shape::Struct(_) | Shape::Map { .. } => None,
        }
    }
}

impl Leaf {
    /// The column type; none for a retired column, whose type is the table's.
    pub fn iceberg_type(self) -> Option<PrimitiveType> {
        Some(match self {
            Leaf::Scalar(kind) | Leaf::Wrapper(_, kind) => scalar_type(kind),
            Leaf::UnsignedAsLong(_)
            | Leaf::TimestampLong(..)
            | Leaf::Duration(_)
            | Leaf::DurationMillis(_)
            | Leaf::WrapperAsLong(_) => PrimitiveType::Long,
            Leaf::EnumName(_) | Leaf::Json(_) | Leaf::Case(..) => PrimitiveType::String,
            Leaf::EnumNumber(_) => PrimitiveType::Int,
            Leaf::Timestamp(_) => PrimitiveType::Timestamptz,
            Leaf::Date(_) => PrimitiveType::Date,
            Leaf::Present => PrimitiveType::Boolean,
            Leaf::Retired => return None,
        })
    }

    /// The message type that it is one value of.
    pub fn message(self) -> Option<MessageId> {
        match self {
            Leaf::Timestamp(id)
            | Leaf::TimestampLong(id, _)
            | Leaf::Duration(id)
            | Leaf::DurationMillis(id)
            | Leaf::Wrapper(id, _)
            | Leaf::WrapperAsLong(id)
            | Leaf::Date(id)
            | Leaf::Json(id) => Some(id),
            Leaf::Scalar(_)
            | Leaf::UnsignedAsLong(_)
            | Leaf::EnumName(_)
            | Leaf::EnumNumber(_)
            | Leaf::Present
            | Leaf::Case(..)
            | Leaf::Retired => None,
        }
    }

    fn wire_kind(self, pool: &Pool) -> Option<String> {
        Some(match self {
            Leaf::Scalar(kind) | Leaf::UnsignedAsLong(kind) => kind.name(pool).to_string(),
            Leaf::EnumName(_) | Leaf::EnumNumber(_) => "enum".to_string(),
            Leaf::Timestamp(id)
            | Leaf::TimestampLong(id, Unit::Micros)
            | Leaf::Duration(id)
            | Leaf::Date(id)
            | Leaf::Wrapper(id, _)
            | Leaf::WrapperAsLong(id) => pool.message(id).full_name.clone(),
            Leaf::TimestampLong(id, Unit::Millis) | Leaf::DurationMillis(id) => {
                format!("{}{IN_MILLIS}", pool.message(id).full_name)
            }
            Leaf::Json(id) => match well_known::json_form(pool, id) {
                JsonForm::Struct | JsonForm::Value | JsonForm::ListValue => pool.message(id).full_name.clone(),
                _ => JSON.to_string(),
            },
            Leaf::Case(..) => "oneof".to_string(),
            Leaf::Present | Leaf::Retired => return None,
        })
    }
}

/// In the column map: the JSON of a message that could be a struct too.
pub(super) const JSON: &str = "json";

/// Messages and enums have no scalar's type; as a scalar they would be their bytes and their number.
fn scalar_type(kind: Kind) -> PrimitiveType {
    match kind {
        Kind::Bool => PrimitiveType::Boolean,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => PrimitiveType::Int,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint32 | Kind::Fixed32 => PrimitiveType::Long,
        Kind::Uint64 | Kind::Fixed64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        Kind::Float => PrimitiveType::Float,
        Kind::Double => PrimitiveType::Double,
        Kind::String => PrimitiveType::String,
        Kind::Bytes | Kind::Message(_) | Kind::Group(_) => PrimitiveType::Binary,
    }
}
