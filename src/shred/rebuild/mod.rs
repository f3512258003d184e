//! Rows back into messages: the shredder's inverse.
//!
//! A row's message columns and its `_raw` together hold the record's whole meaning. Where `_raw` is set it is the
//! message; everywhere else the columns alone give it back: field for field what was shredded, though not byte for byte
//! what a writer sent, because order, packing and overwritten values are no part of a message.

mod json;
mod text;

pub use json::message as from_json;

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};

use super::frame::Framing;
use super::wire::{self, put_varint};
use crate::schema::mapping::{Column, Leaf, Mapping, Shape, Unit};
use crate::schema::model::{Cardinality, EnumId, Field, Kind, MessageId, Pool, Presence};

/// Why a row is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Column names from the table's top level; empty for the row as a whole.
    pub path: String,
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(what: impl Into<String>) -> Self {
        Error { path: String::new(), what: what.into() }
    }

    /// The same, seen from the column's parent.
    fn under(mut self, column: &str) -> Self {
        self.path = if self.path.is_empty() { column.to_owned() } else { format!("{column}.{}", self.path) };
        self
    }
}

/// The message that a row was made of, encoded: equal in meaning to the record's, and valid.
///
/// `batch` has the mapping's Arrow schema, as [`Shredder::take`](super::Shredder::take) makes it or a reader of the
/// table does (strings and bytes may have offsets of 32 or 64 bits), and its rows were written by this mapping; `framing`
/// is what `_raw` has around the message. `None` for a tombstone: a row whose message columns are all null, though the
/// message has one that never is. (A table in which every field is optional shows an empty message and a tombstone
/// alike; both give the empty message.)
///
/// Fails where the batch is not of this schema, or a column holds what the shredder never writes: a null in a list, an
/// enumeration's name that the schema has not (any more), JSON text that is not the message's.
pub fn rebuild(mapping: &Mapping, framing: Framing, batch: &RecordBatch, row: usize) -> Result<Option<Vec<u8>>, Error> {
    let count = mapping.columns.len();
    let raw = batch.columns().get(count + 1).ok_or_else(|| Error::new("the batch lacks columns of the mapping"))?;
    if let Some(raw) = bytes(raw, row).map_err(|error| error.under("_raw"))? {
        let message = framing.message(raw).map_err(|misframed| Error::new(misframed.detail).under("_raw"))?;
        return Ok(Some(message.to_vec()));
    }
    let columns = &batch.columns()[..count];
    let never_null = |column: &Column| never_null(&mapping.pool, mapping.message, column);
    if columns.iter().all(|array| array.is_null(row)) && mapping.columns.iter().any(never_null) {
        return Ok(None);
    }
    let writer = Writer { pool: &mapping.pool };
    let mut out = Vec::new();
    match mapping.columns.as_slice() {
        // The topic's message is a well-known type: the one column is the message.
        [column] if column.number == 0 && is_message(&column.shape, mapping.message) => {
            let body = writer.body(mapping.message, &column.shape, &columns[0], row);
            out = body.map_err(|error| error.under(&column.name))?;
        }
        all => writer.fields(mapping.message, all, columns, row, &mut out)?,
    }
    Ok(Some(out))
}

/// Whether a column has a value in every row whose message is there.
fn never_null(pool: &Pool, message: MessageId, column: &Column) -> bool {
    match pool.message(message).field(column.number) {
        Some(field) => !matches!(field.cardinality, Cardinality::Singular(Presence::Explicit | Presence::Required)),
        None => column.shape == Shape::Leaf(Leaf::Present) || is_message(&column.shape, message),
    }
}

/// Whether a column holds such a message in one value of its own.
fn is_message(shape: &Shape, message: MessageId) -> bool {
    match shape {
        Shape::Leaf(leaf) => leaf.message() == Some(message),
        Shape::Struct(inner) => inner.message == message,
        _ => false,
    }
}

