//! The `_kafka` struct: where a row comes from. Never null; its fields are as mapping version 1 lists them.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Fields, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::columns::{List, Primitive, Text};
use super::plan::Error;
use crate::batch::{RawBatch, RawRecord, TimestampType};

const FIELDS: [&str; 8] =
    ["topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers", "schema_id"];

/// `_kafka` under construction; also the quarantine table's.
#[derive(Debug)]
pub struct KafkaColumns {
    fields: Fields,
    topic: Text,
    partition: Primitive<i32>,
    offset: Primitive<i64>,
    timestamp: Primitive<i64>,
    timestamp_type: Text,
    key: Text,
    headers: List,
    header_key: Text,
    header_value: Text,
    rows: usize,
}

impl KafkaColumns {
    /// For a column of this type, a struct of the fields of `_kafka`.
    pub fn new(data_type: &DataType) -> Result<Self, Error> {
        let fields = match data_type {
            DataType::Struct(fields) if fields.iter().map(|field| field.name().as_str()).eq(FIELDS) => fields.clone(),
            other => return Err(Error::Mismatch { path: "_kafka".into(), what: format!("its type is {other}") }),
        };
        Ok(KafkaColumns {
            fields,
            topic: Text::new(0, false, true),
            partition: Primitive::new(0, false),
            offset: Primitive::new(0, false),
            timestamp: Primitive::new(0, true),
            timestamp_type: Text::new(0, true, true),
            key: Text::new(0, true, false),
            headers: List::new(0),
            header_key: Text::new(1, false, true),
            header_value: Text::new(1, true, false),
            rows: 0,
        })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a row for a record.
    ///
    /// A timestamp of −1 is none, and its type null with it; one whose microseconds do not fit 64 bits is null. A
    /// header's name that is not UTF-8, which Kafka's protocol forbids, has its faulty bytes replaced by U+FFFD.
    pub fn append(&mut self, batch: &RawBatch, record: &RawRecord) {
        let row = self.rows;
        self.rows += 1;
        self.topic.put(row, batch.topic.as_bytes());
        self.partition.put(row, batch.partition);
        self.offset.put(row, record.offset);
        let kind = match record.timestamp_type {
            _ if record.timestamp_ms == -1 => None,
            TimestampType::NotAvailable => None,
            TimestampType::CreateTime => Some("create_time"),
            TimestampType::LogAppendTime => Some("log_append_time"),
        };
        if let Some(kind) = kind {
            self.timestamp_type.put(row, kind.as_bytes());
            if let Some(micros) = record.timestamp_ms.checked_mul(1000) {
                self.timestamp.put(row, micros);
            }
        }
        if let Some(key) = record.key {
            self.key.put(row, batch.bytes(key));
        }
        self.headers.open(row);
        for (name, value) in &batch.headers[record.headers.start as usize..record.headers.end as usize] {
            let element = self.headers.elements;
            self.headers.elements += 1;
            self.header_key.put(element, String::from_utf8_lossy(batch.bytes(*name)).as_bytes());
            if let Some(value) = value {
                self.header_value.put(element, batch.bytes(*value));
            }
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
        self.topic.truncate(rows);
        self.partition.truncate(rows);
        self.offset.truncate(rows);
        self.timestamp.truncate(rows);
        self.timestamp_type.truncate(rows);
        self.key.truncate(rows);
        self.headers.truncate(rows);
        self.header_key.truncate(self.headers.elements);
        self.header_value.truncate(self.headers.elements);
    }

    /// Bytes that a record adds at most to any of the columns.
    pub(super) fn bytes_of(batch: &RawBatch, record: &RawRecord) -> usize {
        let headers = &batch.headers[record.headers.start as usize..record.headers.end as usize];
        // A faulty byte becomes the three of U+FFFD.
        let names: usize = headers.iter().map(|(name, _)| 3 * (name.end - name.start) as usize + 1).sum();
        let values: usize =
            headers.iter().filter_map(|(_, value)| *value).map(|value| (value.end - value.start) as usize).sum();
        let key = record.key.map_or(0, |key| (key.end - key.start) as usize);
        (batch.topic.len()).max("log_append_time".len()).max(key).max(names).max(values)
    }

    /// Whether offsets stay below 2^31 with so many more bytes.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let texts = [&self.topic, &self.timestamp_type, &self.key, &self.header_key, &self.header_value];
        let held = texts.iter().map(|text| text.data.len()).max().unwrap_or(0).max(self.headers.elements);
        held + bytes <= i32::MAX as usize
    }

    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.topic, &self.timestamp_type, &self.key, &self.header_key, &self.header_value];
        self.rows * 24 + texts.iter().map(|text| text.data.len() + 4 * text.starts.len()).sum::<usize>()
    }

    /// The struct array of all rows; starts anew.
    pub fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
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
        let arrays: Vec<ArrayRef> = vec![
            self.topic.take(rows, None, type_of(0))?,
            self.partition.take_array::<Int32Type>(rows, None, type_of(1))?,
            self.offset.take_array::<Int64Type>(rows, None, type_of(2))?,
            self.timestamp.take_array::<TimestampMicrosecondType>(rows, None, type_of(3))?,
            self.timestamp_type.take(rows, None, type_of(4))?,
            self.key.take(rows, None, type_of(5))?,
            Arc::new(headers),
            new_null_array(type_of(7), rows),
        ];
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), arrays, None, rows)?))
    }
}
