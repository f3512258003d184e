//! The least and the largest value as Parquet's statistics and page index have them: bytes, and not too many.

use parquet::basic::{LogicalType, Type};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::schema::types::ColumnDescriptor;

use super::super::bounds::{Value, binary_upper, string_prefix, string_upper};

/// A chunk's statistics, ends of byte strings cut to a length.
pub fn statistics(
    descriptor: &ColumnDescriptor,
    ends: Option<&(Value, Value)>,
    nulls: u64,
    length: Option<usize>,
) -> Statistics {
    let nulls = Some(nulls);
    macro_rules! statistics {
        ($value:path, $type:ty) => {{
            let (least, most) = match ends {
                Some(($value(least), $value(most))) => (Some(*least), Some(*most)),
                _ => (None, None),
            };
            Statistics::from(ValueStatistics::<$type>::new(least, most, None, nulls, false))
        }};
    }
    match descriptor.physical_type() {
        Type::BOOLEAN => statistics!(Value::Boolean, bool),
        Type::INT32 => statistics!(Value::Int, i32),
        Type::INT64 => statistics!(Value::Long, i64),
        Type::FLOAT => statistics!(Value::Float, f32),
        Type::DOUBLE => statistics!(Value::Double, f64),
        other => {
            let (least, most) = match ends {
                Some((least, most)) => {
                    (Some(cut_least(descriptor, least, length)), Some(cut_most(descriptor, most, length)))
                }
                None => (None, None),
            };
            let exact = |end: &Option<(Vec<u8>, bool)>| end.as_ref().is_none_or(|(_, exact)| *exact);
            let (least_exact, most_exact) = (exact(&least), exact(&most));
            let bytes = |end: Option<(Vec<u8>, bool)>| end.map(|(bytes, _)| ByteArray::from(bytes));
            if other == Type::BYTE_ARRAY {
                let statistics = ValueStatistics::new(bytes(least), bytes(most), None, nulls, false);
                statistics.with_min_is_exact(least_exact).with_max_is_exact(most_exact).into()
            } else {
                let fixed = |end| bytes(end).map(FixedLenByteArray::from);
                let statistics = ValueStatistics::new(fixed(least), fixed(most), None, nulls, false);
                statistics.with_min_is_exact(least_exact).with_max_is_exact(most_exact).into()
            }
        }
    }
}

/// A lower end's bytes, cut to a length if they are more; and whether they are not.
pub fn cut_least(descriptor: &ColumnDescriptor, end: &Value, length: Option<usize>) -> (Vec<u8>, bool) {
    let bytes = bytes(descriptor, end);
    match (end, length) {
        (Value::Bytes(_), Some(length)) if bytes.len() > length => {
            let text = is_text(descriptor).then(|| std::str::from_utf8(&bytes).ok()).flatten();
            let cut = text.map_or(length, |text| string_prefix(text, length).len());
            (bytes[..cut].to_vec(), false)
        }
        _ => (bytes, true),
    }
}

/// An upper end's; what is cut is made larger, and stays as it is if it cannot be.
pub fn cut_most(descriptor: &ColumnDescriptor, end: &Value, length: Option<usize>) -> (Vec<u8>, bool) {
    let bytes = bytes(descriptor, end);
    let cut = match (end, length) {
        (Value::Bytes(_), Some(length)) if bytes.len() > length => match std::str::from_utf8(&bytes) {
            Ok(text) if is_text(descriptor) => string_upper(text, string_prefix(text, length)).map(String::into_bytes),
            _ => binary_upper(&bytes, length),
        },
        _ => None,
    };
    cut.map_or_else(|| (bytes, true), |cut| (cut, false))
}

fn is_text(descriptor: &ColumnDescriptor) -> bool {
    matches!(descriptor.logical_type_ref(), Some(LogicalType::String))
}

fn bytes(descriptor: &ColumnDescriptor, end: &Value) -> Vec<u8> {
    match end {
        Value::Boolean(value) => vec![u8::from(*value)],
        Value::Int(value) => value.to_le_bytes().to_vec(),
        Value::Long(value) => value.to_le_bytes().to_vec(),
        Value::Float(value) => value.to_le_bytes().to_vec(),
        Value::Double(value) => value.to_le_bytes().to_vec(),
        Value::Decimal(value) => value.to_be_bytes()[16 - descriptor.type_length() as usize..].to_vec(),
        Value::Bytes(bytes) => bytes.clone(),
    }
}
