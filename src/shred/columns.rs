//! Columns under construction.
//!
//! Rows are counted per *space*: the table's own rows are space 0, the elements of the n-th list (or map) space n + 1.
//! A struct has the rows of the space it stands in.
//!
//! A value is written where its row is, into room that was made and zeroed beforehand. A row without a value therefore
//! costs nothing: its zero, its empty string, or its empty list stands there already. Strings and lists are kept as
//! lengths until the end for the same reason. What the wire had a value for is in [`Marks`] beside the values (of a string
//! in its length), and cutting a column back zeroes whatever a record that failed has left behind.

use super::json;
use super::marks::Marks;
use super::plan::{ColumnRef, Plan};
use super::text::Text;
use super::unchecked;

/// Takes a vector and leaves an empty one with room for as much and a bit more: the next batch is most likely like the
/// last ones, and growing step by step copies. One that is much shorter, as the last before a pause is, leaves as little
/// as itself: what a topic that has gone quiet holds is given back.
pub fn replace_with_room<T>(values: &mut Vec<T>) -> Vec<T> {
    let (used, had) = (values.len(), values.capacity());
    let room = if used < had / 4 { used + used / 8 } else { had.max(used + used / 8) };
    std::mem::replace(values, Vec::with_capacity(room))
}

pub(super) fn make_room<T: Copy + Default>(values: &mut Vec<T>, rows: usize) {
    if values.len() < rows {
        values.resize(rows, T::default());
    }
}

/// Zeroes the slots from `rows` on, of which those up to `used` may have been written.
pub(super) fn zero<T: Copy + Default>(values: &mut [T], rows: usize, used: usize) {
    let used = used.min(values.len());
    if rows < used {
        values[rows..used].fill(T::default());
    }
}

/// The sum of what the slots from `rows` up to `used` hold.
fn sum(counts: &[i32], rows: usize, used: usize) -> usize {
    counts.iter().take(used).skip(rows).map(|count| *count as usize).sum()
}

/// Where each of `rows` rows starts and the last one ends, from the rows' lengths, which come to `total`. The batch is
/// sealed before that reaches 2^31 (`Columns::fits`).
fn starts(mut lengths: Vec<i32>, rows: usize, total: usize) -> Vec<i32> {
    lengths.resize(rows + 1, 0);
    if total == 0 {
        return lengths;
    }
    let mut start = 0;
    for length in &mut lengths {
        (*length, start) = (start, start + *length);
    }
    lengths
}

/// Values of a fixed width.
#[derive(Debug)]
pub struct Primitive<T> {
    pub values: Vec<T>,
    pub present: Marks,
    /// A row without a value is null; otherwise it has the default, or is null with its parent.
    pub nullable: bool,
    /// Whether it is asked which rows have a value; otherwise no mark is kept.
    pub marked: bool,
    pub space: u32,
}

impl<T: Copy + Default> Primitive<T> {
    pub fn new(space: u32, nullable: bool) -> Self {
        Primitive { values: Vec::new(), present: Marks::default(), nullable, marked: nullable, space }
    }

    fn make_room(&mut self, rows: usize) {
        make_room(&mut self.values, rows);
        if self.marked {
            self.present.make_room(rows);
        }
    }

    /// Puts a value into a row that there is room for, over the one that it may have.
    #[inline(always)]
    pub fn put(&mut self, row: usize, value: T) {
        *unchecked::slot(&mut self.values, row) = value;
        if self.marked {
            self.present.set(row);
        }
    }

    /// Puts a value into a row behind all others; makes the room.
    pub fn push(&mut self, row: usize, value: T) {
        if row >= self.values.len() {
            self.make_room((row + 1).next_multiple_of(64));
        }
        self.put(row, value);
    }

    pub fn truncate(&mut self, rows: usize, used: usize) {
        zero(&mut self.values, rows, used);
        self.present.truncate(rows, used);
    }
}

/// A struct: where it is present.
#[derive(Debug)]
pub struct Struct {
    pub present: Marks,
    /// False for an element of a list or a value of a map, which is always present.
    pub nullable: bool,
    pub space: u32,
}

impl Struct {
    pub fn new(space: u32, nullable: bool) -> Self {
        Struct { present: Marks::default(), nullable, space }
    }
}

/// A list or a map: how many elements each row has.
#[derive(Debug)]
pub struct List {
    pub counts: Vec<i32>,
    /// Rows of the elements' own space, and how many there is room for.
    pub elements: usize,
    room: usize,
    pub space: u32,
}

impl List {
    pub fn new(space: u32) -> Self {
        List { counts: Vec::new(), elements: 0, room: 0, space }
    }

    pub fn make_room(&mut self, rows: usize) {
        make_room(&mut self.counts, rows);
    }

    /// Cuts back to `rows` of `used` rows.
    pub fn truncate(&mut self, rows: usize, used: usize) {
        self.elements -= sum(&self.counts, rows, used);
        zero(&mut self.counts, rows, used);
    }

