//! Which ledger holds, branch by branch; and what is never guessed.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::Operation;

use super::fence::{batch, committed, open};
use crate::commit::ancestry::{Found, read};
use crate::commit::committer::Committer;
use crate::commit::decide::{Decision, decide, show};
use crate::commit::fake::{FakeCatalog, ident};

/// Older metadata files go at once: nothing but the current one can prove anything.
const NO_LOG: [(&str, &str); 3] = [
    ("write.metadata.previous-versions-max", "1"),
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("history.expire.min-snapshots-to-keep", "100"),
];
const LOG: [(&str, &str); 1] = [("history.expire.min-snapshots-to-keep", "100")];

async fn next(catalog: &FakeCatalog) -> Result<(Option<i64>, Found), String> {
    match read(&catalog.table(), catalog.trust_mirror).await {
        Ok(reading) => Ok((reading.ledger.next("orders", 0), reading.found)),
        Err(error) => Err(error.message),
    }
}

/// Commits up to 10, 20, 30; the snapshots.
async fn three(catalog: &Arc<FakeCatalog>) -> [i64; 3] {
    let mut committer = open(catalog).await;
    let mut ids = [0; 3];
    for (index, id) in ids.iter_mut().enumerate() {
        let from = 10 * index as i64;
        *id = committed(committer.commit(&batch(&[(0, from, from + 10)])).await.unwrap());
    }
    ids
}

#[tokio::test]
async fn nothing_where_nothing_was() {
    let catalog = FakeCatalog::with_table(&LOG).await;
    assert_eq!(next(&catalog).await, Ok((None, Found::Nothing)));
    catalog.foreign_append(5).await;
    let reading = read(&catalog.table(), false).await.unwrap();
    assert_eq!((reading.found, reading.ledger.foreign.added, reading.foreign_above), (Found::Nothing, 5, 1));
}

#[tokio::test]
async fn foreign_heads_are_counted() {
    let catalog = FakeCatalog::with_table(&LOG).await;
    let [.., c] = three(&catalog).await;
    catalog.foreign_append(5).await;
    let deleted = [("deleted-records", "3"), ("added-position-deletes", "2")];
    let delete = catalog.foreign_snapshot(Operation::Delete, &[], &deleted).await;
    catalog.foreign_snapshot(Operation::Replace, &[], &[("added-records", "99"), ("deleted-records", "99")]).await;
    let reading = read(&catalog.table(), false).await.unwrap();
    assert_eq!((reading.found, reading.foreign_above), (Found::Snapshot(c), 3));
    let foreign = &reading.ledger.foreign;
    assert_eq!((foreign.added, foreign.deleted), (5, 5));
    assert_eq!((foreign.deletions[0].snapshot, foreign.deletions[0].rows), (delete, 5));
    // Written with the next commit, they are not counted again.
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 30, 31)])).await.unwrap());
    assert_eq!(open(&catalog).await.ledger().foreign, reading.ledger.foreign);
}

#[tokio::test]
async fn a_rollback_rewinds() {
    let catalog = FakeCatalog::with_table(&LOG).await;
    let [a, ..] = three(&catalog).await;
    catalog.foreign_rollback(a).await;
    assert_eq!(next(&catalog).await, Ok((Some(10), Found::Snapshot(a))));
}

#[tokio::test]
async fn the_mirror_serves_where_its_snapshot_is_the_expired_parent() {
    let catalog = FakeCatalog::with_table(&NO_LOG).await;
    let [a, b, c] = three(&catalog).await;
    catalog.foreign_append(5).await;
    catalog.foreign_expire(vec![a, b, c]).await;
    assert_eq!(next(&catalog).await, Ok((Some(30), Found::Mirror(c))));
}

#[tokio::test]
async fn an_older_metadata_file_shows_the_descent() {
    let catalog = FakeCatalog::with_table(&LOG).await;
    let [a, b, c] = three(&catalog).await;
    let first = catalog.foreign_append(5).await;
    catalog.foreign_append(6).await;
    catalog.foreign_expire(vec![a, b, c, first]).await;
    assert_eq!(next(&catalog).await, Ok((Some(30), Found::OlderMetadata(c))));
    assert_eq!(read(&catalog.table(), false).await.unwrap().ledger.foreign.added, 11);
}

