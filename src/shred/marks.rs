//! Marks: where a column has values.

use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

use super::columns::{make_room, zero};
use super::unchecked;

/// Which rows the wire had a value for: a byte each, which is stored without a look at its neighbours. They become bits
/// together with the column.
#[derive(Debug, Default)]
pub struct Marks {
    rows: Vec<u8>,
}

impl Marks {
    pub fn make_room(&mut self, rows: usize) {
        make_room(&mut self.rows, rows);
    }

    /// Where the first row's mark is, and how many rows there is room for.
    pub fn place(&mut self) -> (*mut u8, usize) {
        (self.rows.as_mut_ptr(), self.rows.len())
    }

    /// Marks a row that there is room for.
    #[inline(always)]
    pub fn set(&mut self, row: usize) {
        *unchecked::slot(&mut self.rows, row) = 1;
    }

    /// Marks a row that there is room for; false if it was marked.
    #[inline(always)]
    pub fn set_first(&mut self, row: usize) -> bool {
        let mark = unchecked::slot(&mut self.rows, row);
        let first = *mark == 0;
        *mark = 1;
        first
    }

    pub fn get(&self, row: usize) -> bool {
        self.rows.get(row).is_some_and(|mark| *mark != 0)
    }

    /// Whether no row was marked since the column started anew, not even one that was cut off.
    pub fn is_unused(&self) -> bool {
        self.rows.is_empty()
    }

    /// Clears the rows from `rows` on, of which those up to `used` may be marked.
    pub fn truncate(&mut self, rows: usize, used: usize) {
        zero(&mut self.rows, rows, used);
    }

    /// Bytes as bits.
    pub fn bytes(&self) -> usize {
        self.rows.len().div_ceil(8)
    }

    /// The nulls among `rows` rows, unless there are none: where no mark is, if the column is nullable, else where the
    /// parent is null. Starts anew.
    pub(super) fn take_nulls(
        &mut self,
        rows: usize,
        nullable: bool,
        parent: Option<&NullBuffer>,
    ) -> Option<NullBuffer> {
        if !nullable {
            self.rows.clear();
            return parent.cloned();
        }
        self.rows.resize(rows, 0);
        let nulls = NullBuffer::new(pack(&self.rows));
        self.rows.clear();
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// Bytes of 0 and 1 as bits.
pub(super) fn pack(bytes: &[u8]) -> BooleanBuffer {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut bits = Vec::with_capacity(bytes.len().div_ceil(8));
    // The product has the lowest bit of each byte in its highest one, in their order.
    let pack = |eight: u64| (eight.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    bits.extend(eights.iter().map(|eight| pack(u64::from_le_bytes(*eight))));
    if !rest.is_empty() {
        bits.push(rest.iter().rev().fold(0, |bits, byte| bits << 1 | byte));
    }
    BooleanBuffer::new(Buffer::from_vec(bits), 0, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_bits() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).map(|index| u8::from(index % 3 == 0 || index % 7 == 1)).collect();
            let bits: BooleanBuffer = bytes.iter().map(|byte| *byte != 0).collect();
            assert_eq!(pack(&bytes), bits, "{bytes:?}");
        }
    }
}
