//! A column of strings or bytes under construction.

use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::bytes::Bytes;
use super::columns::{make_room, replace_with_room, zero};
use super::unchecked;

/// How long each row's value is, and whether the wire had one: in one number, as each column that a record touches is
/// another line of the cache.
#[derive(Debug, Default)]
pub struct Lengths {
    /// Below zero where there is a value; its length in the other bits.
    rows: Vec<i32>,
}

const MARK: i32 = i32::MIN;

impl Lengths {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row had a value since the column started anew, not even one that was cut off.
    pub fn is_unused(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn has(&self, row: usize) -> bool {
        self.rows.get(row).is_some_and(|length| *length < 0)
    }

    /// Bytes of the marks as bits.
    pub fn mark_bytes(&self) -> usize {
        self.rows.len().div_ceil(8)
    }

    /// The row of a value of so many bytes.
    #[inline(always)]
    pub fn marked(length: usize) -> i32 {
        length as i32 | MARK
    }

    /// As they are kept; for [`unchecked::Slot`].
    pub fn rows(&mut self) -> &mut Vec<i32> {
        &mut self.rows
    }

    /// Of the rows `from..to`, as far as there are any.
    pub fn of(&self, from: usize, to: usize) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator {
        let to = to.min(self.rows.len());
        self.rows[from.min(to)..to].iter().map(|length| (length & !MARK) as usize)
    }

    /// As `Marks::take_nulls`, but for starting anew.
    pub(super) fn nulls(&mut self, rows: usize, nullable: bool, parent: Option<&NullBuffer>) -> Option<NullBuffer> {
        if !nullable {
            return parent.cloned();
        }
        if self.is_unused() {
            return (rows > 0).then(|| NullBuffer::new_null(rows));
        }
        self.rows.resize(rows, 0);
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(rows, |row| self.rows[row] < 0));
        (nulls.null_count() > 0).then_some(nulls)
    }

    /// Where each of `rows` rows starts and the last one ends; starts anew. The batch is sealed before that reaches 2^31
    /// (`Columns::fits`).
    fn take_starts(&mut self, rows: usize) -> Vec<i32> {
        if self.is_unused() {
            return vec![0; rows + 1];
        }
        self.rows.truncate(rows);
        let mut lengths = replace_with_room(&mut self.rows);
        lengths.resize(rows + 1, 0);
        let mut start = 0;
        for length in &mut lengths {
            (*length, start) = (start, start + (*length & !MARK));
        }
        lengths
    }
}

/// Strings or bytes.
#[derive(Debug)]
pub struct Text {
    pub lengths: Lengths,
    /// All values, in the order of rows.
    pub data: Bytes,
    /// As in `Primitive`.
    pub nullable: bool,
    pub utf8: bool,
    /// Bytes that a byte of a record becomes at most.
    pub expansion: usize,
    pub space: u32,
    /// Rows and bytes up to here are known to be UTF-8.
    checked: (usize, usize),
}

impl Text {
    pub fn new(space: u32, nullable: bool, utf8: bool) -> Self {
        let (lengths, data) = (Lengths::default(), Bytes::default());
        Text { lengths, data, nullable, utf8, expansion: 1, space, checked: (0, 0) }
    }

    pub fn make_room(&mut self, rows: usize) {
        make_room(&mut self.lengths.rows, rows);
    }

    /// Makes what `data` holds from `start` on the value of a row that has none.
    pub fn finish(&mut self, row: usize, start: usize) {
        *unchecked::slot(&mut self.lengths.rows, row) = Lengths::marked(self.data.len() - start);
    }

    /// Puts a value into a row behind all others; makes the room.
    pub fn push(&mut self, row: usize, value: &[u8]) {
        if row >= self.lengths.len() {
            self.make_room((row + 1).next_multiple_of(64));
        }
        self.data.extend_from_slice(value);
        self.finish(row, self.data.len() - value.len());
    }

    /// The values of the last of `used` rows, from `first` on.
    pub fn last_values(&self, first: usize, used: usize) -> impl Iterator<Item = &[u8]> {
        let mut start = self.data.len() - self.lengths.of(first, used).sum::<usize>();
        self.lengths.of(first, used).map(move |length| {
            let value = &self.data[start..start + length];
            start += length;
            value
        })
    }

    /// Cuts back to `rows` of `used` rows.
    pub fn truncate(&mut self, rows: usize, used: usize) {
        self.data.truncate(self.data.len() - self.lengths.of(rows, used).sum::<usize>());
        zero(&mut self.lengths.rows, rows, used);
        self.checked = (self.checked.0.min(rows), self.checked.1.min(self.data.len()));
    }

    /// Offsets (one more than rows) and bytes of `rows` rows; starts anew.
    pub fn take_parts(&mut self, rows: usize) -> (Vec<i32>, Vec<u8>) {
        self.checked = (0, 0);
        (self.lengths.take_starts(rows), self.data.with(replace_with_room))
    }

    pub fn is_unchecked(&self) -> bool {
        self.utf8 && self.checked.1 < self.data.len()
    }

    /// Whether every value of `rows` rows since the last check is UTF-8; only then is the check remembered.
    pub fn check_utf8(&mut self, rows: usize) -> bool {
        let (from, mut start) = self.checked;
        let bytes = &self.data[start..];
        if !bytes.is_ascii() {
            if simdutf8::basic::from_utf8(bytes).is_err() {
                return false;
            }
            // All together may be UTF-8 while one value ends, and the next starts, inside a character.
            for length in self.lengths.of(from, rows) {
                if self.data.get(start).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    return false;
                }
                start += length;
            }
        }
        self.checked = (rows, self.data.len());
        true
    }
}
