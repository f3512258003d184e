//! One partition: its log and its rows, side by side.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;

use super::rows::{Chunk, Reader, Rows, offsets};
use super::values::{Found, Reasons, differs, note_filled};
use super::{Depth, Difference};
use crate::batch::{OffsetRange, RawBatch};
use crate::commit::ledger::Former;
use crate::config::{Isolation, Kafka};
use crate::error::{Error, Result};
use crate::ingest::Opened;
use crate::quarantine::Quarantine;
use crate::query::{conform, project};
use crate::schema::metadata::{KAFKA, RAW};
use crate::shred::Shredder;
use crate::source::{Budget, RangeReader};
use crate::telemetry::progress::Tally;

/// What of a quarantine row follows from its record; the rest says when and by whom it was rejected.
const QUARANTINE_COLUMNS: [&str; 3] = [KAFKA, "value", "error"];

pub struct Comparison<'a> {
    pub topic: &'a str,
    pub opened: &'a Opened,
    /// Whether today's message differs from the table's columns: then `_raw` may have been filled otherwise.
    pub evolved: bool,
    pub retired: HashSet<i32>,
    pub quarantine_shape: Quarantine,
    /// Earlier lives of the topic, whose rows have the same offsets.
    pub former: Vec<Former>,
    /// Columns that came later and have a value in a row of the partition already.
    pub filled: HashSet<i32>,
    pub main: Reader,
    pub rejected: Option<Reader>,
    pub depth: &'a mut Depth,
    pub tally: &'a Tally,
}

/// What one table should hold of a batch.
struct Wanted {
    rows: RecordBatch,
    offsets: Vec<i64>,
}

/// How the rows of one table are looked at.
struct Side<'a> {
    reader: &'a Reader,
    evolved: bool,
    retired: &'a HashSet<i32>,
    /// Only these columns; all if there are none.
    only: &'a [&'a str],
}

