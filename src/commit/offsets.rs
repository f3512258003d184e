//! Which records a table holds, read from its live rows: `_kafka.topic`, `_kafka.partition` and `_kafka.offset` and no
//! other column, deletes respected.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::{StreamExt, TryStreamExt};
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataContentType, NestedField, Schema, SchemaRef, StructType, Type};
use iceberg::table::Table;
use roaring::RoaringTreemap;

use super::manifests::{load_entries, load_list};
use crate::catalog::vectors::Vectors;
use crate::error::{Error, Result};
use crate::schema::metadata::KAFKA;

/// Files read at a time.
const FILES_AT_A_TIME: usize = 2;
/// After so many offsets a set is made compact again.
const COMPACT_EVERY: u64 = 1 << 20;

/// The record that a row came from; a row of another writer may not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

/// Offsets of one partition, and those that came more than once. Takes at most about a bit for each offset between the
/// lowest and the highest, far less where they are dense.
#[derive(Debug, Default)]
pub struct Offsets {
    once: RoaringTreemap,
    /// The second, third, … time that an offset came.
    again: Vec<RoaringTreemap>,
    inserted: u64,
}

/// By topic and partition.
#[derive(Debug, Default)]
pub struct Held {
    pub topics: HashMap<String, BTreeMap<i32, Offsets>>,
    /// Rows that do not say which record they came from.
    pub unattributed: u64,
}

impl Offsets {
    pub fn insert(&mut self, offset: u64) {
        self.inserted += 1;
        if self.inserted.is_multiple_of(COMPACT_EVERY) {
            self.once.optimize();
        }
        if self.once.insert(offset) {
            return;
        }
        for level in &mut self.again {
            if level.insert(offset) {
                return;
            }
        }
        self.again.push(RoaringTreemap::from_iter([offset]));
    }

    /// How many rows there were.
    pub fn rows(&self) -> u64 {
        self.inserted
    }

    /// The different offsets.
    pub fn set(&self) -> &RoaringTreemap {
        &self.once
    }

    /// Offsets that came more than `times` times, which is at least once.
    pub fn beyond(&self, times: usize) -> RoaringTreemap {
        self.again.get(times.max(1) - 1).cloned().unwrap_or_default()
    }
}

impl Held {
    /// Reads the head of a table.
    pub async fn read(table: &Table) -> Result<Held> {
        let mut held = Held::default();
        scan(table, 0, |origin| match origin {
            Some(Origin { topic, partition, offset }) if offset >= 0 => {
                if !held.topics.contains_key(topic) {
                    held.topics.insert(topic.to_owned(), BTreeMap::new());
                }
                if let Some(partitions) = held.topics.get_mut(topic) {
                    partitions.entry(partition).or_default().insert(offset as u64);
                }
            }
            _ => held.unattributed += 1,
        })
        .await?;
        Ok(held)
    }

    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Offsets> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Rows of a topic.
    pub fn rows(&self, topic: &str) -> u64 {
        self.topics.get(topic).map_or(0, |partitions| partitions.values().map(Offsets::rows).sum())
    }
}

/// Calls `each` for every live row of the table's head in files with a sequence number above `after`, in no particular
/// order.
pub async fn scan(table: &Table, after: i64, mut each: impl FnMut(Option<Origin<'_>>)) -> Result<()> {
    let name = table.identifier();
    let failed = |error: iceberg::Error| {
        Error::retry(format!("table {name}: reading the offsets of its rows failed"))
            .caused_by(anyhow::anyhow!("{error}"))
    };
    let (kafka, narrow) = narrow_schema(table)?;
    let plan = table.scan().select([KAFKA]).build().map_err(failed)?;
    let vectors = Vectors::of(table).map_err(failed)?;
    let prepared = vectors.clone();
    let young = if after > 0 { Some(files_after(table, after).await?) } else { None };
    let is_young = move |task: &FileScanTask| young.as_ref().is_none_or(|young| young.contains(&task.data_file_path));
    let tasks = plan.plan_files().await.map_err(failed)?.map_ok(move |task| narrowed(task, kafka, &narrow));
    let tasks = tasks.try_filter(move |task| std::future::ready(is_young(task)));
    let tasks = tasks
        .and_then(move |task| {
            let vectors = prepared.clone();
            async move { vectors.prepare(task).await }
        })
        .boxed();
    let mut batches = vectors
        .reader_builder()
        .with_data_file_concurrency_limit(FILES_AT_A_TIME)
        .build()
        .read(tasks)
        .map_err(failed)?
        .stream();
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        visit(&batch, &mut each).ok_or_else(|| {
            Error::halt(format!("table {name}: {KAFKA} is not the struct that calve makes; it was changed by somebody"))
        })?;
    }
    Ok(())
}

