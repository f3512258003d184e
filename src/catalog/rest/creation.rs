//! The changes that make a table which was staged: all that its metadata says, before the first snapshot.

use iceberg::TableUpdate;
use iceberg::spec::{TableMetadata, TableMetadataBuilder};

/// With `then`, what comes on top. Properties are set once: Nessie takes no second time.
pub(super) fn updates(staged: &TableMetadata, then: Vec<TableUpdate>) -> Vec<TableUpdate> {
    let last = TableMetadataBuilder::LAST_ADDED;
    let mut properties = staged.properties().clone();
    let mut updates = vec![
        TableUpdate::AssignUuid { uuid: staged.uuid() },
        TableUpdate::UpgradeFormatVersion { format_version: staged.format_version() },
        TableUpdate::AddSchema { schema: staged.current_schema().as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: last },
        TableUpdate::AddSpec { spec: staged.default_partition_spec().as_ref().clone().into_unbound() },
        TableUpdate::SetDefaultSpec { spec_id: last },
        TableUpdate::AddSortOrder { sort_order: staged.default_sort_order().as_ref().clone() },
        TableUpdate::SetDefaultSortOrder { sort_order_id: i64::from(last) },
        TableUpdate::SetLocation { location: staged.location().to_owned() },
    ];
    for update in then {
        match update {
            TableUpdate::SetProperties { updates } => properties.extend(updates),
            update => updates.push(update),
        }
    }
    if !properties.is_empty() {
        updates.push(TableUpdate::SetProperties { updates: properties });
    }
    updates
}
