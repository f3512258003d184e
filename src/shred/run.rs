//! The interpreter: one pass over a record's bytes, values straight into columns.
//!
//! It takes records the way writers write them. What is legal but rare — a message in several pieces, a second member
//! of a oneof, a key twice in a map — stops it, and so does every fault; `normalize` then rewrites the record into the
//! plain form or says what is wrong with it.

use super::columns::{Columns, Oneof, Primitive};
use super::plan::{ColumnRef, Default, Field, NONE, Node, Op, Plan, Root};
use super::wire::{self, DEPTH_MAX};
use super::{json, message_set, unchecked, well_known};
use crate::batch::RejectCode;

/// Why a pass ended early; the columns hold the record's beginning and must be cut back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Legal, but not the plain form.
    Irregular,
    Malformed(RejectCode),
}

/// A value that Protobuf or its column refuses, known only at the record's end to be the last word on its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: RejectCode,
    pub node: u32,
    /// Index into the node's fields.
    pub field: u16,
}

/// A group whose fields are being read.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// The field's number; no field has 0.
    number: u32,
    /// Messages around its fields.
    depth: u32,
    /// The position behind its end, once that was read.
    end: usize,
}

impl Group {
    const NONE: Group = Group { number: 0, depth: 0, end: 0 };
}

/// What the position in a message becomes at its group's end: past all ends.
const CLOSED: usize = usize::MAX;

/// One pass over one record.
pub struct Run<'a> {
    plan: &'a Plan,
    columns: &'a mut Columns,
    /// The record and [`wire::PADDING`] more bytes.
    buffer: &'a [u8],
    /// The columns do not hold all that the record says.
    pub raw: bool,
    pub refusal: Option<Refusal>,
    /// A scalar was overwritten: a refusal may be about a value that is gone.
    pub overwritten: bool,
    /// Why the pass ended; the functions below answer `None` then, which takes no more than a register.
    stop: Option<Stop>,
    /// The innermost group that is open.
    group: Group,
}

macro_rules! ok {
    ($self:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(code) => return $self.stop(Stop::Malformed(code)),
        }
    };
}

macro_rules! varint {
    ($self:ident, $at:expr, $end:expr) => {
        match wire::varint($self.buffer, $at) {
            Some(found) => found,
            None => return $self.stop(Stop::Malformed(wire::varint_fault($at, $end))),
        }
    };
}

/// Runs the body with the op as a constant, one copy for each, so that one jump leads to the code of one op. All are
/// listed, so that no check stands before the jump.
macro_rules! dispatch {
    ($op:expr, |$name:ident| $body:expr) => {
        dispatch!(
            $op, $name, $body, Bool, Int32, Sint32, Int64, Sint64, Uint32, Uint64, Uint64Long, EnumOpen, EnumClosed,
            Fixed32, Sfixed32, Float, Fixed64, Fixed64Long, Sfixed64, Double, String, Bytes, Message, Timestamp,
            Duration, Date, Wrapper, Json, Group, Item, Repeated, Packed, Map, Member, SkipVarint, SkipFixed64,
            SkipLength, SkipGroup, SkipFixed32, Millis, End
        )
    };
    ($op:expr, $name:ident, $body:expr, $($known:ident),*) => {
        match $op {
            $(Op::$known => {
                let $name = Op::$known;
                $body
            })*
        }
    };
}

impl<'a> Run<'a> {
    pub fn new(plan: &'a Plan, columns: &'a mut Columns, buffer: &'a [u8]) -> Self {
        Run { plan, columns, buffer, raw: false, refusal: None, overwritten: false, stop: None, group: Group::NONE }
    }

    /// Puts the message `buffer[at..end]` into the table's row `row`.
    #[inline(always)]
    pub fn record(&mut self, at: usize, end: usize, row: usize) -> Result<(), Stop> {
        // Without a cause there was none to stop.
        self.whole(at, end, row).ok_or_else(|| self.stop.unwrap_or(Stop::Irregular))
    }

