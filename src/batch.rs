//! What one stage hands to the next: a type per hop.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use iceberg::spec::DataFile;

/// A half-open range of Kafka offsets `[from, to)` of one partition.
///
/// `from` is the ledger's value that the reader started at, not the first record's offset: compaction gaps, aborted
/// transactions and control records lie inside ranges, so that ranges always join up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    pub from: i64,
    pub to: i64,
}

/// How the broker stamped a record (`_kafka.timestamp_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    NotAvailable,
    CreateTime,
    LogAppendTime,
}

/// Bytes `[start, end)` of a [`RawBatch`]'s arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// One record of a [`RawBatch`]; its bytes lie in the batch's arena.
#[derive(Clone, Debug)]
pub struct RawRecord {
    pub offset: i64,
    /// Milliseconds since the epoch; meaningless when the type is `NotAvailable`.
    pub timestamp_ms: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<Span>,
    /// `None` is a tombstone.
    pub value: Option<Span>,
    /// Indexes `[start, end)` into [`RawBatch::headers`].
    pub headers: Span,
}

/// Records of one partition in offset order, copied out of the Kafka client into one arena.
///
/// The arena ends in [`RawBatch::PADDING`] readable bytes, so that a decoder may load 16 bytes at any position, and
/// copy a value in chunks.
#[derive(Clone, Debug)]
pub struct RawBatch {
    pub topic: Arc<str>,
    pub partition: i32,
    pub range: OffsetRange,
    pub records: Vec<RawRecord>,
    /// `(key, value)` spans of all records' headers, in order.
    pub headers: Vec<(Span, Option<Span>)>,
    pub arena: Vec<u8>,
    /// Noted while the records were copied: to read all of them once more for it takes time.
    pub times: Option<Times>,
    /// What this batch's bytes are counted against, until it is dropped.
    pub permit: Permit,
}

/// Timestamps of the records that have one, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub oldest_ms: i64,
    /// The last record's, in the order of the log.
    pub newest_ms: i64,
}

impl Times {
    pub fn of(records: &[RawRecord]) -> Option<Times> {
        records.iter().fold(None, Times::and)
    }

    /// With one more record.
    pub fn and(times: Option<Times>, record: &RawRecord) -> Option<Times> {
        if record.timestamp_type == TimestampType::NotAvailable {
            return times;
        }
        let newest_ms = record.timestamp_ms;
        let oldest_ms = times.map_or(newest_ms, |times| times.oldest_ms.min(newest_ms));
        Some(Times { oldest_ms, newest_ms })
    }
}

/// Keeps the bytes of a batch counted as memory in use until its last clone is dropped.
#[derive(Clone, Default)]
pub struct Permit(#[allow(dead_code, reason = "held for its drop only")] Option<Arc<dyn Any + Send + Sync>>);

impl Permit {
    /// `guard` gives back what it holds when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Permit(Some(Arc::new(guard)))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

impl RawBatch {
    pub const PADDING: usize = 32;

    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..span.end as usize]
    }
}

/// A record that cannot be a row, with its cause; it becomes a row of the quarantine table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index into the batch's records.
    pub record: usize,
    pub code: RejectCode,
    /// Field path and reason, for a person.
    pub detail: String,
    /// The schema that the record names, as far as its frame could be read.
    pub schema_id: Option<i32>,
}

/// Why a record was rejected. The names are stable: they are the quarantine table's `error` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectCode {
    Truncated,
    BadVarint,
    BadTag,
    BadGroup,
    BadLength,
    InvalidUtf8,
    TooDeep,
    RequiredMissing,
    OutOfRange,
    BadFrame,
    UnknownSchema,
    UnknownMessage,
    Validation,
}

impl RejectCode {
    pub fn as_str(self) -> &'static str {
        match self {
            RejectCode::Truncated => "truncated",
            RejectCode::BadVarint => "bad_varint",
            RejectCode::BadTag => "bad_tag",
            RejectCode::BadGroup => "bad_group",
            RejectCode::BadLength => "bad_length",
            RejectCode::InvalidUtf8 => "invalid_utf8",
            RejectCode::TooDeep => "too_deep",
            RejectCode::RequiredMissing => "required_missing",
            RejectCode::OutOfRange => "out_of_range",
            RejectCode::BadFrame => "bad_frame",
            RejectCode::UnknownSchema => "unknown_schema",
            RejectCode::UnknownMessage => "unknown_message",
            RejectCode::Validation => "validation",
        }
    }
}

/// Data files that are written and durable, but that no snapshot names yet.
#[derive(Debug, Default)]
pub struct StagedFiles {
    pub files: Vec<DataFile>,
}

impl StagedFiles {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.record_count()).sum()
    }
}
