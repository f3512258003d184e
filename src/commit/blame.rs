//! Who changed a table's columns, as far as the table tells. Iceberg signs snapshots, and a change of schema comes
//! without one more often than not; but metadata files are dated, and name the engines that wrote around that time.

use chrono::{DateTime, SecondsFormat, Utc};
use iceberg::spec::{Snapshot, TableMetadata};
use iceberg::table::Table;

use super::snapshot::COMMIT_ID;

/// At most so many older metadata files are read.
const OLDER_METADATA_MAX: usize = 20;

/// When the table's current schema became what it is, and by whom; none if calve did it, or nothing tells.
pub async fn schema_change(table: &Table) -> Option<String> {
    let metadata = table.metadata();
    let schema = metadata.current_schema();
    let mut after = metadata.clone();
    let mut file = table.metadata_location().unwrap_or_default().to_owned();
    for older in metadata.metadata_log().iter().rev().take(OLDER_METADATA_MAX) {
        let before = TableMetadata::read_from(table.file_io(), &older.metadata_file).await.ok()?;
        if before.current_schema().as_struct() != schema.as_struct() {
            return describe(metadata, &before, &after, &file);
        }
        (after, file) = (before, older.metadata_file.clone());
    }
    None
}

fn describe(now: &TableMetadata, before: &TableMetadata, after: &TableMetadata, file: &str) -> Option<String> {
    let came_with = after.current_snapshot().filter(|snapshot| before.snapshot_by_id(snapshot.snapshot_id()).is_none());
    if came_with.is_some_and(|snapshot| is_ours(snapshot)) {
        return None;
    }
    let name = file.rsplit('/').next().unwrap_or(file);
    let id = after.current_schema_id();
    let since = format!("the table has this schema ({id}) since {}, by {name}", time(after.last_updated_ms()));
    let near = came_with.or_else(|| {
        let others = now.snapshots().filter(|snapshot| !is_ours(snapshot));
        others.min_by_key(|snapshot| snapshot.timestamp_ms().abs_diff(after.last_updated_ms()))
    });
    Some(match near {
        Some(snapshot) if came_with.is_some() => format!("{since}, with {}", named(snapshot)),
        Some(snapshot) => format!(
            "{since}, without a snapshot; the snapshot of another writer that is nearest to it is {}",
            named(snapshot)
        ),
        None => format!("{since}, without a snapshot, which alone would name the writer"),
    })
}

fn is_ours(snapshot: &Snapshot) -> bool {
    snapshot.summary().additional_properties.contains_key(COMMIT_ID)
}

/// The engine that made a snapshot, with its version, if it says so.
pub fn engine(snapshot: &Snapshot) -> Option<String> {
    let summary = &snapshot.summary().additional_properties;
    let engine = summary.get("engine-name").filter(|name| !name.is_empty())?;
    Some(match summary.get("engine-version") {
        Some(version) => format!("{engine} {version}"),
        None => engine.clone(),
    })
}

/// A snapshot with what it says of its writer: `snapshot 123 of spark 4.0.5 (application local-1), 2026-11-25T…`.
pub fn named(snapshot: &Snapshot) -> String {
    let summary = &snapshot.summary().additional_properties;
    let says = |keys: &[&str]| keys.iter().find_map(|key| summary.get(*key)).filter(|value| !value.is_empty());
    let engine = engine(snapshot).unwrap_or_else(|| "a writer that does not name itself".to_owned());
    let mut text = format!("snapshot {} of {engine}", snapshot.snapshot_id());
    if let Some(application) = says(&["spark.app.id", "app-id", "trino_query_id", "flink.job-id"]) {
        text.push_str(&format!(" (application {application})"));
    }
    text.push_str(&format!(", {}", time(snapshot.timestamp_ms())));
    text
}

fn time(milliseconds: i64) -> String {
    let at: DateTime<Utc> = DateTime::from_timestamp_millis(milliseconds).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
