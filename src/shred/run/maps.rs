//! Maps: their entries, what an entry without a value holds, and keys that come twice.

use super::{Columns, Run, Stop, of_scalar, ok};
use crate::batch::RejectCode;
use crate::shred::columns::Primitive;
use crate::shred::plan::{ColumnRef, Default, Field, Node, Op};
use crate::shred::unchecked;
use crate::shred::wire::{self, DEPTH_MAX};

impl<'a> Run<'a, '_> {
    /// Entries of a map, as long as the same tag follows; the position behind them.
    #[inline(never)]
    pub(super) fn map(&mut self, field: &'a Field, mut at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
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
        if node.is_texts() {
            match self.short_texts(field, node, at, end, row)? {
                Texts::Ended(next) => return Some(next),
                Texts::Other(next) => at = next,
            }
        }
        loop {
            let (start, stop) = ok!(self, wire::length(self.buffer, at, end));
            let element = self.columns.element(list, row);
            self.entry(node, field.node, start, stop, element, depth + 1)?;
            at = stop;
            if !self.follows(field, at, end) {
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

    /// Entries of short texts as writers write them, by far the most maps' only ones: without a look at what else there
    /// may be. The first one's tag was read.
    #[inline(always)]
    fn short_texts(
        &mut self,
        field: &'a Field,
        node: &'a Node,
        mut at: usize,
        end: usize,
        row: usize,
    ) -> Option<Texts> {
        let buffer = self.buffer;
        let [key, value] = [0, 1].map(|index| unchecked::get(&node.fields, index));
        let mut keys = [Short::default(); COMPARED_MAX];
        for count in 0..COMPARED_MAX {
            // The entry's length, the key's tag and length.
            let head = wire::load8(buffer, at);
            let stop = at + 1 + (head & 0x7f) as usize;
            let short = Short { at: at + 3, length: (head >> 16 & 0x7f) as usize };
            let value_at = short.at + short.length + 2;
            if head & 0x80_ff_80 != 0x0a_00 || stop > end || value_at > stop {
                return Some(Texts::Other(at));
            }
            // The value's.
            let head = wire::load8(buffer, value_at - 2);
            let length = (head >> 8 & 0x7f) as usize;
            if head & 0x80_ff != 0x12 || value_at + length != stop {
                return Some(Texts::Other(at));
            }
            let element = self.columns.element(field.list as usize, row);
            self.columns.put_text(key.slot, element, buffer, short.at, short.length);
            self.columns.put_text(value.slot, element, buffer, value_at, length);
            if keys[..count].iter().any(|known| known.is_same(short, buffer)) {
                return self.stop(Stop::Irregular);
            }
            keys[count] = short;
            at = stop;
            if !self.follows(field, at, end) {
                return Some(Texts::Ended(at));
            }
            at += field.tag_bytes as usize;
        }
        Some(Texts::Other(at))
    }

    /// The entry `buffer[at..end]`, a row of its own.
    #[inline(always)]
    fn entry(&mut self, node: &'a Node, index: u32, mut at: usize, end: usize, row: usize, depth: u32) -> Option<()> {
        let [key, value] = [0, 1].map(|index| unchecked::get(&node.fields, index));
        let raw = std::mem::take(&mut self.raw);
        // As writers write it: the key, then the value.
        if self.follows(key, at, end) {
            at = of_scalar!(key.op, |op| self.scalar(key, op, at + 1, end, row), None)?;
            if self.follows(value, at, end) {
                at = of_scalar!(
                    value.op,
                    |op| match op {
                        Op::EnumClosed => self.closed(value, at + 1, end, row),
                        op => self.scalar(value, op, at + 1, end, row),
                    },
                    self.value(value, value.op, at + 1, end, row, depth)
                )?;
            }
        }
        if at != end {
            self.message(index, at, end, row, depth)?;
        }
        if self.raw && value.op == Op::EnumClosed {
            // Perhaps the value is no member of its enumeration; then the whole entry is an unknown field.
            return self.stop(Stop::Irregular);
        }
        self.raw |= raw;
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

/// Where a run of short texts came to.
enum Texts {
    /// To the map's end.
    Ended(usize),
    /// Behind the tag of an entry that is something else, or one too many.
    Other(usize),
}

/// A key of at most 127 bytes.
#[derive(Clone, Copy, Default)]
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
fn duplicate<T: Copy + Ord>(keys: &[T]) -> bool {
    if keys.len() <= COMPARED_MAX {
        return keys.iter().enumerate().any(|(index, key)| keys[..index].contains(key));
    }
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
