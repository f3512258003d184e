//! A catalog in a temporary folder, and tables that tests fill and change as calve and as strangers do.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use calve::catalog::{self, Catalog};
use calve::commit::create::{Wanted, ensure_table};
use calve::commit::{Change, Committer, Published};
use calve::config;
use calve::query::{Catalogs, Engine, arrow_schema, conform};
use calve::write::{Limits, TableWriter};
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestListWriter, ManifestWriterBuilder, NestedFieldRef, Operation, Schema,
    Snapshot, SnapshotReference, SnapshotRetention, SortOrder, Summary, UnboundPartitionSpec,
};
use iceberg::table::Table;
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use tempfile::TempDir;
use uuid::Uuid;

pub struct Lake {
    /// Deleted with the lake, if it is the lake's own.
    _folder: Option<TempDir>,
    pub catalog: Arc<dyn Catalog>,
    pub engine: Engine,
}

pub fn ident(table: &str) -> TableIdent {
    TableIdent::from_strs(table.split('.')).unwrap()
}

impl Lake {
    pub async fn new() -> Lake {
        let folder = TempDir::new().unwrap();
        let (catalog, warehouse) = (folder.path().join("catalog.db"), folder.path().join("warehouse"));
        Lake { _folder: Some(folder), ..Lake::at(&catalog, &warehouse).await }
    }

    /// The catalog of a project of [`super::project::Project`], for who changes its tables as a stranger does.
    pub async fn of_project(project: &Path) -> Lake {
        let warehouse = project.join("warehouse");
        Lake::at(&warehouse.join("catalog.db"), &warehouse).await
    }

    async fn at(catalog: &Path, warehouse: &Path) -> Lake {
        let uri = format!("sqlite:///{}", catalog.display());
        let config = config::Catalog {
            name: "local".to_owned(),
            kind: config::CatalogKind::Sql,
            properties: [("uri", uri), ("warehouse", warehouse.display().to_string())]
                .map(|(key, value)| (key.to_owned(), value))
                .into(),
        };
        let catalog = catalog::open(&config).await.unwrap();
        let engine = Engine::new(Catalogs::default().with(catalog.clone()), "local", 256 << 20).unwrap();
        Lake { _folder: None, catalog, engine }
    }

    pub async fn create(&self, table: &str, fields: Vec<NestedFieldRef>) -> Table {
        let wanted = Wanted {
            schema: Schema::builder().with_fields(fields).build().unwrap(),
            partition_spec: UnboundPartitionSpec::builder().build(),
            partitions_may_go: false,
            sort_order: SortOrder::unsorted_order(),
            properties: HashMap::new(),
            mapping: None,
            first_snapshot: false,
        };
        ensure_table(&self.catalog, &ident(table), wanted).await.unwrap()
    }

    pub async fn table(&self, table: &str) -> Table {
        self.catalog.load(&ident(table)).await.unwrap()
    }

    /// Appends what a query gives, in one snapshot.
    pub async fn append_query(&self, table: &str, sql: &str) -> i64 {
        let base = self.table(table).await;
        let schema = arrow_schema(base.metadata().current_schema()).unwrap();
        let mut writer = TableWriter::new(&base, Limits::default()).unwrap();
        for batch in self.engine.query(sql).await.unwrap().collect().await.unwrap() {
            writer.write(conform(&batch, &schema).unwrap()).await.unwrap();
        }
        let files = writer.finish().await.unwrap().files;
        self.publish(table, Operation::Append, files).await
    }

    async fn files(&self, table: &Table, json: &str) -> Vec<DataFile> {
        let schema = arrow_schema(table.metadata().current_schema()).unwrap();
        let mut writer = TableWriter::new(table, Limits::default()).unwrap();
        for batch in arrow::json::ReaderBuilder::new(schema).build(json.as_bytes()).unwrap() {
            writer.write(batch.unwrap()).await.unwrap();
        }
        writer.finish().await.unwrap().files
    }

    /// Appends rows, one JSON object a line, in one snapshot.
    pub async fn append(&self, table: &str, json: &str) -> i64 {
        let base = self.table(table).await;
        let files = self.files(&base, json).await;
        self.publish(table, Operation::Append, files).await
    }

    /// A snapshot of this operation that adds these files.
    pub async fn publish(&self, table: &str, operation: Operation, files: Vec<DataFile>) -> i64 {
        let mut committer = Committer::open_target(self.catalog.clone(), &ident(table)).await.unwrap();
        let head = committer.table().metadata().current_snapshot_id();
        let spec_id = committer.table().metadata().default_partition_spec_id();
        let change = Change {
            run_id: Uuid::now_v7(),
            operation,
            files,
            spec_id,
            schema: None,
            summary: Default::default(),
            properties: Default::default(),
        };
        let published = committer.publish(head, &change).await.unwrap();
        committer.close().await;
        let Published::Committed { snapshot_id } = published else { panic!("{published:?}") };
        snapshot_id
    }