#[tokio::test]
async fn without_a_proof_a_person_decides() {
    let catalog = FakeCatalog::with_table(&NO_LOG).await;
    let [a, b, c] = three(&catalog).await;
    let first = catalog.foreign_append(5).await;
    catalog.foreign_append(6).await;
    catalog.foreign_expire(vec![a, b, c, first]).await;
    catalog.foreign_append(1).await;
    let error = Committer::open(catalog.clone(), &ident()).await.unwrap_err();
    assert!(!error.is_retry());
    assert!(error.message.contains("calve ledger accept bronze.orders"), "{error}");
    assert!(error.message.contains(&format!("expired snapshot {first}")), "{error}");
    let shown = show(&*catalog, &ident()).await.unwrap();
    assert_eq!(shown.mirror.unwrap().ledger.next("orders", 0), Some(30));

    let ledger = decide(catalog.clone(), &ident(), &Decision::Accept).await.unwrap();
    assert_eq!(ledger.next("orders", 0), Some(30));
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 30, 40)])).await.unwrap());
}

#[tokio::test]
async fn the_mirror_of_a_dead_branch_is_never_trusted() {
    // Rolled back to a (10), a foreign append on top, and everything below it expired: the mirror says 30 and is of
    // c, which has a lower sequence number than the head. Rows 10 to 30 are not in the table.
    let catalog = FakeCatalog::with_table(&NO_LOG).await;
    let [a, b, c] = three(&catalog).await;
    catalog.foreign_rollback(a).await;
    catalog.foreign_append(5).await;
    catalog.foreign_expire(vec![a, b, c]).await;
    catalog.foreign_append(1).await;
    let error = next(&catalog).await.unwrap_err();
    assert!(error.contains(&format!("snapshot {c}")), "{error}");
    let offsets = BTreeMap::from([(0, 10)]);
    let reset = Decision::Reset { topic: "orders".to_owned(), offsets, recreated: false };
    decide(catalog.clone(), &ident(), &reset).await.unwrap();
    let mut committer = open(&catalog).await;
    assert_eq!(committer.starts("orders", &[0]).await.unwrap()[&0], Some(10));
    committed(committer.commit(&batch(&[(0, 10, 30)])).await.unwrap());

    // The same where older metadata files are there: they show a, which carries what holds.
    let catalog = FakeCatalog::with_table(&LOG).await;
    let [a, b, c] = three(&catalog).await;
    catalog.foreign_rollback(a).await;
    catalog.foreign_append(5).await;
    catalog.foreign_expire(vec![a, b, c]).await;
    assert_eq!(next(&catalog).await, Ok((Some(10), Found::OlderMetadata(a))));
}

#[tokio::test]
async fn a_catalog_that_keeps_only_the_head_may_trust_the_mirror() {
    let mut catalog = FakeCatalog::new();
    catalog.trust_mirror = true;
    let catalog = Arc::new(catalog);
    crate::catalog::Catalog::create(&*catalog, &ident(), crate::commit::fake::creation(&NO_LOG)).await.unwrap();
    let [a, b, c] = three(&catalog).await;
    let first = catalog.foreign_append(5).await;
    catalog.foreign_append(6).await;
    catalog.foreign_expire(vec![a, b, c, first]).await;
    catalog.foreign_append(1).await;
    assert_eq!(next(&catalog).await, Ok((Some(30), Found::TrustedMirror(c))));
}

#[tokio::test]
async fn the_ledger_is_written_again_over_foreign_heads() {
    let catalog = FakeCatalog::with_table(&NO_LOG).await;
    three(&catalog).await;
    let mut committer = open(&catalog).await;
    catalog.foreign_append(5).await;
    assert!(!committer.tend().await.unwrap());
    assert!(committer.write_ledger().await.unwrap());
    let head = catalog.metadata().current_snapshot_id().unwrap();
    let reading = read(&catalog.table(), false).await.unwrap();
    assert_eq!((reading.found, reading.ledger.foreign.added), (Found::Snapshot(head), 5));
}
