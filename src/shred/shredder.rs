//! Batches of records in, record batches out.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use super::columns::Columns;
use super::frame::{Framed, Framing, Misframed, Unframe};
use super::kafka::KafkaColumns;
use super::normalize::{Fault, normalize};
use super::plan::{Error, Plan};
use super::run::{Refusal, Run, Stop};
use super::text::Text;
use super::unchecked;
use super::wire::PADDING;
use crate::batch::{RawBatch, RawRecord, Reject, RejectCode};
use crate::schema::mapping::Mapping;

/// What becomes of a record without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tombstones {
    /// A row whose message columns are all null, lists and maps too.
    #[default]
    Row,
    /// Neither row nor reject.
    Skip,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub framing: Framing,
    pub tombstones: Tombstones,
}

/// Records and bytes that are shredded between two looks at the strings, so that these are still in the cache.
const BLOCK_RECORDS: usize = 1024;
const BLOCK_BYTES: usize = 1 << 20;

/// Rows and bytes of a batch, or up to a block more: so few that all of its columns stay in the cache until they are
/// encoded. Larger ones take far longer, row by row (`benches/README.md`).
pub const BATCH_ROWS: usize = 2048;
const BATCH_BYTES: usize = 2 << 20;

/// Blocks that are checked record by record after one in which a string was not UTF-8.
const CAREFUL_BLOCKS: u32 = 16;

/// Why plain rows have come to a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// That was all.
    End,
    /// The next record has no room.
    Full,
    /// The next record is no message in a good frame, or lacks the padding behind it.
    Other,
    /// The interpreter has refused the next record.
    Refused,
}

/// Turns the records of one topic into rows of one table.
pub struct Shredder {
    plan: Arc<Plan>,
    columns: Columns,
    kafka: KafkaColumns,
    raw: Text,
    schema: SchemaRef,
    unframe: Unframe,
    tombstones_are: Tombstones,
    rows: usize,
    /// Rows that are tombstones, ascending.
    tombstones: Vec<usize>,
    /// Full batches: of enough rows, or of columns that would not have taken the next block.
    sealed: Vec<RecordBatch>,
    /// Why a full batch could not be assembled; the next `take` says so.
    failed: Option<ArrowError>,
    careful: u32,
}

impl Shredder {
    /// Fails where the mapping needs what this version does not shred, or disagrees with its own Arrow schema.
    pub fn new(mapping: &Mapping, options: Options) -> Result<Self, Error> {
        unchecked::look_for_pext();
        let (plan, columns) = Plan::compile(mapping)?;
        let schema = mapping.arrow.clone();
        let [kafka, raw] = &schema.fields()[mapping.columns.len()..] else {
            return Err(Error::Mismatch {
                path: "_kafka".into(),
                what: "the table does not end in _kafka, _raw".into(),
            });
        };
        if kafka.name() != "_kafka"
            || raw.name() != "_raw"
            || !matches!(raw.data_type(), DataType::Binary | DataType::LargeBinary)
        {
            return Err(Error::Mismatch { path: "_raw".into(), what: "the table does not end in _kafka, _raw".into() });
        }
        Ok(Shredder {
            plan: plan.into(),
            columns,
            kafka: KafkaColumns::new(kafka.data_type())?,
            raw: Text::new(0, true, false),
            schema,
            unframe: Unframe::new(options.framing, mapping),
            tombstones_are: options.tombstones,
            rows: 0,
            tombstones: Vec::new(),
            sealed: Vec::new(),
            failed: None,
            careful: 0,
        })
    }

    /// Rows since the last [`take`](Self::take).
    pub fn rows(&self) -> usize {
        self.rows + self.sealed.iter().map(RecordBatch::num_rows).sum::<usize>()
    }

    /// Bytes of memory that these rows take as arrays: an upper bound, in which an enumeration's longest name stands
    /// for each of its values. A short record can make many: an empty element of a list is two bytes on the wire and a
    /// value in each of the element's columns.
    pub fn bytes(&self) -> usize {
        self.sealed.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + self.open_bytes()
    }

    fn open_bytes(&self) -> usize {
        self.columns.bytes(&self.plan, self.rows)
            + self.kafka.bytes()
            + self.raw.data.len()
            + self.raw.lengths.len() * 4
    }

