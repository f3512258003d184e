//! What a source gained between two of its snapshots: the files that its appends added.
//!
//! The history is walked by parents, so a snapshot that was rolled away is never mistaken for one that counts. A
//! compaction (`replace`) changes no row and is passed over, whoever made it.

use std::fmt;

use futures::TryStreamExt;
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataContentType, ManifestContentType, ManifestStatus, Operation, SnapshotRef};
use iceberg::table::Table;

use super::model::OnOverwrite;
use crate::error::{Error, Result};

/// New rows of a source, as the data files that hold them.
#[derive(Debug, Default)]
pub struct Delta {
    pub files: Vec<FileScanTask>,
    pub rows: u64,
    pub bytes: u64,
    /// The snapshot up to which the files go; `None` for a source that has none yet.
    pub to: Option<i64>,
    /// Snapshots passed, whether they brought rows or not.
    pub snapshots: usize,
    /// Snapshots that changed files without bringing rows: compactions, and overwrites where they are ignored.
    pub passed_over: usize,
    /// There is more behind `to`; the delta was cut to its size limit.
    pub more: bool,
}

/// The rows that came after snapshot `from`, or all rows that are there when `from` is none.
///
/// A delta of more than `bytes_max` is cut at the end of a snapshot, after at least one.
///
/// # Errors
/// The history does not lead back to `from` (expired, or rolled back), or rows were overwritten or deleted and `policy`
/// says to stop; or the manifests cannot be read.
pub async fn since(table: &Table, from: Option<i64>, bytes_max: u64, policy: OnOverwrite) -> Result<Delta> {
    let Some(head) = table.metadata().current_snapshot() else {
        return match from {
            None => Ok(Delta::default()),
            Some(id) => Err(rolled_back(table, id)),
        };
    };
    let Some(from) = from else { return everything(table, head).await };
    let mut delta = Delta { to: Some(from), ..Delta::default() };
    for snapshot in path(table, from, head)? {
        if delta.bytes > bytes_max {
            delta.more = true;
            break;
        }
        match snapshot.summary().operation {
            Operation::Append => {
                for file in added(table, &snapshot).await? {
                    delta.rows += file.record_count.unwrap_or(0);
                    delta.bytes += file.length;
                    delta.files.push(file);
                }
            }
            Operation::Replace => delta.passed_over += 1,
            Operation::Overwrite | Operation::Delete if policy == OnOverwrite::Ignore => delta.passed_over += 1,
            ref operation @ (Operation::Overwrite | Operation::Delete) => {
                return Err(Error::halt(format!(
                    "snapshot {} of {} changed or deleted rows ({}), which mode append cannot take over: set \
                     `on_overwrite: ignore` for this source to go on with appended rows only, or drop the target to \
                     refine everything anew",
                    snapshot.snapshot_id(),
                    table.identifier(),
                    Named(operation)
                )));
            }
        }
        delta.snapshots += 1;
        delta.to = Some(snapshot.snapshot_id());
    }
    Ok(delta)
}

struct Named<'a>(&'a Operation);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The snapshots after `from` up to `head`, oldest first.
fn path(table: &Table, from: i64, head: &SnapshotRef) -> Result<Vec<SnapshotRef>> {
    let mut newer = Vec::new();
    let mut next = Some(head.clone());
    while let Some(snapshot) = next {
        if snapshot.snapshot_id() == from {
            newer.reverse();
            return Ok(newer);
        }
        let parent = snapshot.parent_snapshot_id();
        newer.push(snapshot);
        next = match parent {
            // The snapshot itself is gone, but everything after it is there.
            Some(id) if id == from => {
                newer.reverse();
                return Ok(newer);
            }
            Some(id) => match table.metadata().snapshot_by_id(id) {
                Some(snapshot) => Some(snapshot.clone()),
                None if table.metadata().snapshot_by_id(from).is_none() => {
                    return Err(Error::halt(format!(
                        "the history of {} expired past snapshot {from}, up to which the target is refined: the oldest \
                         that is left has the parent {id}; which rows came between cannot be told, so drop the target \
                         to refine everything anew, and keep more snapshots (history.expire.*)",
                        table.identifier()
                    )));
                }
                None => None,
            },
            None => None,
        };
    }
    Err(rolled_back(table, from))
}

fn rolled_back(table: &Table, from: i64) -> Error {
    Error::halt(format!(
        "{} no longer descends from snapshot {from}, up to which the target is refined: it was rolled back or its main \
         branch was replaced; roll the target back too, to a run from before that, or drop it to refine everything anew",
        table.identifier()
    ))
}

/// All live files of the head, with the delete files that apply to them.
async fn everything(table: &Table, head: &SnapshotRef) -> Result<Delta> {
    let failed = |error: iceberg::Error| unreadable(table, head.snapshot_id(), error);
    let scan = table.scan().snapshot_id(head.snapshot_id()).select_empty().build().map_err(failed)?;
    let files: Vec<FileScanTask> = scan.plan_files().await.map_err(failed)?.try_collect().await.map_err(failed)?;
    Ok(Delta {
        rows: files.iter().filter_map(|file| file.record_count).sum(),
        bytes: files.iter().map(|file| file.length).sum(),
        files,
        to: Some(head.snapshot_id()),
        snapshots: 1,
        ..Delta::default()
    })
}

/// The data files that this snapshot added: the entries of its own manifests that say so.
async fn added(table: &Table, snapshot: &SnapshotRef) -> Result<Vec<FileScanTask>> {
    let id = snapshot.snapshot_id();
    let failed = |error: iceberg::Error| unreadable(table, id, error);
    let list = table.manifest_list_reader(snapshot).load().await.map_err(failed)?;
    let mut files = Vec::new();
    for manifest in list.entries() {
        if manifest.added_snapshot_id != id || manifest.content != ManifestContentType::Data {
            continue;
        }
        let entries = manifest.load_manifest(table.file_io()).await.map_err(failed)?;
        for entry in entries.entries() {
            let new = entry.status() == ManifestStatus::Added && entry.snapshot_id().is_none_or(|by| by == id);
            if !new || entry.content_type() != DataContentType::Data {
                continue;
            }
            files.push(
                FileScanTask::builder()
                    .with_file_size_in_bytes(entry.file_size_in_bytes())
                    .with_start(0)
                    .with_length(entry.file_size_in_bytes())
                    .with_record_count(Some(entry.record_count()))
                    .with_data_file_path(entry.file_path().to_owned())
                    .with_data_file_format(entry.file_format())
                    .with_schema(table.metadata().current_schema().clone())
                    .with_project_field_ids(vec![])
                    .with_case_sensitive(true)
                    .build(),
            );
        }
    }
    Ok(files)
}

fn unreadable(table: &Table, snapshot: i64, error: iceberg::Error) -> Error {
    let message = format!("cannot read which files snapshot {snapshot} of {} added: {error}", table.identifier());
    if error.retryable() { Error::retry(message) } else { Error::halt(message) }
}
