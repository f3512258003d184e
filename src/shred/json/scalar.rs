//! Values that are no messages, as JSON.

use super::super::wire;
use super::text;
use super::types::Value;
use super::write::Writer;
use crate::schema::model::Kind;

impl Writer<'_> {
    /// A varint that was skipped before.
    pub(super) fn varint(&self, at: usize) -> u64 {
        wire::varint(self.buffer, at).map_or(0, |(value, _)| value)
    }

    /// The bits of a whole number, as its type tells numbers apart.
    pub(super) fn number(&self, kind: Kind, at: usize) -> u64 {
        match kind {
            Kind::Bool => u64::from(self.varint(at) != 0),
            Kind::Int32 | Kind::Uint32 => u64::from(self.varint(at) as u32),
            Kind::Sint32 => u64::from(wire::zigzag32(self.varint(at)) as u32),
            Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => u64::from(wire::load4(self.buffer, at)),
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => wire::load8(self.buffer, at),
            Kind::Sint64 => wire::zigzag64(self.varint(at)) as u64,
            _ => self.varint(at),
        }
    }

    pub(super) fn is_default(&self, value: Value, at: usize, end: usize) -> bool {
        match value {
            Value::Scalar(Kind::String | Kind::Bytes) => at == end,
            Value::Scalar(kind) => self.number(kind, at) == 0,
            Value::OpenEnum(_) | Value::ClosedEnum(_) | Value::Null => self.varint(at) as i32 == 0,
            Value::Message(_) | Value::Group(_) => false,
        }
    }

    /// A value that is no message.
    pub(super) fn scalar(&mut self, value: Value, at: usize, end: usize) {
        match value {
            Value::Scalar(Kind::String) => text::put_string(self.out, &self.buffer[at..end]),
            Value::Scalar(Kind::Bytes) => text::put_base64(self.out, &self.buffer[at..end]),
            Value::Scalar(kind) => self.put_number(kind, self.number(kind, at)),
            Value::OpenEnum(names) | Value::ClosedEnum(names) => self.put_enum(names, self.varint(at) as i32),
            Value::Null => {
                self.written.raw |= self.varint(at) as i32 != 0;
                self.out.extend_from_slice(b"null");
            }
            Value::Message(_) | Value::Group(_) => {}
        }
    }

    pub(super) fn default(&mut self, value: Value) {
        match value {
            Value::Scalar(Kind::String | Kind::Bytes) => self.out.extend_from_slice(b"\"\""),
            Value::Scalar(kind) => self.put_number(kind, 0),
            Value::OpenEnum(names) | Value::ClosedEnum(names) => self.put_enum(names, 0),
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Message(_) | Value::Group(_) => {}
        }
    }

    fn put_enum(&mut self, names: u32, number: i32) {
        match self.types.enums[names as usize].name(number) {
            Some(name) => text::put(self.out, format_args!("\"{name}\"")),
            None => text::put(self.out, format_args!("{number}")),
        }
    }

    fn put_number(&mut self, kind: Kind, bits: u64) {
        match kind {
            Kind::Bool => text::put(self.out, format_args!("{}", bits != 0)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text::put(self.out, format_args!("{}", bits as i32)),
            Kind::Uint32 | Kind::Fixed32 => text::put(self.out, format_args!("{}", bits as u32)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text::put(self.out, format_args!("\"{}\"", bits as i64)),
            Kind::Uint64 | Kind::Fixed64 => text::put(self.out, format_args!("\"{bits}\"")),
            // There are many NaNs, and one name for them.
            Kind::Float => {
                let number = f32::from_bits(bits as u32);
                self.written.raw |= number.is_nan() && number.to_bits() != f32::NAN.to_bits();
                text::put_float(self.out, number);
            }
            Kind::Double => {
                let number = f64::from_bits(bits);
                self.written.raw |= number.is_nan() && number.to_bits() != f64::NAN.to_bits();
                text::put_double(self.out, number);
            }
            Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => {}
        }
    }
}
