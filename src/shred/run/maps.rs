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
