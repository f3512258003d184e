//! A table that is its own ledger, on a real catalog and real files: created, fed, and verified from itself alone.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::datatypes::DataType;
use calve::batch::OffsetRange;
use calve::catalog::{self, Catalog};
use calve::commit::create::{Wanted, ensure_table};
use calve::commit::decide::{Decision, decide};
use calve::commit::verify::{Difference, Options, Report, verify};
use calve::commit::{Append, Change, Committer, Outcome, Published};
use calve::config::{self, CatalogKind, SchemaSource};
use calve::schema::mapping::{self, Mapping};
use calve::schema::{self, partition};
use calve::write::{Limits, TableWriter};
use iceberg::spec::{
    DataFile, MAIN_BRANCH, ManifestListWriter, Operation, Snapshot, SnapshotReference, SnapshotRetention, SortOrder,
    Summary,
};
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use uuid::Uuid;

struct Lake {
    _folder: tempfile::TempDir,
    catalog: Arc<dyn Catalog>,
    mapping: Mapping,
    ident: TableIdent,
}

impl Lake {
    async fn new() -> Lake {
        let folder = tempfile::tempdir().unwrap();
        let properties = BTreeMap::from([
            ("uri".to_owned(), format!("sqlite:///{}/catalog.db", folder.path().display())),
            ("warehouse".to_owned(), folder.path().join("warehouse").display().to_string()),
        ]);
        let config = config::Catalog { name: "local".to_owned(), kind: CatalogKind::Sql, properties };
        let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let pool = schema::load(&SchemaSource::Protos(protos)).unwrap();
        let message = pool.find("shop.v1.Order").unwrap();
        let options = mapping::Options::default();
        let lake = Lake {
            catalog: catalog::open(&config).await.unwrap(),
            mapping: Mapping::create(pool, message, &options).unwrap(),
            ident: TableIdent::from_strs(["bronze", "orders"]).unwrap(),
            _folder: folder,
        };
        lake.ensure(&lake.ident).await;
        lake
    }

    async fn ensure(&self, ident: &TableIdent) {
        let spec = partition::parse(&["bucket[4](_kafka.offset)".to_owned()], &self.mapping.iceberg).unwrap();
        let wanted = Wanted {
            schema: (*self.mapping.iceberg).clone(),
            partition_spec: spec,
            partitions_may_go: false,
            sort_order: SortOrder::unsorted_order(),
            properties: HashMap::from([("write.parquet.compression-codec".to_owned(), "zstd".to_owned())]),
            mapping: Some(self.mapping.clone()),
            first_snapshot: false,
        };
        ensure_table(&self.catalog, ident, wanted).await.unwrap();
    }

    async fn open(&self) -> Committer {
        Committer::open(self.catalog.clone(), &self.ident).await.unwrap()
    }

    /// Files with one row for each of these offsets of partition 0.
    async fn files(&self, ident: &TableIdent, offsets: &[i64]) -> Vec<DataFile> {
        let table = self.catalog.load(ident).await.unwrap();
        let schema = self.mapping.arrow.clone();
        let rows = offsets.len();
        let columns = schema.fields().iter().map(|field| match (field.name().as_str(), field.data_type()) {
            ("_kafka", DataType::Struct(fields)) => {
                let arrays = fields.iter().map(|field| match field.name().as_str() {
                    "topic" => Arc::new(StringArray::from(vec!["orders"; rows])) as ArrayRef,
                    "partition" => Arc::new(Int32Array::from(vec![0; rows])),
                    "offset" => Arc::new(Int64Array::from(offsets.to_vec())),
                    _ => new_null_array(field.data_type(), rows),
                });
                Arc::new(StructArray::new(fields.clone(), arrays.collect(), None)) as ArrayRef
            }
            (_, kind) => new_null_array(kind, rows),
        });
        let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
        writer.write(batch).await.unwrap();
        writer.finish().await.unwrap().files
    }

    async fn append(&self, from: i64, to: i64, offsets: &[i64], rejects: u64) -> Append {
        Append {
            commit_id: Uuid::now_v7(),
            files: if offsets.is_empty() { Vec::new() } else { self.files(&self.ident, offsets).await },
            spec_id: 0,
            topic: "orders".to_owned(),
            topic_id: None,
            cluster_id: None,
            ranges: BTreeMap::from([(0, OffsetRange { from, to })]),
            rows: offsets.len() as u64,
            rejects,
            schema: None,
            written: None,
            late: false,
            summary: BTreeMap::new(),
        }
    }

