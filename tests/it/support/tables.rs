//! Tables as the tests make them, and appends as a committer sends them, without a committer.

use std::collections::HashMap;

use calve::catalog::{Catalog, Creation};
use calve::config::{self, CatalogKind};
use iceberg::spec::{
    ManifestListWriter, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference, SnapshotRetention,
    SortOrder, StructType, Summary, Transform, Type, UnboundPartitionSpec,
};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};

/// A catalog's configuration, as `catalogs/NAME.toml` would give it.
pub fn configured(name: &str, kind: CatalogKind, properties: &[(&str, &str)]) -> config::Catalog {
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    config::Catalog { name: name.to_owned(), kind, properties }
}

/// Of a Glue at this address, which checks no keys.
pub fn glue_properties(address: &str) -> Vec<(&'static str, String)> {
    let properties = [
        ("glue.endpoint", address),
        ("glue.region", "us-east-1"),
        ("glue.access-key-id", "k"),
        ("glue.secret-access-key", "s"),
    ];
    properties.map(|(key, value)| (key, value.to_owned())).to_vec()
}

pub fn creation() -> Creation {
    let kafka = StructType::new(vec![
        NestedField::required(5, "partition", Type::Primitive(PrimitiveType::Int)).into(),
        NestedField::optional(6, "timestamp", Type::Primitive(PrimitiveType::Timestamptz)).into(),
    ]);
    let schema = Schema::builder()
        .with_fields([
            NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long)).with_doc("the order's number").into(),
            NestedField::optional(2, "name", Type::Primitive(PrimitiveType::String)).into(),
            NestedField::required(3, "_kafka", Type::Struct(kafka)).into(),
            NestedField::optional(4, "_raw", Type::Primitive(PrimitiveType::Binary)).into(),
        ])
        .build()
        .unwrap();
    let partition_spec = UnboundPartitionSpec::builder().add_partition_field(6, "day", Transform::Day).unwrap().build();
    let properties = HashMap::from([("calve.mapping-version".to_owned(), "1".to_owned())]);
    Creation { schema, partition_spec, sort_order: SortOrder::unsorted_order(), properties }
}

/// What a fenced append of `id` sends: a snapshot on top of the base's, if main is still there. The data stays what it
/// is: the head's manifests, or none.
pub async fn append(base: &Table, id: &str) -> (Vec<TableRequirement>, Vec<TableUpdate>) {
    let metadata = base.metadata();
    let manifests = match metadata.current_snapshot() {
        Some(head) => head.manifest_list().to_owned(),
        None => {
            let manifests = format!("{}/metadata/snap-{}.avro", metadata.location(), uuid::Uuid::new_v4());
            let output = base.file_io().new_output(&manifests).unwrap().writer().await.unwrap();
            ManifestListWriter::v2(output, 1, None, metadata.next_sequence_number()).close().await.unwrap();
            manifests
        }
    };
    append_manifests(base, id, manifests)
}

/// The same with a manifest list of the caller's.
pub fn append_manifests(base: &Table, id: &str, manifests: String) -> (Vec<TableRequirement>, Vec<TableUpdate>) {
    let metadata = base.metadata();
    let head = metadata.current_snapshot_id();
    let snapshot_id = i64::from(rand::random::<u32>()) << 20 | i64::from(rand::random::<u16>()) | 1;
    let summary = Summary {
        operation: Operation::Append,
        additional_properties: HashMap::from([("calve.commit-id".to_owned(), id.to_owned())]),
    };
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(head)
        .with_sequence_number(metadata.next_sequence_number())
        .with_timestamp_ms(metadata.last_updated_ms() + 1)
        .with_manifest_list(manifests)
        .with_schema_id(metadata.current_schema_id())
        .with_summary(summary)
        .build();
    let retention =
        SnapshotRetention::Branch { min_snapshots_to_keep: None, max_snapshot_age_ms: None, max_ref_age_ms: None };
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::RefSnapshotIdMatch { r#ref: "main".to_owned(), snapshot_id: head },
    ];
    let reference = SnapshotReference { snapshot_id, retention };
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference },
    ];
    (requirements, updates)
}

/// The commit ids on main, newest first.
pub fn commit_ids(table: &Table) -> Vec<String> {
    let mut ids = Vec::new();
    let mut at = table.metadata().current_snapshot().cloned();
    while let Some(snapshot) = at {
        ids.push(snapshot.summary().additional_properties["calve.commit-id"].clone());
        at = snapshot.parent_snapshot_id().and_then(|id| table.metadata().snapshot_by_id(id).cloned());
    }
    ids
}

pub fn namespace(levels: &[&str]) -> NamespaceIdent {
    NamespaceIdent::from_strs(levels).unwrap()
}

pub async fn fresh_table(catalog: &dyn Catalog, namespace: &NamespaceIdent, name: &str) -> Table {
    let ident = TableIdent::new(namespace.clone(), name.to_owned());
    catalog.create(&ident, creation()).await.unwrap()
}
