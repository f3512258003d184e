//! Rows in the table's sort order, as far as bounded memory goes.
//!
//! Rows are held back until they make a run, which is sorted and becomes row groups of its own. A file is sorted as a
//! whole, and says so, if each of its runs begins where the one before ended or later: always with one run, and with
//! many where the order follows the log's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use iceberg::spec::{NullOrder, Schema, SortDirection, SortOrder, Transform};

use super::{partition, transform};

/// Arrow bytes of a run: sorting needs about twice as much again for a moment.
const RUN_BYTES_MAX: usize = 32 << 20;

/// A sort order on the columns of a schema.
#[derive(Debug)]
pub struct Order {
    pub id: i32,
    fields: Vec<(Vec<usize>, Transform, SortOptions)>,
}

impl Order {
    /// None for the unsorted order, and for one that cannot be followed: rows may lie in any order.
    pub fn new(order: &SortOrder, schema: &Schema) -> Option<Order> {
        let mut fields = Vec::new();
        for field in &order.fields {
            let mut steps = Vec::new();
            if field.transform == Transform::Unknown
                || !partition::find(schema.as_struct(), field.source_id, &mut steps)
            {
                tracing::warn!(order = order.order_id, "the table's sort order cannot be followed: {field}");
                return None;
            }
            let options = SortOptions {
                descending: field.direction == SortDirection::Descending,
                nulls_first: field.null_order == NullOrder::First,
            };
            fields.push((steps, field.transform, options));
        }
        (!fields.is_empty()).then_some(Order { id: order.order_id as i32, fields })
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let key = |(steps, transform, _): &(Vec<usize>, Transform, SortOptions)| {
            transform::apply(*transform, &partition::column(rows, steps)?)
        };
        self.fields.iter().map(key).collect()
    }
}

/// The rows of one file that are held back, and where its last run ended.
#[derive(Debug)]
pub struct Runs {
    order: Arc<Order>,
    held: Vec<RecordBatch>,
    held_bytes: usize,
    run_bytes_max: usize,
    converter: Option<RowConverter>,
    last: Option<OwnedRow>,
    /// Whether every run so far began where the one before ended, or later.
    sorted: bool,
}

impl Runs {
    pub fn new(order: Arc<Order>, row_group_bytes: u64) -> Runs {
        let run_bytes_max = RUN_BYTES_MAX.min(usize::try_from(row_group_bytes).unwrap_or(usize::MAX)).max(1);
        Runs { order, held: Vec::new(), held_bytes: 0, run_bytes_max, converter: None, last: None, sorted: true }
    }

    /// Holds rows back; true once they make a run.
    pub fn hold(&mut self, rows: RecordBatch) -> bool {
        let bytes = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or(0);
        self.held_bytes += rows.columns().iter().map(bytes).sum::<usize>();
        self.held.push(rows);
        self.held_bytes >= self.run_bytes_max
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The rows that are held back, sorted; none if there are none.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        let Some(first) = held.first() else { return Ok(None) };
        let rows = concat_batches(first.schema_ref(), &held)?;
        drop(held);
        let keys = self.order.keys(&rows)?;
        let converter = match &mut self.converter {
            Some(converter) => converter,
            empty => {
                let fields = keys.iter().zip(&self.order.fields);
                let fields =
                    fields.map(|(key, (_, _, options))| SortField::new_with_options(key.data_type().clone(), *options));
                empty.insert(RowConverter::new(fields.collect())?)
            }
        };
        let keys = converter.convert_columns(&keys)?;
        let mut at: Vec<u32> = (0..rows.num_rows() as u32).collect();
        // Stable: rows of one key stay in the log's order.
        at.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
        let (begin, end) = (at[0] as usize, at[at.len() - 1] as usize);
        self.sorted &= self.last.as_ref().is_none_or(|last| last.row() <= keys.row(begin));
        self.last = Some(keys.row(end).owned());
        take_record_batch(&rows, &UInt32Array::from(at)).map(Some)
    }

