//! The interpreter: one pass over a record's bytes, values straight into columns.
//!
//! It takes records the way writers write them. What is legal but rare — a message in several pieces, a second member
//! of a oneof, a key twice in a map — stops it, and so does every fault; `normalize` then rewrites the record into the
//! plain form or says what is wrong with it.
//!
//! The loop here reads fields, and messages inside of messages without a call; what is rarer stands in a module each:
//! `lists` (elements one by one), `packed`, `maps`, `members` of oneofs, `groups`, and `leaves`, messages that are one
//! value of a column.

mod groups;
mod leaves;
mod lists;
mod maps;
mod members;
mod packed;

use super::columns::Columns;
use super::plan::{Field, NONE, Node, Op, Plan, Rest, Root, Step};
use super::unchecked::{self, Place, Slots, Stack};
use super::wire::{self, DEPTH_MAX};
use crate::batch::RejectCode;
use groups::Group;

/// Why a pass ended early; the columns hold the record's beginning and must be cut back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Legal, but not the plain form.
    Irregular,
    Malformed(RejectCode),
}

/// A value that Protobuf or its column refuses: its record is no row, unless another value has overwritten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: RejectCode,
    pub node: u32,
    /// Index into the node's fields.
    pub field: u16,
}

/// A message that is left for one inside of it, and goes on behind that.
#[derive(Clone, Copy)]
struct Frame<'a> {
    node: &'a Node,
    /// The field that most likely comes next; around an entry of a map, that of its [`Node::entries`].
    expected: Place<'a, Field>,
    end: usize,
    row: usize,
}

/// Where bytes come from and where values go: apart from [`Run`], so that the loop keeps both in registers.
#[derive(Clone, Copy)]
struct Ends<'b> {
    buffer: &'b [u8],
    slots: Slots<'b>,
}

impl Ends<'_> {
    /// The bytes `(start, end)` of a message with `depth` messages around its field.
    #[inline(always)]
    fn length(self, at: usize, end: usize, depth: u32) -> Result<(usize, usize), RejectCode> {
        if depth < DEPTH_MAX { wire::length(self.buffer, at, end) } else { Err(RejectCode::TooDeep) }
    }
}

/// Whether a message's fields come by number; see [`Run::message`].
const ORDERED: bool = true;
const ANY_ORDER: bool = false;

/// What the position in a message becomes at its group's end: past all ends.
const CLOSED: usize = usize::MAX;

/// One pass over one record.
pub struct Run<'a, 'b> {
    plan: &'a Plan,
    columns: &'b mut Columns,
    /// Of `columns`.
    slots: Slots<'b>,
    /// The record and [`wire::PADDING`] more bytes.
    buffer: &'b [u8],
    /// The columns do not hold all that the record says.
    pub raw: bool,
    pub refusal: Option<Refusal>,
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
use ok;

/// A varint's value and the position behind it; ends the pass if there is none. With a name, by that function of `wire`.
macro_rules! varint {
    ($self:ident, $at:expr, $end:expr) => {
        varint!($self, $self.buffer, $at, $end)
    };
    ($self:ident, $buffer:expr, $at:expr, $end:expr) => {
        varint!($self, varint, $buffer, $at, $end)
    };
    ($self:ident, $read:ident, $buffer:expr, $at:expr, $end:expr) => {
        match wire::$read($buffer, $at) {
            Some(found) => found,
            None => return $self.stop(Stop::Malformed(wire::varint_fault($at, $end))),
        }
    };
}
use varint;

/// Runs the body with a scalar's op as a constant, one copy for each; the other body if it is none.
macro_rules! of_scalar {
    ($op:expr, |$name:ident| $body:expr, $other:expr) => {
        of_scalar!(
            $op, $name, $body, $other, Bool, Int32, Sint32, Int64, Sint64, Uint32, Uint64, Uint64Long, EnumOpen,
            EnumClosed, Fixed32, Sfixed32, Float, Fixed64, Fixed64Long, Sfixed64, Double, String, Bytes
        )
    };
    ($op:expr, $name:ident, $body:expr, $other:expr, $($known:ident),*) => {
        match $op {
            $(Op::$known => {
                let $name = Op::$known;
                $body
            })*
            _ => $other,
        }
    };
}
use of_scalar;

impl<'a, 'b> Run<'a, 'b> {
    #[inline(always)]
    pub fn new(plan: &'a Plan, columns: &'b mut Columns, buffer: &'b [u8]) -> Self {
        // They stay where they are while the columns grow (`Slots`); so the columns can be lent too.
        let slots = Slots::new(&mut columns.slots);
        Run { plan, columns, slots, buffer, raw: false, refusal: None, stop: None, group: Group::NONE }
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
            Root::Message(node) => self.message::<ORDERED>(self.node(*node), at, end, row, 0),
            Root::Struct(column, node) => {
                self.columns.touch(*column as usize, row);
                self.message::<ORDERED>(self.node(*node), at, end, row, 0)
            }
            Root::Leaf(field) => self.leaf_message(field, field.op, at, end, row, 0),
        }
    }

