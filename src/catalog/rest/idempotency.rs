//! `Idempotency-Key`: a commit that is sent twice is one commit, where the server promises so.

use std::hash::{DefaultHasher, Hash, Hasher};

use iceberg::TableUpdate;
use uuid::Uuid;

use crate::catalog::TableChange;

/// The snapshot summary's key that names a commit (see [`crate::commit`]).
const COMMIT_ID: &str = "calve.commit-id";

/// The key of a request that changes these tables, a UUID of version 7 as the protocol wants it.
///
/// The same commit tried again on the same base gets the same key: if the first request is still under way, the server
/// answers both alike. On another base it is another request, and a replayed conflict would be wrong for ever.
pub(super) fn key(changes: &[TableChange<'_>]) -> Uuid {
    let Some(named) = changes.iter().map(commit_id).collect::<Option<Vec<_>>>() else { return Uuid::now_v7() };
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        for (TableChange { base, .. }, commit_id) in changes.iter().zip(&named) {
            let metadata = base.metadata();
            (commit_id, metadata.uuid(), metadata.current_snapshot_id(), base.metadata_location()).hash(&mut hasher);
        }
        hasher.finish().to_be_bytes()
    };
    let (first, second) = (half(0), half(1));
    let mut random = [0; 10];
    random[..8].copy_from_slice(&first);
    random[8..].copy_from_slice(&second[..2]);
    let newest = changes.iter().map(|change| change.base.metadata().last_updated_ms()).max();
    let millis = newest.and_then(|millis| u64::try_from(millis).ok()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn commit_id<'a>(change: &'a TableChange<'_>) -> Option<&'a String> {
    change.updates.iter().find_map(|update| match update {
        TableUpdate::AddSnapshot { snapshot } => snapshot.summary().additional_properties.get(COMMIT_ID),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::TableIdent;
    use iceberg::io::FileIO;
    use iceberg::spec::{Operation, Schema, Snapshot, SortOrder, Summary, UnboundPartitionSpec};
    use iceberg::table::Table;

    use super::*;
    use crate::catalog::{Creation, metadata};

    fn table() -> Table {
        let creation = Creation {
            schema: Schema::builder().build().unwrap(),
            partition_spec: UnboundPartitionSpec::default(),
            sort_order: SortOrder::unsorted_order(),
            properties: HashMap::new(),
        };
        let made = metadata::create("memory:///t", creation).unwrap();
        let location = Some(made.location);
        metadata::table(&TableIdent::from_strs(["n", "t"]).unwrap(), made.metadata, location, FileIO::new_with_memory())
            .unwrap()
    }

    fn append(id: &str) -> [TableUpdate; 1] {
        let summary = Summary {
            operation: Operation::Append,
            additional_properties: HashMap::from([(COMMIT_ID.to_owned(), id.to_owned())]),
        };
        let snapshot = Snapshot::builder()
            .with_snapshot_id(rand::random())
            .with_sequence_number(1)
            .with_timestamp_ms(0)
            .with_manifest_list("memory:///t/snap.avro")
            .with_summary(summary)
            .build();
        [TableUpdate::AddSnapshot { snapshot }]
    }

    #[tokio::test]
    async fn a_key_names_one_commit_on_one_base() {
        let (base, other) = (table(), table());
        let change =
            |base, updates: &[TableUpdate]| TableChange { base, requirements: vec![], updates: updates.to_vec() };
        let key = |base, updates: &[TableUpdate]| key(&[change(base, updates)]);
        let first = key(&base, &append("a"));
        assert_eq!(first.get_version_num(), 7);
        // Other snapshot ids and times, as a second attempt has them, are the same commit.
        assert_eq!(key(&base, &append("a")), first);
        assert_ne!(key(&base, &append("b")), first);
        assert_ne!(key(&other, &append("a")), first);
        assert_ne!(key(&base, &[]), key(&base, &[]));
        // Together it is another request than alone.
        let pair = || super::key(&[change(&base, &append("a")), change(&other, &append("b"))]);
        assert!(pair() == pair() && pair() != first);
    }
}
