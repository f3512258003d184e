//! Only what comes next is committed, onto the head that was checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iceberg::TableUpdate;
use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};
use uuid::Uuid;

use crate::batch::OffsetRange;
use crate::commit::change::{Append, Limits, Outcome};
use crate::commit::committer::Committer;
use crate::commit::fake::{FakeCatalog, Fault, data_file, ident};

pub const FAST: Limits = Limits {
    attempts_max: 8,
    silent_max: 8,
    backoff_min: Duration::from_micros(10),
    backoff_max: Duration::from_micros(100),
};

pub async fn open(catalog: &Arc<FakeCatalog>) -> Committer {
    let mut committer = Committer::open(catalog.clone(), &ident()).await.unwrap();
    committer.set_limits(FAST);
    committer
}

/// A batch of whole ranges; its one file's name says what it holds.
pub fn batch(ranges: &[(i32, i64, i64)]) -> Append {
    let rows = ranges.iter().map(|(_, from, to)| (to - from) as u64).sum();
    let commit_id = Uuid::now_v7();
    let name: Vec<String> = ranges.iter().map(|(partition, from, to)| format!("{partition}:{from}:{to}")).collect();
    Append {
        commit_id,
        files: vec![data_file(&format!("{}@{commit_id}", name.join(",")), rows)],
        spec_id: 0,
        topic: "orders".to_owned(),
        topic_id: Some("t1".to_owned()),
        cluster_id: Some("c1".to_owned()),
        ranges: ranges.iter().map(|(p, from, to)| (*p, OffsetRange { from: *from, to: *to })).collect(),
        rows,
        rejects: 0,
        schema: None,
        written: None,
        late: false,
        summary: BTreeMap::new(),
    }
}

pub fn committed(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Committed { snapshot_id } => snapshot_id,
        Outcome::Moved { why } => panic!("{why}"),
    }
}

pub fn moved(outcome: Outcome) -> String {
    match outcome {
        Outcome::Moved { why } => why,
        Outcome::Committed { snapshot_id } => panic!("committed as {snapshot_id}"),
    }
}

#[tokio::test]
async fn a_commit_says_all_in_its_summary() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    let second = batch(&[(0, 10, 15), (1, 3, 4)]);
    let id = committed(committer.commit(&second).await.unwrap());
    let metadata = catalog.metadata();
    let snapshot = metadata.current_snapshot().unwrap();
    assert_eq!((snapshot.snapshot_id(), snapshot.sequence_number()), (id, 2));
    let summary: BTreeMap<&str, &str> =
        snapshot.summary().additional_properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let commit_id = second.commit_id.to_string();
    let expected = BTreeMap::from([
        ("added-data-files", "1"),
        ("added-records", "6"),
        ("added-files-size", "600"),
        ("changed-partition-count", "1"),
        ("total-data-files", "2"),
        ("total-delete-files", "0"),
        ("total-records", "16"),
        ("total-files-size", "1600"),
        ("total-position-deletes", "0"),
        ("total-equality-deletes", "0"),
        ("engine-name", "calve"),
        ("engine-version", env!("CARGO_PKG_VERSION")),
        ("calve.commit-id", &commit_id),
        (
            "calve.ledger",
            r#"{"v":1,"topics":{"orders":{"id":"t1","cluster":"c1","next":[15,4],"rows":16,"rejects":0}}}"#,
        ),
    ]);
    assert_eq!(summary, expected);
    let mirror = format!(r#"{{"snapshot":{id},"ledger":{}}}"#, expected["calve.ledger"]);
    assert_eq!(metadata.properties()["calve.ledger"], mirror);
    assert_eq!(catalog.live_files().await.len(), 2);
}

#[tokio::test]
async fn a_zombie_finds_the_ledger_moved() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut zombie = open(&catalog).await;
    let mut owner = open(&catalog).await;
    committed(owner.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    let late = batch(&[(0, 0, 8), (1, 0, 5)]);
    assert_eq!(
        moved(zombie.commit(&late).await.unwrap()),
        "the ledger moved: orders/0 goes on at offset 10, the batch begins at 0"
    );
    let starts = zombie.starts("orders", &[0, 1]).await.unwrap();
    assert_eq!(starts, BTreeMap::from([(0, Some(10)), (1, None)]));
    committed(zombie.commit(&batch(&[(0, 10, 12), (1, 7, 9)])).await.unwrap());
    assert_eq!(zombie.ledger().offsets("orders"), BTreeMap::from([(0, 12), (1, 9)]));
}

