//! Lost answers: found by the commit id, or sent again under the same one.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::Operation;
use uuid::Uuid;

use super::fence::{FAST, batch, committed, moved, open};
use crate::commit::change::{Change, Published};
use crate::commit::committer::Committer;
use crate::commit::fake::{FakeCatalog, Fault, data_file, ident};

#[tokio::test]
async fn a_lost_answer_is_resolved_by_the_commit_id() {
    for (faults, snapshots) in [
        (vec![Fault::LostAfter], 2),
        (vec![Fault::LostBefore], 2),
        (vec![Fault::LostBefore, Fault::LostBefore, Fault::LostAfter], 2),
        (vec![Fault::LostBefore, Fault::Overtaken], 3),
    ] {
        let catalog = FakeCatalog::with_table(&[]).await;
        let mut committer = open(&catalog).await;
        committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
        catalog.fail_next(faults.clone());
        let id = committed(committer.commit(&batch(&[(0, 10, 20)])).await.unwrap());
        assert_eq!(catalog.metadata().current_snapshot_id(), Some(id), "{faults:?}");
        assert_eq!(catalog.metadata().snapshots().len(), snapshots, "{faults:?}");
        assert_eq!(committer.ledger().next("orders", 0), Some(20), "{faults:?}");
        committed(committer.commit(&batch(&[(0, 20, 21)])).await.unwrap());
    }
}

#[tokio::test]
async fn a_request_that_arrives_late_changes_nothing() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 0, 10)])).await.unwrap());
    catalog.fail_next([Fault::Late]);
    committed(committer.commit(&batch(&[(0, 10, 20)])).await.unwrap());
    let before = catalog.metadata();
    catalog.deliver().await;
    assert_eq!(*catalog.metadata(), *before);
}

#[tokio::test]
async fn a_call_that_came_to_no_end_goes_on_with_the_same_batch() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    let append = batch(&[(0, 0, 10)]);
    let mut faults = vec![Fault::LostBefore; 7];
    faults.push(Fault::LostAfter);
    catalog.fail_next(faults);
    assert!(committer.commit(&append).await.unwrap_err().is_retry());
    committed(committer.commit(&append).await.unwrap());
    assert_eq!(catalog.metadata().snapshots().len(), 1);
    assert_eq!(committer.ledger().topic("orders").unwrap().rows, 10);
}

#[tokio::test]
async fn files_of_a_doubtful_commit_are_never_deleted() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    let append = batch(&[(0, 0, 10)]);
    for file in &append.files {
        catalog.io().new_output(file.file_path()).unwrap().write("rows".into()).await.unwrap();
    }
    // Seven answers are lost, then the last request is applied and nobody hears of it; somebody expires the snapshot.
    let mut faults = vec![Fault::LostBefore; 7];
    faults.push(Fault::LostAfter);
    catalog.fail_next(faults);
    assert!(committer.commit(&append).await.unwrap_err().is_retry());
    let ours = catalog.metadata().current_snapshot_id().unwrap();
    catalog.foreign_append(1).await;
    catalog.foreign_expire(vec![ours]).await;
    moved(committer.commit(&append).await.unwrap());
    committer.discard(append.commit_id, &append.files).await;
    assert!(catalog.io().exists(append.files[0].file_path()).await.unwrap());

    // A batch whose fate is known is deleted.
    let stale = batch(&[(0, 0, 10)]);
    catalog.io().new_output(stale.files[0].file_path()).unwrap().write("rows".into()).await.unwrap();
    moved(committer.commit(&stale).await.unwrap());
    committer.discard(stale.commit_id, &stale.files).await;
    assert!(!catalog.io().exists(stale.files[0].file_path()).await.unwrap());
}

#[tokio::test]
async fn a_run_is_published_once_onto_the_head_it_was_computed_for() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = Committer::open_target(catalog.clone(), &ident()).await.unwrap();
    committer.set_limits(FAST);
    let run = |name: &str| Change {
        run_id: Uuid::now_v7(),
        operation: Operation::Append,
        files: vec![data_file(name, 3)],
        spec_id: 0,
        schema: None,
        summary: BTreeMap::from([("calve.refine.model".to_owned(), "silver.orders".to_owned())]),
        properties: HashMap::new(),
    };
    catalog.fail_next([Fault::LostAfter]);
    let Published::Committed { snapshot_id } = committer.publish(None, &run("one")).await.unwrap() else { panic!() };
    let metadata = catalog.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(summary["calve.refine.model"], "silver.orders");
    assert!(!summary.contains_key("calve.ledger") && !metadata.properties().contains_key("calve.ledger"));

    catalog.fail_next([Fault::LostBefore]);
    let second = committer.publish(Some(snapshot_id), &run("two")).await.unwrap();
    assert!(matches!(second, Published::Committed { .. }));
    let head = catalog.metadata().current_snapshot_id();
    assert_eq!(committer.publish(Some(snapshot_id), &run("three")).await.unwrap(), Published::Conflict { head });
    assert_eq!(catalog.live_files().await.len(), 2);
}
