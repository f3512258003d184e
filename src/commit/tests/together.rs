//! A batch's rejects and its rows as one change, and what is left to do when that goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::{TableIdent, TableUpdate};

use super::fence::{FAST, batch, committed, moved, open};
use crate::batch::OffsetRange;
use crate::catalog::Catalog;
use crate::commit::change::Append;
use crate::commit::committer::{Committer, Missing};
use crate::commit::decide::{Decision, decide};
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
        (Some(Fault::Dropped), false),
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

/// As a new owner of partition 0 does it, before it reads on.
async fn make_up(catalog: &Arc<FakeCatalog>, by: &mut Committer) {
    for counterpart in open(catalog).await.ledger().counterparts("orders", &[0]) {
        match by.missing("orders", &counterpart).await.unwrap() {
            Missing::Nothing => {}
            Missing::All { spec_id, files } => {
                committed(by.make_up_for("orders", &counterpart, spec_id, files).await.unwrap());
            }
            some => panic!("{some:?}"),
        }
    }
}

async fn reopened(catalog: &Arc<FakeCatalog>) -> Committer {
    let mut rejects = Committer::open(catalog.clone(), &quarantine()).await.unwrap();
    rejects.set_limits(FAST);
    rejects
}

async fn rejects_there(catalog: &FakeCatalog) -> u64 {
    catalog.live_files_of(&quarantine()).await.iter().map(|file| file.record_count()).sum()
}

#[tokio::test]
async fn rejects_that_were_dropped_are_made_up_for_by_who_reads_on() {
    // More than make one manifest of sixteen: the lost one names files of others, too.
    for before in [0, 1, 15] {
        let (catalog, mut rejects, mut rows) = tables().await;
        for batch in 0..before {
            assert!(commit(&mut rejects, &mut rows, &pair(10 * batch)).await);
        }
        catalog.fail_next([Fault::Dropped]);
        let batch = pair(10 * before);
        assert_eq!(rejects.commit_with(&batch[0], &mut rows, &batch[1]).await.unwrap(), None);
        // Its sender dies here. Meanwhile another partition goes on, and keeps what it does not know.
        let mut other = open(&catalog).await;
        other.starts("orders", &[1]).await.unwrap();
        committed(other.commit(&super::fence::batch(&[(1, 0, 5)])).await.unwrap());
        assert_eq!(rejects_there(&catalog).await, 2 * before as u64);
        let mut next = reopened(&catalog).await;
        make_up(&catalog, &mut next).await;
        assert_eq!(rejects_there(&catalog).await, 2 * (before + 1) as u64);
        assert_eq!(next.ledger().next("orders", 0), Some(10 * (before + 1)));
        assert_eq!(next.ledger().topic("orders").unwrap().rows, 2 * (before + 1) as u64);
        // Once: by whoever comes next, and by the sender, who was only slow.
        make_up(&catalog, &mut reopened(&catalog).await).await;
        committed(rejects.commit(&batch[0]).await.unwrap());
        committed(rows.commit(&batch[1]).await.unwrap());
        assert_eq!(rejects_there(&catalog).await, 2 * (before + 1) as u64);
        assert!(commit(&mut rejects, &mut rows, &pair(10 * (before + 1))).await);
        let known = |rows: &Committer| rows.ledger().topic("orders").unwrap().counterparts.len();
        assert_eq!((known(&open(&catalog).await), known(&rows)), (1, 0), "the last pair's, and that one is there");
    }
}

