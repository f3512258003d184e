//! Numbers of four and eight bytes.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Decimal128Type, ToByteSlice};
use parquet::basic::Encoding;
use parquet::errors::Result;

use super::super::bounds::Value;
use super::bits::{hybrid, width};
use super::delta;
use super::dictionary::{Bits, Dictionary, Store};
use super::values::{Summary, Values, buffer, present};

/// One of Parquet's four types of numbers.
pub trait Number: ArrowNativeType + PartialOrd + Send {
    const LEAST: Self;
    const LARGEST: Self;

    fn of(decimal: i128) -> Self;
    /// In eight bytes, whole numbers with their sign: neighbours stay neighbours.
    fn bits(self) -> u64;
    fn put(bits: u64, out: &mut Vec<u8>);
    fn deltas(values: &[Self], out: &mut Vec<u8>);
    fn ends(least: Self, largest: Self) -> (Value, Value);
}

macro_rules! whole {
    ($type:ty, $unsigned:ty, $value:path) => {
        impl Number for $type {
            const LEAST: Self = <$type>::MIN;
            const LARGEST: Self = <$type>::MAX;

            fn of(decimal: i128) -> Self {
                decimal as Self
            }

            fn bits(self) -> u64 {
                i64::from(self) as u64
            }

            fn put(bits: u64, out: &mut Vec<u8>) {
                out.extend_from_slice(&(bits as $unsigned).to_le_bytes());
            }

            fn deltas(values: &[Self], out: &mut Vec<u8>) {
                delta::encode(values, out);
            }

            fn ends(least: Self, largest: Self) -> (Value, Value) {
                ($value(least), $value(largest))
            }
        }
    };
}

macro_rules! float {
    ($type:ty, $unsigned:ty, $value:path) => {
        impl Number for $type {
            const LEAST: Self = <$type>::NEG_INFINITY;
            const LARGEST: Self = <$type>::INFINITY;

            fn of(decimal: i128) -> Self {
                decimal as Self
            }

            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }

            fn put(bits: u64, out: &mut Vec<u8>) {
                out.extend_from_slice(&(bits as $unsigned).to_le_bytes());
            }

            fn deltas(_: &[Self], _: &mut Vec<u8>) {
                unreachable!("differences of whole numbers only");
            }

            /// Readers must find both zeros within ends that are zero.
            fn ends(least: Self, largest: Self) -> (Value, Value) {
                let zero = |end: Self, zero: Self| if end == 0.0 { zero } else { end };
                ($value(zero(least, -0.0)), $value(zero(largest, 0.0)))
            }
        }
    };
}

whole!(i32, u32, Value::Int);
whole!(i64, u64, Value::Long);
float!(f32, u32, Value::Float);
float!(f64, u64, Value::Double);

pub struct Numbers<T: Number> {
    loaded: ScalarBuffer<T>,
    /// Of the page: values or, with a dictionary, their indexes.
    page: Vec<T>,
    indexes: Vec<u32>,
    least: T,
    largest: T,
    dictionary: Option<Dictionary<Bits>>,
    encoding: Encoding,
}

impl<T: Number> Numbers<T> {
    pub fn new(dictionary: bool, encoding: Encoding) -> Self {
        Numbers {
            loaded: ScalarBuffer::from(Vec::new()),
            page: Vec::new(),
            indexes: Vec::new(),
            least: T::LARGEST,
            largest: T::LEAST,
            dictionary: dictionary.then(Dictionary::default),
            encoding,
        }
    }
}

impl<T: Number> Values for Numbers<T> {
    fn load(&mut self, array: &ArrayRef, valid: Option<&NullBuffer>) -> Result<usize> {
        let values: ScalarBuffer<T> = match array.data_type() {
            // Decimals of few digits are stored as numbers of few bytes.
            DataType::Decimal128(..) => {
                array.as_primitive::<Decimal128Type>().values().iter().map(|value| T::of(*value)).collect()
            }
            _ => buffer(array)?,
        };
        self.loaded = match valid {
            Some(valid) => present(&values, valid).into(),
            None => values,
        };
        Ok(self.loaded.len())
    }

    fn bytes(&self, range: Range<usize>) -> usize {
        range.len() * size_of::<T>()
    }

    fn append(&mut self, range: Range<usize>) {
        let values = &self.loaded[range];
        // What is not a number is neither less nor more.
        for value in values {
            self.least = if *value < self.least { *value } else { self.least };
            self.largest = if *value > self.largest { *value } else { self.largest };
        }
        match &mut self.dictionary {
            Some(dictionary) => self.indexes.extend(values.iter().map(|value| dictionary.index(value.bits()))),
            None => self.page.extend_from_slice(values),
        }
    }

    fn hashed(&self, range: Range<usize>, visit: &mut dyn FnMut(&[u8])) {
        self.loaded[range].iter().for_each(|value| visit(value.to_byte_slice()));
    }

    fn page_bytes(&self) -> usize {
        self.page.len() * size_of::<T>() + self.indexes.len() * size_of::<u32>()
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Summary {
        let encoding = match &self.dictionary {
            Some(dictionary) => {
                let width = width((dictionary.store.len() as u64).saturating_sub(1));
                out.push(width as u8);
                hybrid(&self.indexes, width, out);
                Encoding::RLE_DICTIONARY
            }
            None if self.encoding == Encoding::DELTA_BINARY_PACKED => {
                T::deltas(&self.page, out);
                self.encoding
            }
            None => {
                out.extend_from_slice(self.page.to_byte_slice());
                Encoding::PLAIN
            }
        };
        let ends = (self.least <= self.largest).then(|| T::ends(self.least, self.largest));
        (self.least, self.largest) = (T::LARGEST, T::LEAST);
        self.page.clear();
        self.indexes.clear();
        Summary { encoding, ends, text_bytes: None }
    }

    fn dictionary_bytes(&self) -> usize {
        self.dictionary.as_ref().map_or(0, |dictionary| dictionary.store.len() * size_of::<T>())
    }

    fn table_bytes(&self) -> usize {
        self.dictionary.as_ref().map_or(0, Dictionary::table_bytes)
    }

    fn end_dictionary(&mut self) -> Option<(Vec<u8>, usize)> {
        let Bits(values) = self.dictionary.take()?.store;
        let mut page = Vec::with_capacity(values.len() * size_of::<T>());
        values.iter().for_each(|bits| T::put(*bits, &mut page));
        Some((page, values.len()))
    }
}
