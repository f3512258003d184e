//! Deep verification: the log read again and compared with what a table and its quarantine hold, value by value.
//!
//! Every record below the table's ledger that the log still has must be a row of the table, equal in every column to
//! what shredding it gives today, or a row of the quarantine table with the same bytes and the same code; and neither
//! table may hold anything else of those offsets. Nothing is changed, neither table nor log nor group.
//!
//! A schema that grew is no difference: a null in a file that was written before the column came, or in a row before the
//! partition's first with a value in such a column (a compaction leaves old rows in new files); a column that no field
//! fills any more; and `_raw` where one of these explains it. What an older schema had under another name
//! (a renamed enum value, a number that had no name yet) or judged otherwise (a record rejected then and good now) is
//! one, because nothing shows that it is right.
//!
//! Both sides are read in the order of offsets, a partition after another; memory holds one batch of the log and, of
//! the tables, what [`rows`] sorts, which spills to disk.

mod layouts;
mod partition;
mod rows;
mod values;

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Serialize;

use crate::batch::OffsetRange;
use crate::commit::verify::Read;
use crate::commit::{Began, TopicLedger};
use crate::config::{Kafka, Start, Topic};
use crate::error::{Error, Result};
use crate::ingest;
use crate::quarantine::Quarantine;
use crate::schema::mapping::{Column, Leaf, Mapping, Shape};
use crate::source::{Admin, Budget, Watermarks};
use crate::telemetry::progress::Tally;
use partition::Comparison;
use rows::Reader;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// So many differences are told one by one; all are counted.
    pub differences_max: usize,
    /// As many records may be missing as other writers deleted rows; then that many are no difference.
    pub accept_deletes: bool,
    /// For the log's batches and the sorting of rows together.
    pub memory_bytes: u64,
}

/// What the log, read again, says about a topic's table.
#[derive(Debug, Default, Serialize)]
pub struct Depth {
    pub topic: String,
    pub partitions: Vec<Compared>,
    /// Records that were read from the log.
    pub records: u64,
    /// Rows, and rejects, that they had to be.
    pub rows: u64,
    pub rejects: u64,
    /// Offsets that the table accounts for and the log does not have any more: nothing to compare them with.
    pub offsets_gone: u64,
    /// Other topics that filled the table; their logs were not read.
    pub other_topics: Vec<String>,
    /// The first ones.
    pub differences: Vec<Difference>,
    pub differences_total: u64,
    /// Records that are missing because other writers deleted their rows, and may be.
    pub accepted: u64,
    #[serde(skip)]
    acceptable: u64,
    #[serde(skip)]
    differences_max: usize,
}

/// The offsets of one partition that were compared: `[from, to)`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Compared {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub offsets_gone: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum Difference {
    /// The record should be here and is not.
    Missing { table: String, quarantine: bool, topic: String, partition: i32, offset: i64 },
    /// There is a row, and the log gives none for this table.
    Unexpected { table: String, topic: String, partition: i32, offset: i64 },
    /// The row says something else than its record.
    Value {
        table: String,
        topic: String,
        partition: i32,
        offset: i64,
        column: String,
        in_table: String,
        in_log: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Missing { table, topic, partition, offset, .. } => {
                write!(f, "{topic}/{partition}/{offset} is in the log and belongs in {table}, but is not there")
            }
            Difference::Unexpected { table, topic, partition, offset } => {
                write!(f, "{topic}/{partition}/{offset} is in {table}, but the log gives no such row")
            }
            Difference::Value { table, topic, partition, offset, column, in_table, in_log } => {
                write!(f, "{topic}/{partition}/{offset}: {column} is {in_table} in {table}, but {in_log} from the log")
            }
        }
    }
}

impl Depth {
    pub fn agrees(&self) -> bool {
        self.differences_total == 0
    }

    fn add(&mut self, difference: Difference) {
        if matches!(&difference, Difference::Missing { quarantine: false, .. }) && self.acceptable > 0 {
            self.acceptable -= 1;
            self.accepted += 1;
            return;
        }
        self.differences_total += 1;
        if self.differences.len() < self.differences_max {
            self.differences.push(difference);
        }
    }
}

