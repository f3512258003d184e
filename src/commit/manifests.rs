//! The manifests of a table's head, and keeping their number logarithmic.
//!
//! A fast append alone makes the manifest list grow for ever. So every commit that would leave 16 of our own manifests
//! of one tier merges them into one of the next, in the same commit. The tier is in the file's name, which also tells
//! our manifests from foreign ones: those are carried along untouched. Entries of recent manifests are kept in memory,
//! so that a warm merge reads nothing; cold, or beyond the memory's bound, they are read from the store.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::try_join_all;
use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, ManifestContentType, ManifestEntryRef, ManifestFile, ManifestStatus,
    PartitionField, PartitionSpec,
};
use iceberg::table::Table;
use uuid::Uuid;

use crate::error::{Error, Result};

/// So many manifests of a tier become one of the next.
pub const FAN_IN: usize = 16;

/// Manifests are not merged into ones of more than this (Iceberg's `commit.manifest.target-size-bytes`).
const MERGED_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Entries kept in memory for later merges, estimated bytes.
const CACHE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Reads of one merge that are under way at a time.
const READS_AT_A_TIME: usize = 8;

/// A live file of a manifest with what it inherited: its snapshot and both sequence numbers.
#[derive(Clone, Debug)]
pub struct Entry {
    pub file: DataFile,
    pub snapshot_id: i64,
    pub sequence_number: i64,
    pub file_sequence_number: i64,
}

/// The head's manifest list, and entries of some of our own manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The snapshot that `list` is of; none for a table without one.
    head: Option<i64>,
    list: Vec<ManifestFile>,
    entries: HashMap<String, Arc<Vec<Entry>>>,
    bytes: usize,
}

/// What becomes of the head's manifests when files are added.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MergePlan {
    /// The tier of the manifest that takes the new files.
    pub tier: u32,
    /// Paths of the manifests that are merged into it.
    pub sources: Vec<String>,
}

/// The path of a new manifest of ours.
pub fn path(folder: &str, tier: u32) -> String {
    format!("{folder}/calve-t{tier}-{}.avro", Uuid::now_v7())
}

/// The tier of a manifest of ours; none for a foreign one.
pub fn tier(path: &str) -> Option<u32> {
    let name = path.rsplit('/').next()?;
    let (tier, rest) = name.strip_prefix("calve-t")?.split_once('-')?;
    rest.ends_with(".avro").then(|| tier.parse().ok()).flatten()
}

/// Which manifests merge when one of tier 0 with the partition spec `spec_id` comes.
pub fn plan_merge(list: &[ManifestFile], spec_id: i32) -> MergePlan {
    let mut plan = MergePlan::default();
    let mut bytes = 0;
    loop {
        let group: Vec<&ManifestFile> = list
            .iter()
            .filter(|manifest| {
                manifest.partition_spec_id == spec_id
                    && manifest.content == ManifestContentType::Data
                    && tier(&manifest.manifest_path) == Some(plan.tier)
            })
            .collect();
        bytes += group.iter().map(|manifest| manifest.manifest_length).sum::<i64>();
        if group.len() + 1 < FAN_IN || bytes > MERGED_BYTES_MAX {
            return plan;
        }
        plan.sources.extend(group.iter().map(|manifest| manifest.manifest_path.clone()));
        plan.tier += 1;
    }
}

impl Manifests {
    /// The manifests of `table`'s head: from memory if they are known, else read.
    pub async fn of_head(&mut self, table: &Table) -> Result<&[ManifestFile]> {
        let head = table.metadata().current_snapshot_id();
        if self.head != head {
            *self = Manifests { head, list: load_list(table, head).await?, ..Manifests::default() };
        }
        Ok(&self.list)
    }

    pub fn list(&self) -> &[ManifestFile] {
        &self.list
    }

    /// After a commit: this is the list of the new head, and `added` are the entries of the manifest it brought.
    pub fn advance(&mut self, head: i64, list: Vec<ManifestFile>, added: Option<(String, Vec<Entry>)>) {
        self.head = Some(head);
        self.list = list;
        let live: std::collections::HashSet<&str> = self.list.iter().map(|m| m.manifest_path.as_str()).collect();
        self.entries.retain(|path, _| live.contains(path.as_str()));
        self.bytes = self.entries.values().map(|entries| estimate(entries)).sum();
        if let Some((path, entries)) = added {
            let bytes = estimate(&entries);
            if self.bytes + bytes <= CACHE_BYTES_MAX {
                self.bytes += bytes;
                self.entries.insert(path, Arc::new(entries));
            }
        }
    }

