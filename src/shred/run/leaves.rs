//! Messages that are one value of a column: well-known types, and messages that become JSON.

use super::{Columns, ORDERED, Run, Stop, of_scalar, ok, varint};
use crate::batch::RejectCode;
use crate::shred::json;
use crate::shred::plan::{ColumnRef, Field, Op};
use crate::shred::unchecked;
use crate::shred::well_known;
use crate::shred::wire::{self, DEPTH_MAX};

impl<'a> Run<'a, '_> {
    /// A message that is one value of a column; the position behind it.
    #[inline(never)]
    pub(super) fn leaf(
        &mut self,
        field: &'a Field,
        op: Op,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        let (start, stop) = ok!(self, wire::length(self.buffer, at, end));
        self.leaf_field(field, op, start, stop, row, depth)?;
        Some(stop)
    }

    /// The same of the leaf that there is in most messages.
    #[inline(never)]
    pub(super) fn timestamp<const ORDER: bool>(
        &mut self,
        field: &'a Field,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        let (start, stop) = ok!(self, self.ends().length(at, end, depth));
        if ORDER == ORDERED {
            self.time(field, Op::Timestamp, start, stop, row, depth + 1)?;
        } else {
            self.leaf_field(field, Op::Timestamp, start, stop, row, depth)?;
        }
        Some(stop)
    }

    /// A field whose message is `buffer[at..end]`, with `depth` messages around the field.
    #[inline(always)]
    pub(super) fn leaf_field(
        &mut self,
        field: &'a Field,
        op: Op,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<()> {
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        let column = field.column as usize;
        let is_marked = match op {
            Op::Timestamp | Op::Duration => unchecked::slot(&mut self.columns.i64s, column).present.get(row),
            Op::Wrapper => self.columns.touched(field.value_column(), row),
            Op::Date => self.columns.i32s[column].present.get(row),
            _ => self.columns.texts[column].lengths.has(row),
        };
        if is_marked {
            return self.stop(Stop::Irregular);
        }
        self.leaf_message(field, op, at, end, row, depth + 1)
    }

    #[inline(always)]
    pub(super) fn leaf_message(
        &mut self,
        field: &'a Field,
        op: Op,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<()> {
        match op {
            Op::Timestamp | Op::Duration => self.time(field, op, at, end, row, depth),
            Op::Date => self.date(field, at, end, row, depth),
            Op::Json => self.json(field, at, end, row, depth),
            _ => self.wrapper(field, at, end, row, depth),
        }
    }

    #[inline(always)]
    fn time(&mut self, field: &'a Field, op: Op, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let (seconds, next) = self.number(0x08, at, end)?;
        let (nanos, next) = self.number(0x10, next, end)?;
        if next != end {
            return self.odd_time(field, op, at, end, row, depth);
        }
        self.put_time(field, op, [seconds, nanos], row);
        Some(())
    }

    /// One whose fields do not come in turn.
    #[inline(never)]
    fn odd_time(&mut self, field: &'a Field, op: Op, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let numbers = self.odd_numbers([0; 2], at, end, depth)?;
        self.put_time(field, op, numbers, row);
        Some(())
    }

    #[inline(always)]
    fn put_time(&mut self, field: &'a Field, op: Op, [seconds, nanos]: [u64; 2], row: usize) {
        let (seconds, nanos) = (seconds as i64, nanos as i32);
        let micros = if op == Op::Timestamp {
            well_known::timestamp(seconds, nanos)
        } else {
            well_known::duration(seconds, nanos)
        };
        let (mut micros, cut) = match micros {
            Ok(micros) => micros,
            Err(well_known::OutOfRange) => {
                self.refuse(field, RejectCode::OutOfRange);
                (0, false)
            }
        };
        self.raw |= cut;
        if field.inner == Op::Millis {
            self.raw |= micros.rem_euclid(1000) != 0;
            micros = micros.div_euclid(1000);
        }
        self.slots.put(field.slot, row, micros);
    }

    #[inline(never)]
    fn date(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let (year, at) = self.number(0x08, at, end)?;
        let (month, at) = self.number(0x10, at, end)?;
        let (day, at) = self.number(0x18, at, end)?;
        let mut numbers = [year, month, day];
        if at != end {
            numbers = self.odd_numbers(numbers, at, end, depth)?;
        }
        let [year, month, day] = numbers;
        let days = well_known::date(year as i32, month as i32, day as i32);
        self.raw |= days.is_none();
        self.columns.i32s[field.column as usize].put(row, days.unwrap_or(well_known::NO_DATE));
        Some(())
    }

    /// A message that is text.
    #[inline(never)]
    pub(super) fn json(&mut self, field: &Field, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let Columns { texts, scratch, .. } = &mut *self.columns;
        let text = &mut texts[field.column as usize];
        let start = text.data.len();
        let (types, span) = (&self.plan.json, (at, end));
        let buffer = self.buffer;
        match text.data.with(|data| json::write(types, field.node, buffer, span, depth, scratch, data)) {
            Ok(written) => {
                text.finish(row, start);
                self.raw |= written.raw;
                if let Some(code) = written.refused {
                    self.refuse(field, code);
                }
                Some(())
            }
            Err(code) => {
                text.data.truncate(start);
                self.stop(Stop::Malformed(code))
            }
        }
    }

    /// The varint field that comes next, if its tag is that one of one byte, or zero; the position behind it.
    #[inline(always)]
    fn number(&mut self, tag: u8, at: usize, end: usize) -> Option<(u64, usize)> {
        if at < end && wire::load1(self.buffer, at) == tag {
            return Some(varint!(self, at + 1, end));
        }
        Some((0, at))
    }

    /// The varint fields 1 to `N` (at most 3) of a message; `numbers` where absent.
    #[inline(never)]
    fn odd_numbers<const N: usize>(
        &mut self,
        mut numbers: [u64; N],
        mut at: usize,
        end: usize,
        depth: u32,
    ) -> Option<[u64; N]> {
        while at < end {
            let (tag, next) = ok!(self, wire::tag(self.buffer, at, end));
            match numbers.get_mut((tag >> 3) as usize - 1) {
                Some(number) if tag & 7 == wire::VARINT => (*number, at) = varint!(self, next, end),
                _ => {
                    self.raw = true;
                    at = ok!(self, wire::skip(self.buffer, next, end, tag, depth));
                }
            }
        }
        if at > end { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(numbers) }
    }

    /// The last value of a wrapper, or its type's default.
    #[inline(always)]
    fn wrapper(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let expected = 1 << 3 | field.inner.wire();
        // As writers write it: the value alone, or nothing.
        if at < end && wire::load8(self.buffer, at) & 0xff == u64::from(expected) {
            let next = of_scalar!(
                field.inner,
                |op| match op {
                    // Put only if nothing follows: it could not be put again.
                    Op::String | Op::Bytes if ok!(self, wire::length(self.buffer, at + 1, end)).1 != end => 0,
                    op => self.scalar(self.ends(), field, op, at + 1, end, row)?,
                },
                0
            );
            if next == end {
                return Some(());
            }
        }
        self.odd_wrapper(field, expected, at, end, row, depth)
    }

    /// One without a value, with more than one, or with other fields.
    #[inline(never)]
    fn odd_wrapper(
        &mut self,
        field: &'a Field,
        expected: u32,
        mut at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<()> {
        let mut last = None;
        while at < end {
            let (tag, next) = ok!(self, wire::tag(self.buffer, at, end));
            let stop = ok!(self, wire::skip(self.buffer, next, end, tag, depth));
            if tag != expected {
                self.raw = true;
            } else if let Some(before) = last.replace(next)
                && field.inner == Op::String
            {
                // Overwritten, but a parser has read it.
                let (start, stop) = ok!(self, wire::length(self.buffer, before, end));
                if simdutf8::basic::from_utf8(&self.buffer[start..stop]).is_err() {
                    return self.stop(Stop::Malformed(RejectCode::InvalidUtf8));
                }
            }
            at = stop;
        }
        match last {
            // A wrapper's value is a scalar.
            Some(at) => self.value(field, field.inner, at, end, row, depth).map(|_| ()),
            None => {
                self.columns.put_default(field.value_column(), row);
                Some(())
            }
        }
    }
}

impl Columns {
    fn put_default(&mut self, column: ColumnRef, row: usize) {
        match column {
            ColumnRef::Bool(index) => self.bools[index as usize].put(row, 0),
            ColumnRef::I32(index) => self.i32s[index as usize].put(row, 0),
            ColumnRef::I64(index) => self.i64s[index as usize].put(row, 0),
            ColumnRef::I128(index) => self.i128s[index as usize].put(row, 0),
            ColumnRef::F32(index) => self.f32s[index as usize].put(row, 0.0),
            ColumnRef::F64(index) => self.f64s[index as usize].put(row, 0.0),
            ColumnRef::Text(index) => self.texts[index as usize].push(row, b""),
            ColumnRef::Struct(_) | ColumnRef::List(_) => {}
        }
    }
}