    /// Offsets (one more than rows) of `rows` rows, and how many elements there are; starts anew.
    pub fn take_parts(&mut self, rows: usize) -> (Vec<i32>, usize) {
        self.room = 0;
        self.counts.truncate(rows);
        (starts(replace_with_room(&mut self.counts), rows, self.elements), std::mem::take(&mut self.elements))
    }
}

/// Which member of a oneof the current row has.
#[derive(Clone, Copy, Debug)]
pub struct Oneof {
    /// The last row that has a member; [`Oneof::NO_ROW`] if there is none.
    pub row: usize,
    pub member: u32,
    pub space: u32,
    /// Column of [`Columns::i32s`] for the member's number; [`Oneof::NO_CASE`] if there is none.
    pub case: u32,
}

impl Oneof {
    pub const NO_CASE: u32 = u32::MAX;
    pub const NO_ROW: usize = usize::MAX;

    pub fn new(space: u32) -> Self {
        Oneof { row: Oneof::NO_ROW, member: 0, space, case: Oneof::NO_CASE }
    }
}

/// All columns of a table, by kind.
#[derive(Debug, Default)]
pub struct Columns {
    pub bools: Vec<Primitive<u8>>,
    pub i32s: Vec<Primitive<i32>>,
    pub i64s: Vec<Primitive<i64>>,
    pub i128s: Vec<Primitive<i128>>,
    pub f32s: Vec<Primitive<f32>>,
    pub f64s: Vec<Primitive<f64>>,
    pub texts: Vec<Text>,
    pub structs: Vec<Struct>,
    /// A list stands before every list inside its elements.
    pub lists: Vec<List>,
    pub oneofs: Vec<Oneof>,
    pub scratch: json::Scratch,
    /// Of all columns of values, in the order of [`Columns::slot`].
    pub(super) slots: Vec<unchecked::Slot>,
    /// What marks of columns go to that keep none.
    pub(super) unmarked: Marks,
}

/// Runs the body for the columns of all kinds but oneofs.
macro_rules! each {
    ($columns:expr, |$column:ident| $body:expr) => {{
        $columns.bools.iter_mut().for_each(|$column| $body);
        $columns.i32s.iter_mut().for_each(|$column| $body);
        $columns.i64s.iter_mut().for_each(|$column| $body);
        $columns.i128s.iter_mut().for_each(|$column| $body);
        $columns.f32s.iter_mut().for_each(|$column| $body);
        $columns.f64s.iter_mut().for_each(|$column| $body);
        $columns.texts.iter_mut().for_each(|$column| $body);
    }};
}

impl Columns {
    /// Makes room for so many rows of the table.
    pub fn make_room(&mut self, rows: usize) {
        self.make_room_in(0, rows);
    }

    fn make_room_in(&mut self, space: u32, rows: usize) {
        each!(self, |column| if column.space == space {
            column.make_room(rows);
        });
        self.structs
            .iter_mut()
            .filter(|column| column.space == space)
            .for_each(|column| column.present.make_room(rows));
        self.lists.iter_mut().filter(|list| list.space == space).for_each(|list| list.make_room(rows));
        self.unmarked.make_room(rows);
        self.find_slots();
    }

    /// Adds an element to a list's row, which must be its last one; the element is a row of its own space.
    #[inline(always)]
    pub fn element(&mut self, list: usize, row: usize) -> usize {
        let element = self.reserve(list, 1);
        self.add_reserved(list, row, 1);
        element
    }

    /// Makes room for so many more elements; the first of them.
    #[inline(always)]
    pub fn reserve(&mut self, list: usize, count: usize) -> usize {
        let List { elements, room, .. } = *unchecked::slot(&mut self.lists, list);
        if room - elements < count {
            self.make_room_for_elements(list, elements + count);
        }
        elements
    }

    /// Adds so many of the elements that room was made for.
    #[inline(always)]
    pub fn add_reserved(&mut self, list: usize, row: usize, count: usize) {
        let list = unchecked::slot(&mut self.lists, list);
        list.elements += count;
        *unchecked::slot(&mut list.counts, row) += count as i32;
    }

    #[cold]
    #[inline(never)]
    fn make_room_for_elements(&mut self, list: usize, elements: usize) {
        // In steps that double at first; each column's memory grows in its own, larger ones.
        let room = elements + elements.clamp(64, 4096);
        self.lists[list].room = room;
        self.make_room_in(list as u32 + 1, room);
    }

    /// The elements, first to last, that a list's last row has yet.
    pub fn elements_of(&self, list: usize, row: usize) -> (usize, usize) {
        let List { elements, counts, .. } = &self.lists[list];
        (elements - counts.get(row).map_or(0, |count| *count as usize), *elements)
    }

    /// Whether a list's row has elements, yet.
    pub fn has_elements(&self, list: usize, row: usize) -> bool {
        self.lists[list].counts.get(row).is_some_and(|count| *count > 0)
    }

    /// Marks a struct present in a row; false if it was already.
    #[inline(always)]
    pub fn touch(&mut self, structure: usize, row: usize) -> bool {
        unchecked::slot(&mut self.structs, structure).present.set_first(row)
    }

