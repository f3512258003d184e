//! The `_kafka` struct: where a row comes from. Never null; its fields are as mapping version 1 lists them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanBufferBuilder, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Fields, Int32Type, TimeUnit};
use arrow::error::ArrowError;

use super::columns::{List, Primitive, replace_with_room};
use super::constant::Constant;
use super::plan::Error;
use super::text::Text;
use crate::batch::{RawBatch, RawRecord, TimestampType};

/// Kafka's own limit.
const TOPIC_BYTES_MAX: usize = 249;

const FIELDS: [&str; 8] =
    ["topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers", "schema_id"];

/// `_kafka` under construction.
#[derive(Debug)]
pub struct KafkaColumns {
    fields: Fields,
    /// What rows in a row have in common.
    origins: Vec<Origin>,
    offset: Vec<i64>,
    timestamp: Vec<i64>,
    /// Rows whose timestamp is null although its type is not.
    timestamp_overflows: Vec<usize>,
    key: Text,
    headers: List,
    header_key: Text,
    header_value: Text,
    schema_id: Primitive<i32>,
    constants: Constants,
}

/// What most batches have in common.
#[derive(Debug, Default)]
struct Constants {
    topic: Constant<Arc<str>>,
    timestamp_type: Constant<TimestampType>,
    no_key: Constant<()>,
    no_headers: Constant<()>,
    no_schema_id: Constant<()>,
}

#[derive(Debug)]
struct Origin {
    topic: Arc<str>,
    partition: i32,
    timestamp_type: TimestampType,
    /// The row after the last one.
    end: usize,
}

impl KafkaColumns {
    /// For a column of this type, a struct of the fields of `_kafka`.
    pub fn new(data_type: &DataType) -> Result<Self, Error> {
        let fields = match data_type {
            DataType::Struct(fields) if fields.iter().map(|field| field.name().as_str()).eq(FIELDS) => fields.clone(),
            other => return Err(Error::Mismatch { path: "_kafka".into(), what: format!("its type is {other}") }),
        };
        if !matches!(fields[3].data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            let what = format!("its type is {}", fields[3].data_type());
            return Err(Error::Mismatch { path: "_kafka.timestamp".into(), what });
        }
        Ok(KafkaColumns {
            fields,
            origins: Vec::new(),
            offset: Vec::new(),
            timestamp: Vec::new(),
            timestamp_overflows: Vec::new(),
            key: Text::new(0, true, false),
            headers: List::new(0),
            header_key: Text::new(1, false, true),
            header_value: Text::new(1, true, false),
            schema_id: Primitive::new(0, true),
            constants: Constants::default(),
        })
    }

    pub fn rows(&self) -> usize {
        self.offset.len()
    }

    /// Appends a row for each of these records.
    ///
    /// A timestamp of −1 is none, and its type null with it; one whose microseconds do not fit 64 bits is null. A
    /// header's name that is not UTF-8, which Kafka's protocol forbids, has its faulty bytes replaced by U+FFFD.
    pub fn append(&mut self, batch: &RawBatch, records: Range<usize>) {
        let records = &batch.records[records];
        let Some(common) = records.first().map(timestamp_type) else { return };
        let first = self.rows();
        let (mut differs, mut has_more, mut overflows) = (false, false, false);
        self.offset.extend(records.iter().map(|record| {
            differs |= timestamp_type(record) != common;
            has_more |= record.key.is_some() | (record.headers.start < record.headers.end);
            record.offset
        }));
        self.timestamp.extend(records.iter().map(|record| {
            let (micros, overflow) = record.timestamp_ms.overflowing_mul(1000);
            overflows |= overflow;
            if overflow { 0 } else { micros }
        }));
        if differs {
            for (row, record) in (first..).zip(records) {
                self.append_origin(batch, timestamp_type(record), row + 1);
            }
        } else {
            self.append_origin(batch, common, first + records.len());
        }
        if overflows {
            let rows = records.iter().zip(first..);
            let rows = rows.filter(|(record, _)| record.timestamp_ms.checked_mul(1000).is_none());
            self.timestamp_overflows.extend(rows.map(|(_, row)| row));
        }
        if has_more {
            for (row, record) in (first..).zip(records) {
                if let Some(key) = record.key {
                    self.key.push(row, batch.bytes(key));
                }
                if record.headers.start < record.headers.end {
                    self.append_headers(row, batch, record);
                }
            }
        }
    }

    /// What all rows up to `end` since the last such call have in common.
    fn append_origin(&mut self, batch: &RawBatch, timestamp_type: TimestampType, end: usize) {
        match self.origins.last_mut() {
            Some(origin)
                if Arc::ptr_eq(&origin.topic, &batch.topic)
                    && origin.partition == batch.partition
                    && origin.timestamp_type == timestamp_type =>
            {
                origin.end = end;
            }
            _ => {
                let (topic, partition) = (batch.topic.clone(), batch.partition);
                self.origins.push(Origin { topic, partition, timestamp_type, end });
            }
        }
    }