/// The paths of the head's files with a sequence number above `after`.
async fn files_after(table: &Table, after: i64) -> Result<HashSet<String>> {
    let mut paths = HashSet::new();
    for manifest in load_list(table, table.metadata().current_snapshot_id()).await? {
        if manifest.sequence_number > after {
            let entries = load_entries(table, &manifest).await?.into_iter();
            let young = entries.filter(|entry| entry.sequence_number > after);
            paths.extend(young.map(|entry| entry.file.file_path().to_owned()));
        }
    }
    Ok(paths)
}

/// A schema of `_kafka` alone with the three fields in question, so that the reader fetches no other column chunk.
fn narrow_schema(table: &Table) -> Result<(i32, SchemaRef)> {
    let name = table.identifier();
    let not_ours = || Error::halt(format!("table {name} has no column {KAFKA} as calve makes it: no topic feeds it"));
    let schema = table.metadata().current_schema();
    let kafka = schema.field_by_name(KAFKA).ok_or_else(not_ours)?;
    let Type::Struct(fields) = kafka.field_type.as_ref() else { return Err(not_ours()) };
    let mut kept = Vec::with_capacity(3);
    for name in ["topic", "partition", "offset"] {
        kept.push(fields.fields().iter().find(|field| field.name == name).ok_or_else(not_ours)?.clone());
    }
    let column = NestedField { field_type: Box::new(Type::Struct(StructType::new(kept))), ..kafka.as_ref().clone() };
    let narrow = Schema::builder()
        .with_schema_id(schema.schema_id())
        .with_fields([column.into()])
        .build()
        .map_err(|error| not_ours().caused_by(anyhow::anyhow!("{error}")))?;
    Ok((kafka.id, narrow.into()))
}

/// The task over the narrow schema; where equality deletes apply, the reader needs their columns too and gets all.
fn narrowed(mut task: FileScanTask, kafka: i32, narrow: &SchemaRef) -> FileScanTask {
    if task.deletes.iter().all(|delete| delete.file_type != DataContentType::EqualityDeletes) {
        task.schema = narrow.clone();
        task.project_field_ids = vec![kafka];
    }
    task
}

/// None if the columns are not there as they should be.
fn visit(batch: &RecordBatch, each: &mut impl FnMut(Option<Origin<'_>>)) -> Option<()> {
    let kafka: &StructArray = batch.column_by_name(KAFKA)?.as_struct_opt()?;
    let topics = kafka.column_by_name("topic")?.as_string_opt::<i32>()?;
    let partitions = kafka.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?;
    let offsets = kafka.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?;
    for row in 0..batch.num_rows() {
        let known = kafka.is_valid(row) && topics.is_valid(row) && partitions.is_valid(row) && offsets.is_valid(row);
        each(known.then(|| Origin {
            topic: topics.value(row),
            partition: partitions.value(row),
            offset: offsets.value(row),
        }));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_counted_as_often_as_it_comes() {
        let mut offsets = Offsets::default();
        for offset in [1, 2, 3, 2, 2, 7, 3] {
            offsets.insert(offset);
        }
        assert_eq!(offsets.rows(), 7);
        assert_eq!(offsets.set().iter().collect::<Vec<_>>(), [1, 2, 3, 7]);
        assert_eq!(offsets.beyond(1).iter().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(offsets.beyond(2).iter().collect::<Vec<_>>(), [2]);
        assert!(offsets.beyond(3).is_empty());
    }
}