#[tokio::test]
async fn a_partition_that_somebody_else_had_in_between_is_known_from_the_others() {
    for (theirs, held) in [(5, 5), (10, 10), (12, 12)] {
        let (catalog, mut rejects, mut rows) = tables().await;
        let mut batch = pair(0);
        for half in &mut batch {
            half.ranges.insert(1, OffsetRange { from: 0, to: 10 });
        }
        // The new owner of partition 0 was first with its rejects, so that ours were dropped.
        let mut other = reopened(&catalog).await;
        other.starts("orders", &[0]).await.unwrap();
        committed(other.commit(&super::fence::batch(&[(0, 0, theirs)])).await.unwrap());
        catalog.fail_next([Fault::Dropped]);
        assert_eq!(rejects.commit_with(&batch[0], &mut rows, &batch[1]).await.unwrap(), None);
        moved(rejects.commit(&batch[0]).await.unwrap());
        let counterpart = open(&catalog).await.ledger().counterparts("orders", &[1]).remove(0);
        let mut next = reopened(&catalog).await;
        let Missing::Some { files, held: found } = next.missing("orders", &counterpart).await.unwrap() else {
            panic!("partition 1 is missing, and not all of partition 0")
        };
        assert_eq!(found, BTreeMap::from([(0, OffsetRange { from: 0, to: held })]));
        committed(next.make_up_for("orders", &counterpart, 0, files).await.unwrap());
        let ledger = next.ledger();
        assert_eq!((ledger.next("orders", 0), ledger.next("orders", 1)), (Some(theirs.max(10)), Some(10)));
        assert!(matches!(next.missing("orders", &counterpart).await.unwrap(), Missing::Nothing));
    }
}

#[tokio::test]
async fn rejects_below_what_their_table_accounts_for_go_alone() {
    let (catalog, mut rejects, mut rows) = tables().await;
    committed(rejects.commit(&pair(0)[0]).await.unwrap());
    let [mut again, row] = pair(0);
    again.ranges.insert(0, OffsetRange { from: 10, to: 10 });
    let before = catalog.counts.get()[3];
    assert_eq!(rejects.commit_with(&again, &mut rows, &row).await.unwrap(), None);
    assert_eq!(catalog.counts.get()[3], before);
}

#[tokio::test]
async fn what_others_do_to_the_quarantine_table_is_not_undone() {
    let (catalog, mut rejects, mut rows) = tables().await;
    assert!(commit(&mut rejects, &mut rows, &pair(0)).await);
    assert!(commit(&mut rejects, &mut rows, &pair(10)).await);
    let table = catalog.load(&quarantine()).await.unwrap();
    let first = table.metadata().current_snapshot().unwrap().parent_snapshot_id().unwrap();
    // Rolled back by one: they were there, and somebody did not want them.
    let refs = crate::commit::expire::Refs::of(table.metadata()).unwrap();
    let back = TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference: refs.main_at(first) };
    catalog.commit(&table, Vec::new(), vec![back]).await.unwrap();
    make_up(&catalog, &mut reopened(&catalog).await).await;
    assert_eq!(rejects_there(&catalog).await, 2);
    // Made anew: it is another table.
    catalog.drop_table(&quarantine()).await.unwrap();
    catalog.create(&quarantine(), creation(&[])).await.unwrap();
    make_up(&catalog, &mut reopened(&catalog).await).await;
    assert_eq!(rejects_there(&catalog).await, 0);
}

#[tokio::test]
async fn rejects_whose_manifest_is_gone_are_said_to_be_until_a_person_goes_on() {
    let (catalog, mut rejects, mut rows) = tables().await;
    catalog.fail_next([Fault::Dropped]);
    let batch = pair(0);
    assert_eq!(rejects.commit_with(&batch[0], &mut rows, &batch[1]).await.unwrap(), None);
    let owed = open(&catalog).await.ledger().counterparts("orders", &[0]);
    catalog.io().delete(&owed[0].manifest).await.unwrap();
    let error = reopened(&catalog).await.missing("orders", &owed[0]).await.unwrap_err();
    assert!(!error.is_retry() && error.message.contains("`calve ledger accept`"), "{error}");
    decide(catalog.clone(), &ident(), &Decision::Accept).await.unwrap();
    assert_eq!(open(&catalog).await.ledger().counterparts("orders", &[0]), []);
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
