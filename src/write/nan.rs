//! NaN counts per column: the one metric that Parquet's statistics do not have.

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowNativeType, DataType, Float32Type, Float64Type, Schema};

/// The shape of a column, with the numbers of its leaves.
#[derive(Debug)]
struct Node {
    /// Index of the first leaf below.
    leaf: usize,
    leaves: usize,
    /// Whether a float lies below; other columns are not looked at.
    float: bool,
    children: Vec<Node>,
}

/// Counts NaN by leaf, over all batches of a file. A value under a null parent, or outside any list's range, is not in
/// the file and is not counted.
#[derive(Debug)]
pub struct Counter {
    columns: Vec<Node>,
    /// By leaf; only those of float leaves mean anything.
    pub counts: Vec<u64>,
}

impl Counter {
    pub fn new(schema: &Schema) -> Counter {
        let mut next = 0;
        let columns = schema.fields().iter().map(|field| node(field.data_type(), &mut next)).collect();
        Counter { columns, counts: vec![0; next] }
    }

    pub fn add(&mut self, batch: &RecordBatch) {
        for (node, column) in self.columns.iter().zip(batch.columns()) {
            if node.float {
                count(node, column, None, &mut self.counts);
            }
        }
    }
}

fn node(data_type: &DataType, next: &mut usize) -> Node {
    let leaf = *next;
    let children: Vec<Node> = match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| node(field.data_type(), next)).collect(),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
            vec![node(field.data_type(), next)]
        }
        _ => {
            *next += 1;
            Vec::new()
        }
    };
    let float = matches!(data_type, DataType::Float32 | DataType::Float64) || children.iter().any(|child| child.float);
    Node { leaf, leaves: *next - leaf, float, children }
}

/// `parent` says which slots exist; `None` means all.
fn count(node: &Node, array: &ArrayRef, parent: Option<&NullBuffer>, counts: &mut [u64]) {
    debug_assert!(node.leaves > 0);
    let valid = NullBuffer::union(parent, array.nulls());
    match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            counts[node.leaf] += nans(values, |value| value.is_nan(), valid.as_ref());
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            counts[node.leaf] += nans(values, |value| value.is_nan(), valid.as_ref());
        }
        DataType::Struct(_) => {
            for (child, column) in node.children.iter().zip(array.as_struct().columns()) {
                if child.float {
                    count(child, column, valid.as_ref(), counts);
                }
            }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            elements(&node.children[0], list.value_offsets(), list.values(), valid.as_ref(), counts);
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            elements(&node.children[0], list.value_offsets(), list.values(), valid.as_ref(), counts);
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
            elements(&node.children[0], map.value_offsets(), &entries, valid.as_ref(), counts);
        }
        _ => {}
    }
}

fn elements<O: ArrowNativeType>(
    node: &Node,
    offsets: &[O],
    values: &ArrayRef,
    valid: Option<&NullBuffer>,
    counts: &mut [u64],
) {
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return };
    let (first, last) = (first.as_usize(), last.as_usize());
    let values = values.slice(first, last - first);
    let Some(valid) = valid.filter(|valid| valid.null_count() > 0) else {
        return count(node, &values, None, counts);
    };
    let mut mask = BooleanBufferBuilder::new(values.len());
    for (row, range) in offsets.windows(2).enumerate() {
        mask.append_n(range[1].as_usize() - range[0].as_usize(), valid.is_valid(row));
    }
    count(node, &values, Some(&NullBuffer::new(mask.finish())), counts);
}

fn nans<T: Copy>(values: &[T], is_nan: impl Fn(T) -> bool, valid: Option<&NullBuffer>) -> u64 {
    let count = match valid {
        None => values.iter().filter(|value| is_nan(**value)).count(),
        Some(valid) => valid.valid_indices().filter(|row| is_nan(values[*row])).count(),
    };
    count as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Float64Array, Int32Array, ListArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn only_values_that_are_in_the_file_count() {
        let nan = f64::NAN;
        // A struct with a null row whose child slot holds NaN.
        let point = StructArray::new(
            vec![Field::new("n", DataType::Int32, true), Field::new("x", DataType::Float64, true)].into(),
            vec![
                Arc::new(Int32Array::from(vec![1, 2, 3])),
                Arc::new(Float64Array::from(vec![Some(nan), Some(nan), None])),
            ],
            Some(NullBuffer::from(vec![true, false, true])),
        );
        // Lists [NaN, 1], null (over a NaN), [NaN]; a NaN before the first offset.
        let list = ListArray::new(
            Arc::new(Field::new("element", DataType::Float32, true)),
            OffsetBuffer::new(vec![1, 3, 4, 5].into()),
            Arc::new(Float32Array::from(vec![f32::NAN, f32::NAN, 1.0, f32::NAN, f32::NAN])),
            Some(NullBuffer::from(vec![true, false, true])),
        );
        let batch = RecordBatch::try_from_iter([
            ("plain", Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(0.5)])) as ArrayRef),
            ("point", Arc::new(point) as ArrayRef),
            ("list", Arc::new(list) as ArrayRef),
        ])
        .unwrap();
        let mut counter = Counter::new(&batch.schema());
        counter.add(&batch);
        assert_eq!(counter.counts, [1, 0, 1, 2]);
        counter.add(&batch.slice(1, 2));
        assert_eq!(counter.counts, [1, 0, 1, 3]);
    }
}
