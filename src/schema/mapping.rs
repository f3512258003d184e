//! The columns of a table: what each field of a message becomes (mapping version 1).

use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::spec::SchemaRef as IcebergSchemaRef;

use super::model::{EnumId, Kind, MessageId, Pool};

/// A message's table: its columns, and the whole schema with `_kafka` and `_raw` in Iceberg's and Arrow's terms.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub pool: Arc<Pool>,
    pub message: MessageId,
    /// The message's own columns, in the table's order.
    pub columns: Vec<Column>,
    /// All columns, field ids assigned.
    pub iceberg: IcebergSchemaRef,
    /// The same for Arrow, each field with its `PARQUET:field_id`: message columns, `_kafka`, `_raw`.
    pub arrow: ArrowSchemaRef,
}

/// One column (or struct field) that a Protobuf field fills.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The field's number in its message; `0` for a column that no field fills (`_present`, a dropped field's column,
    /// the `value` of a topic whose message is itself a well-known type).
    pub number: u32,
    pub shape: Shape,
    pub doc: Option<String>,
}

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
    /// google.protobuf.Duration → long, µs.
    Duration(MessageId),
    /// One of the nine wrappers → its scalar.
    Wrapper(MessageId, Kind),
    /// google.type.Date → date.
    Date(MessageId),
    /// The boolean that says that an empty message was there.
    Present,
    /// A column that no field of the message fills any more: always null. Its type is the table's.
    Retired,
}
