//! The present values of a leaf column: of the batch at hand, and of the page that is being filled.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{Buffer, NullBuffer};
use parquet::basic::{Encoding, Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnDescriptor;

use super::super::bounds::Value;
use super::bits::pack;
use super::numbers::Numbers;
use super::texts::Texts;

/// What a page says of its values beside them.
pub struct Summary {
    pub encoding: Encoding,
    /// Least and largest value; none if there is no value, or nothing but NaN.
    pub ends: Option<(Value, Value)>,
    /// Of byte strings: their length together.
    pub text_bytes: Option<i64>,
}

/// A column's values. A batch is loaded, then appended range by range, each range to one page.
pub trait Values: Send {
    /// Takes a batch's values and tells how many are there.
    fn load(&mut self, array: &ArrayRef, valid: Option<&NullBuffer>) -> Result<usize>;

    /// Bytes that loaded values take, not counting what an encoding saves.
    fn bytes(&self, range: Range<usize>) -> usize;

    fn append(&mut self, range: Range<usize>);

    /// Visits loaded values as the bytes that a bloom filter has them by.
    fn hashed(&self, range: Range<usize>, visit: &mut dyn FnMut(&[u8]));

    /// Bytes of the page so far, about.
    fn page_bytes(&self) -> usize;

    /// Encodes the page, whose values are gone then.
    fn flush(&mut self, out: &mut Vec<u8>) -> Summary;

    /// Of the dictionary, if there is one: bytes of its page.
    fn dictionary_bytes(&self) -> usize;

    /// Bytes of memory that finding dictionary entries takes.
    fn table_bytes(&self) -> usize;

    /// Takes the dictionary: its page and count of entries. Later pages do without.
    fn end_dictionary(&mut self) -> Option<(Vec<u8>, usize)>;
}

/// The values of a column, encoded as the properties say.
pub fn values(column: &ColumnDescriptor, properties: &WriterProperties) -> Result<Box<dyn Values>> {
    let dictionary = properties.dictionary_enabled(column.path());
    let encoding = properties.encoding(column.path()).unwrap_or(Encoding::PLAIN);
    Ok(match column.physical_type() {
        Type::BOOLEAN => Box::new(Booleans::default()),
        Type::INT32 => Box::new(Numbers::<i32>::new(dictionary, encoding)),
        Type::INT64 => Box::new(Numbers::<i64>::new(dictionary, encoding)),
        Type::FLOAT => Box::new(Numbers::<f32>::new(dictionary, encoding)),
        Type::DOUBLE => Box::new(Numbers::<f64>::new(dictionary, encoding)),
        Type::BYTE_ARRAY => Box::new(Texts::new(dictionary, encoding)),
        Type::FIXED_LEN_BYTE_ARRAY => Box::new(Texts::fixed(column.type_length() as usize)),
        Type::INT96 => return Err(ParquetError::NYI("columns of INT96".into())),
    })
}

/// The entries of `values` that are there.
pub fn present<T: Copy + Default>(values: &[T], valid: &NullBuffer) -> Vec<T> {
    let mut present = vec![T::default(); values.len()];
    let mut count = 0;
    for (value, valid) in values.iter().zip(valid) {
        present[count] = *value;
        count += usize::from(valid);
    }
    present.truncate(count);
    present
}

/// True and false, a bit each.
#[derive(Default)]
struct Booleans {
    loaded: Vec<u8>,
    page: Vec<u8>,
}

impl Values for Booleans {
    fn load(&mut self, array: &ArrayRef, valid: Option<&NullBuffer>) -> Result<usize> {
        let array = array.as_boolean_opt().ok_or_else(|| unexpected(array))?;
        self.loaded = array.values().iter().map(u8::from).collect();
        if let Some(valid) = valid {
            self.loaded = present(&self.loaded, valid);
        }
        Ok(self.loaded.len())
    }

    fn bytes(&self, range: Range<usize>) -> usize {
        range.len().div_ceil(8)
    }

    fn append(&mut self, range: Range<usize>) {
        self.page.extend_from_slice(&self.loaded[range]);
    }

    fn hashed(&self, range: Range<usize>, visit: &mut dyn FnMut(&[u8])) {
        self.loaded[range].chunks(1).for_each(visit);
    }

    fn page_bytes(&self) -> usize {
        self.page.len().div_ceil(8)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Summary {
        pack(&self.page, 1, out);
        let trues = self.page.iter().map(|value| usize::from(*value)).sum::<usize>();
        let ends =
            (!self.page.is_empty()).then_some((Value::Boolean(trues == self.page.len()), Value::Boolean(trues > 0)));
        self.page.clear();
        Summary { encoding: Encoding::PLAIN, ends, text_bytes: None }
    }

    fn dictionary_bytes(&self) -> usize {
        0
    }

    fn table_bytes(&self) -> usize {
        0
    }

    fn end_dictionary(&mut self) -> Option<(Vec<u8>, usize)> {
        None
    }
}

/// An array's first buffer, of the rows that the array has, as numbers.
pub fn buffer<T: arrow::datatypes::ArrowNativeType>(array: &ArrayRef) -> Result<arrow::buffer::ScalarBuffer<T>> {
    let data = array.to_data();
    let values: &Buffer = data.buffers().first().ok_or_else(|| unexpected(array))?;
    if array.data_type().primitive_width() != Some(size_of::<T>()) {
        return Err(unexpected(array));
    }
    Ok(arrow::buffer::ScalarBuffer::new(values.clone(), data.offset(), data.len()))
}

/// The file's schema was made from the batches' own.
pub fn unexpected(array: &ArrayRef) -> ParquetError {
    ParquetError::General(format!("an array of {} is not what the column holds", array.data_type()))
}
