//! `calve verify TABLE`: coverage, proved from the tables alone. No offset is in the table twice, none lies at or above
//! the ledger, none is in both the table and its quarantine, and there are as many rows and rejects as the ledger counts.

use std::collections::BTreeSet;
use std::fmt;

use iceberg::TableIdent;
use roaring::RoaringTreemap;
use serde::Serialize;

use super::ancestry::{self, Reading};
use super::committer;
use super::ledger::TopicLedger;
use super::offsets::Held;
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rows that other writers deleted are no difference.
    pub accept_deletes: bool,
    /// So many differences are told one by one; all are counted.
    pub differences_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { accept_deletes: false, differences_max: 20 }
    }
}

/// What a table and its quarantine hold, against what their ledgers say.
#[derive(Debug, Serialize)]
pub struct Report {
    pub table: String,
    /// The heads that were read.
    pub snapshot: Option<i64>,
    pub quarantine: Option<String>,
    pub quarantine_snapshot: Option<i64>,
    pub topics: Vec<Topic>,
    /// Live rows that do not say which record they came from; other writers' rows.
    pub unattributed: u64,
    /// Rows that other writers added and deleted since the beginning.
    pub foreign_added: u64,
    pub foreign_deleted: u64,
    /// The first ones.
    pub differences: Vec<Difference>,
    pub differences_total: u64,
}

#[derive(Debug, Serialize)]
pub struct Topic {
    pub topic: String,
    pub partitions: usize,
    /// Live rows of the topic, and what the ledger says it gave.
    pub rows: u64,
    pub rows_in_ledger: u64,
    /// Rows of the quarantine table below this table's ledger, and what the ledger says was rejected.
    pub rejects: u64,
    pub rejects_in_ledger: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
pub enum Difference {
    /// The record is in the table more than once.
    Doubled {
        table: String,
        topic: String,
        partition: i32,
        offset: u64,
    },
    /// The record lies at or above what the ledger accounts for.
    Beyond {
        table: String,
        topic: String,
        partition: i32,
        offset: u64,
        next: Option<i64>,
    },
    /// The record is a row and a reject.
    Both {
        topic: String,
        partition: i32,
        offset: u64,
    },
    /// Rows and ledger differ in number; `deleted` of them other writers deleted.
    Rows {
        table: String,
        topic: String,
        rows: u64,
        ledger: u64,
        deleted: u64,
    },
    Rejects {
        topic: String,
        rows: u64,
        ledger: u64,
    },
    /// Another writer deleted rows; `added` of them it may have put back, changed or not.
    Deleted {
        table: String,
        snapshot: Option<i64>,
        rows: u64,
        added: u64,
        by: Option<String>,
    },
    /// More rows without an origin than other writers added.
    Unattributed {
        table: String,
        rows: u64,
        foreign_added: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Doubled { table, topic, partition, offset } => {
                write!(f, "{topic}/{partition}/{offset} is in {table} more than once")
            }
            Difference::Beyond { table, topic, partition, offset, next: Some(next) } => {
                write!(f, "{topic}/{partition}/{offset} is in {table}, but its ledger goes on at {next}")
            }
            Difference::Beyond { table, topic, partition, offset, next: None } => {
                write!(f, "{topic}/{partition}/{offset} is in {table}, but its ledger knows nothing of this partition")
            }
            Difference::Both { topic, partition, offset } => {
                write!(f, "{topic}/{partition}/{offset} is both a row and a reject")
            }
            Difference::Rows { table, topic, rows, ledger, deleted } => {
                write!(f, "{table} has {rows} rows of {topic}, its ledger counts {ledger}")?;
                match deleted {
                    0 => Ok(()),
                    deleted => write!(f, " ({deleted} were deleted by other writers)"),
                }
            }
            Difference::Rejects { topic, rows, ledger } => {
                write!(f, "the quarantine has {rows} records of {topic}, the ledger counts {ledger} rejects")
            }
            Difference::Deleted { table, snapshot: Some(snapshot), rows, added, by } => {
                write!(
                    f,
                    "snapshot {snapshot}, by another writer{}, ",
                    by.as_ref().map_or(String::new(), |by| format!(" ({by})"))
                )?;
                match added {
                    0 => write!(f, "deleted {rows} rows of {table}"),
                    added => write!(f, "replaced {rows} rows of {table} by {added}"),
                }
            }
            Difference::Deleted { table, snapshot: None, rows, .. } => {
                write!(f, "other writers deleted {rows} more rows of {table} in snapshots that are not remembered")
            }
            Difference::Unattributed { table, rows, foreign_added } => write!(
                f,
                "{table} has {rows} rows without a topic and offset, of which other writers added {foreign_added}"
            ),
        }
    }
}

