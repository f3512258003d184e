//! Columns of one value, which batch after batch has again.

use arrow::array::{Array, ArrayRef};
use arrow::error::ArrowError;

/// Longer ones are not worth their memory between two batches.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// An array of the same value in every row, kept to be handed out by the slice.
#[derive(Debug)]
pub struct Constant<K> {
    kept: Option<(K, ArrayRef)>,
}

impl<K> Default for Constant<K> {
    fn default() -> Self {
        Constant { kept: None }
    }
}

impl<K: PartialEq> Constant<K> {
    /// `rows` rows of the value that `key` stands for; `make` makes an array of a length.
    pub fn rows(
        &mut self,
        key: K,
        rows: usize,
        make: impl FnOnce(usize) -> Result<ArrayRef, ArrowError>,
    ) -> Result<ArrayRef, ArrowError> {
        match &self.kept {
            Some((kept, array)) if *kept == key && array.len() >= rows => Ok(array.slice(0, rows)),
            _ => {
                let array = make(rows)?;
                self.kept = (array.get_array_memory_size() <= KEPT_BYTES_MAX).then(|| (key, array.clone()));
                Ok(array)
            }
        }
    }
}