impl Comparison<'_> {
    /// Compares `[range.from, range.to)`.
    pub async fn partition(
        &mut self,
        kafka: &Kafka,
        isolation: Isolation,
        partition: i32,
        range: OffsetRange,
        budget: &Budget,
    ) -> Result<()> {
        if range.from >= range.to {
            return Ok(());
        }
        self.filled.clear();
        let mut shredder = Shredder::new(&self.opened.mapping, self.opened.shred).map_err(|error| {
            Error::halt(format!("table {} cannot be shredded into", self.main.name())).caused_by(error)
        })?;
        let mut log = RangeReader::start(kafka, self.topic, partition, range, isolation, budget)?;
        let mut rows = Rows::new(self.topic, partition, range.from, range.to);
        let mut rejected = Rows::new(self.topic, partition, range.from, range.to);
        let mut done = range.from;
        while let Some(batch) = log.next().await? {
            let OffsetRange { from, to } = batch.range;
            self.batch(&mut shredder, &batch, &mut rows, &mut rejected, to).await?;
            self.tally.count(batch.records.len() as u64, batch.arena.len() as u64, (to - from).unsigned_abs());
            done = to;
        }
        self.tally.count(0, 0, (range.to - done).unsigned_abs());
        // Nothing of the log follows; there may be rows.
        let nothing = RawBatch {
            topic: self.topic.into(),
            partition,
            range: OffsetRange { from: range.to, to: range.to },
            records: Vec::new(),
            headers: Vec::new(),
            arena: vec![0; RawBatch::PADDING],
            times: None,
            permit: Default::default(),
        };
        self.batch(&mut shredder, &nothing, &mut rows, &mut rejected, range.to).await
    }

    async fn batch(
        &mut self,
        shredder: &mut Shredder,
        batch: &RawBatch,
        rows: &mut Rows,
        rejected: &mut Rows,
        to: i64,
    ) -> Result<()> {
        let failed = |error: ArrowError| {
            let (topic, partition, from) = (&batch.topic, batch.partition, batch.range.from);
            Error::halt(format!(
                "topic {topic} partition {partition}: the records from offset {from} on cannot be compared"
            ))
            .caused_by(error)
        };
        let rejects = shredder.append(batch);
        let shredded = shredder.take().map_err(failed)?;
        let shredded: Vec<RecordBatch> =
            shredded.iter().map(|rows| project(rows, &self.main.schema)).collect::<Result<_, _>>().map_err(failed)?;
        let wanted = concat_batches(&self.main.schema, &shredded).map_err(failed)?;
        let wanted = Wanted { offsets: offsets(&wanted), rows: wanted };
        self.depth.records += batch.records.len() as u64;
        self.depth.rows += wanted.offsets.len() as u64;
        self.depth.rejects += rejects.len() as u64;

        let found = self.main.until(rows, to).await?;
        let (retired, none) = (std::mem::take(&mut self.retired), HashSet::new());
        let side = Side { reader: &self.main, evolved: self.evolved, retired: &retired, only: &[] };
        let former = former_below(&self.former, batch.partition);
        let differences = side.compare(self.topic, batch, &found, &wanted, former, &mut self.filled);
        self.retired = retired;
        differences.into_iter().for_each(|difference| self.depth.add(difference));

        match &mut self.rejected {
            Some(reader) => {
                let found = reader.until(rejected, to).await?;
                let wanted = self.quarantine_shape.rows(batch, &rejects, 0)?;
                let wanted = conform(&wanted, &reader.schema).map_err(failed)?;
                let wanted = Wanted { offsets: offsets(&wanted), rows: wanted };
                let side = Side { reader, evolved: false, retired: &none, only: &QUARANTINE_COLUMNS };
                let former = former_below(&self.former, batch.partition);
                let differences = side.compare(self.topic, batch, &found, &wanted, former, &mut HashSet::new());
                differences.into_iter().for_each(|difference| self.depth.add(difference));
            }
            None => {
                for reject in &rejects {
                    let Some(record) = batch.records.get(reject.record) else { continue };
                    self.depth.add(Difference::Missing {
                        table: "the quarantine table, which does not exist".to_owned(),
                        quarantine: true,
                        topic: self.topic.to_owned(),
                        partition: batch.partition,
                        offset: record.offset,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Below this offset a row may be of an earlier life of the topic.
fn former_below(former: &[Former], partition: i32) -> i64 {
    let next = |former: &Former| former.next.get(usize::try_from(partition).ok()?).copied();
    former.iter().filter_map(next).max().unwrap_or(0)
}

impl Side<'_> {
    /// Both in the order of offsets. An offset that is there more than once was told already; here it is enough that
    /// one of its rows is right.
    fn compare(
        &self,
        topic: &str,
        batch: &RawBatch,
        found: &Chunk,
        wanted: &Wanted,
        former_below: i64,
        filled: &mut HashSet<i32>,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut unfilled = self.reader.layouts.unfilled(filled);
        if self.is_same(found, wanted) {
            self.note(found, 0..found.offsets.len(), &mut unfilled, filled);
            return differences;
        }
        let (table, topic, partition) = (self.reader.name(), topic.to_owned(), batch.partition);
        let unexpected = |differences: &mut Vec<Difference>, offset: i64| {
            if offset >= former_below {
                let (table, topic) = (table.clone(), topic.clone());
                differences.push(Difference::Unexpected { table, topic, partition, offset });
            }
        };
        let mut i = 0;
        for (j, offset) in wanted.offsets.iter().copied().enumerate() {
            while i < found.offsets.len() && found.offsets[i] < offset {
                unexpected(&mut differences, found.offsets[i]);
                i += 1;
            }
            let (table, topic) = (table.clone(), topic.clone());
            let same = found.offsets[i..].iter().take_while(|found| **found == offset).count();
            if same == 0 {
                differences.push(Difference::Missing {
                    table,
                    quarantine: !self.only.is_empty(),
                    topic,
                    partition,
                    offset,
                });
                continue;
            }
            let all: Option<Vec<Found>> =
                (i..i + same).map(|i| self.row(batch, offset, (found, i), (&wanted.rows, j), &unfilled)).collect();
            self.note(found, i..i + same, &mut unfilled, filled);
            i += same;
            if let Some(Found { path, in_table, in_log }) = all.and_then(|all| all.into_iter().next()) {
                differences.push(Difference::Value { table, topic, partition, offset, column: path, in_table, in_log });
            }
        }
        found.offsets[i..].iter().for_each(|offset| unexpected(&mut differences, *offset));
        differences
    }

    /// Whether all of it is equal at a glance.
    fn is_same(&self, found: &Chunk, wanted: &Wanted) -> bool {
        let columns = self.reader.schema.fields().iter().enumerate();
        found.offsets == wanted.offsets
            && (found.offsets.is_empty()
                || columns
                    .filter(|(_, field)| self.looks_at(field.name()))
                    .all(|(at, _)| found.batch.column(at).to_data() == wanted.rows.column(at).to_data()))
    }

    /// Takes note of columns that have a value in these rows.
    fn note(
        &self,
        found: &Chunk,
        rows: std::ops::Range<usize>,
        unfilled: &mut HashSet<i32>,
        filled: &mut HashSet<i32>,
    ) {
        if unfilled.is_empty() || rows.is_empty() {
            return;
        }
        for (field, column) in self.reader.schema.fields().iter().zip(found.batch.columns()) {
            note_filled(field, &column.slice(rows.start, rows.len()), unfilled, filled);
        }
        unfilled.retain(|id| !filled.contains(id));
    }

    fn looks_at(&self, column: &str) -> bool {
        self.only.is_empty() || self.only.contains(&column)
    }

    /// The first difference of one row.
    fn row(
        &self,
        batch: &RawBatch,
        offset: i64,
        (found, i): (&Chunk, usize),
        (wanted, j): (&RecordBatch, usize),
        unfilled: &HashSet<i32>,
    ) -> Option<Found> {
        let lacking = self.reader.layouts.lacking(found.layouts[i]);
        let reasons = Reasons { lacking, unfilled, retired: self.retired };
        let columns = self.reader.schema.fields().iter().enumerate();
        columns.filter(|(_, field)| self.looks_at(field.name())).find_map(|(at, field)| {
            let (actual, expected) = (found.batch.column(at), wanted.column(at));
            let difference = differs(field, field.name(), (actual, i), (expected, j), &reasons)?;
            // Fields that were unknown then, or are now, are why a record's bytes were kept or not.
            let may_differ = field.name() == RAW && (self.evolved || !lacking.is_empty() || !unfilled.is_empty());
            let explained = may_differ
                && (actual.is_null(i)
                    || actual.as_binary_opt::<i32>().is_some_and(|raw| is_record(batch, offset, raw.value(i))));
            (!explained).then_some(difference)
        })
    }
}

/// Whether these are the record's bytes, less its frame.
fn is_record(batch: &RawBatch, offset: i64, raw: &[u8]) -> bool {
    let record = batch.records.binary_search_by_key(&offset, |record| record.offset).ok();
    let value = record.and_then(|record| batch.records[record].value);
    value.is_some_and(|value| batch.bytes(value).ends_with(raw))
}
