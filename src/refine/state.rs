//! What a target's snapshot says of the run that made it: the keys of its summary, and finding the newest.

use std::collections::HashMap;

use iceberg::spec::{Snapshot, TableMetadata};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::Mode;
use crate::commit::attempt::SNAPSHOT_ID;
use crate::config::TableName;
use crate::error::{Error, Result};

pub const MODEL: &str = "calve.refine.model";
pub const HASH: &str = "calve.refine.hash";
pub const RUN_ID: &str = "calve.refine.run-id";
pub const MODE: &str = "calve.refine.mode";
pub const ROWS_IN: &str = "calve.refine.rows-in";
pub const ROWS_OUT: &str = "calve.refine.rows-out";
/// The sources as the run saw them, in the shape of Iceberg's materialized-view proposal.
pub const REFRESH_STATE: &str = "refresh-state";
/// The table property that repeats the state, with the snapshot that it belongs to.
pub const MIRROR: &str = "calve.refine.state";

/// Which state of which sources a target reflects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefreshState {
    pub source_states: Vec<SourceState>,
    pub refresh_start_timestamp_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SourceState {
    /// Always `table`; the proposal knows views too.
    #[serde(rename = "type")]
    pub kind: String,
    pub namespace: Vec<String>,
    pub name: String,
    pub uuid: Uuid,
    /// Everything up to this snapshot is in the target. Absent: the source had none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<i64>,
}

impl RefreshState {
    pub fn source(&self, table: &TableName) -> Option<&SourceState> {
        self.source_states.iter().find(|state| state.namespace == table.namespace && state.name == table.name)
    }
}

/// A run, as its snapshot's summary records it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub model: TableName,
    pub hash: String,
    /// UUIDv7: a lost answer is resolved by looking for it.
    pub id: Uuid,
    pub mode: Mode,
    pub rows_in: u64,
    pub rows_out: u64,
    pub state: RefreshState,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    /// In digits, as text: the id is filled in when the commit is put together.
    snapshot_id: String,
    #[serde(rename = "refresh-state")]
    state: RefreshState,
}

impl Run {
    /// The summary's keys, beside Iceberg's own.
    pub fn summary(&self) -> HashMap<String, String> {
        HashMap::from([
            (MODEL.to_owned(), self.model.to_string()),
            (HASH.to_owned(), self.hash.clone()),
            (RUN_ID.to_owned(), self.id.to_string()),
            (MODE.to_owned(), self.mode.to_string()),
            (ROWS_IN.to_owned(), self.rows_in.to_string()),
            (ROWS_OUT.to_owned(), self.rows_out.to_string()),
            (REFRESH_STATE.to_owned(), json(&self.state)),
        ])
    }

    /// The property that repeats the state, with the id of the snapshot that the run becomes.
    pub fn mirror(&self) -> (String, String) {
        (MIRROR.to_owned(), json(&Mirror { snapshot_id: SNAPSHOT_ID.to_owned(), state: self.state.clone() }))
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists are always JSON")
}

/// What the newest run that is part of main's history left, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub state: RefreshState,
    pub snapshot_id: i64,
    pub hash: Option<String>,
    pub run_id: Option<String>,
    pub rows_out: Option<u64>,
    pub timestamp_ms: Option<i64>,
}

/// The state that the head of main reflects; `None` for a table that no run has filled and nothing else either.
///
/// Other writers' snapshots (a compaction) may lie on top of it. Where the history is cut off by expiry before a run is
/// met, the mirrored property serves if it belongs to the very snapshot that is missing next.
///
/// # Errors
/// A history that does not say what the table holds: rows that no run of calve's has written, a state that does not
/// parse, or one that expired.
pub fn read(table: &str, metadata: &TableMetadata) -> Result<Option<Found>> {
    let mut next = metadata.current_snapshot_id();
    while let Some(id) = next {
        let Some(snapshot) = metadata.snapshot_by_id(id) else {
            return of_mirror(table, metadata, id).map(Some);
        };
        if let Some(text) = snapshot.summary().additional_properties.get(REFRESH_STATE) {
            return found(table, snapshot, text).map(Some);
        }
        next = snapshot.parent_snapshot_id();
    }
    match metadata.current_snapshot() {
        Some(head) if rows(head) != Some(0) => Err(Error::halt(format!(
            "table {table} holds rows and no refinement's state: something else filled it; choose another target, or \
             drop the table"
        ))),
        _ => Ok(None),
    }
}

fn rows(snapshot: &Snapshot) -> Option<u64> {
    snapshot.summary().additional_properties.get("total-records")?.parse().ok()
}

fn found(table: &str, snapshot: &Snapshot, text: &str) -> Result<Found> {
    let id = snapshot.snapshot_id();
    let state = serde_json::from_str(text).map_err(|error| {
        Error::halt(format!("snapshot {id} of {table} has a {REFRESH_STATE} that does not parse: {error}"))
    })?;
    let summary = &snapshot.summary().additional_properties;
    Ok(Found {
        state,
        snapshot_id: id,
        hash: summary.get(HASH).cloned(),
        run_id: summary.get(RUN_ID).cloned(),
        rows_out: summary.get(ROWS_OUT).and_then(|rows| rows.parse().ok()),
        timestamp_ms: Some(snapshot.timestamp_ms()),
    })
}

fn of_mirror(table: &str, metadata: &TableMetadata, missing: i64) -> Result<Found> {
    let mirror = metadata.properties().get(MIRROR).and_then(|text| serde_json::from_str::<Mirror>(text).ok());
    match mirror {
        Some(mirror) if mirror.snapshot_id == missing.to_string() => Ok(Found {
            state: mirror.state,
            snapshot_id: missing,
            hash: None,
            run_id: None,
            rows_out: None,
            timestamp_ms: None,
        }),
        _ => Err(Error::halt(format!(
            "the history of {table} ends at snapshot {missing}, which expired, before any refinement's state: what it \
             holds cannot be told; roll it back to a snapshot of a run, or drop it and refine it anew"
        ))),
    }
}
