//! Maps: their entries, what an entry without a value holds, and keys that come twice.

use super::{Columns, Ends, ORDERED, Run, Stop, ok};
use crate::batch::RejectCode;
use crate::shred::columns::Primitive;
use crate::shred::plan::{ColumnRef, Default, Field, Node, Rest};
use crate::shred::unchecked::{self, Stack};
use crate::shred::wire::{self, DEPTH_MAX};

impl<'a> Run<'a, '_> {
    /// Ends the entry in a row of its own: gives it the value that it may lack, and looks at all keys if no other entry
    /// of the map `field` follows. Whether one does.
    #[inline(always)]
    pub(super) fn entry_end(
        &mut self,
        entry: &'a Node,
        entry_row: usize,
        field: &'a Field,
        at: usize,
        end: usize,
        row: usize,
    ) -> Option<bool> {
        if entry.rest == Rest::DefaultAndKeys {
            self.default(entry, at, entry_row)?;
        }
        if self.follows(field, at, end) {
            return Some(true);
        }
        self.map_end(entry, field, row)?;
        Some(false)
    }

    /// Stops if two keys are equal.
    #[inline(never)]
    fn map_end(&mut self, entry: &'a Node, field: &'a Field, row: usize) -> Option<()> {
        let (first, last) = self.columns.elements_of(field.list as usize, row);
        if last - first > 1 && entry.key.is_some_and(|key| self.columns.has_duplicate(key, first, last)) {
            return self.stop(Stop::Irregular);
        }
        Some(())
    }

    /// Entries of a map of texts, as long as the same tag follows, as writers write them, short and few, by far the most
    /// maps'; the position behind them, or behind another one, which others may follow.
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
        let mut keys = Stack::<Span, COMPARED_MAX>::new();
        let mut count = 0;
        let found = loop {
            if count == COMPARED_MAX {
                break Found::Other;
            }
            // The entry's length, the key's tag and length.
            let head = wire::load4(buffer, at) as usize;
            let stop = at + 1 + (head & 0x7f);
            let short = Span { at: at + 3, length: head >> 16 & 0x7f };
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
            Found::Other => {
                let (start, stop) = ok!(self, wire::length(buffer, at, end));
                let element = self.columns.element(list, row);
                let entry = self.node(field.node);
                self.message::<ORDERED>(entry, start, stop, element, depth + 1)?;
                self.entry_end(entry, element, field, stop, end, row)?;
                Some(stop)
            }
        }
    }

    /// What the value of an entry without one is.
    #[inline(never)]
    fn default(&mut self, node: &'a Node, end: usize, row: usize) -> Option<()> {
        let value = unchecked::get(&node.fields, 1);
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

/// A key, by its bytes' place.
#[derive(Clone, Copy)]
struct Span {
    at: usize,
    length: usize,
}

impl Span {
    #[inline(always)]
    fn is_same(self, other: Span, buffer: &[u8]) -> bool {
        let bytes = |span: Span| &buffer[span.at..span.at + span.length];
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
                let text = &self.texts[index as usize];
                if last - first > COMPARED_MAX {
                    return duplicate_of_many(&mut text.last_values(first, last).collect::<Vec<_>>());
                }
                let mut keys = Stack::<Span, COMPARED_MAX>::new();
                let mut end = text.data.len();
                text.lengths.of(first, last).rev().enumerate().any(|(count, length)| {
                    end -= length;
                    let span = Span { at: end, length };
                    keys.put(count, span);
                    (0..count).any(|known| keys.get(known).is_same(span, &text.data))
                })
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
    duplicate_of_many(&mut keys.to_vec())
}

#[inline(never)]
fn duplicate_of_many<T: Copy + Ord>(keys: &mut [T]) -> bool {
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}