/// Encodes values as the schema's own writers do.
struct Writer<'a> {
    pool: &'a Pool,
}

impl Writer<'_> {
    /// Appends the fields of a message that columns hold.
    fn fields(
        &self,
        message: MessageId,
        columns: &[Column],
        arrays: &[ArrayRef],
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let definition = self.pool.message(message);
        for (column, array) in columns.iter().zip(arrays) {
            // A column that no field fills says nothing about the message, and a null one that the field is not there.
            let Some(field) = definition.field(column.number).filter(|_| !array.is_null(row)) else { continue };
            let written = if definition.message_set {
                self.set_item(field, &column.shape, array, row, out)
            } else {
                self.field(field, &column.shape, array, row, out)
            };
            written.map_err(|error| error.under(&column.name))?;
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        shape: &Shape,
        array: &ArrayRef,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match (field.cardinality, shape) {
            (Cardinality::Singular(presence), shape) => {
                let start = out.len();
                let value = self.occurrence(field.number, field.kind, shape, array, row, out)?;
                // A default is encoded as zeros, and nothing else is.
                if presence == Presence::Implicit && out[value..].iter().all(|byte| *byte == 0) {
                    out.truncate(start);
                }
            }
            (Cardinality::Repeated, Shape::List(element)) => {
                let list = array.as_list_opt::<i32>().ok_or_else(|| unfit(array))?;
                let (values, range) = (list.values(), span(list.value_offsets(), row));
                if field.packed && wire_type(field.kind) != wire::LENGTH && !range.is_empty() {
                    let mut packed = Vec::with_capacity(range.len());
                    for element in range {
                        self.scalar(field.kind, values, element, &mut packed)?;
                    }
                    put_tag(field.number, wire::LENGTH, out);
                    put_delimited(&packed, out);
                } else {
                    for row in range {
                        self.occurrence(field.number, field.kind, element, values, row, out)?;
                    }
                }
            }
            (Cardinality::Map { key }, Shape::Map { value: shape, .. }) => {
                let map = array.as_map_opt().ok_or_else(|| unfit(array))?;
                for row in span(map.value_offsets(), row) {
                    let mut entry = Vec::new();
                    self.occurrence(1, key, &Shape::Leaf(Leaf::Scalar(key)), map.keys(), row, &mut entry)?;
                    let end = entry.len();
                    let value = self.occurrence(2, field.kind, shape, map.values(), row, &mut entry)?;
                    if is_foreign_zero(self.pool, field.kind, &entry[value..]) {
                        entry.truncate(end);
                    }
                    put_tag(field.number, wire::LENGTH, out);
                    put_delimited(&entry, out);
                }
            }
            _ => return Err(Error::new("the field is repeated and its column is not")),
        }
        Ok(())
    }

    /// An item of a MessageSet.
    fn set_item(
        &self,
        field: &Field,
        shape: &Shape,
        array: &ArrayRef,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (Kind::Message(id) | Kind::Group(id)) = field.kind else {
            return Err(Error::new("an item of a MessageSet that is not a message"));
        };
        json::put_set_item(field.number, &self.body(id, shape, array, row)?, out);
        Ok(())
    }

    /// One tag and value; where the value starts.
    fn occurrence(
        &self,
        number: u32,
        kind: Kind,
        shape: &Shape,
        array: &ArrayRef,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        put_tag(number, wire_type(kind), out);
        let value = out.len();
        match kind {
            Kind::Message(id) => put_delimited(&self.body(id, shape, array, row)?, out),
            Kind::Group(id) => {
                out.extend(self.body(id, shape, array, row)?);
                put_tag(number, wire::END_GROUP, out);
            }
            scalar => self.scalar(scalar, array, row, out)?,
        }
        Ok(value)
    }

    /// A message's own bytes.
    fn body(&self, id: MessageId, shape: &Shape, array: &ArrayRef, row: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        if array.is_null(row) {
            return Err(Error::new("a null where a message must be, and no _raw"));
        }
        match shape {
            Shape::Struct(inner) => {
                let columns = array.as_struct_opt().ok_or_else(|| unfit(array))?.columns();
                self.fields(id, &inner.columns, columns, row, &mut out)?;
            }
            Shape::Leaf(Leaf::Timestamp(_) | Leaf::TimestampLong(_, Unit::Micros)) => {
                let micros = integer(array, row)?;
                seconds_and_nanos(micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) * 1000, &mut out);
            }
            Shape::Leaf(Leaf::TimestampLong(_, Unit::Millis)) => {
                let millis = integer(array, row)?;
                seconds_and_nanos(millis.div_euclid(1000), millis.rem_euclid(1000) * 1_000_000, &mut out);
            }
            Shape::Leaf(Leaf::Duration(_)) => {
                let micros = integer(array, row)?;
                seconds_and_nanos(micros / 1_000_000, micros % 1_000_000 * 1000, &mut out);
            }
            Shape::Leaf(Leaf::DurationMillis(_)) => {
                let millis = integer(array, row)?;
                seconds_and_nanos(millis / 1000, millis % 1000 * 1_000_000, &mut out);
            }
            Shape::Leaf(Leaf::Date(_)) => {
                let (year, month, day) = civil(integer(array, row)?);
                for (number, value) in [(1, year), (2, month), (3, day)] {
                    put_tag(number, wire::VARINT, &mut out);
                    put_varint(&mut out, value as u64);
                }
            }
            Shape::Leaf(Leaf::Wrapper(_, kind)) => self.wrapper(*kind, array, row, &mut out)?,
            Shape::Leaf(Leaf::WrapperAsLong(_)) => self.wrapper(Kind::Uint64, array, row, &mut out)?,
            Shape::Leaf(Leaf::Json(_)) => out = from_json(self.pool, id, text(array, row)?).map_err(Error::new)?,
            _ => return Err(Error::new("the field is a message and its column is not")),
        }
        Ok(out)
    }

    /// A wrapper's one field; its default is left out.
    fn wrapper(&self, kind: Kind, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let value = self.occurrence(1, kind, &Shape::Leaf(Leaf::Scalar(kind)), array, row, out)?;
        if out[value..].iter().all(|byte| *byte == 0) {
            out.clear();
        }
        Ok(())
    }

    /// A scalar's or an enumeration's value.
    fn scalar(&self, kind: Kind, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if array.is_null(row) {
            return Err(Error::new("a null where a value must be, and no _raw"));
        }
        match kind {
            Kind::Bool => {
                let array = array.as_boolean_opt().ok_or_else(|| unfit(array))?;
                out.push(array.value(row).into());
            }
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => put_varint(out, integer(array, row)? as u64),
            // Zigzag is the same for 32 and 64 bits.
            Kind::Sint32 | Kind::Sint64 => {
                let value = integer(array, row)? as i64;
                put_varint(out, (value << 1 ^ value >> 63) as u64);
            }
            Kind::Sfixed32 => out.extend(narrow::<i32>(integer(array, row)?)?.to_le_bytes()),
            Kind::Fixed32 => out.extend(narrow::<u32>(integer(array, row)?)?.to_le_bytes()),
            Kind::Sfixed64 => out.extend(narrow::<i64>(integer(array, row)?)?.to_le_bytes()),
            Kind::Fixed64 => out.extend(narrow::<u64>(integer(array, row)?)?.to_le_bytes()),
            // Bits as they are: a conversion would quieten a signalling NaN.
            Kind::Float => match array.as_primitive_opt::<Float32Type>() {
                Some(floats) => out.extend(floats.value(row).to_le_bytes()),
                None => out.extend((real(array, row)? as f32).to_le_bytes()),
            },
            Kind::Double => out.extend(real(array, row)?.to_le_bytes()),
            Kind::String => put_delimited(text(array, row)?.as_bytes(), out),
            Kind::Bytes => put_delimited(bytes(array, row)?.unwrap_or_default(), out),
            Kind::Enum(id) => {
                let number = match array.data_type() {
                    DataType::Utf8 | DataType::LargeUtf8 => self.number(id, text(array, row)?)?,
                    _ => narrow::<i32>(integer(array, row)?)?,
                };
                put_varint(out, i64::from(number) as u64);
            }
            Kind::Message(_) | Kind::Group(_) => return Err(Error::new("a message where a scalar was expected")),
        }
        Ok(())
    }

    /// The number behind a name, or behind the digits that stand for a number without one.
    fn number(&self, id: EnumId, name: &str) -> Result<i32, Error> {
        let enumeration = self.pool.enumeration(id);
        let value = enumeration.values.iter().find(|value| value.name == name).map(|value| value.number);
        let number = value.or_else(|| name.parse().ok());
        number.ok_or_else(|| Error::new(format!("{} has no value named {name}", enumeration.full_name)))
    }
}