    /// Whether the wire had a value for the row of this column, yet.
    pub fn touched(&self, column: ColumnRef, row: usize) -> bool {
        match column {
            ColumnRef::Bool(index) => self.bools[index as usize].present.get(row),
            ColumnRef::I32(index) => self.i32s[index as usize].present.get(row),
            ColumnRef::I64(index) => self.i64s[index as usize].present.get(row),
            ColumnRef::I128(index) => self.i128s[index as usize].present.get(row),
            ColumnRef::F32(index) => self.f32s[index as usize].present.get(row),
            ColumnRef::F64(index) => self.f64s[index as usize].present.get(row),
            ColumnRef::Text(index) => self.texts[index as usize].lengths.has(row),
            ColumnRef::Struct(index) => self.structs[index as usize].present.get(row),
            ColumnRef::List(index) => self.has_elements(index as usize, row),
        }
    }

    /// Rows of a space, `rows` being the table's.
    pub fn rows_of(&self, space: u32, rows: usize) -> usize {
        if space == 0 { rows } else { self.lists[space as usize - 1].elements }
    }

    /// Cuts every column back to the table's first `rows` rows, of `used` rows that were begun.
    pub fn truncate(&mut self, rows: usize, used: usize) {
        // Of each space, the rows that are kept and those that were begun.
        let mut spaces = Vec::with_capacity(self.lists.len() + 1);
        spaces.push((rows, used));
        for list in &mut self.lists {
            let (kept, used) = spaces[list.space as usize];
            let begun = list.elements;
            list.truncate(kept, used);
            spaces.push((list.elements, begun));
        }
        each!(self, |column| {
            let (kept, used) = spaces[column.space as usize];
            column.truncate(kept, used);
        });
        for column in &mut self.structs {
            let (kept, used) = spaces[column.space as usize];
            column.present.truncate(kept, used);
        }
        for oneof in &mut self.oneofs {
            if oneof.row >= spaces[oneof.space as usize].0 {
                oneof.row = Oneof::NO_ROW;
            }
        }
    }

    /// Forgets which rows had members, once all columns were taken.
    pub fn restart(&mut self) {
        self.oneofs.iter_mut().for_each(|oneof| oneof.row = Oneof::NO_ROW);
    }

    /// Checks the strings of the table's `rows` rows since the last check; the first column that holds one that is not
    /// UTF-8.
    pub fn check_utf8(&mut self, rows: usize) -> Result<(), u32> {
        let lists = &self.lists;
        for (index, text) in self.texts.iter_mut().enumerate() {
            if text.is_unchecked() {
                let rows = if text.space == 0 { rows } else { lists[text.space as usize - 1].elements };
                if !text.check_utf8(rows) {
                    return Err(index as u32);
                }
            }
        }
        Ok(())
    }

    /// Whether offsets stay below 2^31 when records of `bytes` bytes come on top and make `rows` rows in all: no byte
    /// of a record goes into more than one string or makes more than one element, but an enum's number becomes a name,
    /// and a message may become longer as JSON.
    pub fn fits(&self, plan: &Plan, bytes: usize, rows: usize) -> bool {
        let limit = i32::MAX as usize;
        let texts = self.texts.iter().all(|text| text.data.len() + bytes.saturating_mul(text.expansion) <= limit);
        let lists = self.lists.iter().all(|list| list.elements + bytes <= limit);
        let names = plan.enum_columns.iter().all(|(column, enumeration)| {
            let column = &self.i32s[*column as usize];
            let values = if column.space == 0 { rows } else { self.lists[column.space as usize - 1].elements + bytes };
            values.saturating_mul(plan.enums[*enumeration as usize].name_bytes_max) <= limit
        });
        texts && lists && names
    }

    /// Bytes that the values of `rows` rows take as arrays.
    pub fn bytes(&self, plan: &Plan, rows: usize) -> usize {
        fn primitives<T>(columns: &[Primitive<T>], rows: impl Fn(u32) -> usize) -> usize {
            columns.iter().map(|column| rows(column.space) * size_of::<T>() + column.present.bytes()).sum()
        }
        let rows = |space: u32| self.rows_of(space, rows);
        let texts = self.texts.iter().map(|text| text.data.len() + 4 * rows(text.space) + text.lengths.mark_bytes());
        let lists = self.lists.iter().map(|list| 4 * rows(list.space));
        let names = plan.enum_columns.iter().map(|(column, enumeration)| {
            rows(self.i32s[*column as usize].space) * plan.enums[*enumeration as usize].name_bytes_max
        });
        primitives(&self.bools, rows)
            + primitives(&self.i32s, rows)
            + primitives(&self.i64s, rows)
            + primitives(&self.i128s, rows)
            + primitives(&self.f32s, rows)
            + primitives(&self.f64s, rows)
            + texts.sum::<usize>()
            + self.structs.iter().map(|column| column.present.bytes()).sum::<usize>()
            + lists.sum::<usize>()
            + names.sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
