//! What a month of commits leaves behind.

use std::collections::BTreeSet;

use iceberg::spec::{FormatVersion, MAIN_BRANCH, Operation, Snapshot, Summary, TableMetadata, TableMetadataBuilder};
use iceberg::{TableUpdate, spec::SnapshotReference, spec::SnapshotRetention};

use super::fence::{batch, committed, open};
use crate::commit::expire::{Policy, Refs, plan, unreachable};
use crate::commit::fake::{FakeCatalog, creation};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// Later than any clock that the tests run under, at the beginning of a day.
const START: i64 = 2_000_000_000_000 / DAY * DAY;

const POLICY: Policy = Policy {
    snapshots_min: 5,
    age_ms_max: 1,
    hourly_tags: 48,
    daily_tags: 30,
    metadata_bytes_max: 256 * 1024,
    expires: true,
};

struct World {
    metadata: TableMetadata,
    next: i64,
    ledger: String,
}

impl World {
    fn new(ledger_bytes: usize) -> World {
        let creation = creation(&[]);
        let metadata = TableMetadataBuilder::new(
            creation.schema,
            creation.partition_spec,
            creation.sort_order,
            "memory:/t".to_owned(),
            FormatVersion::V2,
            creation.properties,
        )
        .and_then(TableMetadataBuilder::build)
        .unwrap()
        .metadata;
        World { metadata, next: 1, ledger: "1234567,".repeat(ledger_bytes / 8) }
    }

    fn apply(&mut self, updates: Vec<TableUpdate>) {
        let mut builder = TableMetadataBuilder::new_from_metadata(self.metadata.clone(), None);
        for update in updates {
            builder = update.apply(builder).unwrap();
        }
        self.metadata = builder.build().unwrap().metadata;
    }

    /// A commit at this time, with all that comes with it; the size of the metadata file.
    fn commit(&mut self, at: i64, needed: &BTreeSet<i64>, policy: &Policy) -> usize {
        let summary = [("calve.ledger".to_owned(), self.ledger.clone())];
        let snapshot = Snapshot::builder()
            .with_snapshot_id(self.next)
            .with_parent_snapshot_id(self.metadata.current_snapshot_id())
            .with_sequence_number(self.metadata.next_sequence_number())
            .with_timestamp_ms(at)
            .with_manifest_list("memory:/t/metadata/snap.avro")
            .with_summary(Summary { operation: Operation::Append, additional_properties: summary.into() })
            .build();
        self.next += 1;
        let refs = Refs::of(&self.metadata).unwrap();
        let mut updates = vec![
            TableUpdate::AddSnapshot { snapshot: snapshot.clone() },
            TableUpdate::SetSnapshotRef {
                ref_name: MAIN_BRANCH.to_owned(),
                reference: refs.main_at(snapshot.snapshot_id()),
            },
        ];
        updates.extend(plan(&self.metadata, &refs, &snapshot, needed, policy, at).updates);
        self.apply(updates);
        Refs::of(&self.metadata).unwrap().metadata_bytes
    }

    fn tags(&self) -> Vec<String> {
        let mut names: Vec<String> = Refs::of(&self.metadata).unwrap().refs.into_keys().collect();
        names.retain(|name| name != MAIN_BRANCH);
        names.sort();
        names
    }

    fn ids(&self) -> BTreeSet<i64> {
        self.metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).collect()
    }
}

#[test]
fn tags_carry_the_time_travel() {
    let mut world = World::new(100);
    for step in 0..(34 * 24) {
        world.commit(START + step * 60 * MINUTE + 35 * MINUTE, &BTreeSet::new(), &POLICY);
    }
    let tags = world.tags();
    let (hourly, daily): (Vec<&String>, Vec<&String>) = tags.iter().partition(|name| name.starts_with("hourly-"));
    assert!((47..=48).contains(&hourly.len()), "{hourly:?}");
    assert!((29..=30).contains(&daily.len()), "{daily:?}");
    assert_eq!(hourly.last().unwrap().as_str(), "hourly-2033-06-20T22Z");
    assert_eq!(daily.last().unwrap().as_str(), "daily-2033-06-19");
    // The state at the end of that hour.
    let last = world.metadata.snapshot_for_ref("hourly-2033-06-20T22Z").unwrap();
    assert_eq!(last.timestamp_ms() % (60 * MINUTE), 35 * MINUTE);
    // The newest five, and one a tag; the newest tags are among the five, and the ends of two days are ends of hours.
    let count = world.metadata.snapshots().len();
    assert!((70..=5 + 48 + 30).contains(&count), "{count}");
}