    /// What a record's frame says, for the row that it becomes.
    pub fn put_schema_id(&mut self, row: usize, id: i32) {
        self.schema_id.push(row, id);
    }

    #[inline(never)]
    fn append_headers(&mut self, row: usize, batch: &RawBatch, record: &RawRecord) {
        self.headers.make_room((row + 1).next_multiple_of(64));
        for (name, value) in &batch.headers[record.headers.start as usize..record.headers.end as usize] {
            let element = self.headers.elements;
            self.headers.elements += 1;
            self.headers.counts[row] += 1;
            self.header_key.push(element, String::from_utf8_lossy(batch.bytes(*name)).as_bytes());
            if let Some(value) = value {
                self.header_value.push(element, batch.bytes(*value));
            }
        }
    }

    /// Cuts back to `rows` of `used` rows, of which the last ones may lack where they come from.
    pub(super) fn truncate(&mut self, rows: usize, used: usize) {
        let elements = self.headers.elements;
        self.offset.truncate(rows);
        self.timestamp.truncate(rows);
        while self.timestamp_overflows.last().is_some_and(|row| *row >= rows) {
            self.timestamp_overflows.pop();
        }
        self.origins.iter_mut().for_each(|origin| origin.end = origin.end.min(rows));
        self.origins.dedup_by(|later, earlier| later.end == earlier.end);
        self.key.truncate(rows, used);
        self.headers.truncate(rows, used);
        self.header_key.truncate(self.headers.elements, elements);
        self.header_value.truncate(self.headers.elements, elements);
        self.schema_id.truncate(rows, used);
    }

    /// Bytes that a record adds at most to any of the columns.
    #[inline]
    pub(super) fn bytes_of(batch: &RawBatch, record: &RawRecord) -> usize {
        if record.headers.start >= record.headers.end {
            return record.key.map_or(0, |key| (key.end - key.start) as usize);
        }
        let headers = &batch.headers[record.headers.start as usize..record.headers.end as usize];
        // A faulty byte becomes the three of U+FFFD.
        let names: usize = headers.iter().map(|(name, _)| 3 * (name.end - name.start) as usize + 1).sum();
        let values: usize =
            headers.iter().filter_map(|(_, value)| *value).map(|value| (value.end - value.start) as usize).sum();
        let key = record.key.map_or(0, |key| (key.end - key.start) as usize);
        key.max(names).max(values)
    }

    /// Whether offsets stay below 2^31 with so many more bytes in so many more rows.
    pub(super) fn fits(&self, bytes: usize, rows: usize) -> bool {
        let texts = [&self.key, &self.header_key, &self.header_value];
        let held = texts.iter().map(|text| text.data.len()).max().unwrap_or(0).max(self.headers.elements);
        let topic = self.origins.iter().map(|origin| origin.topic.len()).max().unwrap_or(0).max(TOPIC_BYTES_MAX);
        held + bytes <= i32::MAX as usize && (self.rows() + rows) * topic <= i32::MAX as usize
    }

    pub(super) fn bytes(&self) -> usize {
        let topics: usize = self.origins.last().map_or(0, |origin| origin.topic.len() * self.rows());
        let texts = [&self.key, &self.header_key, &self.header_value];
        self.rows() * 64 + topics + texts.iter().map(|text| text.data.len() + 4 * text.lengths.len()).sum::<usize>()
    }

