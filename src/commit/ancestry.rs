//! Finding the ledger that holds for main's head.
//!
//! Main's ancestry is walked from the head to the first snapshot that carries a ledger; a rollback thus rewinds the
//! ledger by itself. Only where the chain breaks off at an expired parent may an older metadata file or the mirror
//! in the table's properties serve, and only with proof that its snapshot was on this line. Ids and sequence numbers
//! prove nothing: after rollback, foreign append and expiry the dead branch's mirror has the lower sequence number,
//! and trusting it would skip rows for ever.

use std::collections::HashMap;

use iceberg::spec::{Operation, Snapshot, SnapshotRef, TableMetadata};
use iceberg::table::Table;

use super::blame;
use super::ledger::{KEY, Ledger, Mirror};
use crate::error::{Error, Result};

/// At most so many older metadata files are read in search of a proof.
const OLDER_METADATA_MAX: usize = 100;

/// The ledger that holds for a table's head, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Rows of the foreign snapshots above the ledger's are already counted in.
    pub ledger: Ledger,
    pub found: Found,
    /// How many snapshots of other writers lie above the one that carries the ledger.
    pub foreign_above: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The history is whole and no snapshot of it carries a ledger: nothing is accounted for.
    Nothing,
    /// This snapshot carries it.
    Snapshot(i64),
    /// This snapshot carried it; it has expired, an older metadata file shows it on this line.
    OlderMetadata(i64),
    /// The mirror; its snapshot is the expired parent at which the chain breaks off.
    Mirror(i64),
    /// The mirror, without proof (`calve.trust-mirror`).
    TrustedMirror(i64),
}

/// Where the walk ended without a ledger.
enum End {
    Ledger(Ledger, i64),
    /// A snapshot without a parent.
    Root,
    /// This parent is not among the snapshots.
    Missing(i64),
}

/// Reads the ledger of `table`'s head. Halts where nothing can be proved.
pub async fn read(table: &Table, trust_mirror: bool) -> Result<Reading> {
    let metadata = table.metadata();
    let mirror = mirror(metadata)?;
    let Some(head) = metadata.current_snapshot_id() else {
        return Ok(match mirror {
            Some(mirror) if trust_mirror => trusted(mirror, Vec::new()),
            _ => Reading { ledger: Ledger::default(), found: Found::Nothing, foreign_above: 0 },
        });
    };

    let mut foreign = Vec::new();
    let missing = match walk(metadata, head, &mut foreign)? {
        End::Ledger(ledger, snapshot) => return Ok(reading(ledger, Found::Snapshot(snapshot), foreign)),
        End::Root => {
            return Ok(match mirror {
                Some(mirror) if trust_mirror => trusted(mirror, foreign),
                _ => reading(Ledger::default(), Found::Nothing, foreign),
            });
        }
        End::Missing(parent) => parent,
    };

    if let Some(mirror) = &mirror
        && mirror.snapshot == missing
    {
        return Ok(reading(mirror.ledger.clone(), Found::Mirror(missing), foreign));
    }
    let mut at = missing;
    for older in metadata.metadata_log().iter().rev().take(OLDER_METADATA_MAX) {
        let Some(older) = load_older(table, &older.metadata_file).await? else { continue };
        if older.snapshot_by_id(at).is_none() || older.uuid() != metadata.uuid() {
            continue;
        }
        match walk(&older, at, &mut foreign)? {
            End::Ledger(ledger, snapshot) => return Ok(reading(ledger, Found::OlderMetadata(snapshot), foreign)),
            End::Root => return Ok(reading(Ledger::default(), Found::Nothing, foreign)),
            End::Missing(parent) => at = parent,
        }
        if let Some(mirror) = &mirror
            && mirror.snapshot == at
        {
            return Ok(reading(mirror.ledger.clone(), Found::Mirror(at), foreign));
        }
    }

    let name = table.identifier();
    match mirror {
        Some(mirror) if trust_mirror => Ok(trusted(mirror, foreign)),
        Some(mirror) => Err(Error::halt(format!(
            "table {name}: no ledger can be proved: main's history breaks off at the expired snapshot {at} before a \
             snapshot that carries {KEY}, and nothing shows that snapshot {}, whose ledger is mirrored in the table's \
             properties, was on this line; look at it with `calve ledger show {name}`, then go on from it with \
             `calve ledger accept {name}` or start elsewhere with `calve ledger reset {name}`",
            mirror.snapshot
        ))),
        None => Err(Error::halt(format!(
            "table {name}: no ledger can be proved: main's history breaks off at the expired snapshot {at} before a \
             snapshot that carries {KEY}, and the table's properties hold no mirror of it; go on with an empty ledger \
             with `calve ledger accept {name}` or give the offsets with `calve ledger reset {name}`"
        ))),
    }
}

