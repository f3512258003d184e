//! Columns under construction.
//!
//! A column lags behind: a row without a value costs nothing, because the next value (or the end) fills the gap. The
//! length of a column is therefore also the answer to "has this row a value yet?", and cutting a column back to a row
//! undoes whatever a record that failed has left behind.
//!
//! Rows are counted per *space*: the table's own rows are space 0, the elements of the n-th list (or map) space n + 1.
//! A struct has the rows of the space it stands in.

use super::plan::{ColumnRef, Plan};

/// Takes a vector and leaves an empty one with room for as much and a bit more: the next batch is most likely like the
/// last one, and growing step by step copies.
pub fn replace_with_room<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len() + values.len() / 8;
    std::mem::replace(values, Vec::with_capacity(room))
}

/// A bitmap that reads as false beyond its end.
#[derive(Debug, Default)]
pub struct Bits {
    pub words: Vec<u64>,
}

impl Bits {
    #[inline(always)]
    pub fn set(&mut self, row: usize) {
        match self.words.get_mut(row >> 6) {
            Some(word) => *word |= 1 << (row & 63),
            None => self.set_beyond(row),
        }
    }

    #[inline(never)]
    fn set_beyond(&mut self, row: usize) {
        self.words.resize((row >> 6) + 1, 0);
        self.words[row >> 6] |= 1 << (row & 63);
    }

    pub fn truncate(&mut self, rows: usize) {
        let word = rows >> 6;
        if word < self.words.len() {
            self.words.truncate(word + 1);
            self.words[word] &= (1 << (rows & 63)) - 1;
        }
    }
}

/// Values of a fixed width.
#[derive(Debug)]
pub struct Primitive<T> {
    pub values: Vec<T>,
    /// Set where a value is; `None` where absence is the default or the parent's.
    pub valid: Option<Bits>,
    pub space: u32,
}

impl<T: Copy + Default> Primitive<T> {
    pub fn new(space: u32, nullable: bool) -> Self {
        Primitive { values: Vec::new(), valid: nullable.then(Bits::default), space }
    }

    /// Puts a value into a row; false if the row had one, which is overwritten.
    #[inline(always)]
    pub fn put(&mut self, row: usize, value: T) -> bool {
        let fresh = self.values.len() == row || self.make_room(row);
        if fresh {
            self.values.push(value);
        } else {
            self.values[row] = value;
        }
        if let Some(valid) = &mut self.valid {
            valid.set(row);
        }
        fresh
    }

    /// Fills the rows in front of this one; false if it has a value.
    #[inline(never)]
    fn make_room(&mut self, row: usize) -> bool {
        let fresh = self.values.len() <= row;
        if fresh {
            self.values.resize(row, T::default());
        }
        fresh
    }

    /// A row that is null although its field was there.
    pub fn put_null(&mut self, row: usize) -> bool {
        let fresh = self.values.len() <= row;
        self.values.resize(row + 1, T::default());
        fresh
    }

    pub fn truncate(&mut self, rows: usize) {
        if self.values.len() > rows {
            self.values.truncate(rows);
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }
}

/// Strings or bytes.
#[derive(Debug)]
pub struct Text {
    /// Where each row starts in `data`; it ends where the next one starts.
    pub starts: Vec<i32>,
    pub data: Vec<u8>,
    pub valid: Option<Bits>,
    pub utf8: bool,
    pub space: u32,
    /// Rows and bytes up to here are known to be UTF-8.
    checked: (usize, usize),
}

impl Text {
    pub fn new(space: u32, nullable: bool, utf8: bool) -> Self {
        let valid = nullable.then(Bits::default);
        Text { starts: Vec::new(), data: Vec::new(), valid, utf8, space, checked: (0, 0) }
    }

    /// Puts `buffer[at..at + length]` into a row that has no value; false, and nothing is done, if it has one. Up to
    /// sixteen bytes behind `at` must be readable.
    #[inline(always)]
    pub fn put_from(&mut self, row: usize, buffer: &[u8], at: usize, length: usize) -> bool {
        if !self.begin(row) {
            return false;
        }
        if length <= 16 {
            // A copy of known size, cut back to the value, is one instruction; `memcpy` is a call.
            let kept = self.data.len() + length;
            self.data.extend_from_slice(&buffer[at..at + 16]);
            self.data.truncate(kept);
        } else {
            self.data.extend_from_slice(&buffer[at..at + length]);
        }
        true
    }

    pub fn put(&mut self, row: usize, value: &[u8]) -> bool {
        let fresh = self.begin(row);
        if fresh {
            self.data.extend_from_slice(value);
        }
        fresh
    }