    /// The struct array of all rows; starts anew.
    pub fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.rows();
        let origins = std::mem::take(&mut self.origins);
        let (topics, timestamp_types) = (self.topics(&origins, rows)?, self.timestamp_types(&origins, rows)?);
        let mut partitions = Vec::with_capacity(rows);
        for origin in &origins {
            partitions.resize(origin.end, origin.partition);
        }
        let arrays: Vec<ArrayRef> = vec![
            topics,
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(replace_with_room(&mut self.offset))),
            self.timestamps(timestamp_types.nulls(), rows)?,
            timestamp_types,
            self.keys(rows)?,
            self.headers(rows)?,
            self.schema_ids(rows)?,
        ];
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), arrays, None, rows)?))
    }

    fn topics(&mut self, origins: &[Origin], rows: usize) -> Result<ArrayRef, ArrowError> {
        if let [first, others @ ..] = origins
            && others.iter().all(|other| other.topic == first.topic)
        {
            let make = |rows| Ok(runs([(&*first.topic, rows)], rows, None));
            return self.constants.topic.rows(first.topic.clone(), rows, make);
        }
        Ok(runs(origins.iter().map(|origin| (&*origin.topic, origin.end)), rows, None))
    }

    fn timestamp_types(&mut self, origins: &[Origin], rows: usize) -> Result<ArrayRef, ArrowError> {
        let name = |of: TimestampType| match of {
            TimestampType::NotAvailable => "",
            TimestampType::CreateTime => "create_time",
            TimestampType::LogAppendTime => "log_append_time",
        };
        let nulls = |origins: &[(TimestampType, usize)]| {
            let mut present = BooleanBufferBuilder::new(rows);
            for (of, end) in origins {
                present.append_n(end - present.len(), *of != TimestampType::NotAvailable);
            }
            Some(NullBuffer::new(present.finish())).filter(|nulls| nulls.null_count() > 0)
        };
        if let [first, others @ ..] = origins
            && others.iter().all(|other| other.timestamp_type == first.timestamp_type)
        {
            let of = first.timestamp_type;
            let make = |rows| Ok(runs([(name(of), rows)], rows, nulls(&[(of, rows)])));
            return self.constants.timestamp_type.rows(of, rows, make);
        }
        let types: Vec<_> = origins.iter().map(|origin| (origin.timestamp_type, origin.end)).collect();
        Ok(runs(types.iter().map(|(of, end)| (name(*of), *end)), rows, nulls(&types)))
    }

    /// `absent` are those without a type.
    fn timestamps(&mut self, absent: Option<&NullBuffer>, rows: usize) -> Result<ArrayRef, ArrowError> {
        let mut nulls = absent.cloned();
        if !self.timestamp_overflows.is_empty() {
            let mut present = BooleanBufferBuilder::new(rows);
            present.append_n(rows, true);
            self.timestamp_overflows.drain(..).for_each(|row| present.set_bit(row, false));
            nulls = NullBuffer::union(absent, Some(&NullBuffer::new(present.finish())));
        }
        let values = ScalarBuffer::from(replace_with_room(&mut self.timestamp));
        let timestamps = TimestampMicrosecondArray::try_new(values, nulls)?;
        Ok(Arc::new(timestamps.with_data_type(self.fields[3].data_type().clone())))
    }

    fn keys(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let data_type = self.fields[5].data_type();
        if self.key.lengths.is_unused() {
            return self.constants.no_key.rows((), rows, |rows| Ok(new_null_array(data_type, rows)));
        }
        self.key.take(rows, None, data_type)
    }

    fn headers(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let DataType::List(header) = self.fields[6].data_type() else {
            return Err(ArrowError::SchemaError("_kafka.headers is not a list".into()));
        };
        let DataType::Struct(header_fields) = header.data_type() else {
            return Err(ArrowError::SchemaError("_kafka.headers is not a list of structs".into()));
        };
        let [header_key, header_value] = &header_fields[..] else {
            return Err(ArrowError::SchemaError("_kafka.headers has not two fields".into()));
        };
        let mut list = |offsets, elements| {
            let arrays = vec![
                self.header_key.take(elements, None, header_key.data_type())?,
                self.header_value.take(elements, None, header_value.data_type())?,
            ];
            let headers = StructArray::try_new_with_length(header_fields.clone(), arrays, None, elements)?;
            Ok(Arc::new(ListArray::try_new(header.clone(), offsets, Arc::new(headers), None)?) as ArrayRef)
        };
        if self.headers.elements == 0 {
            return self.constants.no_headers.rows((), rows, |rows| list(OffsetBuffer::new_zeroed(rows), 0));
        }
        let (offsets, elements) = self.headers.take(rows);
        list(offsets, elements)
    }

    fn schema_ids(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let data_type = self.fields[7].data_type();
        if self.schema_id.present.is_unused() {
            return self.constants.no_schema_id.rows((), rows, |rows| Ok(new_null_array(data_type, rows)));
        }
        self.schema_id.take_array::<Int32Type>(rows, None, data_type)
    }
}

/// A timestamp of −1 is none.
fn timestamp_type(record: &RawRecord) -> TimestampType {
    if record.timestamp_ms == -1 { TimestampType::NotAvailable } else { record.timestamp_type }
}

/// Strings of which many in a row are equal: each with the row after its last one.
fn runs<'a>(values: impl IntoIterator<Item = (&'a str, usize)>, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    let mut data = String::with_capacity(rows * 16);
    for (value, end) in values {
        let count = end + 1 - offsets.len();
        // The batch is sealed before all topics' names together reach 2 GiB (`KafkaColumns::fits`).
        let (start, step) = (data.len() as i32, value.len() as i32);
        offsets.extend((1..=count as i32).map(|index| start + index * step));
        data.push_str(&value.repeat(count));
    }
    let data = Buffer::from_vec(data.into_bytes());
    // SAFETY: the data is a `String`, and the offsets, which ascend and stay below 2^31, lie between the values that it
    // was made of.
    Arc::new(unsafe { StringArray::new_unchecked(OffsetBuffer::new_unchecked(offsets.into()), data, nulls) })
}