    #[inline(always)]
    fn node(&self, node: u32) -> &'a Node {
        unchecked::get(&self.plan.nodes, node as usize)
    }

    /// Reads the message `buffer[at..end]`, which has `depth` messages around it.
    ///
    /// [`ORDERED`], as writers write it: its fields by number. None of them comes twice then, which is not looked for; one
    /// that stands before another's place begins what is left to the other way, [`ANY_ORDER`].
    #[inline(never)]
    fn message<const ORDER: bool>(
        &mut self,
        mut node: &'a Node,
        mut at: usize,
        mut end: usize,
        mut row: usize,
        mut depth: u32,
    ) -> Option<()> {
        let plan = self.plan;
        let ends = self.ends();
        // By depth: the messages around the one that is read, the first of which is this function's own.
        let mut frames = Stack::<Frame<'a>, { DEPTH_MAX as usize }>::new();
        let outermost = depth;
        let mut expected = Place::new(&node.fields, 0);
        // Leaves the message for one inside of it.
        macro_rules! enter {
            ($loop:lifetime, $field:ident, $start:ident, $stop:ident, $row:ident, $after:expr) => {{
                frames.put(depth as usize, Frame { node, expected: $after, end, row });
                node = unchecked::get(&plan.nodes, $field.node as usize);
                expected = Place::new(&node.fields, 0);
                (at, end, row, depth) = ($start, $stop, $row, depth + 1);
                continue $loop;
            }};
        }
        loop {
            'field: while at < end {
                let mut field = expected.get();
                let mut step = Step::Find;
                if wire::load1(ends.buffer, at) == field.first {
                    step = field.lead;
                }
                at = loop {
                    break match step {
                        Step::Wide => {
                            let word = wire::load8(ends.buffer, at);
                            step = Step::Find;
                            if (word ^ field.tag) & field.mask == 0 {
                                (step, at) = (field.step, at + field.tag_bytes as usize - 1);
                            }
                            continue;
                        }
                        Step::Find => {
                            let byte = wire::load1(ends.buffer, at);
                            // A tag of one byte is its own index.
                            let (index, next) = if byte < 0x80 {
                                (*unchecked::get(&node.dense, byte as usize), at + 1)
                            } else {
                                ok!(self, long_tag(node, ends.buffer, at, end))
                            };
                            if index == NONE {
                                at = self.unknown(at, end, depth)?;
                                continue 'field;
                            }
                            let found = Place::new(&node.fields, index as usize);
                            field = found.get();
                            if ORDER == ORDERED && field.next <= expected.get().index {
                                self.message::<ANY_ORDER>(node, at, end, row, depth)?;
                                at = end;
                                continue 'field;
                            }
                            expected = found;
                            (step, at) = (field.step, next - 1);
                            continue;
                        }
                        Step::Bool => self.scalar(ends, field, Op::Bool, at + 1, end, row)?,
                        Step::Int32 => self.scalar(ends, field, Op::Int32, at + 1, end, row)?,
                        Step::Sint32 => self.scalar(ends, field, Op::Sint32, at + 1, end, row)?,
                        Step::Int64 => self.scalar(ends, field, Op::Int64, at + 1, end, row)?,
                        Step::Sint64 => self.scalar(ends, field, Op::Sint64, at + 1, end, row)?,
                        Step::Uint32 => self.scalar(ends, field, Op::Uint32, at + 1, end, row)?,
                        Step::Uint64 => self.scalar(ends, field, Op::Uint64, at + 1, end, row)?,
                        Step::Fixed32 => self.scalar(ends, field, Op::Fixed32, at + 1, end, row)?,
                        Step::Sfixed32 => self.scalar(ends, field, Op::Sfixed32, at + 1, end, row)?,
                        Step::Float => self.scalar(ends, field, Op::Float, at + 1, end, row)?,
                        Step::Fixed64 => self.scalar(ends, field, Op::Fixed64, at + 1, end, row)?,
                        Step::Sfixed64 => self.scalar(ends, field, Op::Sfixed64, at + 1, end, row)?,
                        Step::Double => self.scalar(ends, field, Op::Double, at + 1, end, row)?,
                        Step::Text => self.text::<ORDER>(ends, field, at + 1, end, row)?,
                        Step::Message => {
                            let (start, stop) = ok!(self, ends.length(at + 1, end, depth));
                            if ORDER == ORDERED {
                                ends.slots.mark(field.slot, row);
                            } else if !ends.slots.mark_first(field.slot, row) {
                                return self.stop(Stop::Irregular);
                            }
                            enter!('field, field, start, stop, row, expected.next());
                        }
                        Step::Member => {
                            let (start, stop) = ok!(self, ends.length(at + 1, end, depth));
                            if !self.choose(field, row) || !ends.slots.mark_first(field.slot, row) {
                                return self.stop(Stop::Irregular);
                            }
                            let after = Place::new(&node.fields, field.next as usize);
                            enter!('field, field, start, stop, row, after);
                        }
                        Step::Element => {
                            let (start, stop) = ok!(self, ends.length(at + 1, end, depth));
                            let element = self.columns.element(field.list as usize, row);
                            // Most likely another element comes next.
                            enter!('field, field, start, stop, element, expected);
                        }
                        Step::Map | Step::Entry => {
                            if ORDER == ANY_ORDER
                                && step == Step::Map
                                && self.columns.has_elements(field.list as usize, row)
                            {
                                return self.stop(Stop::Irregular);
                            }
                            let (start, stop) = ok!(self, ends.length(at + 1, end, depth));
                            let element = self.columns.element(field.list as usize, row);
                            let after = Place::new(&node.entries, field.entry as usize);
                            enter!('field, field, start, stop, element, after);
                        }
                        Step::Texts => {
                            if ORDER == ANY_ORDER && self.columns.has_elements(field.list as usize, row) {
                                return self.stop(Stop::Irregular);
                            }
                            at = self.texts(field, at + 1, end, row, depth)?;
                            expected = Place::new(&node.fields, field.next as usize);
                            if self.follows(field, at, end) {
                                // Behind one that it leaves to the loop: of another form than most, or one too many.
                                expected = Place::new(&node.entries, field.entry as usize);
                            }
                            continue 'field;
                        }
                        Step::Closed => self.closed(field, at + 1, end, row)?,
                        Step::Choice => {
                            at = self.member(field, at + 1, end, row, depth)?;
                            expected = Place::new(&node.fields, field.next as usize);
                            continue 'field;
                        }
                        Step::Repeated | Step::Packed | Step::Timestamp | Step::Leaf | Step::Other => {
                            at = match step {
                                Step::Repeated => self.repeated(field, at + 1, end, row, depth)?,
                                Step::Packed => self.packed(field, at + 1, end, row)?,
                                Step::Timestamp => self.timestamp::<ORDER>(field, at + 1, end, row, depth)?,
                                Step::Leaf => self.leaf(field, field.op, at + 1, end, row, depth)?,
                                _ => self.other(field, at + 1, end, row, depth)?,
                            };
                            expected = Place::new(&node.fields, field.next as usize);
                            continue 'field;
                        }
                    };
                };
                expected = expected.next();
            }
            if at != end && at != CLOSED {
                return self.stop(Stop::Malformed(RejectCode::Truncated));
            }
            let (left, left_row, rest) = (node, row, node.rest);
            if rest == Rest::Required {
                self.check_required(left, left_row);
            }
            if depth == outermost {
                return Some(());
            }
            depth -= 1;
            Frame { node, expected, end, row } = frames.get(depth as usize);
            if rest >= Rest::Keys {
                let field = expected.get();
                if !self.entry_end(left, left_row, field, at, end, row)? {
                    // An entry that comes later comes out of order: else each would have a look at all keys.
                    expected = Place::new(&node.fields, field.next as usize);
                }
            }
        }
    }

    #[inline(always)]
    fn ends(&self) -> Ends<'b> {
        Ends { buffer: self.buffer, slots: self.slots }
    }

    /// Skips a field that has no column, or ends the group.
    #[inline(never)]
    fn unknown(&mut self, at: usize, end: usize, depth: u32) -> Option<usize> {
        let (tag, next) = ok!(self, wire::tag(self.buffer, at, end));
        if tag & 7 == wire::END_GROUP && self.group.is(tag >> 3, depth) {
            self.group.end = next;
            return Some(CLOSED);
        }
        self.raw = true;
        Some(ok!(self, wire::skip(self.buffer, next, end, tag, depth)))
    }

    #[inline(never)]
    fn check_required(&mut self, node: &'a Node, row: usize) {
        for (field, column) in &node.required {
            if !self.columns.touched(*column, row) {
                self.refuse(&node.fields[*field as usize], RejectCode::RequiredMissing);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&mut self, field: &Field, code: RejectCode) {
        self.refusal.get_or_insert(Refusal { code, node: field.home, field: field.index });
    }

    /// One value of an op that the loop leaves to others; the position behind it.
    #[inline(never)]
    fn other(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        match field.op {
            Op::Item => self.item(field, at, end, row, depth),
            op => self.value(field, op, at, end, row, depth),
        }
    }

    /// One value of any type that is not repeated; the position behind it.
    #[inline(never)]
    fn value(&mut self, field: &'a Field, op: Op, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        of_scalar!(
            op,
            |op| self.scalar(self.ends(), field, op, at, end, row),
            match op {
                Op::Group => self.group(field, at, end, row, depth),
                op if op.is_leaf_message() => self.leaf(field, op, at, end, row, depth),
                Op::Message => {
                    let (start, stop) = ok!(self, self.ends().length(at, end, depth));
                    if !self.columns.touch(field.column as usize, row) {
                        return self.stop(Stop::Irregular);
                    }
                    self.message::<ORDERED>(self.node(field.node), start, stop, row, depth + 1)?;
                    Some(stop)
                }
                // The compiler of plans gives no other op to a single value.
                _ => self.stop(Stop::Irregular),
            }
        )
    }

    /// One value of a scalar type; the position behind it.
    // Once for each op; a build without optimisation would keep all their variables apart on the stack of every message
    // that is nested.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn scalar(&mut self, ends: Ends<'_>, field: &'a Field, op: Op, at: usize, end: usize, row: usize) -> Option<usize> {
        let Ends { buffer, slots } = ends;
        macro_rules! put {
            (|$value:ident| $convert:expr) => {
                put!(varint, |$value| $convert)
            };
            ($read:ident, |$value:ident| $convert:expr) => {{
                let ($value, next) = varint!(self, $read, buffer, at, end);
                slots.put(field.slot, row, $convert);
                next
            }};
            ($bytes:literal, $value:expr) => {{
                slots.put(field.slot, row, $value);
                at + $bytes
            }};
        }
        Some(match op {
            Op::Bool => put!(short_varint, |value| u8::from(value != 0)),
            Op::Int32 | Op::EnumOpen | Op::EnumClosed => put!(short_varint, |value| value as i32),
            Op::Sint32 => put!(|value| wire::zigzag32(value)),
            Op::Int64 => put!(|value| value as i64),
            Op::Sint64 => put!(|value| wire::zigzag64(value)),
            Op::Uint32 => put!(|value| i64::from(value as u32)),
            Op::Uint64 => put!(|value| i128::from(value)),
            Op::Fixed32 => put!(4, i64::from(wire::load4(buffer, at))),
            Op::Sfixed32 => put!(4, wire::load4(buffer, at) as i32),
            Op::Float => put!(4, f32::from_bits(wire::load4(buffer, at))),
            Op::Fixed64 => put!(8, i128::from(wire::load8(buffer, at))),
            Op::Sfixed64 => put!(8, wire::load8(buffer, at) as i64),
            Op::Double => put!(8, f64::from_bits(wire::load8(buffer, at))),
            Op::Uint64Long | Op::Fixed64Long => {
                let (value, next) = if op == Op::Uint64Long {
                    varint!(self, buffer, at, end)
                } else {
                    (wire::load8(buffer, at), at + 8)
                };
                slots.put(field.slot, row, value as i64);
                if value > i64::MAX as u64 {
                    self.refuse(field, RejectCode::OutOfRange);
                }
                next
            }
            Op::String | Op::Bytes => return self.text::<ANY_ORDER>(ends, field, at, end, row),
            _ => return self.stop(Stop::Irregular),
        })
    }

    /// A string or bytes, which mostly are short; the position behind it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn text<const ORDER: bool>(
        &mut self,
        ends: Ends<'_>,
        field: &Field,
        at: usize,
        end: usize,
        row: usize,
    ) -> Option<usize> {
        let length = wire::load1(ends.buffer, at) as usize;
        if length >= 0x80 {
            return self.long_text(field, at, end, row);
        }
        let stop = at + 1 + length;
        if stop > end {
            return self.stop(Stop::Malformed(RejectCode::Truncated));
        }
        if ORDER == ORDERED {
            ends.slots.put_first_text(field.slot, row, ends.buffer, at + 1, length);
        } else if !ends.slots.put_text(field.slot, row, ends.buffer, at + 1, length) {
            return self.stop(Stop::Irregular);
        }
        Some(stop)
    }

    #[inline(never)]
    fn long_text(&mut self, field: &Field, at: usize, end: usize, row: usize) -> Option<usize> {
        let (start, stop) = ok!(self, wire::length(self.buffer, at, end));
        if !self.slots.put_text(field.slot, row, self.buffer, start, stop - start) {
            return self.stop(Stop::Irregular);
        }
        Some(stop)
    }
}

/// The field of a tag of several bytes, and the position behind it.
#[inline(never)]
fn long_tag(node: &Node, buffer: &[u8], at: usize, end: usize) -> Result<(u16, usize), RejectCode> {
    let word = wire::load8(buffer, at);
    if word & 0x8000 == 0
        && let Some(index) = node.dense.get((word & 0x7f | word >> 1 & 0x3f80) as usize)
        && *index != NONE
    {
        return Ok((*index, at + 2));
    }
    let (tag, next) = wire::tag(buffer, at, end)?;
    Ok((node.find(tag).map_or(NONE, |index| index as u16), next))
}