    #[inline(always)]
    fn begin(&mut self, row: usize) -> bool {
        // The batch is sealed before a column reaches 2 GiB (`Columns::fits`).
        let start = self.data.len() as i32;
        if self.starts.len() != row && !self.make_room(row) {
            return false;
        }
        self.starts.push(start);
        if let Some(valid) = &mut self.valid {
            valid.set(row);
        }
        true
    }

    /// Fills the rows in front of this one; false if it has a value.
    #[inline(never)]
    fn make_room(&mut self, row: usize) -> bool {
        let fresh = self.starts.len() <= row;
        if fresh {
            self.starts.resize(row, self.data.len() as i32);
        }
        fresh
    }

    /// The bytes of a row; empty where it has no value yet.
    pub fn value(&self, row: usize) -> &[u8] {
        let start = self.starts.get(row).map_or(self.data.len(), |start| *start as usize);
        let end = self.starts.get(row + 1).map_or(self.data.len(), |start| *start as usize);
        &self.data[start..end]
    }

    pub fn truncate(&mut self, rows: usize) {
        if self.starts.len() > rows {
            self.data.truncate(self.starts[rows] as usize);
            self.starts.truncate(rows);
            self.checked = (self.checked.0.min(rows), self.checked.1.min(self.data.len()));
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(rows);
        }
    }

    /// Offsets (one more than rows) and bytes of `rows` rows, and whether they are strings; starts anew.
    pub fn take_parts(&mut self, rows: usize) -> (Vec<i32>, Vec<u8>, bool) {
        let mut starts = replace_with_room(&mut self.starts);
        let data = replace_with_room(&mut self.data);
        starts.resize(rows + 1, data.len() as i32);
        self.checked = (0, 0);
        (starts, data, self.utf8)
    }

    /// Whether every value since the last check is UTF-8; only then is the check remembered.
    fn check_utf8(&mut self) -> bool {
        let (rows, bytes) = self.checked;
        let unchecked = &self.data[bytes..];
        if !unchecked.is_ascii() {
            if simdutf8::basic::from_utf8(unchecked).is_err() {
                return false;
            }
            // All together may be UTF-8 while one value ends, and the next starts, inside a character.
            let continues = |start: &i32| self.data.get(*start as usize).is_some_and(|byte| byte & 0xc0 == 0x80);
            if self.starts[rows..].iter().any(continues) {
                return false;
            }
        }
        self.checked = (self.starts.len(), self.data.len());
        true
    }
}

/// A struct: where it is present.
#[derive(Debug)]
pub struct Struct {
    /// `None` for an element of a list or a value of a map, which is always present.
    pub present: Option<Bits>,
    /// The row after the last one that the wire had an occurrence for.
    pub touched: usize,
    pub space: u32,
}

impl Struct {
    pub fn new(space: u32, nullable: bool) -> Self {
        Struct { present: nullable.then(Bits::default), touched: 0, space }
    }

    /// Marks the row present; false if it was already.
    #[inline(always)]
    pub fn touch(&mut self, row: usize) -> bool {
        let fresh = self.touched <= row;
        self.touched = row + 1;
        if let Some(present) = &mut self.present {
            present.set(row);
        }
        fresh
    }

    pub fn truncate(&mut self, rows: usize) {
        self.touched = self.touched.min(rows);
        if let Some(present) = &mut self.present {
            present.truncate(rows);
        }
    }
}

/// A list or a map: where each row's elements start.
#[derive(Debug)]
pub struct List {
    pub starts: Vec<i32>,
    /// Rows of the elements' own space.
    pub elements: usize,
    pub space: u32,
}

impl List {
    pub fn new(space: u32) -> Self {
        List { starts: Vec::new(), elements: 0, space }
    }

    /// Opens the row, if it is not open.
    #[inline(always)]
    pub fn open(&mut self, row: usize) {
        if self.starts.len() == row {
            // Elements stay below 2^31 like bytes do (`Columns::fits`).
            self.starts.push(self.elements as i32);
        } else if self.starts.len() < row {
            self.open_behind_gap(row);
        }
    }

    #[inline(never)]
    fn open_behind_gap(&mut self, row: usize) {
        self.starts.resize(row + 1, self.elements as i32);
    }

    /// The elements of a row.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        let start = self.starts.get(row).map_or(self.elements, |start| *start as usize);
        let end = self.starts.get(row + 1).map_or(self.elements, |start| *start as usize);
        start..end
    }

    pub fn truncate(&mut self, rows: usize) {
        if self.starts.len() > rows {
            self.elements = self.starts[rows] as usize;
            self.starts.truncate(rows);
        }
    }
}

/// Which member of a oneof the current row has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oneof {
    pub touched: usize,
    pub member: u32,
    pub space: u32,
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
}

