//! The producer: data files become manifests, a manifest list and a snapshot with a full summary. Nothing is committed
//! here; what was written lies in the store and no table names it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::try_join_all;
use iceberg::io::{FileIO, FileWrite};
use iceberg::spec::{
    DataContentType, DataFile, FormatVersion, ManifestContentType, ManifestFile, ManifestListWriter,
    ManifestWriterBuilder, Operation, SchemaRef, Snapshot, Summary, UNASSIGNED_SEQUENCE_NUMBER,
};
use iceberg::table::Table;
use uuid::Uuid;

use super::ancestry::count;
use super::manifests::{self, Entry, Manifests};
use crate::error::{Error, Result};

/// The summary key that tells a commit from others, so that a lost answer can be resolved.
pub const COMMIT_ID: &str = "calve.commit-id";

/// What a snapshot changes. Today: files added.
#[derive(Debug)]
pub struct Delta<'a> {
    pub operation: Operation,
    pub added: &'a [DataFile],
    /// The partition spec that the added files were written with.
    pub spec_id: i32,
    pub commit_id: Uuid,
    /// Summary keys beside those that follow from the files.
    pub summary: &'a BTreeMap<String, String>,
}

/// A snapshot whose files are in the store.
#[derive(Debug)]
pub struct Produced {
    pub snapshot: Snapshot,
    /// The snapshot's manifests, with sequence numbers assigned.
    pub list: Vec<ManifestFile>,
    /// The manifest that took the new files, if there are any.
    pub manifest: Option<String>,
    /// Its entries as they will be after the commit; none if they may not be kept in memory.
    pub entries: Option<Vec<Entry>>,
    /// Paths of the manifest and the list, to be deleted should the snapshot never be committed.
    pub written: Vec<String>,
}

