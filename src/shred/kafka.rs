//! The `_kafka` struct: where a row comes from. Never null; its fields are as mapping version 1 lists them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBufferBuilder, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Fields, Int32Type, TimeUnit};
use arrow::error::ArrowError;

use super::columns::{List, Primitive, Text, replace_with_room};
use super::plan::Error;
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
        let type_of = |index: usize| self.fields[index].data_type();
        let DataType::List(header) = type_of(6) else {
            return Err(ArrowError::SchemaError("_kafka.headers is not a list".into()));
        };
        let DataType::Struct(header_fields) = header.data_type() else {
            return Err(ArrowError::SchemaError("_kafka.headers is not a list of structs".into()));
        };
        let [header_key, header_value] = &header_fields[..] else {
            return Err(ArrowError::SchemaError("_kafka.headers has not two fields".into()));
        };
        let (offsets, elements) = self.headers.take(rows);
        let arrays = vec![
            self.header_key.take(elements, None, header_key.data_type())?,
            self.header_value.take(elements, None, header_value.data_type())?,
        ];
        let headers = StructArray::try_new_with_length(header_fields.clone(), arrays, None, elements)?;
        let headers = ListArray::try_new(header.clone(), offsets, Arc::new(headers), None)?;
        let mut topics = Runs::new(rows);
        let mut types = Runs::new(rows);
        let mut present = BooleanBufferBuilder::new(rows);
        let mut partitions = Vec::with_capacity(rows);
        for origin in self.origins.drain(..) {
            let count = origin.end - partitions.len();
            partitions.resize(origin.end, origin.partition);
            topics.append(&origin.topic, count);
            let name = match origin.timestamp_type {
                TimestampType::NotAvailable => "",
                TimestampType::CreateTime => "create_time",
                TimestampType::LogAppendTime => "log_append_time",
            };
            types.append(name, count);
            present.append_n(count, !name.is_empty());
        }
        let topics = topics.finish(None);
        let timestamp_types = types.finish(Some(NullBuffer::new(present.finish_cloned())));
        for row in self.timestamp_overflows.drain(..) {
            present.set_bit(row, false);
        }
        let nulls = NullBuffer::new(present.finish());
        let timestamps = TimestampMicrosecondArray::try_new(
            ScalarBuffer::from(replace_with_room(&mut self.timestamp)),
            Some(nulls),
        )?;
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(topics),
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(replace_with_room(&mut self.offset))),
            Arc::new(timestamps.with_data_type(type_of(3).clone())),
            Arc::new(timestamp_types),
            self.key.take(rows, None, type_of(5))?,
            Arc::new(headers),
            self.schema_id.take_array::<Int32Type>(rows, None, type_of(7))?,
        ];
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), arrays, None, rows)?))
    }
}

/// A timestamp of −1 is none.
fn timestamp_type(record: &RawRecord) -> TimestampType {
    if record.timestamp_ms == -1 { TimestampType::NotAvailable } else { record.timestamp_type }
}

/// Strings of which many in a row are equal.
struct Runs {
    offsets: Vec<i32>,
    data: String,
}

impl Runs {
    fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Runs { offsets, data: String::with_capacity(rows * 16) }
    }

    fn append(&mut self, value: &str, count: usize) {
        // The batch is sealed before all topics' names together reach 2 GiB (`KafkaColumns::fits`).
        let (start, step) = (self.data.len() as i32, value.len() as i32);
        self.offsets.extend((1..=count as i32).map(|index| start + index * step));
        self.data.push_str(&value.repeat(count));
    }

    fn finish(self, nulls: Option<NullBuffer>) -> StringArray {
        let data = Buffer::from_vec(self.data.into_bytes());
        // SAFETY: the data is a `String`, and the offsets, which `append` makes ascend and stay below 2^31, lie between the
        // values that it was made of.
        unsafe { StringArray::new_unchecked(OffsetBuffer::new_unchecked(self.offsets.into()), data, nulls) }
    }
}