impl Columns {
    /// Whether the wire had a value for the row of this column, yet.
    pub fn touched(&self, column: ColumnRef, row: usize) -> bool {
        row < match column {
            ColumnRef::Bool(index) => self.bools[index as usize].values.len(),
            ColumnRef::I32(index) => self.i32s[index as usize].values.len(),
            ColumnRef::I64(index) => self.i64s[index as usize].values.len(),
            ColumnRef::I128(index) => self.i128s[index as usize].values.len(),
            ColumnRef::F32(index) => self.f32s[index as usize].values.len(),
            ColumnRef::F64(index) => self.f64s[index as usize].values.len(),
            ColumnRef::Text(index) => self.texts[index as usize].starts.len(),
            ColumnRef::Struct(index) => self.structs[index as usize].touched,
            ColumnRef::List(index) => self.lists[index as usize].starts.len(),
        }
    }

    /// Rows of a space, `rows` being the table's.
    pub fn rows_of(&self, space: u32, rows: usize) -> usize {
        if space == 0 { rows } else { self.lists[space as usize - 1].elements }
    }

    /// Cuts every column back to the table's first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        for index in 0..self.lists.len() {
            let kept = self.rows_of(self.lists[index].space, rows);
            self.lists[index].truncate(kept);
        }
        let lists = &self.lists;
        let kept = |space: u32| if space == 0 { rows } else { lists[space as usize - 1].elements };
        self.bools.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.i32s.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.i64s.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.i128s.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.f32s.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.f64s.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.texts.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.structs.iter_mut().for_each(|column| column.truncate(kept(column.space)));
        self.oneofs.iter_mut().for_each(|oneof| oneof.touched = oneof.touched.min(kept(oneof.space)));
    }

    /// Forgets which rows were touched, once all columns were taken.
    pub fn restart(&mut self) {
        self.structs.iter_mut().for_each(|column| column.touched = 0);
        self.oneofs.iter_mut().for_each(|oneof| oneof.touched = 0);
    }

    /// Checks the strings since the last check; the first column that holds one that is not UTF-8.
    pub fn check_utf8(&mut self) -> Result<(), u32> {
        for (index, text) in self.texts.iter_mut().enumerate() {
            if text.utf8 && text.checked.1 < text.data.len() && !text.check_utf8() {
                return Err(index as u32);
            }
        }
        Ok(())
    }

    /// Whether offsets stay below 2^31 when records of `bytes` bytes come on top and make `rows` rows in all: no byte
    /// of a record goes into more than one string or makes more than one element, but an enum's number becomes a name.
    pub fn fits(&self, plan: &Plan, bytes: usize, rows: usize) -> bool {
        let limit = i32::MAX as usize;
        let texts = self.texts.iter().all(|text| text.data.len() + bytes <= limit);
        let lists = self.lists.iter().all(|list| list.elements + bytes <= limit);
        let names = plan.enum_columns.iter().all(|(column, enumeration)| {
            let column = &self.i32s[*column as usize];
            let values = if column.space == 0 { rows } else { self.lists[column.space as usize - 1].elements + bytes };
            values.saturating_mul(plan.enums[*enumeration as usize].name_bytes_max) <= limit
        });
        texts && lists && names
    }

    /// Bytes that the values of `rows` rows take as arrays, rows that are still to be filled included.
    pub fn bytes(&self, plan: &Plan, rows: usize) -> usize {
        fn primitives<T>(columns: &[Primitive<T>], rows: impl Fn(u32) -> usize) -> usize {
            columns.iter().map(|column| rows(column.space) * size_of::<T>() + bits(&column.valid)).sum()
        }
        fn bits(bits: &Option<Bits>) -> usize {
            bits.as_ref().map_or(0, |bits| bits.words.len() * 8)
        }
        let rows = |space: u32| self.rows_of(space, rows);
        let texts = self.texts.iter().map(|text| text.data.len() + 4 * rows(text.space) + bits(&text.valid));
        let lists = self.lists.iter().map(|list| 4 * rows(list.space));
        let names = plan.enum_columns.iter().map(|(column, enumeration)| {
            let column = &self.i32s[*column as usize];
            let named = if column.valid.is_some() { column.values.len() } else { rows(column.space) };
            named * plan.enums[*enumeration as usize].name_bytes_max
        });
        primitives(&self.bools, rows)
            + primitives(&self.i32s, rows)
            + primitives(&self.i64s, rows)
            + primitives(&self.i128s, rows)
            + primitives(&self.f32s, rows)
            + primitives(&self.f64s, rows)
            + texts.sum::<usize>()
            + self.structs.iter().map(|column| bits(&column.present)).sum::<usize>()
            + lists.sum::<usize>()
            + names.sum::<usize>()
    }
}
