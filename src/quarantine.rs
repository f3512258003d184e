//! Rejected records as rows of their own Iceberg table: what came, from where, and why it is not in the main table.
//!
//! A row holds the record's bytes as they were sent, so that it can be replayed through a later schema. Its bytes are
//! copied once, from the batch's arena; memory is bounded by the batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, LargeBinaryBuilder, ListArray, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Fields, SchemaRef as ArrowSchemaRef};
use arrow::error::ArrowError;
use iceberg::spec::{NestedField, PrimitiveType, Schema, SchemaRef, SortOrder, Type};
use iceberg::table::Table;

use crate::batch::{RawBatch, RawRecord, Reject, TimestampType};
use crate::catalog::Creation;
use crate::error::{Error, Result};
use crate::schema::metadata::{self, Ids};
use crate::schema::partition;

/// As a main table is partitioned by default.
const PARTITION_BY: &str = "day(_kafka.timestamp)";

/// The columns after `_kafka`.
const COLUMNS: [(&str, PrimitiveType, &str); 7] = [
    ("value", PrimitiveType::Binary, "the record's value as it was sent; null for a tombstone"),
    ("error", PrimitiveType::String, "why it was rejected: a stable code"),
    ("detail", PrimitiveType::String, "field path and reason"),
    ("message", PrimitiveType::String, "full name of the message it was read as"),
    ("calve_version", PrimitiveType::String, "the version that rejected it"),
    ("quarantined_at", PrimitiveType::Timestamptz, "when it was rejected"),
    ("replayed_at", PrimitiveType::Timestamptz, "when it was replayed into the main table; null until then"),
];

/// The quarantine table of one topic's table.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// The columns of a new table; one that exists may have other field ids, its names and types are the same.
    pub iceberg: SchemaRef,
    pub arrow: ArrowSchemaRef,
    /// The full name of the message that records are read as.
    message: String,
}

impl Quarantine {
    pub fn new(message: &str) -> Result<Quarantine> {
        let schema = schema().map_err(internal)?;
        let arrow = iceberg::arrow::schema_to_arrow_schema(&schema).map_err(internal)?;
        Ok(Quarantine { iceberg: Arc::new(schema), arrow: Arc::new(arrow), message: message.to_string() })
    }

    /// What the catalog needs to make the table: partitioned by the day of the record's timestamp, unsorted.
    pub fn creation(&self, properties: HashMap<String, String>) -> Result<Creation> {
        let spec = partition::parse(&[PARTITION_BY.to_string()], &self.iceberg);
        let partition_spec = spec.map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
            internal(faults.join("; "))
        })?;
        Ok(Creation {
            schema: self.iceberg.as_ref().clone(),
            partition_spec,
            sort_order: SortOrder::unsorted_order(),
            properties,
        })
    }

    /// One row for each reject, in their order. `at_micros` is now, in microseconds since the epoch.
    pub fn rows(&self, batch: &RawBatch, rejects: &[Reject], at_micros: i64) -> Result<RecordBatch> {
        let records = rejects
            .iter()
            .map(|reject| batch.records.get(reject.record))
            .collect::<Option<Vec<&RawRecord>>>()
            .ok_or_else(|| internal("a reject names a record that its batch does not have"))?;
        self.try_rows(batch, &records, rejects, at_micros).map_err(|error| {
            let (topic, partition) = (&batch.topic, batch.partition);
            let range = batch.range;
            Error::halt(format!(
                "cannot make quarantine rows of {topic}/{partition} in offsets {} to {}",
                range.from, range.to
            ))
            .caused_by(error)
        })
    }

    fn try_rows(
        &self,
        batch: &RawBatch,
        records: &[&RawRecord],
        rejects: &[Reject],
        at_micros: i64,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = rejects.len();
        let DataType::Struct(kafka_fields) = self.arrow.field(0).data_type() else {
            return Err(ArrowError::SchemaError("_kafka is not a struct".into()));
        };
        let repeat = |text: &str| StringArray::from_iter_values(std::iter::repeat_n(text, rows));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(kafka(kafka_fields, batch, records, rejects)?),
            binary(records.iter().map(|record| record.value.map(|span| batch.bytes(span)))),
            Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| reject.code.as_str()))),
            Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| &reject.detail))),
            Arc::new(repeat(&self.message)),
            Arc::new(repeat(env!("CARGO_PKG_VERSION"))),
            Arc::new(TimestampMicrosecondArray::from_value(at_micros, rows).with_timezone("+00:00")),
            new_null_array(self.arrow.field(7).data_type(), rows),
        ];
        RecordBatch::try_new(self.arrow.clone(), columns)
    }
}

