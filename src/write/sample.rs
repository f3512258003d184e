//! What the first rows of a file tell about a column: how often its values repeat, and how far apart they lie.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type};

/// Values that are looked at: enough to tell a word of a hundred from an id, for a fraction of what encoding costs.
const VALUES_MAX: usize = 2048;

/// Values that a row group is taken to have: a dictionary must pay over all of them.
pub const GROUP_VALUES: f64 = 131_072.0;

/// A block of DELTA_BINARY_PACKED; its differences are stored above the block's least one, in miniblocks of as many
/// bits as the largest one needs.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

/// What is known of a column. Sizes are per value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    pub values: usize,
    /// Of the values themselves.
    pub bytes: f64,
    /// Distinct values in a row group; estimated.
    pub distinct: f64,
    /// Of an index into a dictionary of them, in bits.
    pub index_bits: f64,
    /// Of the difference to the value before, in bits; of numbers only.
    pub delta_bits: f64,
}

/// A sample of each leaf column, in the order in which Parquet has them.
pub fn samples(batch: &RecordBatch) -> Vec<Sample> {
    let hasher = RandomState::new();
    let mut samples = Vec::new();
    for column in batch.columns() {
        leaves(column, &mut |leaf| samples.push(sample(leaf, &hasher)));
    }
    samples
}

/// Visits an array's leaves depth first.
fn leaves(array: &ArrayRef, visit: &mut impl FnMut(&ArrayRef)) {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| leaves(column, visit)),
        DataType::List(_) => {
            leaves(&elements(array.as_list::<i32>().values(), array.as_list::<i32>().offsets()), visit)
        }
        DataType::LargeList(_) => {
            leaves(&elements(array.as_list::<i64>().values(), array.as_list::<i64>().offsets()), visit);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            leaves(&elements(map.keys(), map.offsets()), visit);
            leaves(&elements(map.values(), map.offsets()), visit);
        }
        _ => visit(array),
    }
}

/// The elements that a list, perhaps a slice of a longer one, has.
fn elements<O: arrow::array::OffsetSizeTrait>(values: &ArrayRef, offsets: &[O]) -> ArrayRef {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    values.slice(first, last - first)
}

fn sample(leaf: &ArrayRef, hasher: &RandomState) -> Sample {
    let leaf = leaf.slice(0, leaf.len().min(VALUES_MAX));
    let rows = || (0..leaf.len()).filter(|row| leaf.is_valid(*row));
    let mut bytes = 0;
    let mut texts = |values: &mut dyn Iterator<Item = Option<&[u8]>>| -> Vec<u64> {
        let values = values.flatten().inspect(|value| bytes += value.len());
        values.map(|value| hasher.hash_one(value)).collect()
    };
    let mut numbers: Vec<i64> = Vec::new();
    let hashes: Vec<u64> = match leaf.data_type() {
        DataType::Utf8 => texts(&mut leaf.as_string::<i32>().iter().map(|value| value.map(str::as_bytes))),
        DataType::LargeUtf8 => texts(&mut leaf.as_string::<i64>().iter().map(|value| value.map(str::as_bytes))),
        DataType::Utf8View => texts(&mut leaf.as_string_view().iter().map(|value| value.map(str::as_bytes))),
        DataType::Binary => texts(&mut leaf.as_binary::<i32>().iter()),
        DataType::LargeBinary => texts(&mut leaf.as_binary::<i64>().iter()),
        DataType::BinaryView => texts(&mut leaf.as_binary_view().iter()),
        DataType::Float32 => {
            let values = leaf.as_primitive::<Float32Type>().values();
            rows().map(|row| u64::from(values[row].to_bits())).collect()
        }
        DataType::Float64 => {
            let values = leaf.as_primitive::<Float64Type>().values();
            rows().map(|row| values[row].to_bits()).collect()
        }
        DataType::Decimal128(..) => {
            let values = leaf.as_primitive::<Decimal128Type>().values();
            rows().map(|row| hasher.hash_one(values[row])).collect()
        }
        // Whole numbers and times; what is neither has no numbers.
        _ => match cast(&leaf, &DataType::Int64) {
            Ok(cast) => {
                let values = cast.as_primitive::<Int64Type>().values();
                numbers = rows().map(|row| values[row]).collect();
                numbers.iter().map(|number| *number as u64).collect()
            }
            Err(_) => Vec::new(),
        },
    };
    let values = hashes.len();
    if values == 0 {
        return Sample::default();
    }
    let distinct = distinct(hashes);
    let width = leaf.data_type().primitive_width().unwrap_or(0);
    Sample {
        values,
        bytes: if width > 0 { width as f64 } else { bytes as f64 / values as f64 },
        distinct,
        index_bits: distinct.log2().ceil(),
        delta_bits: delta_bits(&numbers),
    }
}