    /// Appends a row for each record; those that cannot be one are returned, in the batch's order.
    pub fn append(&mut self, batch: &RawBatch) -> Vec<Reject> {
        let mut rejects = Vec::new();
        let mut next = 0;
        // Room is made, and zeroed, for as many rows as there most likely will be.
        let mean_bytes = batch.arena.len() / batch.records.len().max(1);
        let block_records = (BLOCK_BYTES / mean_bytes.max(1)).clamp(1, BLOCK_RECORDS);
        while let Some(record) = batch.records.get(next) {
            let records = next..batch.records.len().min(next + block_records);
            let bytes = record_bytes(batch, record).max(BLOCK_BYTES);
            if !self.fits(bytes, records.len()) {
                if self.rows > 0 {
                    self.seal();
                }
                if !self.fits(bytes, records.len()) {
                    self.alone(batch, next, &mut rejects);
                    next += 1;
                    continue;
                }
            }
            next = self.block(batch, records, bytes, &mut rejects);
            if self.rows >= BATCH_ROWS || self.open_bytes() >= BATCH_BYTES {
                self.seal();
            }
        }
        rejects
    }

    /// The rows since the last call, in order, as batches of the mapping's Arrow schema, each of about [`BATCH_ROWS`] or
    /// less, or of some megabytes; none without rows.
    ///
    /// Fails only if the mapping's schema breaks a rule of Arrow's that [`new`](Self::new) did not see.
    pub fn take(&mut self) -> Result<Vec<RecordBatch>, ArrowError> {
        self.seal();
        self.take_full()
    }