/// The mirror in the table's properties, if there is one.
pub fn mirror(metadata: &TableMetadata) -> Result<Option<Mirror>> {
    metadata.properties().get(KEY).map(|json| Mirror::from_json(json)).transpose()
}

/// Whether one of the head's ancestors (or the head itself) has `value` under `key` in its summary. The walk ends
/// where the history does, or after `depth` snapshots.
pub fn ancestor_with<'a>(metadata: &'a TableMetadata, key: &str, value: &str, depth: usize) -> Option<&'a SnapshotRef> {
    let mut at = metadata.current_snapshot();
    for _ in 0..depth {
        let snapshot = at?;
        if snapshot.summary().additional_properties.get(key).is_some_and(|found| found == value) {
            return Some(snapshot);
        }
        at = snapshot.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent));
    }
    None
}

/// Main's line from the head down, as far as it is known.
pub fn line(metadata: &TableMetadata, head: Option<i64>) -> Vec<SnapshotRef> {
    let mut line = Vec::new();
    let mut at = head.and_then(|head| metadata.snapshot_by_id(head));
    while let Some(snapshot) = at {
        // A cycle cannot come from a sane writer, but must not hang a reader either.
        if line.len() > metadata.snapshots().len() {
            break;
        }
        line.push(snapshot.clone());
        at = snapshot.parent_snapshot_id().and_then(|parent| metadata.snapshot_by_id(parent));
    }
    line
}

/// Snapshots of other writers: id, rows added, rows deleted, the engine.
type Counted = Vec<(i64, u64, u64, Option<String>)>;

fn walk(metadata: &TableMetadata, from: i64, foreign: &mut Counted) -> Result<End> {
    let mut at = from;
    for _ in 0..=metadata.snapshots().len() {
        let Some(snapshot) = metadata.snapshot_by_id(at) else { return Ok(End::Missing(at)) };
        if let Some(json) = snapshot.summary().additional_properties.get(KEY) {
            return Ok(End::Ledger(Ledger::from_json(json)?, at));
        }
        let (added, deleted) = rows_changed(snapshot);
        foreign.push((at, added, deleted, blame::engine(snapshot)));
        match snapshot.parent_snapshot_id() {
            Some(parent) => at = parent,
            None => return Ok(End::Root),
        }
    }
    Err(Error::halt(format!("snapshot {from} is its own ancestor: the table's metadata is damaged")))
}

/// Rows that a snapshot added and deleted, from its summary. Position deletes count as rows, equality deletes cannot
/// be counted; a replace changes no rows by definition.
pub fn rows_changed(snapshot: &Snapshot) -> (u64, u64) {
    let summary = snapshot.summary();
    if summary.operation == Operation::Replace {
        return (0, 0);
    }
    let number = |key: &str| count(&summary.additional_properties, key);
    let deletes = number("added-position-deletes").saturating_sub(number("removed-position-deletes"));
    (number("added-records"), number("deleted-records") + deletes)
}

/// A count in a snapshot's summary; absent or unreadable is zero.
pub fn count(summary: &HashMap<String, String>, key: &str) -> u64 {
    summary.get(key).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn reading(mut ledger: Ledger, found: Found, foreign: Counted) -> Reading {
    let foreign_above = foreign.len();
    for (snapshot, added, deleted, by) in foreign.into_iter().rev() {
        ledger.foreign.count(snapshot, added, deleted, by);
    }
    Reading { ledger, found, foreign_above }
}

fn trusted(mirror: Mirror, foreign: Counted) -> Reading {
    reading(mirror.ledger, Found::TrustedMirror(mirror.snapshot), foreign)
}

/// An older metadata file; none if it was cleaned up. A failure to read one that is there is passing: concluding
/// from it that there is no proof would halt a topic over a hiccup.
async fn load_older(table: &Table, location: &str) -> Result<Option<TableMetadata>> {
    let passing = |error: iceberg::Error| {
        Error::retry(format!("table {}: reading the older metadata file {location} failed", table.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    };
    if !table.file_io().exists(location).await.map_err(passing)? {
        return Ok(None);
    }
    TableMetadata::read_from(table.file_io(), location).await.map(Some).map_err(passing)
}
