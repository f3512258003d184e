//! Whether a change may go onto a table as it is now, and what it consists of there.

use iceberg::spec::{Operation, Schema};
use iceberg::table::Table;
use uuid::Uuid;

use super::ancestry::Reading;
use super::attempt::Work;
use super::began::Began;
use super::change::{Append, SchemaChange};
use super::ledger::Ledger;
use crate::error::{Error, Result};

pub(super) enum Fence<'a> {
    Go(Box<Work<'a>>),
    /// Nothing of it may be committed any more.
    Stop(String),
}

/// A batch's rows: its ranges must be what comes next, in the ledger at the head and by what its reader was told, in the
/// very table (`uuid`) that they were staged for.
pub(super) fn rows<'a>(
    append: &'a Append,
    uuid: Uuid,
    table: &Table,
    reading: Option<&Reading>,
    told: &Ledger,
) -> Result<Fence<'a>> {
    let ledger = reading.map(|reading| reading.ledger.clone()).unwrap_or_default();
    if table.metadata().uuid() != uuid {
        return Ok(Fence::Stop("the table was dropped and created again".to_owned()));
    }
    ledger.check_identity(&append.topic, append.topic_id.as_deref(), append.cluster_id.as_deref()).map_err(|why| {
        Error::halt(format!(
            "topic {}, table {}: {why}; if this is meant, go on with `calve ledger reset {}`",
            append.topic,
            table.identifier(),
            table.identifier()
        ))
    })?;
    if !ledger.admits(told, &append.topic, &append.ranges) {
        return Ok(Fence::Stop(moved(&ledger, append)));
    }
    if let Some(change) = &append.schema
        && let Some(why) = schema_moved(table, change)
    {
        return Ok(Fence::Stop(why));
    }
    if let Some(written) = &append.written
        && append.schema.is_none()
        && let Some(why) = unfit(table, written)
    {
        return Ok(Fence::Stop(why));
    }
    let mut began = Began::of(table.metadata());
    if append.late {
        began.begin(&ledger, &append.topic, &append.ranges);
    }
    let properties = began.changed(table.metadata());
    let mut ledger = ledger;
    ledger.account(
        &append.topic,
        append.topic_id.as_deref(),
        append.cluster_id.as_deref(),
        &append.ranges,
        append.rows,
        append.rejects,
    );
    Ok(Fence::Go(Box::new(Work {
        commit_id: append.commit_id,
        operation: Operation::Append,
        files: &append.files,
        spec_id: append.spec_id,
        schema: append.schema.as_ref(),
        ledger: Some(ledger),
        summary: &append.summary,
        properties,
    })))
}

fn moved(ledger: &Ledger, append: &Append) -> String {
    let partition = append
        .ranges
        .iter()
        .find(|(partition, range)| ledger.next(&append.topic, **partition) != Some(range.from))
        .map(|(partition, range)| (*partition, range.from));
    match partition {
        Some((partition, from)) => match ledger.next(&append.topic, partition) {
            Some(next) => format!(
                "the ledger moved: {}/{partition} goes on at offset {next}, the batch begins at {from}",
                append.topic
            ),
            None => format!("the ledger was rewound: it has nothing of {}/{partition} any more", append.topic),
        },
        None => "the ledger moved".to_owned(),
    }
}

/// Why files that hold these columns are not the table's any more.
fn unfit(table: &Table, written: &Schema) -> Option<String> {
    let current = table.metadata().current_schema();
    (1..=written.highest_field_id()).filter_map(|id| written.field_by_id(id)).find_map(|field| {
        let name = written.name_by_field_id(field.id).unwrap_or(&field.name);
        match current.field_by_id(field.id) {
            None => Some(format!("the schema moved: column {name} (field id {}) is gone", field.id)),
            Some(now) if now.required && !field.required => {
                Some(format!("the schema moved: column {name} is required now"))
            }
            Some(_) => None,
        }
    })
}

/// Whether the table's schema is another than the one that a change was made from, and not the wanted one either.
pub(super) fn schema_moved(table: &Table, change: &SchemaChange) -> Option<String> {
    let current = table.metadata().current_schema();
    let moved = current.schema_id() != change.base_schema_id && current.as_struct() != change.schema.as_struct();
    moved.then(|| {
        format!(
            "the schema moved: it is now {}, the change was made from {}",
            current.schema_id(),
            change.base_schema_id
        )
    })
}