    /// The same, but for rows that are not a batch yet.
    pub fn take_full(&mut self) -> Result<Vec<RecordBatch>, ArrowError> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.sealed)),
        }
    }

    fn seal(&mut self) {
        if self.rows == 0 {
            return;
        }
        match self.assemble() {
            Ok(batch) => self.sealed.push(batch),
            Err(error) => self.failed = Some(error),
        }
    }

    fn fits(&self, bytes: usize, rows: usize) -> bool {
        self.columns.fits(&self.plan, bytes, self.rows + rows)
            && self.kafka.fits(bytes, rows)
            && self.raw.data.len() + bytes <= i32::MAX as usize
    }

    /// Appends these of a batch's records, or as many of them as come to `bytes` bytes: the next one after them.
    fn block(&mut self, batch: &RawBatch, mut records: Range<usize>, bytes: usize, rejects: &mut Vec<Reject>) -> usize {
        let (rows, rejected) = (self.rows, rejects.len());
        let plan = self.plan.clone();
        self.columns.make_room(rows + records.len());
        let mut room = bytes;
        if self.careful == 0 {
            // Records that became rows, one behind the other.
            let mut first = records.start;
            let mut next = first;
            while next < records.end {
                let pause;
                (next, pause) = self.plain_rows(&plan, batch, next..records.end, &mut room);
                if pause == Pause::Full {
                    records.end = next;
                } else if next < records.end {
                    if !self.record(&plan, batch, next, pause == Pause::Refused, rejects) {
                        self.kafka.append(batch, first..next);
                        first = next + 1;
                    }
                    next += 1;
                }
            }
            self.kafka.append(batch, first..records.end);
            if self.columns.check_utf8(self.rows).is_ok() {
                return records.end;
            }
            // Again, with a look at the strings behind every record.
            self.truncate(rows);
            rejects.truncate(rejected);
            self.careful = CAREFUL_BLOCKS;
            room = bytes;
        } else {
            self.careful -= 1;
        }
        for index in records.clone() {
            match room.checked_sub(record_bytes(batch, &batch.records[index])) {
                Some(left) => room = left,
                None => return index,
            }
            let rows = self.rows;
            if !self.record(&plan, batch, index, false, rejects) {
                continue;
            }
            self.kafka.append(batch, index..index + 1);
            if let Err(text) = self.columns.check_utf8(self.rows) {
                self.truncate(rows);
                self.careful = CAREFUL_BLOCKS;
                let path = self.plan.text_paths[text as usize].clone();
                let fault = Fault { code: RejectCode::InvalidUtf8, path, at: None };
                rejects.push(Reject { schema_id: self.schema_id(batch, index), ..reject(index, fault) });
            }
        }
        records.end
    }

    /// A record so large that its columns might not hold it: in a batch of its own, and looked at afterwards.
    fn alone(&mut self, batch: &RawBatch, index: usize, rejects: &mut Vec<Reject>) {
        let bytes = record_bytes(batch, &batch.records[index]);
        if bytes > i32::MAX as usize {
            // Protobuf's own limit.
            rejects.push(reject(index, Fault { code: RejectCode::BadLength, path: String::new(), at: None }));
            return;
        }
        self.block(batch, index..index + 1, bytes, rejects);
        if self.rows > 0 && !self.fits(0, 0) {
            self.truncate(0);
            let fault = Fault { code: RejectCode::OutOfRange, path: String::new(), at: None };
            rejects.push(Reject { schema_id: self.schema_id(batch, index), ..reject(index, fault) });
        }
        self.seal();
    }

    /// Puts records into rows, but for where they come from, as long as they are messages in good frames that the
    /// interpreter takes as they stand, and come to no more than `room` bytes. The first that is not one, and why: it
    /// has taken its part of the room, if there was enough.
    #[inline(never)]
    fn plain_rows(&mut self, plan: &Plan, batch: &RawBatch, records: Range<usize>, room: &mut usize) -> (usize, Pause) {
        let has_frames = self.unframe.framing != Framing::None;
        let arena_bytes = batch.arena.len();
        let mut run = Run::new(plan, &mut self.columns, &batch.arena);
        // Not in memory, as long as the loop runs: no way out of it but to where both are written back.
        let (mut row, mut left) = (self.rows, *room);
        let ended = 'rows: {
            for (index, record) in (records.start..).zip(&batch.records[records.clone()]) {
                match left.checked_sub(record_bytes(batch, record)) {
                    Some(rest) => left = rest,
                    None => break 'rows (index, Pause::Full),
                }
                let Some(value) = record.value.filter(|value| value.end as usize + PADDING <= arena_bytes) else {
                    break 'rows (index, Pause::Other);
                };
                let (mut start, mut end) = (value.start as usize, value.end as usize);
                let mut schema_id = None;
                if has_frames {
                    let framed = self.unframe.value(batch, record, &batch.arena, start, end);
                    let Ok(framed) = framed else { break 'rows (index, Pause::Other) };
                    Framed { start, end, schema_id } = framed;
                }
                if run.record(start, end, row).is_err() || run.refusal.is_some() {
                    break 'rows (index, Pause::Refused);
                }
                if std::mem::take(&mut run.raw) {
                    self.raw.push(row, batch.bytes(value));
                }
                if let Some(id) = schema_id {
                    self.kafka.put_schema_id(row, id);
                }
                row += 1;
            }
            (records.end, Pause::End)
        };
        (self.rows, *room) = (row, left);
        ended
    }

    /// Puts a record into the next row, but for where it comes from; false if it is none. `tried` says that the
    /// interpreter has refused it.
    fn record(&mut self, plan: &Plan, batch: &RawBatch, index: usize, tried: bool, rejects: &mut Vec<Reject>) -> bool {
        let record = &batch.records[index];
        let Some(value) = record.value else {
            let row = self.tombstones_are == Tombstones::Row;
            if row {
                self.tombstones.push(self.rows);
                self.rows += 1;
            }
            return row;
        };
        let (start, end) = (value.start as usize, value.end as usize);
        let padded;
        let (buffer, start, end) = if end + PADDING <= batch.arena.len() {
            (&batch.arena, start, end)
        } else {
            // A batch without the padding that it owes.
            padded = [batch.bytes(value), &[0; PADDING]].concat();
            (&padded, 0, end - start)
        };
        let framed = match self.unframe.framing {
            Framing::None => Framed { start, end, schema_id: None },
            _ => match self.unframe.value(batch, record, buffer, start, end) {
                Ok(framed) => framed,
                Err(misframed) => {
                    let Misframed { code, detail, schema_id } = misframed;
                    rejects.push(Reject { record: index, code, detail, schema_id });
                    return false;
                }
            },
        };
        let shredded = if tried {
            self.shred_plain_form(plan, buffer, framed.start, framed.end)
        } else {
            self.shred(plan, buffer, framed.start, framed.end)
        };
        match shredded {
            Ok(raw) => {
                if raw {
                    self.raw.push(self.rows, batch.bytes(value));
                }
                if let Some(id) = framed.schema_id {
                    self.kafka.put_schema_id(self.rows, id);
                }
                self.rows += 1;
                true
            }
            Err(fault) => {
                self.columns.truncate(self.rows, self.rows + 1);
                rejects.push(Reject { schema_id: framed.schema_id, ..reject(index, fault) });
                false
            }
        }
    }

    /// The schema that a record names whose frame is known to be good.
    #[cold]
    fn schema_id(&self, batch: &RawBatch, index: usize) -> Option<i32> {
        let record = &batch.records[index];
        let value = record.value?;
        let buffer = [batch.bytes(value), &[0; PADDING]].concat();
        self.unframe.value(batch, record, &buffer, 0, buffer.len() - PADDING).ok()?.schema_id
    }

    /// Puts the message in `buffer[start..end]` into the next row; whether the row needs `_raw`.
    fn shred(&mut self, plan: &Plan, buffer: &[u8], start: usize, end: usize) -> Result<bool, Fault> {
        let mut run = Run::new(plan, &mut self.columns, buffer);
        match (run.record(start, end, self.rows), run.refusal) {
            (Ok(()), None) => Ok(run.raw),
            // What is refused may be a value that another one has overwritten.
            _ => self.shred_plain_form(plan, buffer, start, end),
        }
    }

    /// The same for a message that the interpreter does not take as it stands.
    #[inline(never)]
    fn shred_plain_form(&mut self, plan: &Plan, buffer: &[u8], start: usize, end: usize) -> Result<bool, Fault> {
        self.columns.truncate(self.rows, self.rows + 1);
        let plain = normalize(plan, buffer, start, end)?;
        let mut run = Run::new(plan, &mut self.columns, &plain.buffer);
        let fault = match (run.record(0, plain.end, self.rows), run.refusal) {
            (Ok(()), None) => return Ok(run.raw || plain.raw),
            (Ok(()), Some(refusal)) => self.fault(refusal),
            // The plain form of a well-formed record is neither, unless the two readers disagree.
            (Err(Stop::Malformed(code)), _) => Fault { code, path: String::new(), at: None },
            (Err(Stop::Irregular), _) => Fault { code: RejectCode::Validation, path: String::new(), at: None },
        };
        Err(fault)
    }

    #[cold]
    fn fault(&self, refusal: Refusal) -> Fault {
        let path = self.plan.nodes.get(refusal.node as usize).map(|node| node.field_path(refusal.field as usize));
        Fault { code: refusal.code, path: path.unwrap_or_default(), at: None }
    }

    fn truncate(&mut self, rows: usize) {
        let used = std::mem::replace(&mut self.rows, rows);
        self.columns.truncate(rows, used);
        self.kafka.truncate(rows, used);
        self.raw.truncate(rows, used);
        self.tombstones.truncate(self.tombstones.partition_point(|row| *row < rows));
    }

    fn assemble(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let tombstones = std::mem::take(&mut self.tombstones);
        let nulls = (!tombstones.is_empty()).then(|| {
            let mut present = vec![true; rows];
            tombstones.iter().for_each(|row| present[*row] = false);
            NullBuffer::new(BooleanBuffer::from(present))
        });
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for output in &self.plan.outputs {
            arrays.push(self.columns.take(&self.plan, output, rows, nulls.as_ref())?);
        }
        self.columns.restart();
        arrays.push(self.kafka.take()?);
        let raw_type = self.schema.field(self.schema.fields().len() - 1).data_type();
        arrays.push(self.raw.take(rows, None, raw_type)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }
}

