//! A batch's rejects and its rows as one change, and what is left to do when that goes wrong.

use std::sync::Arc;

use iceberg::TableIdent;

use super::fence::{FAST, batch, committed, open};
use crate::batch::OffsetRange;
use crate::catalog::Catalog;
use crate::commit::change::Append;
use crate::commit::committer::Committer;
use crate::commit::fake::{FakeCatalog, Fault, creation, data_file, ident};

fn quarantine() -> TableIdent {
    TableIdent::from_strs(["bronze", "orders__quarantine"]).unwrap()
}

async fn tables() -> (Arc<FakeCatalog>, Committer, Committer) {
    let catalog = FakeCatalog::with_table(&[]).await;
    catalog.create(&quarantine(), creation(&[])).await.unwrap();
    let mut rejects = Committer::open(catalog.clone(), &quarantine()).await.unwrap();
    rejects.set_limits(FAST);
    let rows = open(&catalog).await;
    (catalog, rejects, rows)
}

/// Two of ten records are rejects.
fn pair(from: i64) -> [Append; 2] {
    let files = vec![data_file(&format!("rows-{from}"), 8)];
    let rows = Append { rejects: 2, rows: 8, files, ..batch(&[(0, from, from + 10)]) };
    let mut rejects = batch(&[(0, from, from + 10)]);
    rejects.rows = 2;
    rejects.files = vec![data_file(&format!("rejects-{from}"), 2)];
    [rejects, rows]
}

/// As the ingest loop does it; true if both were one change.
async fn commit(rejects: &mut Committer, rows: &mut Committer, [reject, row]: &[Append; 2]) -> bool {
    let together = rejects.commit_with(reject, rows, row).await.unwrap();
    if together.is_none() {
        committed(rejects.commit(reject).await.unwrap());
        committed(rows.commit(row).await.unwrap());
    }
    together.is_some()
}

#[tokio::test]
async fn both_tables_are_changed_once_whatever_comes_in_between() {
    for (fault, one_change) in [
        (None, true),
        (Some(Fault::LostBefore), false),
        (Some(Fault::LostAfter), false),
        (Some(Fault::Late), false),
        (Some(Fault::Unavailable), false),
        (Some(Fault::Overtaken), false),
        (Some(Fault::Torn), false),
    ] {
        let (catalog, mut rejects, mut rows) = tables().await;
        assert!(commit(&mut rejects, &mut rows, &pair(0)).await);
        let requests = catalog.counts.get()[3];
        catalog.fail_next(fault);
        assert_eq!(commit(&mut rejects, &mut rows, &pair(10)).await, one_change, "{fault:?}");
        if one_change {
            assert_eq!(catalog.counts.get()[3] - requests, 1);
        }
        catalog.deliver().await;
        // The next one finds both as they should be.
        assert!(commit(&mut rejects, &mut rows, &pair(20)).await || fault == Some(Fault::Late), "{fault:?}");
        for (committer, ident, wanted) in [(&rejects, quarantine(), 2), (&rows, ident(), 8)] {
            let ledger = committer.ledger();
            let topic = ledger.topic("orders").unwrap();
            assert_eq!((ledger.next("orders", 0), topic.rows), (Some(30), 3 * wanted), "{fault:?}: {ident}");
            let files = catalog.live_files_of(&ident).await;
            let ours: Vec<_> = files.iter().filter(|file| !file.file_path().contains("foreign")).collect();
            assert_eq!(ours.iter().map(|file| file.record_count()).sum::<u64>(), 3 * wanted, "{fault:?}: {ident}");
            assert_eq!(ours.len(), 3, "{fault:?}: {ident}");
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_not_what_comes_next_changes_neither() {
    let (catalog, mut rejects, mut rows) = tables().await;
    assert!(commit(&mut rejects, &mut rows, &pair(0)).await);
    // The quarantine table is ahead, as after a kill between two commits: its share of the batch is empty.
    let [reject, row] = pair(10);
    committed(rejects.commit(&reject).await.unwrap());
    let before = catalog.counts.get()[3];
    let [again, _] = pair(10);
    assert_eq!(rejects.commit_with(&again, &mut rows, &row).await.unwrap(), None);
    assert_eq!(catalog.counts.get()[3], before, "nothing is asked of the catalog");
    let mut nothing = pair(20)[0].clone();
    nothing.ranges.insert(0, OffsetRange { from: 20, to: 20 });
    (nothing.files, nothing.rows) = (Vec::new(), 0);
    assert!(rejects.commit_with(&nothing, &mut rows, &row).await.unwrap().is_some());
    assert_eq!((rejects.ledger().next("orders", 0), rows.ledger().next("orders", 0)), (Some(20), Some(20)));
    // The rows are not what comes next.
    let [reject, _] = pair(20);
    assert_eq!(rejects.commit_with(&reject, &mut rows, &pair(0)[1]).await.unwrap(), None);
    assert_eq!(rejects.ledger().next("orders", 0), Some(20));
}