    #[cold]
    #[inline(never)]
    fn stop<T>(&mut self, stop: Stop) -> Option<T> {
        self.stop = Some(stop);
        None
    }

    #[inline(always)]
    fn whole(&mut self, at: usize, end: usize, row: usize) -> Option<()> {
        let plan = self.plan;
        match &plan.root {
            Root::Message(node) => self.message(*node, at, end, row, 0),
            Root::Struct(column, node) => {
                self.columns.touch(*column as usize, row);
                self.message(*node, at, end, row, 0)
            }
            Root::Leaf(field) => self.leaf_message(field, field.op, at, end, row, 0),
        }
    }

    fn message(&mut self, index: u32, mut at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let plan = self.plan;
        let buffer = self.buffer;
        let node = &plan.nodes[index as usize];
        let mut guess = 0;
        while at < end {
            let word = wire::load8(buffer, at);
            let mut field = unchecked::get(&node.fields, guess);
            if (word ^ field.tag) & field.mask == 0 {
                at += field.tag_bytes as usize;
            } else {
                // A tag of one byte is its own index.
                let next;
                (guess, next) = if word & 0x80 == 0 {
                    (node.dense[(word & 0x7f) as usize] as usize, at + 1)
                } else {
                    ok!(self, long_tag(node, buffer, at, end))
                };
                if guess == NONE as usize {
                    at = self.unknown(at, end, depth)?;
                    guess = 0;
                    continue;
                }
                field = unchecked::get(&node.fields, guess);
                at = next;
            }
            at = dispatch!(field.op, |op| match op {
                Op::Repeated => self.repeated(index, guess, at, end, row, depth)?,
                Op::Packed => self.packed(field, index, guess, at, end, row)?,
                Op::Map => self.map(field, at, end, row, depth)?,
                Op::Item => self.item(index, at, end, row, depth)?,
                Op::EnumClosed => self.closed(field, at, end, row)?,
                Op::Member => self.member(field, index, guess, at, end, row, depth)?,
                op => self.one(field, op, index, guess, at, end, row, depth)?,
            });
            guess = field.next as usize;
        }
        if at > end && at != CLOSED {
            return self.stop(Stop::Malformed(RejectCode::Truncated));
        }
        for (field, column) in &node.required {
            if !self.columns.touched(*column, row) {
                self.refuse(RejectCode::RequiredMissing, index, *field as usize);
            }
        }
        Some(())
    }

    /// Skips a field that has no column, or ends the group.
    #[cold]
    #[inline(never)]
    fn unknown(&mut self, at: usize, end: usize, depth: u32) -> Option<usize> {
        let (tag, next) = ok!(self, wire::tag(self.buffer, at, end));
        if tag & 7 == wire::END_GROUP && (tag >> 3, depth) == (self.group.number, self.group.depth) {
            self.group.end = next;
            return Some(CLOSED);
        }
        self.raw = true;
        Some(ok!(self, wire::skip(self.buffer, next, end, tag, depth)))
    }