    /// Rows that no ledger speaks of.
    async fn smuggle(&self, offsets: &[i64]) {
        let files = self.files(&self.ident, offsets).await;
        let mut committer = Committer::open_target(self.catalog.clone(), &self.ident).await.unwrap();
        let head = committer.table().metadata().current_snapshot_id();
        let change = Change {
            run_id: Uuid::now_v7(),
            operation: Operation::Append,
            files,
            spec_id: 0,
            schema: None,
            summary: BTreeMap::new(),
            properties: HashMap::new(),
        };
        assert!(matches!(committer.publish(head, &change).await.unwrap(), Published::Committed { .. }));
    }

    /// Another writer deletes everything, `rows` rows.
    async fn delete_all(&self, rows: u64) -> i64 {
        let table = self.catalog.load(&self.ident).await.unwrap();
        let metadata = table.metadata();
        let (id, sequence) = (metadata.current_snapshot_id().unwrap() ^ 1, metadata.next_sequence_number());
        let path = format!("{}/metadata/foreign-{id}.avro", metadata.location());
        let output = table.file_io().new_output(&path).unwrap().writer().await.unwrap();
        ManifestListWriter::v2(output, id, metadata.current_snapshot_id(), sequence).close().await.unwrap();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(sequence)
            .with_timestamp_ms(metadata.last_updated_ms() + 1)
            .with_manifest_list(path)
            .with_schema_id(metadata.current_schema_id())
            .with_summary(Summary {
                operation: Operation::Delete,
                additional_properties: HashMap::from([("deleted-records".to_owned(), rows.to_string())]),
            })
            .build();
        let retention =
            SnapshotRetention::Branch { min_snapshots_to_keep: None, max_snapshot_age_ms: None, max_ref_age_ms: None };
        let updates = vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef {
                ref_name: MAIN_BRANCH.to_owned(),
                reference: SnapshotReference::new(id, retention),
            },
        ];
        let requirements = vec![TableRequirement::UuidMatch { uuid: metadata.uuid() }];
        self.catalog.commit(&table, requirements, updates).await.unwrap();
        id
    }

    async fn verify(&self, quarantine: Option<&TableIdent>) -> Report {
        verify(&*self.catalog, &self.ident, quarantine, &Options::default()).await.unwrap()
    }
}

async fn committed(committer: &mut Committer, append: &Append) {
    let outcome = committer.commit(append).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
}