/// Reads the log again over all that the table's ledger covers of `topic`, and compares; `tally` counts along.
///
/// # Errors
/// The log is another one than the table was filled from, or ends before it; broker, tables or schema cannot be read.
pub async fn deep(
    kafka: &Kafka,
    topic: &Topic,
    main: &Read,
    quarantine: Option<&Read>,
    options: &Options,
    tally: &Tally,
) -> Result<Depth> {
    let mut depth = Depth {
        topic: topic.name.clone(),
        other_topics: main.reading.ledger.topics.keys().filter(|name| **name != topic.name).cloned().collect(),
        acceptable: if options.accept_deletes { main.reading.ledger.foreign.deleted } else { 0 },
        differences_max: options.differences_max,
        ..Depth::default()
    };
    let Some(ledger) = main.reading.ledger.topic(&topic.name) else { return Ok(depth) };
    let admin = Admin::new(kafka)?;
    let (id, cluster) = (admin.topic_id(&topic.name).await?, admin.cluster_id().await?);
    main.reading
        .ledger
        .check_identity(&topic.name, id.as_deref(), cluster.as_deref())
        .map_err(|reason| Error::halt(format!("table {} cannot be compared with the log: {reason}", main.name)))?;
    let log = admin.watermarks(&topic.name, topic.isolation).await?;
    let ranges = ranges(topic, main, quarantine, ledger, &log, &admin).await?;

    let resolved = ingest::resolve(topic)
        .map_err(|error| Error::halt(format!("topic {}: its schema cannot be read", topic.name)).caused_by(error))?;
    let opened = ingest::fit(topic, &resolved, main.table.clone())?;
    let retired = retired(&opened.mapping);
    let mut comparison = Comparison {
        topic: &topic.name,
        evolved: opened.change.is_some() || !retired.is_empty(),
        retired,
        quarantine_shape: Quarantine::new(opened.message())?,
        opened: &opened,
        former: ledger.former.clone(),
        filled: HashSet::new(),
        main: Reader::new(&main.table, options.memory_bytes / 4)?,
        rejected: quarantine.map(|read| Reader::new(&read.table, options.memory_bytes / 4)).transpose()?,
        depth: &mut depth,
        tally,
    };
    for Compared { from, to, .. } in &ranges {
        tally.expect(u64::try_from(to - from).unwrap_or(0));
    }
    let budget = Budget::new(options.memory_bytes / 4);
    for compared in ranges {
        let range = OffsetRange { from: compared.from, to: compared.to };
        tracing::info!(topic = %topic.name, partition = compared.partition, from = range.from, to = range.to, "comparing");
        comparison.depth.offsets_gone += compared.offsets_gone;
        comparison.depth.partitions.push(compared);
        comparison.partition(kafka, topic.isolation, compared.partition, range, &budget).await?;
    }
    Ok(depth)
}

/// What of the ledger's coverage the log still has, by partition. The ledger says where each partition ends; where it
/// began is the log's start, or for a topic that starts later by its configuration, what the table has on record. A
/// table of an older calve has nothing there: then it is what the configuration says, or the first offset that the
/// tables hold.
async fn ranges(
    topic: &Topic,
    main: &Read,
    quarantine: Option<&Read>,
    ledger: &TopicLedger,
    log: &BTreeMap<i32, Watermarks>,
    admin: &Admin,
) -> Result<Vec<Compared>> {
    let partitions: Vec<i32> = log.keys().copied().collect();
    let by_time = match topic.start {
        Start::Timestamp(ms) => admin.offsets_for_time(&topic.name, &partitions, ms, topic.isolation).await?,
        Start::Earliest | Start::Latest => BTreeMap::new(),
    };
    let first_held = |partition: i32| {
        let held = [Some(main), quarantine].into_iter().flatten();
        let first = held.filter_map(|read| read.held.partition(&topic.name, partition)?.set().min()).min();
        first.and_then(|first| i64::try_from(first).ok())
    };
    let began = Began::of(main.table.metadata());
    let mut ranges = Vec::new();
    for (partition, next) in ledger.offsets() {
        let Some(Watermarks { low, end }) = log.get(&partition).copied() else {
            let (name, table) = (&topic.name, &main.name);
            return Err(Error::halt(format!("topic {name} has no partition {partition}, which table {table} has")));
        };
        if next > end {
            return Err(Error::halt(format!(
                "topic {} partition {partition}: the log ends at {end}, but table {} has everything below {next}; it is \
                 not the log that the table was filled from",
                topic.name, main.name
            )));
        }
        let first = first_held(partition);
        let began = match (began.offset(&topic.name, partition), topic.start) {
            (Some(offset), _) => offset,
            (None, Start::Earliest) => low,
            (None, Start::Latest) => first.unwrap_or(next),
            (None, Start::Timestamp(_)) => {
                first.into_iter().chain(by_time.get(&partition).copied()).min().unwrap_or(next)
            }
        };
        let gone = low.min(next) - first.unwrap_or(low).min(low).min(next);
        let from = began.max(low).min(next);
        ranges.push(Compared { partition, from, to: next, offsets_gone: u64::try_from(gone).unwrap_or(0) });
    }
    Ok(ranges)
}

/// The field ids of columns that no field of the message fills any more, at any depth.
fn retired(mapping: &Mapping) -> HashSet<i32> {
    let mut found = HashSet::new();
    retired_in(&mapping.columns, mapping.arrow.fields(), &mut found);
    found
}

fn retired_in(columns: &[Column], fields: &arrow::datatypes::Fields, found: &mut HashSet<i32>) {
    for (column, field) in columns.iter().zip(fields) {
        match column.shape {
            Shape::Leaf(Leaf::Retired) => found.extend(crate::query::field_id(field)),
            _ => retired_below(&column.shape, field.data_type(), found),
        }
    }
}

fn retired_below(shape: &Shape, data_type: &arrow::datatypes::DataType, found: &mut HashSet<i32>) {
    use arrow::datatypes::DataType;
    match (shape, data_type) {
        (Shape::Struct(inner), DataType::Struct(fields)) => retired_in(&inner.columns, fields, found),
        (Shape::List(element), DataType::List(field)) => retired_below(element, field.data_type(), found),
        (Shape::Map { value, .. }, DataType::Map(entries, _)) => {
            if let DataType::Struct(entry) = entries.data_type()
                && let [_, field] = entry.as_ref()
            {
                retired_below(value, field.data_type(), found);
            }
        }
        _ => {}
    }
}