#[test]
fn the_metadata_file_stays_small_whatever_a_ledger_takes() {
    let mut world = World::new(10 * 1024);
    let mut largest = 0;
    for step in 0..160 {
        largest = largest.max(world.commit(START + step * 10 * MINUTE, &BTreeSet::new(), &POLICY));
    }
    assert!(largest <= 256 * 1024, "{largest}");
    assert!(world.metadata.snapshots().len() >= 15, "{}", world.metadata.snapshots().len());
    // The days are given up last.
    assert!(world.tags().contains(&"daily-2033-05-18".to_owned()), "{:?}", world.tags());
}

#[test]
fn what_consumers_need_stays_with_all_that_came_after() {
    let mut world = World::new(100);
    let policy = Policy { hourly_tags: 0, daily_tags: 0, ..POLICY };
    for step in 0..20 {
        world.commit(START + step, &BTreeSet::new(), &policy);
    }
    assert_eq!(world.ids(), (16..=20).collect());
    let needed = BTreeSet::from([17]);
    for step in 20..30 {
        world.commit(START + step, &needed, &policy);
    }
    assert_eq!(world.ids(), (17..=30).collect());
}

#[test]
fn nothing_expires_where_the_table_forbids_it() {
    let mut world = World::new(100);
    let policy = Policy { hourly_tags: 0, daily_tags: 0, expires: false, ..POLICY };
    for step in 0..20 {
        world.commit(START + step, &BTreeSet::new(), &policy);
    }
    assert_eq!(world.ids(), (1..=20).collect());
}

#[test]
fn refs_of_others_and_fresh_dead_ends_stay() {
    // Setting a ref takes the clock's time, so this plays now.
    let start = chrono::Utc::now().timestamp_millis();
    let mut world = World::new(100);
    let policy = Policy { hourly_tags: 0, daily_tags: 0, ..POLICY };
    for step in 0..8 {
        world.commit(start + step, &BTreeSet::new(), &policy);
    }
    let tag = SnapshotRetention::Tag { max_ref_age_ms: None };
    world.apply(vec![TableUpdate::SetSnapshotRef {
        ref_name: "audit-2033".to_owned(),
        reference: SnapshotReference::new(5, tag),
    }]);
    // Rolled back to 6: what was 7 and 8 can be rolled forward to for a day.
    let main = Refs::of(&world.metadata).unwrap().main_at(6);
    world.apply(vec![TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: main }]);
    for step in 8..20 {
        world.commit(start + step, &BTreeSet::new(), &policy);
    }
    let ids = world.ids();
    assert!([5, 7, 8].iter().all(|id| ids.contains(id)) && !ids.contains(&6), "{ids:?}");
    assert_eq!(world.tags(), ["audit-2033"]);
    world.commit(start + 2 * DAY, &BTreeSet::new(), &policy);
    assert!(!world.ids().contains(&7) && world.ids().contains(&5));
}

#[tokio::test]
async fn files_that_nothing_reaches_go_and_no_others() {
    let keep = [("history.expire.min-snapshots-to-keep", "4"), ("history.expire.max-snapshot-age-ms", "1")];
    let catalog = FakeCatalog::with_table(&keep).await;
    let mut committer = open(&catalog).await;
    let mut lists = Vec::new();
    for offset in 0..40 {
        committed(committer.commit(&batch(&[(0, offset, offset + 1)])).await.unwrap());
        lists.push(catalog.metadata().current_snapshot().unwrap().manifest_list().to_owned());
        if offset == 20 {
            // A branch of somebody else's holds on to what it reaches.
            let head = catalog.metadata().current_snapshot_id().unwrap();
            let retention = SnapshotRetention::Branch {
                min_snapshots_to_keep: None,
                max_snapshot_age_ms: None,
                max_ref_age_ms: None,
            };
            let reference = SnapshotReference::new(head, retention);
            catalog.foreign(vec![TableUpdate::SetSnapshotRef { ref_name: "audit".to_owned(), reference }]).await;
        }
        committer.swept().await;
    }
    let table = catalog.table();
    for snapshot in table.metadata().snapshots() {
        let manifests = crate::commit::manifests::load_list(&table, Some(snapshot.snapshot_id())).await.unwrap();
        for manifest in manifests {
            assert!(catalog.io().exists(&manifest.manifest_path).await.unwrap(), "{}", manifest.manifest_path);
        }
    }
    let mut left = 0;
    for list in &lists {
        left += usize::from(catalog.io().exists(list).await.unwrap());
    }
    assert_eq!(left, table.metadata().snapshots().len());
    assert!(unreachable(&table, &[]).await.unwrap().is_empty());
}