/// The rows in the columns that the table has now: those that others added are null. An error if one of ours is gone.
pub fn in_columns_of(table: &Table, rows: RecordBatch) -> Result<RecordBatch> {
    let schema = table.metadata().current_schema();
    if let Some(field) = schema.as_struct().fields().iter().find(|field| field.required) {
        return Err(Error::halt(format!(
            "quarantine table {}: somebody else made its column {} required (NOT NULL), which calve's columns never are; \
             make it optional again (ALTER TABLE … ALTER COLUMN … DROP NOT NULL)",
            table.identifier(),
            field.name
        )));
    }
    let same = schema.as_struct().fields().len() == rows.num_columns()
        && schema.as_struct().fields().iter().zip(rows.schema().fields()).all(|(a, b)| a.name == *b.name());
    if same {
        return Ok(rows);
    }
    let arrow = Arc::new(iceberg::arrow::schema_to_arrow_schema(schema).map_err(internal)?);
    if let Some(gone) = rows.schema().fields().iter().find(|field| arrow.index_of(field.name()).is_err()) {
        return Err(Error::halt(format!(
            "quarantine table {}: somebody else dropped or renamed its column {}; give it back its name, or name \
             another `quarantine`",
            table.identifier(),
            gone.name()
        )));
    }
    let column = |field: &arrow::datatypes::FieldRef| match rows.column_by_name(field.name()) {
        Some(column) => column.clone(),
        None => new_null_array(field.data_type(), rows.num_rows()),
    };
    let columns = arrow.fields().iter().map(column).collect();
    RecordBatch::try_new(arrow, columns).map_err(internal)
}

fn schema() -> iceberg::Result<Schema> {
    let mut ids = Ids::after(0);
    let kafka = ids.assign();
    let mut others: Vec<Arc<NestedField>> = Vec::new();
    for (name, primitive, doc) in COLUMNS {
        others.push(NestedField::optional(ids.assign(), name, Type::Primitive(primitive)).with_doc(doc).into());
    }
    let mut fields = vec![Arc::new(metadata::kafka(kafka, &mut ids))];
    fields.extend(others);
    Schema::builder().with_fields(fields).build()
}

/// `_kafka` of the given records.
fn kafka(
    fields: &Fields,
    batch: &RawBatch,
    records: &[&RawRecord],
    rejects: &[Reject],
) -> Result<StructArray, ArrowError> {
    let rows = records.len();
    let stamped =
        |record: &&RawRecord| record.timestamp_type != TimestampType::NotAvailable && record.timestamp_ms >= 0;
    let types = records.iter().map(|record| match record.timestamp_type {
        _ if !stamped(record) => None,
        TimestampType::NotAvailable => None,
        TimestampType::CreateTime => Some("create_time"),
        TimestampType::LogAppendTime => Some("log_append_time"),
    });
    let times = records.iter().map(|record| stamped(record).then(|| record.timestamp_ms.saturating_mul(1000)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(batch.topic.as_ref(), rows))),
        Arc::new(Int32Array::from_value(batch.partition, rows)),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.offset))),
        Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("+00:00")),
        Arc::new(types.collect::<StringArray>()),
        binary(records.iter().map(|record| record.key.map(|span| batch.bytes(span)))),
        Arc::new(headers(fields[6].data_type(), batch, records)?),
        Arc::new(rejects.iter().map(|reject| reject.schema_id).collect::<Int32Array>()),
    ];
    StructArray::try_new(fields.clone(), columns, None)
}

