//! Maps: their entries, what an entry without a value holds, and keys that come twice.

use super::{ANY_ORDER, Columns, Ends, Run, Stop, of_scalar, ok, varint};
use crate::batch::RejectCode;
use crate::shred::columns::Primitive;
use crate::shred::plan::{ColumnRef, Default, Field, Node, Op};
use crate::shred::unchecked::{self, Stack};
use crate::shred::wire::{self, DEPTH_MAX};

impl<'a> Run<'a, '_> {
    /// Entries of a map, as long as the same tag follows; the position behind them. Writers put them one behind the other:
    /// the row must have none yet, but for those that [`texts`](Self::texts) began with.
    #[inline(never)]
    pub(super) fn map(&mut self, field: &'a Field, mut at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        let node = self.node(field.node);
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        let list = field.list as usize;
        loop {
            let (start, stop) = ok!(self, wire::length(self.buffer, at, end));
            let element = self.columns.element(list, row);
            self.entry(node, start, stop, element, depth + 1)?;
            at = stop;
            if !self.follows(field, at, end) {
                break;
            }
            at += field.tag_bytes as usize;
        }
        let (first, last) = self.columns.elements_of(list, row);
        if last - first > 1 && node.key.is_some_and(|key| self.columns.has_duplicate(key, first, last)) {
            return self.stop(Stop::Irregular);
        }
        Some(at)
    }

    /// The same of a map whose entries are texts as writers write them, short and few, by far the most maps': without a
    /// look at what else there may be, which is left to [`map`](Self::map).
    #[inline(never)]
    pub(super) fn texts(
        &mut self,
        field: &'a Field,
        mut at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        let Ends { buffer, slots } = self.ends();
        let [key, value] = [0, 1].map(|index| unchecked::get(&self.node(field.node).fields, index).slot);
        let list = field.list as usize;
        let first = self.columns.reserve(list, COMPARED_MAX);
        let mut keys = Stack::<Short, COMPARED_MAX>::new();
        let mut count = 0;
        let found = loop {
            if count == COMPARED_MAX {
                break Found::Other;
            }
            // The entry's length, the key's tag and length.
            let head = wire::load4(buffer, at) as usize;
            let stop = at + 1 + (head & 0x7f);
            let short = Short { at: at + 3, length: head >> 16 & 0x7f };
            let value_at = short.at + short.length + 2;
            if head & 0x80_ff_80 != 0x0a_00 || stop > end || value_at > stop {
                break Found::Other;
            }
            // The value's.
            let head = wire::load4(buffer, value_at - 2) as usize;
            let length = head >> 8 & 0x7f;
            if head & 0x80_ff != 0x12 || value_at + length != stop {
                break Found::Other;
            }
            slots.put_first_text(key, first + count, buffer, short.at, short.length);
            slots.put_first_text(value, first + count, buffer, value_at, length);
            let doubled = (0..count).any(|known| keys.get(known).is_same(short, buffer));
            keys.put(count, short);
            count += 1;
            at = stop;
            if doubled {
                break Found::Doubled;
            }
            if !self.follows(field, at, end) {
                break Found::End;
            }
            at += field.tag_bytes as usize;
        };
        self.columns.add_reserved(list, row, count);
        match found {
            Found::End => Some(at),
            Found::Doubled => self.stop(Stop::Irregular),
            Found::Other => self.map(field, at, end, row, depth),
        }
    }

    /// The entry `buffer[at..end]`, a row of its own.
    #[inline(always)]
    fn entry(&mut self, node: &'a Node, mut at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let [key, value] = [0, 1].map(|index| unchecked::get(&node.fields, index));
        let Ends { buffer, slots } = self.ends();
        // As writers write it: the key, then the value. The tags of both are a byte.
        if at < end && wire::load1(buffer, at) == key.first {
            at = of_scalar!(key.op, |op| self.scalar(self.ends(), key, op, at + 1, end, row), None)?;
            if at < end && wire::load1(buffer, at) == value.first {
                at = of_scalar!(
                    value.op,
                    |op| match op {
                        Op::EnumClosed => {
                            let (number, next) = varint!(self, buffer, at + 1, end);
                            if !self.plan.names(value).has(number as i32) {
                                // The whole entry is an unknown field.
                                return self.stop(Stop::Irregular);
                            }
                            slots.put(value.slot, row, number as i32);
                            Some(next)
                        }
                        op => self.scalar(self.ends(), value, op, at + 1, end, row),
                    },
                    self.value(value, value.op, at + 1, end, row, depth)
                )?;
            }
        }
        if at != end {
            let raw = std::mem::take(&mut self.raw);
            self.message::<ANY_ORDER>(node, at, end, row, depth)?;
            if self.raw && value.op == Op::EnumClosed {
                // Perhaps the value is none of its enumeration.
                return self.stop(Stop::Irregular);
            }
            self.raw |= raw;
        }
        if node.default != Default::Plain {
            self.default(node, value, end, row)?;
        }
        Some(())
    }

    /// What the value of an entry without one is.
    #[inline(never)]
    fn default(&mut self, node: &'a Node, value: &'a Field, end: usize, row: usize) -> Option<()> {
        match node.default {
            Default::Plain => {}
            Default::Incomplete(column) => {
                if !self.columns.touched(ColumnRef::Struct(column), row) {
                    let inner = &self.plan.nodes[value.node as usize];
                    self.refuse(&inner.fields[inner.required[0].0 as usize], RejectCode::RequiredMissing);
                }
            }
            Default::Json(column) => {
                if !self.columns.touched(ColumnRef::Text(column), row) {
                    self.json(value, end, end, row, 0)?;
                }
            }
            Default::Date(column) => self.raw |= !self.columns.touched(ColumnRef::I32(column), row),
        }
        Some(())
    }
}

/// What follows a run of short texts.
enum Found {
    /// What is no entry of the map.
    End,
    /// Nothing that matters: the last key was there before.
    Doubled,
    /// Behind its tag, an entry that is something else, or one too many.
    Other,
}

/// A key of at most 127 bytes.
#[derive(Clone, Copy)]
struct Short {
    at: usize,
    length: usize,
}

impl Short {
    #[inline(always)]
    fn is_same(self, other: Short, buffer: &[u8]) -> bool {
        let bytes = |short: Short| &buffer[short.at..short.at + short.length];
        self.length == other.length && bytes(self) == bytes(other)
    }
}

impl Columns {
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
                let mut keys: [&[u8]; COMPARED_MAX] = [b""; COMPARED_MAX];
                let text = &self.texts[index as usize];
                match keys.get_mut(..last - first) {
                    Some(keys) => {
                        keys.iter_mut().zip(text.last_values(first, last)).for_each(|(key, value)| *key = value);
                        duplicate(keys)
                    }
                    None => duplicate(&text.last_values(first, last).collect::<Vec<_>>()),
                }
            }
            ColumnRef::F32(_) | ColumnRef::F64(_) | ColumnRef::Struct(_) | ColumnRef::List(_) => false,
        }
    }
}

/// So many keys are compared each with each; more are sorted.
const COMPARED_MAX: usize = 12;

/// Whether two keys are equal.
#[inline(always)]
fn duplicate<T: Copy + Ord>(keys: &[T]) -> bool {
    if keys.len() <= COMPARED_MAX {
        return keys.iter().enumerate().any(|(index, key)| keys[..index].iter().any(|known| known == key));
    }
    duplicate_of_many(keys)
}

#[inline(never)]
fn duplicate_of_many<T: Copy + Ord>(keys: &[T]) -> bool {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
