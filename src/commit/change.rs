//! What is asked of a committer, and what comes of it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use iceberg::spec::{DataFile, Operation, Schema, SchemaRef};
use uuid::Uuid;

use crate::batch::OffsetRange;

/// Rows of one topic, and the offsets that they account for.
#[derive(Clone, Debug)]
pub struct Append {
    /// New for each batch; the same when a batch is tried again.
    pub commit_id: Uuid,
    /// Durable files, none if the ranges hold no row.
    pub files: Vec<DataFile>,
    /// The partition spec that they were written with (the table's default when the writer was made).
    pub spec_id: i32,
    pub topic: String,
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
    pub ranges: BTreeMap<i32, OffsetRange>,
    /// Rows that the files add to this table.
    pub rows: u64,
    /// Records of the ranges that became rejects instead.
    pub rejects: u64,
    pub schema: Option<SchemaChange>,
    /// What the files hold, if it is to be the table's own still: a column that is gone would take its values along.
    pub written: Option<SchemaRef>,
    /// The topic does not start at its log's beginning: where its partitions begin is put on record.
    pub late: bool,
    /// Further keys of the snapshot's summary.
    pub summary: BTreeMap<String, String>,
}

/// A new schema that travels with the first data that needs it.
#[derive(Clone, Debug)]
pub struct SchemaChange {
    /// The id of the schema that it was made from; another current schema is a conflict.
    pub base_schema_id: i32,
    pub schema: Schema,
    /// Table properties that belong to it (the column map).
    pub properties: HashMap<String, String>,
}

/// A refinement's result: files and summary, without a Kafka ledger.
#[derive(Clone, Debug)]
pub struct Change {
    /// The run's id; a lost answer is resolved by it.
    pub run_id: Uuid,
    pub operation: Operation,
    pub files: Vec<DataFile>,
    pub spec_id: i32,
    pub schema: Option<SchemaChange>,
    pub summary: BTreeMap<String, String>,
    pub properties: HashMap<String, String>,
}

/// What came of a commit of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed {
        snapshot_id: i64,
    },
    /// The batch does not join up with the table any more: nothing of it was committed, and nothing of it may be. Give
    /// the files to [`super::Committer::discard`], ask [`super::Committer::starts`] again, and seek.
    Moved {
        why: String,
    },
}

/// What came of publishing a refinement's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    Committed {
        snapshot_id: i64,
    },
    /// The target is no longer at the pinned head: start again from the new one.
    Conflict {
        head: Option<i64>,
    },
}

/// How often and how fast one call tries; then the caller gets a passing error and may call again with the same
/// commit id.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub attempts_max: u32,
    /// Of these, so many in a row that the catalog did not answer: then the caller waits, and says so.
    pub silent_max: u32,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (backoff_min, backoff_max) = (Duration::from_millis(20), Duration::from_secs(5));
        Limits { attempts_max: 20, silent_max: 4, backoff_min, backoff_max }
    }
}