fn told(report: &Report) -> Vec<String> {
    report.differences.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_proves_its_own_coverage() {
    let lake = Lake::new().await;
    lake.ensure(&lake.ident).await;
    let metadata = lake.catalog.load(&lake.ident).await.unwrap().metadata_ref();
    let properties = metadata.properties();
    assert_eq!(properties["calve.mapping"], "1");
    assert_eq!(properties["calve.message"], "shop.v1.Order");
    assert_eq!(properties["write.parquet.compression-codec"], "zstd");
    assert_eq!(properties["write.metadata.delete-after-commit.enabled"], "true");

    let mut committer = lake.open().await;
    assert_eq!(committer.starts("orders", &[0]).await.unwrap(), BTreeMap::from([(0, None)]));
    // A gap at 3, as compaction leaves it, and 20 commits so that manifests are merged.
    committed(&mut committer, &lake.append(0, 6, &[0, 1, 2, 4, 5], 0).await).await;
    for offset in 6..26 {
        committed(&mut committer, &lake.append(offset, offset + 1, &[offset], 0).await).await;
    }
    committed(&mut committer, &lake.append(26, 40, &[], 0).await).await;
    let report = lake.verify(None).await;
    assert_eq!(told(&report), [""; 0]);
    assert_eq!((report.topics[0].rows, report.topics[0].rows_in_ledger, report.unattributed), (25, 25, 0));
    committer.close().await;
    assert_eq!(lake.open().await.starts("orders", &[0]).await.unwrap(), BTreeMap::from([(0, Some(40))]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_missing_and_early_rows_are_found() {
    let lake = Lake::new().await;
    let mut committer = lake.open().await;
    committed(&mut committer, &lake.append(0, 6, &[0, 1, 2, 3, 4, 5], 0).await).await;
    let mut short = lake.append(6, 9, &[6, 7], 0).await;
    short.rows = 3;
    committed(&mut committer, &short).await;
    assert_eq!(told(&lake.verify(None).await), ["bronze.orders has 8 rows of orders, its ledger counts 9"]);
    lake.smuggle(&[2, 11]).await;
    let report = lake.verify(None).await;
    assert_eq!(
        told(&report),
        [
            "orders/0/2 is in bronze.orders more than once",
            "orders/0/11 is in bronze.orders, but its ledger goes on at 9",
            "bronze.orders has 10 rows of orders, its ledger counts 9",
        ]
    );
    assert!(!report.agrees());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_rejects_join_up() {
    let lake = Lake::new().await;
    let quarantine = TableIdent::from_strs(["bronze", "orders__quarantine"]).unwrap();
    assert_eq!(told(&lake.verify(Some(&quarantine)).await), [""; 0]);
    lake.ensure(&quarantine).await;
    let mut main = lake.open().await;
    let mut rejected = Committer::open(lake.catalog.clone(), &quarantine).await.unwrap();
    let mut rejects = lake.append(0, 6, &[], 0).await;
    rejects.files = lake.files(&quarantine, &[1, 3]).await;
    rejects.rows = 2;
    committed(&mut rejected, &rejects).await;
    // Killed between the two commits: the quarantine is ahead, which is as it should be.
    assert_eq!(told(&lake.verify(Some(&quarantine)).await), [""; 0]);
    committed(&mut main, &lake.append(0, 6, &[0, 2, 4, 5], 2).await).await;
    assert_eq!(told(&lake.verify(Some(&quarantine)).await), [""; 0]);
    committed(&mut main, &lake.append(6, 8, &[6], 1).await).await;
    lake.smuggle(&[3]).await;
    assert_eq!(
        told(&lake.verify(Some(&quarantine)).await),
        [
            "bronze.orders has 6 rows of orders, its ledger counts 5",
            "orders/0/3 is both a row and a reject",
            "the quarantine has 2 records of orders, the ledger counts 3 rejects",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_deletes_are_named() {
    let lake = Lake::new().await;
    let mut committer = lake.open().await;
    committed(&mut committer, &lake.append(0, 6, &[0, 1, 2, 3, 4, 5], 0).await).await;
    let snapshot = lake.delete_all(6).await;
    committed(&mut committer, &lake.append(6, 7, &[6], 0).await).await;
    let report = lake.verify(None).await;
    assert_eq!(
        told(&report),
        [
            "bronze.orders has 1 rows of orders, its ledger counts 7 (6 were deleted by other writers)".to_owned(),
            format!("snapshot {snapshot}, by another writer, deleted 6 rows of bronze.orders"),
        ]
    );
    assert!(report.differences.contains(&Difference::Deleted {
        table: "bronze.orders".to_owned(),
        snapshot: Some(snapshot),
        rows: 6,
        added: 0,
        by: None,
    }));
    let accepting = Options { accept_deletes: true, ..Options::default() };
    assert!(verify(&*lake.catalog, &lake.ident, None, &accepting).await.unwrap().agrees());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_may_come_again_after_a_reset() {
    let lake = Lake::new().await;
    let mut committer = lake.open().await;
    let mut first = lake.append(0, 3, &[0, 1, 2], 0).await;
    first.topic_id = Some("a".to_owned());
    committed(&mut committer, &first).await;
    let mut second = lake.append(0, 2, &[0, 1], 0).await;
    second.topic_id = Some("b".to_owned());
    let error = committer.commit(&second).await.unwrap_err();
    assert!(error.message.contains("recreated"), "{error}");
    let reset = Decision::Reset { topic: "orders".to_owned(), offsets: BTreeMap::new(), recreated: true };
    decide(lake.catalog.clone(), &lake.ident, &reset).await.unwrap();
    assert_eq!(committer.starts("orders", &[0]).await.unwrap()[&0], None);
    committed(&mut committer, &second).await;
    assert_eq!(told(&lake.verify(None).await), [""; 0]);
    lake.smuggle(&[1]).await;
    assert_eq!(told(&lake.verify(None).await)[0], "orders/0/1 is in bronze.orders more than once");
}