#[tokio::test]
async fn a_foreign_append_is_no_reason_to_throw_files_away() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    catalog.foreign_append(7).await;
    catalog.fail_next([Fault::Overtaken, Fault::Unavailable]);
    committed(committer.commit(&batch(&[(0, 10, 20)])).await.unwrap());
    let ledger = committer.ledger();
    assert_eq!((ledger.foreign.added, ledger.next("orders", 0)), (8, Some(20)));
    assert_eq!(catalog.live_files().await.iter().map(|file| file.record_count()).sum::<u64>(), 28);
}

#[tokio::test]
async fn a_rollback_rewinds_and_who_read_on_must_not_commit() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    let foreign = catalog.foreign_append(1).await;
    let first = committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    committed(committer.commit(&batch(&[(0, 10, 20)])).await.unwrap());
    catalog.foreign_rollback(first).await;
    assert!(moved(committer.commit(&batch(&[(0, 20, 30)])).await.unwrap()).contains("goes on at offset 10"));
    assert_eq!(committer.starts("orders", &[0]).await.unwrap()[&0], Some(10));
    committed(committer.commit(&batch(&[(0, 10, 25)])).await.unwrap());
    // To before the first commit: nothing is accounted for, but a batch that begins at 25 does not follow from that.
    catalog.foreign_rollback(foreign).await;
    assert!(moved(committer.commit(&batch(&[(0, 25, 30)])).await.unwrap()).contains("rewound"));
    assert_eq!(committer.starts("orders", &[0]).await.unwrap()[&0], None);
    committed(committer.commit(&batch(&[(0, 0, 30)])).await.unwrap());
}

#[tokio::test]
async fn ranges_without_rows_move_the_ledger() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    let mut append = batch(&[(3, 0, 10)]);
    append.files.clear();
    append.rows = 0;
    append.rejects = 4;
    committed(committer.commit(&append).await.unwrap());
    assert_eq!(open(&catalog).await.ledger().topic("orders").unwrap().rejects, 4);
    assert!(catalog.live_files().await.is_empty());
    assert_eq!(catalog.metadata().current_snapshot().unwrap().summary().additional_properties["total-records"], "0");
}

#[tokio::test]
async fn another_topic_id_halts() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    let mut append = batch(&[(0, 10, 20)]);
    append.topic_id = Some("t2".to_owned());
    let error = committer.commit(&append).await.unwrap_err();
    assert!(!error.is_retry());
    assert!(error.message.contains("calve ledger reset bronze.orders"), "{error}");
}

/// Somebody else's table has these columns from now on.
async fn columns(catalog: &FakeCatalog, fields: Vec<NestedField>) {
    let fields = fields.into_iter().map(Arc::new);
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    catalog
        .foreign(vec![
            TableUpdate::AddSchema { schema },
            TableUpdate::SetCurrentSchema { schema_id: TableMetadataBuilder::LAST_ADDED },
        ])
        .await;
}

#[tokio::test]
async fn files_do_not_go_under_a_column_that_is_gone() {
    let long = |id, name: &str| NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long));
    for (now, why) in [
        (vec![long(2, "id")], Some("column id (field id 1) is gone")),
        (vec![NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long))], Some("column id is required now")),
        (vec![long(1, "renamed"), long(2, "more")], None),
    ] {
        let catalog = FakeCatalog::with_table(&[]).await;
        let mut committer = open(&catalog).await;
        committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
        // It moves no snapshot, so that only the schema tells.
        columns(&catalog, now).await;
        let written = Some(committer.table().metadata().current_schema().clone());
        let batch = Append { written, ..batch(&[(0, 10, 20)]) };
        match (committer.commit(&batch).await.unwrap(), why) {
            (Outcome::Moved { why }, Some(wanted)) => assert!(why.contains(wanted), "{why}"),
            (Outcome::Committed { .. }, None) => {}
            (outcome, _) => panic!("{outcome:?}: {why:?}"),
        }
    }
}
