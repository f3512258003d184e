//! Lists of scalars in one length-delimited value.

use super::{Run, Stop, ok, varint};
use crate::batch::RejectCode;
use crate::shred::plan::{Field, Op};
use crate::shred::unchecked;
use crate::shred::wire;

impl<'a> Run<'a, '_> {
    /// Elements without tags; the position behind them.
    #[inline(never)]
    pub(super) fn packed(&mut self, field: &'a Field, at: usize, end: usize, row: usize) -> Option<usize> {
        let plan = self.plan;
        let buffer = self.buffer;
        let (mut at, stop) = ok!(self, wire::length(buffer, at, end));
        // No element is shorter than a byte.
        let list = field.list as usize;
        let first = self.columns.reserve(list, stop - at);
        let columns = &mut *self.columns;
        let column = field.column as usize;

        macro_rules! varints {
            ($columns:ident, $convert:expr) => {{
                let values = &mut columns.$columns[column].values[first..];
                let mut count = 0;
                while at < stop {
                    let word = wire::load8(buffer, at);
                    if word & 0x8080_8080_8080_8080 == 0 && at + 8 <= stop {
                        // Eight values of a byte each.
                        for (index, byte) in word.to_le_bytes().into_iter().enumerate() {
                            *unchecked::slot(values, count + index) = $convert(u64::from(byte));
                        }
                        count += 8;
                        at += 8;
                        continue;
                    }
                    let (value, next) = varint!(self, at, stop);
                    *unchecked::slot(values, count) = $convert(value);
                    count += 1;
                    at = next;
                }
                count
            }};
        }
        macro_rules! fixed {
            ($columns:ident, $bytes:literal, $convert:expr) => {{
                let (chunks, rest) = buffer[at..stop].as_chunks::<$bytes>();
                if !rest.is_empty() {
                    return self.stop(Stop::Malformed(RejectCode::Truncated));
                }
                let values = &mut columns.$columns[column].values[first..];
                for (value, bytes) in values.iter_mut().zip(chunks) {
                    *value = $convert(*bytes);
                }
                at = stop;
                chunks.len()
            }};
        }
        let mut out_of_range = false;
        let elements = match field.element {
            Op::Bool => varints!(bools, |value| u8::from(value != 0)),
            Op::Int32 | Op::EnumOpen => varints!(i32s, |value| value as i32),
            Op::Sint32 => varints!(i32s, wire::zigzag32),
            Op::Int64 => varints!(i64s, |value| value as i64),
            Op::Sint64 => varints!(i64s, wire::zigzag64),
            Op::Uint32 => varints!(i64s, |value| i64::from(value as u32)),
            Op::Uint64 => varints!(i128s, i128::from),
            Op::Uint64Long => varints!(i64s, |value| {
                out_of_range |= value > i64::MAX as u64;
                value as i64
            }),
            Op::EnumClosed => {
                let names = plan.names(field);
                let values = &mut columns.i32s[column].values[first..];
                let mut count = 0;
                while at < stop {
                    let (value, next) = varint!(self, varint32, buffer, at, stop);
                    if names.has(value as i32) {
                        *unchecked::slot(values, count) = value as i32;
                        count += 1;
                    } else {
                        self.raw = true;
                    }
                    at = next;
                }
                count
            }
            Op::Fixed32 => fixed!(i64s, 4, |bytes| i64::from(u32::from_le_bytes(bytes))),
            Op::Sfixed32 => fixed!(i32s, 4, i32::from_le_bytes),
            Op::Float => fixed!(f32s, 4, f32::from_le_bytes),
            Op::Fixed64 => fixed!(i128s, 8, |bytes| i128::from(u64::from_le_bytes(bytes))),
            Op::Fixed64Long => fixed!(i64s, 8, |bytes| {
                let value = i64::from_le_bytes(bytes);
                out_of_range |= value < 0;
                value
            }),
            Op::Sfixed64 => fixed!(i64s, 8, i64::from_le_bytes),
            Op::Double => fixed!(f64s, 8, f64::from_le_bytes),
            // No other type is ever packed.
            _ => return self.stop(Stop::Irregular),
        };
        self.columns.add_reserved(list, row, elements);
        if out_of_range {
            self.refuse(field, RejectCode::OutOfRange);
        }
        if at > stop { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(stop) }
    }
}