fn headers(list: &DataType, batch: &RawBatch, records: &[&RawRecord]) -> Result<ListArray, ArrowError> {
    let DataType::List(element) = list else { return Err(ArrowError::SchemaError("headers is not a list".into())) };
    let DataType::Struct(fields) = element.data_type() else {
        return Err(ArrowError::SchemaError("a header is not a struct".into()));
    };
    let spans = |record: &&RawRecord| &batch.headers[record.headers.start as usize..record.headers.end as usize];
    let mut keys = StringBuilder::new();
    for (key, _) in records.iter().flat_map(spans) {
        keys.append_value(String::from_utf8_lossy(batch.bytes(*key)));
    }
    let values = binary(records.iter().flat_map(spans).map(|(_, value)| value.map(|span| batch.bytes(span))));
    let pairs = StructArray::try_new(fields.clone(), vec![Arc::new(keys.finish()), values], None)?;
    let offsets = OffsetBuffer::from_lengths(records.iter().map(|record| spans(record).len()));
    ListArray::try_new(element.clone(), offsets, Arc::new(pairs), None)
}

fn binary<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    let mut builder = LargeBinaryBuilder::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

/// The quarantine table's shape is calve's own; that it can be built does not depend on input.
fn internal(cause: impl std::fmt::Display) -> Error {
    Error::halt(format!("cannot make the quarantine table's rows: {cause}; this is a fault of calve"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::batch::{OffsetRange, Permit, RejectCode, Span};

    fn raw_batch() -> RawBatch {
        let arena = b"keyvalueh1x".to_vec();
        let span = |start, end| Span { start, end };
        let record = |offset, key, value, headers| RawRecord {
            offset,
            timestamp_ms: 1_700_000_000_000,
            timestamp_type: TimestampType::CreateTime,
            key,
            value,
            headers,
        };
        RawBatch {
            topic: "orders".into(),
            partition: 3,
            range: OffsetRange { from: 10, to: 13 },
            records: vec![
                record(10, Some(span(0, 3)), Some(span(3, 8)), span(0, 2)),
                record(11, None, None, span(2, 2)),
                RawRecord {
                    timestamp_ms: -1,
                    timestamp_type: TimestampType::NotAvailable,
                    ..record(12, None, Some(span(8, 8)), span(2, 3))
                },
            ],
            headers: vec![(span(8, 10), Some(span(10, 11))), (span(8, 10), None), (span(8, 9), Some(span(8, 8)))],
            arena,
            times: None,
            permit: Permit::default(),
        }
    }

    #[test]
    fn a_row_holds_the_record_and_its_cause() {
        let quarantine = Quarantine::new("shop.v1.Order").unwrap();
        let rejects = [
            Reject { record: 0, code: RejectCode::InvalidUtf8, detail: "name: byte 3".into(), schema_id: Some(17) },
            Reject { record: 2, code: RejectCode::Truncated, detail: "customer.id".into(), schema_id: None },
        ];
        let rows = quarantine.rows(&raw_batch(), &rejects, 1_750_000_000_000_001).unwrap();
        let mut json = arrow::json::LineDelimitedWriter::new(Vec::new());
        json.write(&rows).unwrap();
        let json = String::from_utf8(json.into_inner()).unwrap();
        insta::assert_snapshot!(json.replace(env!("CARGO_PKG_VERSION"), "VERSION"));

        let kafka = rows.column(0).as_struct();
        assert_eq!(kafka.column(2).as_primitive::<Int64Type>().values(), &[10, 12]);
        assert!(kafka.column(3).is_null(1) && kafka.column(4).is_null(1), "no timestamp: no time and no type");
        assert_eq!(rows.column(1).as_binary::<i64>().value(1), b"", "an empty value is not a tombstone");
    }

    #[test]
    fn a_reject_outside_its_batch_is_an_error() {
        let reject = Reject { record: 3, code: RejectCode::BadTag, detail: String::new(), schema_id: None };
        assert!(Quarantine::new("m").unwrap().rows(&raw_batch(), &[reject], 0).is_err());
    }

    #[test]
    fn the_table_is_partitioned_by_day_and_all_is_optional() {
        let creation = Quarantine::new("m").unwrap().creation(HashMap::new()).unwrap();
        let names: Vec<&str> = creation.schema.as_struct().fields().iter().map(|field| field.name.as_str()).collect();
        assert_eq!(
            names,
            ["_kafka", "value", "error", "detail", "message", "calve_version", "quarantined_at", "replayed_at"]
        );
        assert!(creation.schema.as_struct().fields().iter().all(|field| !field.required));
        assert_eq!(creation.partition_spec.fields()[0].transform, iceberg::spec::Transform::Day);
        let source = creation.schema.name_by_field_id(creation.partition_spec.fields()[0].source_id);
        assert_eq!(source, Some("_kafka.timestamp"));
    }
}