    /// A closed enumeration's value; a number without a name is an unknown field, and no member of a oneof.
    fn closed(&mut self, field: &'a Field, at: usize, end: usize, row: usize) -> Option<usize> {
        let (value, next) = varint!(self, at, end);
        if self.plan.enums[field.node as usize].name(value as i32).is_none() {
            self.raw = true;
        } else if field.oneof != NONE && !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        } else {
            self.overwritten |= !self.columns.i32s[field.column as usize].put(row, value as i32);
        }
        Some(next)
    }

    /// A member of a oneof that no column is wanted of.
    #[inline(never)]
    fn skipped(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        self.raw = true;
        let next = ok!(self, wire::skip(self.buffer, at, end, field.number << 3 | field.element.wire(), depth));
        let is_member = field.inner != Op::EnumClosed || {
            let (value, _) = varint!(self, at, end);
            self.plan.enums[field.node as usize].name(value as i32).is_some()
        };
        if is_member && !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        }
        Some(next)
    }

    /// The value of a oneof's member.
    #[allow(clippy::too_many_arguments)] // As `one`.
    fn member(
        &mut self,
        field: &'a Field,
        node: u32,
        index: usize,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        if field.element == Op::EnumClosed {
            return self.closed(field, at, end, row);
        }
        if field.element.is_skip() {
            return self.skipped(field, at, end, row, depth);
        }
        if !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        }
        dispatch!(field.element, |op| self.one(field, op, node, index, at, end, row, depth))
    }

    /// Makes a field its oneof's member; false if the row has another one.
    #[inline(always)]
    fn choose(&mut self, field: &Field, row: usize) -> bool {
        let oneof = &mut self.columns.oneofs[field.oneof as usize];
        if oneof.touched > row {
            return oneof.member == field.number;
        }
        oneof.touched = row + 1;
        oneof.member = field.number;
        if oneof.case != Oneof::NO_CASE {
            self.columns.i32s[oneof.case as usize].put(row, field.number as i32);
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn refuse(&mut self, code: RejectCode, node: u32, field: usize) {
        self.refusal.get_or_insert(Refusal { code, node, field: field as u16 });
    }

    /// One value of a type that is not repeated; the position behind it.
    #[allow(clippy::too_many_arguments)]
    // Inlined into its two callers; a struct of arguments costs registers.
    // Once for each op; a build without optimisation would keep all their variables apart on the stack, some 100 KB for
    // each message that is nested.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn one(
        &mut self,
        field: &'a Field,
        op: Op,
        node: u32,
        index: usize,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        let buffer = self.buffer;
        let column = field.column as usize;
        let columns = &mut *self.columns;
        let (fresh, next) = match op {
            Op::String | Op::Bytes => {
                let (start, stop) = ok!(self, wire::length(buffer, at, end));
                if !unchecked::slot(&mut columns.texts, column).put_from(row, buffer, start, stop - start) {
                    return self.stop(Stop::Irregular);
                }
                return Some(stop);
            }
            Op::Message => {
                let (start, stop) = ok!(self, wire::length(buffer, at, end));
                if depth >= DEPTH_MAX {
                    return self.stop(Stop::Malformed(RejectCode::TooDeep));
                }
                if !columns.touch(column, row) {
                    return self.stop(Stop::Irregular);
                }
                self.message(field.node, start, stop, row, depth + 1)?;
                return Some(stop);
            }
            Op::Timestamp | Op::Duration | Op::Date | Op::Wrapper | Op::Json => {
                let (start, stop) = ok!(self, wire::length(buffer, at, end));
                self.leaf_field(field, op, node, index, start, stop, row, depth)?;
                return Some(stop);
            }
            Op::Bool => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.bools, column).put(row, u8::from(value != 0)), next)
            }
            Op::Int32 | Op::EnumOpen | Op::EnumClosed => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i32s, column).put(row, value as i32), next)
            }
            Op::Sint32 => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i32s, column).put(row, wire::zigzag32(value)), next)
            }
            Op::Int64 => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i64s, column).put(row, value as i64), next)
            }
            Op::Sint64 => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i64s, column).put(row, wire::zigzag64(value)), next)
            }
            Op::Uint32 => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i64s, column).put(row, i64::from(value as u32)), next)
            }
            Op::Uint64 => {
                let (value, next) = varint!(self, at, end);
                (unchecked::slot(&mut columns.i128s, column).put(row, i128::from(value)), next)
            }
            Op::Uint64Long | Op::Fixed64Long => {
                let (value, next) =
                    if op == Op::Uint64Long { varint!(self, at, end) } else { (wire::load8(buffer, at), at + 8) };
                let fresh = unchecked::slot(&mut columns.i64s, column).put(row, value as i64);
                if value > i64::MAX as u64 {
                    self.refuse(RejectCode::OutOfRange, node, index);
                }
                (fresh, next)
            }
            Op::Fixed32 => {
                (unchecked::slot(&mut columns.i64s, column).put(row, i64::from(wire::load4(buffer, at))), at + 4)
            }
            Op::Sfixed32 => {
                (unchecked::slot(&mut columns.i32s, column).put(row, wire::load4(buffer, at) as i32), at + 4)
            }
            Op::Float => {
                (unchecked::slot(&mut columns.f32s, column).put(row, f32::from_bits(wire::load4(buffer, at))), at + 4)
            }
            Op::Fixed64 => {
                (unchecked::slot(&mut columns.i128s, column).put(row, i128::from(wire::load8(buffer, at))), at + 8)
            }
            Op::Sfixed64 => {
                (unchecked::slot(&mut columns.i64s, column).put(row, wire::load8(buffer, at) as i64), at + 8)
            }
            Op::Double => {
                (unchecked::slot(&mut columns.f64s, column).put(row, f64::from_bits(wire::load8(buffer, at))), at + 8)
            }
            Op::Group => return self.group(field, node, index, at, end, row, depth),
            // The compiler of plans gives these to no single value.
            Op::Item
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
            | Op::End => return self.stop(Stop::Irregular),
        };
        if !fresh {
            self.overwritten = true;
        }
        Some(next)
    }

    /// Elements one by one, as long as the same tag follows.
    fn repeated(
        &mut self,
        node: u32,
        index: usize,
        mut at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        let plan = self.plan;
        let field = &plan.nodes[node as usize].fields[index];
        let list = field.list as usize;
        dispatch!(field.element, |op| loop {
            if op == Op::EnumClosed {
                let (value, _) = varint!(self, at, end);
                if plan.enums[field.node as usize].name(value as i32).is_none() {
                    // An unknown field, not an element.
                    self.raw = true;
                    return Some(ok!(self, wire::bounded_varint(self.buffer, at, end)).1);
                }
            }
            let element = self.columns.element(list, row);
            at = self.one(field, op, node, index, at, end, element, depth)?;
            if at >= end || (wire::load8(self.buffer, at) ^ field.tag) & field.mask != 0 {
                return Some(at);
            }
            at += field.tag_bytes as usize;
        })
    }

    fn packed(
        &mut self,
        field: &'a Field,
        node: u32,
        index: usize,
        at: usize,
        end: usize,
        row: usize,
    ) -> Option<usize> {
        let plan = self.plan;
        let buffer = self.buffer;
        let (mut at, stop) = ok!(self, wire::length(buffer, at, end));
        // No element is shorter than a byte.
        let list = field.list as usize;
        let first = self.columns.reserve(list, stop - at);
        let columns = &mut *self.columns;
        let column = field.column as usize;

        macro_rules! varints {
            ($columns:expr, $convert:expr) => {{
                let values = &mut $columns[column].values[first..];
                let mut count = 0;
                while at < stop {
                    let (value, next) = varint!(self, at, stop);
                    *unchecked::slot(values, count) = $convert(value);
                    count += 1;
                    at = next;
                }
                count
            }};
        }
        macro_rules! fixed {
            ($columns:expr, $bytes:literal, $convert:expr) => {{
                let bytes = &buffer[at..stop];
                if bytes.len() % $bytes != 0 {
                    return self.stop(Stop::Malformed(RejectCode::Truncated));
                }
                let values = &mut $columns[column].values[first..];
                for (value, chunk) in values.iter_mut().zip(bytes.chunks_exact($bytes)) {
                    let mut bytes = [0; $bytes];
                    bytes.copy_from_slice(chunk);
                    *value = $convert(bytes);
                }
                at = stop;
                bytes.len() / $bytes
            }};
        }
        let elements = match field.element {
            Op::Bool => varints!(columns.bools, |value| u8::from(value != 0)),
            Op::Int32 | Op::EnumOpen => varints!(columns.i32s, |value| value as i32),
            Op::Sint32 => varints!(columns.i32s, wire::zigzag32),
            Op::Int64 => varints!(columns.i64s, |value| value as i64),
            Op::Sint64 => varints!(columns.i64s, wire::zigzag64),
            Op::Uint32 => varints!(columns.i64s, |value| i64::from(value as u32)),
            Op::Uint64 => varints!(columns.i128s, i128::from),
            Op::Uint64Long => {
                let mut out_of_range = false;
                let count = varints!(columns.i64s, |value| {
                    out_of_range |= value > i64::MAX as u64;
                    value as i64
                });
                if out_of_range {
                    self.refusal.get_or_insert(Refusal { code: RejectCode::OutOfRange, node, field: index as u16 });
                }
                count
            }
            Op::EnumClosed => {
                let names = &plan.enums[field.node as usize];
                let values = &mut columns.i32s[column].values[first..];
                let mut count = 0;
                while at < stop {
                    let (value, next) = varint!(self, at, stop);
                    if names.name(value as i32).is_some() {
                        *unchecked::slot(values, count) = value as i32;
                        count += 1;
                    } else {
                        self.raw = true;
                    }
                    at = next;
                }
                count
            }
            Op::Fixed32 => fixed!(columns.i64s, 4, |bytes| i64::from(u32::from_le_bytes(bytes))),
            Op::Sfixed32 => fixed!(columns.i32s, 4, i32::from_le_bytes),
            Op::Float => fixed!(columns.f32s, 4, f32::from_le_bytes),
            Op::Fixed64 => fixed!(columns.i128s, 8, |bytes| i128::from(u64::from_le_bytes(bytes))),
            Op::Fixed64Long => {
                let mut out_of_range = false;
                let count = fixed!(columns.i64s, 8, |bytes| {
                    let value = i64::from_le_bytes(bytes);
                    out_of_range |= value < 0;
                    value
                });
                if out_of_range {
                    self.refusal.get_or_insert(Refusal { code: RejectCode::OutOfRange, node, field: index as u16 });
                }
                count
            }
            Op::Sfixed64 => fixed!(columns.i64s, 8, i64::from_le_bytes),
            Op::Double => fixed!(columns.f64s, 8, f64::from_le_bytes),
            // No other type is ever packed.
            _ => return self.stop(Stop::Irregular),
        };
        columns.elements(list, row, elements);
        if at > stop { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(stop) }
    }

    /// Entries of a map, as long as the same tag follows.
    fn map(&mut self, field: &'a Field, mut at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        let plan = self.plan;
        let node: &Node = &plan.nodes[field.node as usize];
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        let list = field.list as usize;
        if self.columns.has_elements(list, row) {
            // Writers put a map's entries one behind the other.
            return self.stop(Stop::Irregular);
        }
        let first = self.columns.lists[list].elements;
        loop {
            let (start, stop) = ok!(self, wire::length(self.buffer, at, end));
            let element = self.columns.element(list, row);
            let raw = std::mem::take(&mut self.raw);
            self.message(field.node, start, stop, element, depth + 1)?;
            if self.raw && node.fields[1].op == Op::EnumClosed {
                // Perhaps the value is no member of its enumeration; then the whole entry is an unknown field.
                return self.stop(Stop::Irregular);
            }
            self.raw |= raw;
            match node.default {
                Default::Plain => {}
                Default::Incomplete(value) => {
                    if !self.columns.touched(ColumnRef::Struct(value), element) {
                        let value = &node.fields[1];
                        let (required, _) = plan.nodes[value.node as usize].required[0];
                        self.refuse(RejectCode::RequiredMissing, value.node, required as usize);
                    }
                }
                Default::Json(value) => {
                    if !self.columns.touched(ColumnRef::Text(value), element) {
                        self.json(&node.fields[1], stop, stop, element, 0)?;
                    }
                }
                Default::Date(value) => self.raw |= !self.columns.touched(ColumnRef::I32(value), element),
            }
            at = stop;
            if at >= end || (wire::load8(self.buffer, at) ^ field.tag) & field.mask != 0 {
                break;
            }
            at += field.tag_bytes as usize;
        }
        let last = self.columns.lists[list].elements;
        if last - first > 1 && node.key.is_some_and(|key| self.columns.has_duplicate(key, first, last)) {
            return self.stop(Stop::Irregular);
        }
        Some(at)
    }

    /// A group, whose end is where its fields end.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)] // As `one`.
    fn group(
        &mut self,
        field: &'a Field,
        node: u32,
        index: usize,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        if !field.is_struct() {
            let (stop, next) = ok!(self, wire::group(self.buffer, at, end, field.number, depth + 1));
            self.leaf_field(field, field.content, node, index, at, stop, row, depth)?;
            return Some(next);
        }
        if !self.columns.touch(field.column as usize, row) {
            return self.stop(Stop::Irregular);
        }
        let group = Group { number: field.number, depth: depth + 1, end: 0 };
        let outer = std::mem::replace(&mut self.group, group);
        self.message(field.node, at, end, row, depth + 1)?;
        let next = std::mem::replace(&mut self.group, outer).end;
        if next == 0 { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(next) }
    }

    /// An item of a MessageSet; the position behind it.
    #[inline(never)]
    fn item(&mut self, node: u32, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        let plan = self.plan;
        let known = &plan.nodes[node as usize];
        let item = ok!(self, message_set::item(self.buffer, at, end, depth));
        self.raw |= item.unknown;
        match item.message.and_then(|message| Some((known.find_item(message.type_id)?, message))) {
            Some((index, message)) => {
                let field = &known.fields[index];
                self.one(field, field.op, node, index, message.at, message.end, row, depth + 1)?;
            }
            None => self.raw = true,
        }
        Some(item.next)
    }

    /// A field whose message `buffer[at..end]` is one value of a column.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // As `one`.
    fn leaf_field(
        &mut self,
        field: &'a Field,
        op: Op,
        node: u32,
        index: usize,
        at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<()> {
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        if self.columns.touched(field.value_column(), row) {
            return self.stop(Stop::Irregular);
        }
        let before = self.refusal;
        self.leaf_message(field, op, at, end, row, depth + 1)?;
        if before != self.refusal
            && let Some(refusal) = &mut self.refusal
        {
            *refusal = Refusal { node, field: index as u16, ..*refusal };
        }
        Some(())
    }

    /// A well-known message that is one value of a column.
    #[inline(never)]
    fn leaf_message(&mut self, field: &'a Field, op: Op, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let column = field.column as usize;
        match op {
            Op::Timestamp | Op::Duration => {
                let [seconds, nanos, _] = self.numbers(at, end, depth, 2)?;
                let (seconds, nanos) = (seconds as i64, nanos as i32);
                let micros = if op == Op::Timestamp {
                    well_known::timestamp(seconds, nanos)
                } else {
                    well_known::duration(seconds, nanos)
                };
                let micros = match micros {
                    Ok((micros, cut)) if field.inner == Op::Millis => {
                        self.raw |= cut || micros.rem_euclid(1000) != 0;
                        micros.div_euclid(1000)
                    }
                    Ok((micros, cut)) => {
                        self.raw |= cut;
                        micros
                    }
                    Err(well_known::OutOfRange) => {
                        self.refuse(RejectCode::OutOfRange, 0, 0);
                        0
                    }
                };
                self.columns.i64s[column].put(row, micros);
            }
            Op::Date => {
                let [year, month, day] = self.numbers(at, end, depth, 3)?;
                match well_known::date(year as i32, month as i32, day as i32) {
                    Some(days) => {
                        self.columns.i32s[column].put(row, days);
                    }
                    None => {
                        self.raw = true;
                        self.columns.i32s[column].put(row, well_known::NO_DATE);
                    }
                }
            }
            Op::Json => self.json(field, at, end, row, depth)?,
            _ => self.wrapper(field, at, end, row, depth)?,
        }
        Some(())
    }

    /// A message that is text.
    #[inline(never)]
    fn json(&mut self, field: &Field, at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let Columns { texts, scratch, .. } = &mut *self.columns;
        let text = &mut texts[field.column as usize];
        let start = text.data.len();
        let (types, span) = (&self.plan.json, (at, end));
        match json::write(types, field.node, self.buffer, span, depth, scratch, &mut text.data) {
            Ok(written) => {
                text.finish(row, start);
                self.raw |= written.raw;
                if let Some(code) = written.refused {
                    self.refuse(code, 0, 0);
                }
                Some(())
            }
            Err(code) => {
                text.data.truncate(start);
                self.stop(Stop::Malformed(code))
            }
        }
    }

    /// The varint fields 1 to `count` (at most 3) of a message, zero where absent.
    #[inline(always)]
    fn numbers(&mut self, mut at: usize, end: usize, depth: u32, count: u32) -> Option<[u64; 3]> {
        let mut numbers = [0; 3];
        while at < end {
            let (tag, next) = match self.buffer[at] {
                byte @ (0x08 | 0x10 | 0x18) => (u32::from(byte), at + 1),
                _ => ok!(self, wire::tag(self.buffer, at, end)),
            };
            let number = tag >> 3;
            if tag & 7 == wire::VARINT && number <= count {
                let (value, next) = varint!(self, next, end);
                numbers[number as usize - 1] = value;
                at = next;
            } else {
                self.raw = true;
                at = ok!(self, wire::skip(self.buffer, next, end, tag, depth));
            }
        }
        if at > end { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(numbers) }
    }

    /// The last value of a wrapper, or its type's default.
    fn wrapper(&mut self, field: &'a Field, mut at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let expected = 1 << 3 | field.inner.wire();
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
            // A wrapper's value is a scalar, so that this goes no deeper.
            Some(at) => {
                self.one(field, field.inner, 0, 0, at, end, row, DEPTH_MAX)?;
            }
            None => self.columns.put_default(field.value_column(), row),
        }
        Some(())
    }
}