#[cold]
#[inline(never)]
fn reject(record: usize, fault: Fault) -> Reject {
    let reason = match fault.code {
        RejectCode::Truncated => "the data ends inside a value",
        RejectCode::BadVarint => "a varint of more than ten bytes",
        RejectCode::BadTag => "a tag with field number 0, wire type 6 or 7, or more than 32 bits",
        RejectCode::BadGroup => "the end of a group that is not open",
        RejectCode::BadLength => "a length of 2 GiB or more",
        RejectCode::InvalidUtf8 => "a string that is not UTF-8",
        RejectCode::TooDeep => "more than 100 messages nested in each other",
        RejectCode::RequiredMissing => "a required field is missing",
        RejectCode::OutOfRange => "a value that its column cannot hold",
        _ => "not a valid message",
    };
    let mut detail = if fault.path.is_empty() { reason.to_owned() } else { format!("{}: {reason}", fault.path) };
    if let Some(at) = fault.at {
        detail.push_str(&format!(", at byte {at}"));
    }
    Reject { record, code: fault.code, detail, schema_id: None }
}

/// Bytes that a record adds at most to any one column.
#[inline]
fn record_bytes(batch: &RawBatch, record: &RawRecord) -> usize {
    let value = record.value.map_or(0, |value| (value.end - value.start) as usize);
    value.max(KafkaColumns::bytes_of(batch, record))
}