/// How many distinct values a row group has, from how many of the sample's are there once and twice (Chao, 1984).
fn distinct(mut hashes: Vec<u64>) -> f64 {
    hashes.sort_unstable();
    let (mut seen, mut once, mut twice) = (0.0, 0.0, 0.0);
    for run in hashes.chunk_by(|a, b| a == b) {
        seen += 1.0;
        match run.len() {
            1 => once += 1.0,
            2 => twice += 1.0,
            _ => {}
        }
    }
    let unseen = match twice {
        // None is there again: a small sample cannot say how many there are.
        0.0 if once == seen => return GROUP_VALUES,
        0.0 => once * (once - 1.0) / 2.0,
        twice => once * once / (2.0 * twice),
    };
    let all: f64 = seen + unseen;
    // So many of them are met in a row group.
    all * (1.0 - (-GROUP_VALUES / all).exp())
}

fn delta_bits(numbers: &[i64]) -> f64 {
    let deltas: Vec<i64> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let mut bits = 0;
    for block in deltas.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        for miniblock in block.chunks(MINIBLOCK) {
            let most = miniblock.iter().map(|delta| delta.wrapping_sub(least) as u64).max().unwrap_or(0);
            bits += miniblock.len() * (64 - most.leading_zeros() as usize);
        }
    }
    bits as f64 / deltas.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn of(array: ArrayRef) -> Sample {
        sample(&array, &RandomState::new())
    }

    #[test]
    fn words_of_a_small_set_are_told_from_ids() {
        let words = of(Arc::new((0..5000).map(|row| Some(["red", "green", "blue"][row % 3])).collect::<StringArray>()));
        assert_eq!((words.values, words.distinct, words.index_bits, words.bytes), (2048, 3.0, 2.0, 4.0));
        let ids = of(Arc::new((0..5000).map(|row| Some(format!("{row:08}"))).collect::<StringArray>()));
        assert!(ids.distinct > 100_000.0, "{ids:?}");
        let names =
            of(Arc::new((0..5000u64).map(|row| Some(format!("{}", row * 7919 % 4096))).collect::<StringArray>()));
        assert!(names.distinct > 3000.0, "{names:?}");
    }

    #[test]
    fn a_clock_has_small_differences_and_random_numbers_have_not() {
        let clock = of(Arc::new((0..5000i64).map(|row| Some(1_790_000_000_000 + 2 * row)).collect::<Int64Array>()));
        assert_eq!(clock.delta_bits, 0.0);
        let mut rng = StdRng::seed_from_u64(1);
        let random = of(Arc::new((0..5000).map(|_| Some(rng.random::<i64>())).collect::<Int64Array>()));
        assert!(random.delta_bits > 60.0, "{random:?}");
        let small = of(Arc::new((0..5000).map(|row| Some(row * 7919 % 50)).collect::<Int32Array>()));
        assert!((6.0..=7.0).contains(&small.delta_bits) && small.index_bits == 6.0, "{small:?}");
    }

    #[test]
    fn nulls_are_no_values() {
        let none = of(Arc::new(StringArray::new_null(10)));
        assert_eq!(none, Sample::default());
        let some = of(Arc::new(Int64Array::from(vec![None, Some(5), None, Some(5)])));
        assert_eq!((some.values, some.distinct, some.delta_bits), (2, 1.0, 0.0));
    }

    #[test]
    fn leaves_are_in_depth_first_order() {
        let list =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(2), Some(2)])]);
        let inner = Field::new("list", list.data_type().clone(), true);
        let structure = StructArray::from(vec![
            (Arc::new(Field::new("a", DataType::Utf8, true)), Arc::new(StringArray::from(vec!["x", "yy"])) as ArrayRef),
            (Arc::new(inner), Arc::new(list) as ArrayRef),
        ]);
        let batch = RecordBatch::try_from_iter([
            ("s", Arc::new(structure) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef),
        ])
        .unwrap();
        let bytes =
            |batch: &RecordBatch| samples(batch).iter().map(|sample| (sample.values, sample.bytes)).collect::<Vec<_>>();
        assert_eq!(bytes(&batch), [(2, 1.5), (3, 4.0), (2, 8.0)]);
        assert_eq!(bytes(&batch.slice(1, 1)), [(1, 2.0), (2, 4.0), (1, 8.0)], "a slice has its own elements only");
    }
}