/// Whether a map's value is the zero of a closed enumeration that has none. An entry without a value holds it; written
/// out, it would make the whole entry an unknown field.
fn is_foreign_zero(pool: &Pool, kind: Kind, value: &[u8]) -> bool {
    let Kind::Enum(id) = kind else { return false };
    let enumeration = pool.enumeration(id);
    value == [0] && enumeration.closed && enumeration.values.iter().all(|value| value.number != 0)
}

fn wire_type(kind: Kind) -> u32 {
    match kind {
        Kind::Bool
        | Kind::Int32
        | Kind::Sint32
        | Kind::Int64
        | Kind::Sint64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Enum(_) => wire::VARINT,
        Kind::Sfixed64 | Kind::Fixed64 | Kind::Double => wire::FIXED64,
        Kind::Sfixed32 | Kind::Fixed32 | Kind::Float => wire::FIXED32,
        Kind::String | Kind::Bytes | Kind::Message(_) => wire::LENGTH,
        Kind::Group(_) => wire::START_GROUP,
    }
}

fn put_tag(number: u32, wire: u32, out: &mut Vec<u8>) {
    put_varint(out, u64::from(number << 3 | wire));
}

fn put_delimited(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The two fields of a Timestamp or a Duration; zeros are left out.
fn seconds_and_nanos(seconds: i128, nanos: i128, out: &mut Vec<u8>) {
    for (number, value) in [(1, seconds), (2, nanos)] {
        if value != 0 {
            put_tag(number, wire::VARINT, out);
            put_varint(out, value as u64);
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the arithmetic of [`super::well_known::date`] backwards:
/// years from March, in eras of 400.
fn civil(days: i128) -> (i64, i64, i64) {
    let days = days as i64 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

/// Elements of a row.
fn span(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

fn unfit(array: &ArrayRef) -> Error {
    Error::new(format!("a column of type {} for this field", array.data_type()))
}

fn narrow<T: TryFrom<i128>>(value: i128) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::new(format!("{value} does not fit the field's type")))
}

/// A whole number, whatever Iceberg widened the column to.
fn integer(array: &ArrayRef, row: usize) -> Result<i128, Error> {
    Ok(match array.data_type() {
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).into(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).into()
        }
        DataType::Decimal128(_, 0) => array.as_primitive::<Decimal128Type>().value(row),
        _ => return Err(unfit(array)),
    })
}

fn real(array: &ArrayRef, row: usize) -> Result<f64, Error> {
    Ok(match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row),
        _ => return Err(unfit(array)),
    })
}

fn text(array: &ArrayRef, row: usize) -> Result<&str, Error> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => return Err(unfit(array)),
    })
}

fn bytes(array: &ArrayRef, row: usize) -> Result<Option<&[u8]>, Error> {
    let value = match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        _ => return Err(unfit(array)),
    };
    Ok((!array.is_null(row)).then_some(value))
}