    /// The live entries of these manifests of the head, in their order.
    pub async fn entries(&self, table: &Table, paths: &[String]) -> Result<Vec<Entry>> {
        let manifests: HashMap<&str, &ManifestFile> =
            self.list.iter().map(|manifest| (manifest.manifest_path.as_str(), manifest)).collect();
        let mut parts: Vec<Arc<Vec<Entry>>> = Vec::with_capacity(paths.len());
        for some in paths.chunks(READS_AT_A_TIME) {
            let mut reads = Vec::with_capacity(some.len());
            for path in some {
                let known = self.entries.get(path).cloned();
                let manifest = manifests.get(path.as_str()).map(|manifest| (*manifest).clone());
                let table = table.clone();
                reads.push(async move {
                    match (known, manifest) {
                        (Some(entries), _) => Ok(entries),
                        (None, Some(manifest)) => load_entries(&table, &manifest).await.map(Arc::new),
                        (None, None) => Ok(Arc::default()),
                    }
                });
            }
            parts.extend(try_join_all(reads).await?);
        }
        Ok(parts.iter().flat_map(|part| part.iter().cloned()).collect())
    }
}

/// The manifest list of one snapshot.
pub async fn load_list(table: &Table, snapshot: Option<i64>) -> Result<Vec<ManifestFile>> {
    let Some(snapshot) = snapshot.and_then(|id| table.metadata().snapshot_by_id(id)) else { return Ok(Vec::new()) };
    let list = table.manifest_list_reader(snapshot).load().await.map_err(|error| {
        let list = snapshot.manifest_list();
        Error::retry(format!("table {}: reading the manifest list {list} failed", table.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    })?;
    Ok(list.consume_entries().into_iter().collect())
}

/// The live entries of a manifest, inherited values filled in, row ids too where the table has them.
pub async fn load_entries(table: &Table, manifest: &ManifestFile) -> Result<Vec<Entry>> {
    let failed = |what: String| {
        Error::retry(format!("table {}: reading the manifest {} failed", table.identifier(), manifest.manifest_path))
            .caused_by(anyhow::anyhow!("{what}"))
    };
    let loaded = manifest.load_manifest(table.file_io()).await.map_err(|error| failed(error.to_string()))?;
    let mut next_row_id = manifest.first_row_id.map(|id| id as i64);
    let mut entries = Vec::with_capacity(loaded.entries().len());
    for entry in loaded.entries() {
        if entry.status() == ManifestStatus::Deleted {
            continue;
        }
        let file = match next_row_id {
            // Row lineage: a file without an id of its own takes the manifest's next one, and must say so itself
            // when it moves to another manifest.
            Some(row_id) if entry.data_file().first_row_id().is_none() => {
                next_row_id = Some(row_id + entry.record_count() as i64);
                with_first_row_id(entry, manifest.partition_spec_id, row_id)
                    .map_err(|error| failed(error.to_string()))?
            }
            _ => entry.data_file().clone(),
        };
        let (Some(snapshot_id), Some(sequence_number)) = (entry.snapshot_id(), entry.sequence_number()) else {
            return Err(failed(format!("{} has no snapshot or sequence number", entry.file_path())));
        };
        entries.push(Entry {
            file,
            snapshot_id,
            sequence_number,
            file_sequence_number: entry.file_sequence_number.unwrap_or(sequence_number),
        });
    }
    Ok(entries)
}

fn with_first_row_id(entry: &ManifestEntryRef, spec_id: i32, row_id: i64) -> anyhow::Result<DataFile> {
    let file = entry.data_file();
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(Some(row_id))
        .partition_spec_id(spec_id)
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    Ok(builder.build()?)
}

/// The spec with field names that Avro allows: a manifest makes them record fields, and others name a field of a nested
/// column with its dot. Readers go by ids. As Java has it: `_x2E` for a dot, an underscore before a digit.
pub fn in_avro_names(spec: &PartitionSpec) -> iceberg::Result<PartitionSpec> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut spec = spec.clone();
    if spec
        .fields()
        .iter()
        .all(|field| field.name.chars().all(fits) && !field.name.starts_with(|c: char| c.is_ascii_digit()))
    {
        return Ok(spec);
    }
    let mut fields = Vec::with_capacity(spec.fields().len());
    for field in spec.fields() {
        let start = if field.name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
        let name = field.name.chars().map(|c| if fits(c) { c.to_string() } else { format!("_x{:X}", u32::from(c)) });
        let name = format!("{start}{}", name.collect::<String>());
        fields.push(PartitionField { name, ..field.clone() });
    }
    let json = serde_json::json!({ "spec-id": spec.spec_id(), "fields": fields });
    spec = serde_json::from_value(json).map_err(|error| {
        iceberg::Error::new(iceberg::ErrorKind::Unexpected, format!("a partition spec in Avro's names: {error}"))
    })?;
    Ok(spec)
}

/// Whether entries of this table may be kept in memory: with row lineage they would miss the row ids that the manifest
/// list assigns.
pub fn cacheable(version: FormatVersion) -> bool {
    version < FormatVersion::V3
}

fn estimate(entries: &[Entry]) -> usize {
    entries
        .iter()
        .map(|entry| {
            let file = &entry.file;
            let numbers = file.column_sizes().len() + file.value_counts().len() + file.null_value_counts().len();
            let bounds = file.lower_bounds().len() + file.upper_bounds().len();
            300 + file.file_path().len() + 20 * numbers + 80 * bounds
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str, spec: i32, length: i64) -> ManifestFile {
        ManifestFile {
            manifest_path: path.to_owned(),
            manifest_length: length,
            partition_spec_id: spec,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(1),
            existing_files_count: Some(0),
            deleted_files_count: Some(0),
            added_rows_count: Some(1),
            existing_rows_count: Some(0),
            deleted_rows_count: Some(0),
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn the_name_tells_our_manifests_and_their_tier() {
        assert_eq!(tier(&path("s3://b/t/metadata", 3)), Some(3));
        assert_eq!(tier("s3://b/t/metadata/5a3c-m0.avro"), None);
        assert_eq!(tier("s3://b/t/metadata/calve-tx-5a3c.avro"), None);
    }

    #[test]
    fn sixteen_of_a_tier_become_one_of_the_next() {
        let mut list: Vec<ManifestFile> = (0..14).map(|_| manifest(&path("m", 0), 0, 10)).collect();
        assert_eq!(plan_merge(&list, 0), MergePlan::default());
        list.push(manifest(&path("m", 0), 0, 10));
        list.push(manifest("m/foreign-m0.avro", 0, 10));
        let plan = plan_merge(&list, 0);
        assert_eq!((plan.tier, plan.sources.len()), (1, 15));
        assert_eq!(plan_merge(&list, 1), MergePlan::default());
        // The merged one is the sixteenth of the next tier: both tiers go into one of the third.
        list.extend((0..15).map(|_| manifest(&path("m", 1), 0, 100)));
        let plan = plan_merge(&list, 0);
        assert_eq!((plan.tier, plan.sources.len()), (2, 30));
    }

    #[test]
    fn a_name_that_avro_does_not_allow_is_spelled_as_java_spells_it() {
        let spec = |name: &str| -> PartitionSpec {
            let field = serde_json::json!({"source-id": 3, "field-id": 1000, "name": name, "transform": "day"});
            serde_json::from_value(serde_json::json!({"spec-id": 7, "fields": [field]})).unwrap()
        };
        for (name, expected) in
            [("_kafka_ts_day", "_kafka_ts_day"), ("_kafka.ts_day", "_kafka_x2Ets_day"), ("9a", "_9a")]
        {
            assert_eq!(in_avro_names(&spec(name)).unwrap(), spec(expected));
        }
    }

    #[test]
    fn big_manifests_stay_as_they_are() {
        let list: Vec<ManifestFile> = (0..15).map(|_| manifest(&path("m", 0), 0, MERGED_BYTES_MAX / 10)).collect();
        assert_eq!(plan_merge(&list, 0), MergePlan::default());
    }
}