/// Writes the manifest and the list of a snapshot on top of `table`'s head.
///
/// `schema` is the table's schema after the commit, with the id it will have.
pub async fn produce(
    table: &Table,
    schema: SchemaRef,
    manifests: &mut Manifests,
    delta: &Delta<'_>,
    now_ms: i64,
) -> Result<Produced> {
    let metadata = table.metadata();
    let version = metadata.format_version();
    let name = table.identifier();
    if version < FormatVersion::V2 {
        return Err(Error::halt(format!("table {name} has format version 1: upgrade it to version 2 first")));
    }
    let bad = |error: iceberg::Error| {
        Error::halt(format!("table {name}: the new snapshot cannot be written")).caused_by(anyhow::anyhow!("{error}"))
    };
    let spec = metadata.partition_spec_by_id(delta.spec_id).cloned().ok_or_else(|| {
        Error::halt(format!("table {name} has no partition spec {}, which the staged files have", delta.spec_id))
    })?;
    manifests.of_head(table).await?;
    let totals = Totals::of_head(table, manifests.list()).await?;

    let parent = metadata.current_snapshot();
    let snapshot_id = fresh_snapshot_id(table);
    let sequence_number = metadata.next_sequence_number();
    // Clocks differ: a snapshot is never older than its parent.
    let timestamp_ms =
        parent.map_or(now_ms, |parent| now_ms.max(parent.timestamp_ms())).max(metadata.last_updated_ms());
    let folder = folder(table);

    let mut files: Vec<(String, Bytes)> = Vec::with_capacity(2);
    let mut merged: HashSet<String> = HashSet::new();
    let mut list: Vec<ManifestFile> = Vec::with_capacity(manifests.list().len() + 1);
    let (mut manifest, mut kept) = (None, None);
    if !delta.added.is_empty() {
        let plan = manifests::plan_merge(manifests.list(), delta.spec_id);
        let mut entries = manifests.entries(table, &plan.sources).await?;
        merged.extend(plan.sources);
        let path = manifests::path(&folder, plan.tier);
        let memory = FileIO::new_with_memory();
        let builder = ManifestWriterBuilder::new(
            memory.new_output(&path).map_err(bad)?,
            Some(snapshot_id),
            schema.clone(),
            manifests::in_avro_names(&spec).map_err(bad)?,
        );
        let mut writer = match version {
            FormatVersion::V3 => builder.build_v3_data(),
            _ => builder.build_v2_data(),
        };
        for file in delta.added {
            writer.add_file(file.clone(), UNASSIGNED_SEQUENCE_NUMBER).map_err(bad)?;
        }
        for entry in &entries {
            writer
                .add_existing_file(
                    entry.file.clone(),
                    entry.snapshot_id,
                    entry.sequence_number,
                    Some(entry.file_sequence_number),
                )
                .map_err(bad)?;
        }
        list.push(writer.write_manifest_file().await.map_err(bad)?);
        let bytes = memory.new_input(&path).map_err(bad)?.read().await.map_err(bad)?;
        files.push((path.clone(), bytes));
        entries.extend(delta.added.iter().map(|file| Entry {
            file: file.clone(),
            snapshot_id,
            sequence_number,
            file_sequence_number: sequence_number,
        }));
        (manifest, kept) = (Some(path), manifests::cacheable(version).then_some(entries));
    }
    // A manifest without a live file says nothing to a reader; it was needed by the snapshot that deleted the files.
    list.extend(
        manifests
            .list()
            .iter()
            .filter(|manifest| !merged.contains(&manifest.manifest_path))
            .filter(|manifest| manifest.has_added_files() || manifest.has_existing_files())
            .cloned(),
    );

    let list_path = format!("{folder}/snap-{snapshot_id}-0-{}.avro", Uuid::now_v7());
    let buffer = Buffer::default();
    let output = Box::new(buffer.clone());
    let parent_id = parent.map(|parent| parent.snapshot_id());
    let first_row_id = (version >= FormatVersion::V3).then(|| metadata.next_row_id());
    let mut writer = match version {
        FormatVersion::V3 => ManifestListWriter::v3(output, snapshot_id, parent_id, sequence_number, first_row_id),
        _ => ManifestListWriter::v2(output, snapshot_id, parent_id, sequence_number),
    };
    for entry in &mut list {
        // The writer assigns these to its own copy; ours must agree, for it is the base of the next commit.
        if entry.sequence_number == UNASSIGNED_SEQUENCE_NUMBER {
            entry.sequence_number = sequence_number;
        }
        if entry.min_sequence_number == UNASSIGNED_SEQUENCE_NUMBER {
            entry.min_sequence_number = sequence_number;
        }
        let next_row_id = writer.next_row_id();
        writer.add_manifests(std::iter::once(entry.clone())).map_err(bad)?;
        if entry.first_row_id.is_none() && entry.content == ManifestContentType::Data {
            entry.first_row_id = next_row_id;
        }
    }
    let row_range = first_row_id.map(|first| (first, writer.next_row_id().unwrap_or(first) - first));
    writer.close().await.map_err(bad)?;
    files.push((list_path.clone(), buffer.take()));

    // Neither names the other's contents, so both go out at once.
    let written: Vec<String> = files.iter().map(|(path, _)| path.clone()).collect();
    let puts: Vec<_> = files.into_iter().map(|(path, bytes)| put(table.clone(), path, bytes)).collect();
    try_join_all(puts).await?;

    let summary = Summary {
        operation: delta.operation.clone(),
        additional_properties: summarize(table, &schema, delta, &totals),
    };
    let builder = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent_id)
        .with_sequence_number(sequence_number)
        .with_timestamp_ms(timestamp_ms)
        .with_manifest_list(list_path)
        .with_summary(summary)
        .with_schema_id(schema.schema_id());
    let snapshot = match row_range {
        Some((first, added)) => builder.with_row_range(first, added).build(),
        None => builder.build(),
    };
    Ok(Produced { snapshot, list, manifest, entries: kept, written })
}

/// The folder of the table's metadata.
pub fn folder(table: &Table) -> String {
    let metadata = table.metadata();
    match metadata.properties().get("write.metadata.path") {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/metadata", metadata.location().trim_end_matches('/')),
    }
}