    /// What the file may say of itself: the order's id, or 0, the unsorted order's.
    pub fn sort_order_id(&self) -> i32 {
        if self.sorted { self.order.id } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use iceberg::spec::{NestedField, PrimitiveType, SortField as Field, Type};

    use super::*;

    fn schema() -> Schema {
        let columns =
            [(1, "id", PrimitiveType::Long), (2, "name", PrimitiveType::String), (3, "x", PrimitiveType::Double)];
        let fields = columns.map(|(id, name, kind)| NestedField::optional(id, name, Type::Primitive(kind)).into());
        Schema::builder().with_fields(fields).build().unwrap()
    }

    fn order(fields: &[(i32, Transform, SortDirection, NullOrder)]) -> Arc<Order> {
        let fields = fields.iter().map(|(source_id, transform, direction, null_order)| Field {
            source_id: *source_id,
            transform: *transform,
            direction: *direction,
            null_order: *null_order,
        });
        let order = SortOrder::builder().with_order_id(4).with_fields(fields.collect()).build(&schema()).unwrap();
        Arc::new(Order::new(&order, &schema()).unwrap())
    }

    fn batch(rows: &[(Option<i64>, &str, f64)]) -> RecordBatch {
        let ids: Int64Array = rows.iter().map(|row| row.0).collect();
        let names: StringArray = rows.iter().map(|row| Some(row.1)).collect();
        let numbers: Float64Array = rows.iter().map(|row| Some(row.2)).collect();
        RecordBatch::try_from_iter([
            ("id", Arc::new(ids) as ArrayRef),
            ("name", Arc::new(names) as ArrayRef),
            ("x", Arc::new(numbers) as ArrayRef),
        ])
        .unwrap()
    }

    fn names(batch: &RecordBatch) -> String {
        use arrow::array::AsArray;
        batch.column(1).as_string::<i32>().iter().flatten().collect()
    }

    #[test]
    fn rows_lie_by_every_field_with_nulls_where_it_says() {
        use {NullOrder::*, SortDirection::*};
        let rows = batch(&[
            (Some(2), "a", 1.0),
            (None, "b", f64::NAN),
            (Some(2), "c", -0.0),
            (Some(15), "d", f64::INFINITY),
            (Some(2), "e", 0.0),
        ]);
        for (fields, expected) in [
            (vec![(1, Transform::Identity, Ascending, First), (3, Transform::Identity, Ascending, First)], "bcead"),
            (vec![(1, Transform::Identity, Descending, Last), (3, Transform::Identity, Descending, First)], "daecb"),
            (vec![(1, Transform::Truncate(10), Ascending, Last)], "acedb"),
            (vec![(3, Transform::Identity, Descending, Last)], "bdaec"),
        ] {
            let mut runs = Runs::new(order(&fields), 1 << 20);
            assert!(!runs.hold(rows.slice(0, 2)) && !runs.hold(rows.slice(2, 3)));
            assert_eq!(names(&runs.take().unwrap().unwrap()), expected, "{fields:?}");
            assert_eq!(runs.sort_order_id(), 4);
            assert!(runs.take().unwrap().is_none());
        }
    }

    #[test]
    fn a_file_says_that_it_is_sorted_only_if_all_of_it_is() {
        let by_id = order(&[(1, Transform::Identity, SortDirection::Ascending, NullOrder::First)]);
        let mut runs = Runs::new(by_id, 1);
        for (rows, id) in
            [(batch(&[(Some(1), "a", 0.0)]), 4), (batch(&[(Some(1), "b", 0.0)]), 4), (batch(&[(None, "c", 0.0)]), 0)]
        {
            assert!(runs.hold(rows), "a run is full");
            runs.take().unwrap();
            assert_eq!((runs.held_bytes(), runs.sort_order_id()), (0, id));
        }
    }

    #[test]
    fn the_unsorted_order_holds_nothing_back() {
        assert!(Order::new(&SortOrder::unsorted_order(), &schema()).is_none());
    }
}