/// The field of a tag of several bytes, and the position behind it.
#[inline(never)]
fn long_tag(node: &Node, buffer: &[u8], at: usize, end: usize) -> Result<(usize, usize), RejectCode> {
    let (tag, next) = wire::tag(buffer, at, end)?;
    Ok((node.find(tag).unwrap_or(NONE as usize), next))
}

impl Columns {
    fn put_default(&mut self, column: ColumnRef, row: usize) {
        match column {
            ColumnRef::Bool(index) => _ = self.bools[index as usize].put(row, 0),
            ColumnRef::I32(index) => _ = self.i32s[index as usize].put(row, 0),
            ColumnRef::I64(index) => _ = self.i64s[index as usize].put(row, 0),
            ColumnRef::I128(index) => _ = self.i128s[index as usize].put(row, 0),
            ColumnRef::F32(index) => _ = self.f32s[index as usize].put(row, 0.0),
            ColumnRef::F64(index) => _ = self.f64s[index as usize].put(row, 0.0),
            ColumnRef::Text(index) => self.texts[index as usize].push(row, b""),
            ColumnRef::Struct(_) | ColumnRef::List(_) => {}
        }
    }

    /// Whether two of these rows, the last ones, of a map's key column are equal.
    fn has_duplicate(&self, key: ColumnRef, first: usize, last: usize) -> bool {
        fn among<T: Copy + Ord>(column: &Primitive<T>, first: usize, last: usize) -> bool {
            duplicate(&column.values[first..last])
        }
        match key {
            ColumnRef::Bool(index) => among(&self.bools[index as usize], first, last),
            ColumnRef::I32(index) => among(&self.i32s[index as usize], first, last),
            ColumnRef::I64(index) => among(&self.i64s[index as usize], first, last),
            ColumnRef::I128(index) => among(&self.i128s[index as usize], first, last),
            ColumnRef::Text(index) => {
                let values: Vec<&[u8]> = self.texts[index as usize].last_values(first, last).collect();
                duplicate(&values)
            }
            ColumnRef::F32(_) | ColumnRef::F64(_) | ColumnRef::Struct(_) | ColumnRef::List(_) => false,
        }
    }
}

/// Whether two keys are equal: each compared with each for a few, sorted for more.
fn duplicate<T: Copy + Ord>(keys: &[T]) -> bool {
    if keys.len() <= 12 {
        return keys.iter().enumerate().any(|(index, key)| keys[..index].contains(key));
    }
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