async fn put(table: Table, path: String, bytes: Bytes) -> Result<()> {
    let output = table.file_io().new_output(&path).map_err(|error| {
        Error::halt(format!("table {}: {path} cannot be written", table.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    })?;
    output.write(bytes).await.map_err(|error| {
        Error::retry(format!("table {}: writing {path} failed", table.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    })
}

/// A random positive id that the table does not have yet, as Iceberg's own writers choose it.
fn fresh_snapshot_id(table: &Table) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = ((high ^ low) & i64::MAX as u64) as i64;
        if id > 0 && table.metadata().snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// What the head's summary says of the whole table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    data_files: u64,
    delete_files: u64,
    records: u64,
    files_size: u64,
    position_deletes: u64,
    equality_deletes: u64,
}

impl Totals {
    const KEYS: [&'static str; 6] = [
        "total-data-files",
        "total-delete-files",
        "total-records",
        "total-files-size",
        "total-position-deletes",
        "total-equality-deletes",
    ];

    /// From the head's summary; where another writer left one out, counted from the manifests once.
    async fn of_head(table: &Table, list: &[ManifestFile]) -> Result<Totals> {
        let Some(head) = table.metadata().current_snapshot() else { return Ok(Totals::default()) };
        let summary = &head.summary().additional_properties;
        if Self::KEYS.iter().all(|key| summary.get(*key).is_some_and(|value| value.parse::<u64>().is_ok())) {
            return Ok(Totals {
                data_files: count(summary, "total-data-files"),
                delete_files: count(summary, "total-delete-files"),
                records: count(summary, "total-records"),
                files_size: count(summary, "total-files-size"),
                position_deletes: count(summary, "total-position-deletes"),
                equality_deletes: count(summary, "total-equality-deletes"),
            });
        }
        let mut totals = Totals::default();
        for manifest in list {
            for entry in manifests::load_entries(table, manifest).await? {
                totals.add(&entry.file);
            }
        }
        Ok(totals)
    }

    fn add(&mut self, file: &DataFile) {
        self.files_size += file.file_size_in_bytes();
        match file.content_type() {
            DataContentType::Data => {
                self.data_files += 1;
                self.records += file.record_count();
            }
            DataContentType::PositionDeletes => {
                self.delete_files += 1;
                self.position_deletes += file.record_count();
            }
            DataContentType::EqualityDeletes => {
                self.delete_files += 1;
                self.equality_deletes += file.record_count();
            }
        }
    }
}

fn summarize(table: &Table, schema: &SchemaRef, delta: &Delta<'_>, before: &Totals) -> HashMap<String, String> {
    let mut added = Totals::default();
    let mut after = *before;
    let mut partitions: HashSet<&iceberg::spec::Struct> = HashSet::new();
    for file in delta.added {
        added.add(file);
        after.add(file);
        partitions.insert(file.partition());
    }
    let mut summary: HashMap<String, String> = delta.summary.clone().into_iter().collect();
    let mut set = |key: &str, value: u64| summary.insert(key.to_owned(), value.to_string());
    if !delta.added.is_empty() {
        set("added-data-files", added.data_files);
        set("added-records", added.records);
        set("added-files-size", added.files_size);
        set("changed-partition-count", partitions.len() as u64);
    }
    for (key, value) in Totals::KEYS.into_iter().zip([
        after.data_files,
        after.delete_files,
        after.records,
        after.files_size,
        after.position_deletes,
        after.equality_deletes,
    ]) {
        set(key, value);
    }
    summary.insert(COMMIT_ID.to_owned(), delta.commit_id.to_string());
    summary.insert("engine-name".to_owned(), "calve".to_owned());
    summary.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    tracing::trace!(table = %table.identifier(), schema = schema.schema_id(), ?added, "snapshot summarized");
    summary
}

/// Collects what a writer of the iceberg crate writes, so that it can be put together with other files.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())).into()
    }
}

#[async_trait::async_trait]
impl FileWrite for Buffer {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        Ok(())
    }
}