impl Report {
    /// Whether table and ledger agree.
    pub fn agrees(&self) -> bool {
        self.differences_total == 0
    }

    /// Adds a difference that a caller found (`--deep`).
    pub fn add(&mut self, difference: Difference, options: &Options) {
        self.differences_total += 1;
        if self.differences.len() < options.differences_max {
            self.differences.push(difference);
        }
    }

    fn add_offsets(&mut self, offsets: &RoaringTreemap, options: &Options, make: impl Fn(u64) -> Difference) {
        let room = options.differences_max.saturating_sub(self.differences.len());
        self.differences.extend(offsets.iter().take(room).map(make));
        self.differences_total += offsets.len();
    }
}

/// A table as verify reads it; the held offsets serve `--deep` too.
#[derive(Debug)]
pub struct Read {
    pub name: String,
    pub table: iceberg::table::Table,
    pub reading: Reading,
    pub held: Held,
}

/// Reads a table's ledger and the offsets of its live rows; none if there is no such table.
pub async fn read(catalog: &dyn Catalog, ident: &TableIdent) -> Result<Option<Read>> {
    let table = match catalog.load(ident).await {
        Ok(table) => table,
        Err(catalog::Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(committer::not_loaded(catalog, ident, error)),
    };
    let reading = ancestry::read(&table, catalog.trust_mirror()).await?;
    let held = Held::read(&table).await?;
    Ok(Some(Read { name: ident.to_string(), table, reading, held }))
}

/// Verifies a table and its quarantine. The table is read first: a daemon that runs meanwhile commits to the quarantine
/// first, so that its rows below the table's ledger are all there.
pub async fn verify(
    catalog: &dyn Catalog,
    ident: &TableIdent,
    quarantine: Option<&TableIdent>,
    options: &Options,
) -> Result<Report> {
    let main = read(catalog, ident)
        .await?
        .ok_or_else(|| Error::halt(format!("table {ident} does not exist in catalog {}", catalog.name())))?;
    let rejected = match quarantine {
        Some(quarantine) => read(catalog, quarantine).await?,
        None => None,
    };
    Ok(compare(&main, rejected.as_ref(), quarantine.is_some(), options))
}

/// What was read against what the ledgers say. `complete`: a quarantine that is not there holds nothing.
pub fn compare(main: &Read, quarantine: Option<&Read>, complete: bool, options: &Options) -> Report {
    let head = |read: &Read| read.table.metadata().current_snapshot_id();
    let foreign = &main.reading.ledger.foreign;
    let mut report = Report {
        table: main.name.clone(),
        snapshot: head(main),
        quarantine: quarantine.map(|read| read.name.clone()),
        quarantine_snapshot: quarantine.and_then(head),
        topics: Vec::new(),
        unattributed: main.held.unattributed,
        foreign_added: foreign.added,
        foreign_deleted: foreign.deleted,
        differences: Vec::new(),
        differences_total: 0,
    };
    own(&mut report, main, options);
    if let Some(quarantine) = quarantine {
        own(&mut report, quarantine, options);
    }

    let nothing = TopicLedger::default();
    for topic in topics(main, quarantine) {
        let ledger = main.reading.ledger.topic(&topic).unwrap_or(&nothing);
        let mut rejects = 0;
        for (partition, offsets) in quarantine.and_then(|read| read.held.topics.get(&topic)).into_iter().flatten() {
            let below = next(ledger, *partition).unwrap_or(0);
            rejects += offsets.set().rank(below.saturating_sub(1).max(0) as u64) * u64::from(below > 0);
            if ledger.former.is_empty()
                && let Some(rows) = main.held.partition(&topic, *partition)
            {
                let both = rows.set() & offsets.set();
                report.add_offsets(&both, options, |offset| Difference::Both {
                    topic: topic.clone(),
                    partition: *partition,
                    offset,
                });
            }
        }
        if rejects != ledger.rejects && complete && ledger.former.is_empty() {
            report.add(Difference::Rejects { topic: topic.clone(), rows: rejects, ledger: ledger.rejects }, options);
        }
        report.topics.push(Topic {
            partitions: ledger.offsets().len(),
            rows: main.held.rows(&topic),
            rows_in_ledger: ledger.rows,
            rejects,
            rejects_in_ledger: ledger.rejects,
            topic,
        });
    }
    report
}

/// One table against its own ledger.
fn own(report: &mut Report, read: &Read, options: &Options) {
    let table = &read.name;
    let nothing = TopicLedger::default();
    let foreign = &read.reading.ledger.foreign;
    let mut missing = 0;
    for topic in topics(read, None) {
        let ledger = read.reading.ledger.topic(&topic).unwrap_or(&nothing);
        for (partition, offsets) in read.held.topics.get(&topic).into_iter().flatten() {
            // A topic that was recreated gives each offset once in each of its lives.
            let doubled = offsets.beyond(1 + ledger.former.len());
            report.add_offsets(&doubled, options, |offset| Difference::Doubled {
                table: table.clone(),
                topic: topic.clone(),
                partition: *partition,
                offset,
            });
            let next = next(ledger, *partition);
            let mut beyond = offsets.set().clone();
            beyond.remove_range(0..next.unwrap_or(0).max(0) as u64);
            report.add_offsets(&beyond, options, |offset| Difference::Beyond {
                table: table.clone(),
                topic: topic.clone(),
                partition: *partition,
                offset,
                next,
            });
        }
        let rows = read.held.rows(&topic);
        if rows == ledger.rows {
            continue;
        }
        let gone = ledger.rows.saturating_sub(rows);
        let explained = gone > 0 && missing + gone <= foreign.deleted;
        missing += gone;
        if !(explained && options.accept_deletes) {
            let deleted = foreign.deleted.min(gone);
            report.add(
                Difference::Rows { table: table.clone(), topic: topic.clone(), rows, ledger: ledger.rows, deleted },
                options,
            );
        }
    }
    if missing > 0 && foreign.deleted > 0 && !options.accept_deletes {
        let named: u64 = foreign.deletions.iter().map(|deletion| deletion.rows).sum();
        for deletion in &foreign.deletions {
            let difference = Difference::Deleted {
                table: table.clone(),
                snapshot: Some(deletion.snapshot),
                rows: deletion.rows,
                added: deletion.added,
                by: deletion.by.clone(),
            };
            report.add(difference, options);
        }
        if foreign.deleted > named {
            let rows = foreign.deleted - named;
            let difference = Difference::Deleted { table: table.clone(), snapshot: None, rows, added: 0, by: None };
            report.add(difference, options);
        }
    }
    if read.held.unattributed > foreign.added {
        let (rows, foreign_added) = (read.held.unattributed, foreign.added);
        report.add(Difference::Unattributed { table: table.clone(), rows, foreign_added }, options);
    }
}

/// The topics that the ledgers or the rows name, in order.
fn topics(one: &Read, other: Option<&Read>) -> BTreeSet<String> {
    let of = |read: &Read| {
        read.reading.ledger.topics.keys().chain(read.held.topics.keys()).cloned().collect::<BTreeSet<String>>()
    };
    let mut topics = of(one);
    topics.extend(other.map(of).unwrap_or_default());
    topics
}

/// The highest offset that any life of the topic accounts for.
fn next(ledger: &TopicLedger, partition: i32) -> Option<i64> {
    let former = ledger.former.iter().filter_map(|former| former.next.get(usize::try_from(partition).ok()?).copied());
    former.chain(ledger.next(partition)).filter(|next| *next >= 0).max()
}
