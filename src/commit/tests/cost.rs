//! A commit costs its own delta, at commit 2,000 what it cost at commit 20. Counted, not timed.

use std::collections::HashSet;

use super::fence::{batch, committed, open};
use crate::commit::fake::{FakeCatalog, data_file};
use crate::commit::manifests::{FAN_IN, load_entries, load_list};

const OURS: [(&str, &str); 4] = [
    ("history.expire.min-snapshots-to-keep", "50"),
    ("history.expire.max-snapshot-age-ms", "1"),
    ("write.metadata.delete-after-commit.enabled", "true"),
    ("write.metadata.previous-versions-max", "50"),
];

/// Requests and bytes of the commits from `from` to `to`.
async fn cost(
    catalog: &std::sync::Arc<FakeCatalog>,
    committer: &mut crate::commit::Committer,
    from: i64,
    to: i64,
) -> [u64; 3] {
    let before = catalog.counts.get();
    for offset in from..to {
        committed(committer.commit(&batch(&[(0, offset, offset + 1)])).await.unwrap());
    }
    let after = catalog.counts.get();
    // Writes, bytes, requests to the catalog.
    [after[1] - before[1], after[2] - before[2], after[3] + after[4] - before[3] - before[4]]
}

#[tokio::test]
async fn commit_2000_costs_what_commit_20_did() {
    let catalog = FakeCatalog::with_table(&OURS).await;
    let mut committer = open(&catalog).await;
    cost(&catalog, &mut committer, 0, 64).await;
    // Windows of 256 commits hold as many merges of the first two tiers each.
    let early = cost(&catalog, &mut committer, 64, 320).await;
    cost(&catalog, &mut committer, 320, 1800).await;
    let late = cost(&catalog, &mut committer, 1800, 2056).await;
    assert_eq!(early[0], 3 * 256, "a manifest, a list and a metadata file");
    assert_eq!(late[0], early[0]);
    assert_eq!((early[2], late[2]), (256, 256), "one request to the catalog a commit");
    assert!(late[1] < early[1] * 13 / 10, "bytes a window: {early:?}, later {late:?}");
    let metadata_bytes = catalog.counts.get()[5];
    assert!(metadata_bytes < 128 * 1024, "{metadata_bytes}");

    let table = catalog.table();
    let list = load_list(&table, table.metadata().current_snapshot_id()).await.unwrap();
    assert!(list.len() <= 3 * FAN_IN, "{} manifests", list.len());
    let mut seen = HashSet::new();
    for manifest in &list {
        for entry in load_entries(&table, manifest).await.unwrap() {
            // One commit a file, one sequence number a commit: merging kept both, and the snapshot.
            let name = entry.file.file_path();
            let offset: i64 = name.split(':').nth(2).unwrap().parse().unwrap();
            assert_eq!((entry.sequence_number, entry.file_sequence_number), (offset + 1, offset + 1), "{name}");
            assert!(seen.insert(offset), "{offset} twice");
        }
        assert!(manifest.min_sequence_number >= 1 && manifest.sequence_number >= manifest.min_sequence_number);
    }
    assert_eq!(seen.len(), 2056);
}

#[tokio::test]
async fn a_warm_committer_reads_nothing_and_a_cold_one_makes_the_same_table() {
    let catalog = FakeCatalog::with_table(&[("history.expire.min-snapshots-to-keep", "1000")]).await;
    let mut committer = open(&catalog).await;
    let before = catalog.counts.get()[0];
    cost(&catalog, &mut committer, 0, 40).await;
    assert_eq!(catalog.counts.get()[0], before, "reads of a warm committer");
    for offset in 40..80 {
        let mut cold = open(&catalog).await;
        committed(cold.commit(&batch(&[(0, offset, offset + 1)])).await.unwrap());
    }
    let table = catalog.table();
    let list = load_list(&table, table.metadata().current_snapshot_id()).await.unwrap();
    assert_eq!(list.len(), 80 / FAN_IN);
    assert_eq!(catalog.live_files().await.len(), 80);
}

#[tokio::test]
async fn row_ids_survive_merging() {
    let catalog = FakeCatalog::with_table(&[("test.v3", "")]).await;
    let mut committer = open(&catalog).await;
    let mut first_row_ids = Vec::new();
    for offset in 0..40 {
        committed(committer.commit(&batch(&[(0, 3 * offset, 3 * offset + 3)])).await.unwrap());
        let files = catalog.live_files().await;
        let newest = files.iter().find(|file| file.file_path().contains(&format!("0:{}:", 3 * offset))).unwrap();
        first_row_ids.push((newest.file_path().to_owned(), newest.first_row_id().expect("row lineage")));
    }
    let mut ids: Vec<i64> = first_row_ids.iter().map(|(_, id)| *id).collect();
    ids.dedup();
    assert!(ids.len() == 40 && ids.is_sorted_by(|one, next| next - one >= 3), "{ids:?}");
    let files = catalog.live_files().await;
    for (path, id) in first_row_ids {
        let now = files.iter().find(|file| file.file_path() == path).unwrap();
        assert_eq!(now.first_row_id(), Some(id), "{path}");
    }
}

#[tokio::test]
async fn foreign_manifests_and_totals_left_out_by_others() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut committer = open(&catalog).await;
    committed(committer.commit(&batch(&[(0, 0, 2)])).await.unwrap());
    catalog.foreign_snapshot(iceberg::spec::Operation::Append, &[data_file("f", 7)], &[]).await;
    catalog.forget_totals().await;
    committed(committer.commit(&batch(&[(0, 2, 3)])).await.unwrap());
    let metadata = catalog.metadata();
    let summary = &metadata.current_snapshot().unwrap().summary().additional_properties;
    let totals = ["total-records", "total-data-files", "total-files-size"].map(|key| summary[key].as_str());
    assert_eq!(totals, ["10", "3", "1000"]);
}