    /// What a stranger's compaction leaves: all rows in new files, the old ones gone, operation `replace`.
    pub async fn compact(&self, table: &str) -> i64 {
        self.rewrite(table, &format!("SELECT * FROM {table}"), Operation::Replace, &[]).await
    }

    /// What a stranger's rewrite leaves: these rows in new files and nothing else. `summary` goes with the snapshot.
    pub async fn rewrite(&self, table: &str, sql: &str, operation: Operation, summary: &[(&str, &str)]) -> i64 {
        let base = self.table(table).await;
        let Some(head) = base.metadata().current_snapshot() else { return 0 };
        let schema = arrow_schema(base.metadata().current_schema()).unwrap();
        let batches = self.engine.query(sql).await.unwrap().collect().await.unwrap();
        let mut writer = TableWriter::new(&base, Limits::default()).unwrap();
        for batch in batches {
            writer.write(conform(&batch, &schema).unwrap()).await.unwrap();
        }
        let files = writer.finish().await.unwrap().files;

        let id = i64::from_be_bytes(Uuid::new_v4().as_bytes()[..8].try_into().unwrap()) & i64::MAX;
        let folder = format!("{}/metadata", base.metadata().location());
        let io = base.file_io();
        let mut manifest = ManifestWriterBuilder::new(
            io.new_output(format!("{folder}/{}-m0.avro", Uuid::new_v4())).unwrap(),
            Some(id),
            base.metadata().current_schema().clone(),
            base.metadata().default_partition_spec().as_ref().clone(),
        )
        .build_v2_data();
        let sequence = base.metadata().last_sequence_number() + 1;
        for file in files {
            manifest.add_file(file, sequence).unwrap();
        }
        let manifest = manifest.write_manifest_file().await.unwrap();
        let list = format!("{folder}/snap-{id}.avro");
        let output = io.new_output(&list).unwrap().writer().await.unwrap();
        let mut writer = ManifestListWriter::v2(output, id, Some(head.snapshot_id()), sequence);
        writer.add_manifests([manifest].into_iter()).unwrap();
        writer.close().await.unwrap();
        assert_eq!(base.metadata().format_version(), FormatVersion::V2);
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(head.snapshot_id()))
            .with_sequence_number(sequence)
            .with_timestamp_ms(chrono::Utc::now().timestamp_millis().max(base.metadata().last_updated_ms()))
            .with_manifest_list(list)
            .with_schema_id(base.metadata().current_schema_id())
            .with_summary(Summary {
                operation,
                additional_properties: head
                    .summary()
                    .additional_properties
                    .iter()
                    .filter(|(key, _)| key.starts_with("total-"))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .chain(summary.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
                    .collect(),
            })
            .build();
        self.change(table, vec![TableUpdate::AddSnapshot { snapshot }, main_at(id)]).await;
        id
    }

    /// Sets main to an older snapshot, as engines' `rollback_to_snapshot` does.
    pub async fn roll_back(&self, table: &str, snapshot: i64) {
        self.change(table, vec![main_at(snapshot)]).await;
    }

    pub async fn expire(&self, table: &str, snapshots: Vec<i64>) {
        self.change(table, vec![TableUpdate::RemoveSnapshots { snapshot_ids: snapshots }]).await;
    }

    async fn change(&self, table: &str, updates: Vec<TableUpdate>) {
        let base = self.table(table).await;
        let requirements = vec![TableRequirement::UuidMatch { uuid: base.metadata().uuid() }];
        self.catalog.commit(&base, requirements, updates).await.unwrap();
    }

    /// The rows of a query as text, sorted.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let batches = self.engine.query(sql).await.unwrap().collect().await.unwrap();
        let mut rows: Vec<String> = batches.iter().flat_map(texts).collect();
        rows.sort();
        rows
    }
}

/// Each row of a batch: its values separated by bars.
pub fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

fn main_at(snapshot_id: i64) -> TableUpdate {
    TableUpdate::SetSnapshotRef {
        ref_name: MAIN_BRANCH.to_owned(),
        reference: SnapshotReference {
            snapshot_id,
            retention: SnapshotRetention::Branch {
                min_snapshots_to_keep: None,
                max_snapshot_age_ms: None,
                max_ref_age_ms: None,
            },
        },
    }
}
