//! Rejects that a catalog dropped, though it was told to change two tables as one and their rows are there.

use arrow::array::{AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute;
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;
use iceberg::spec::DataFile;
use iceberg::table::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::commit::{Committer, Counterpart, Missing, Outcome};
use crate::error::{Error, Result};
use crate::schema::metadata::KAFKA;
use crate::write::{Limits, TableWriter};

/// How often others may move the quarantine table's ledger in between.
const MOVES_MAX: usize = 8;

/// Commits what the quarantine table lacks of the rejects that went with a commit of rows.
pub async fn make_up(quarantine: &mut Committer, topic: &str, counterpart: &Counterpart) -> Result<()> {
    let mut last = String::new();
    for _ in 0..MOVES_MAX {
        let (spec_id, files, ours) = match quarantine.missing(topic, counterpart).await? {
            Missing::Nothing => return Ok(()),
            Missing::All { spec_id, files } => (spec_id, files, false),
            Missing::Some { files, held } => {
                let held =
                    |partition, offset| held.get(&partition).is_some_and(|held| (held.from..held.to).contains(&offset));
                let files = without(quarantine.table(), &files, held).await?;
                (quarantine.table().metadata().default_partition_spec_id(), files, true)
            }
        };
        let rejects: u64 = files.iter().map(DataFile::record_count).sum();
        match quarantine.make_up_for(topic, counterpart, spec_id, files.clone()).await? {
            Outcome::Committed { snapshot_id } => {
                tracing::warn!(topic, table = %quarantine.table().identifier(), snapshot_id, rejects, "the catalog had changed only one of two tables; the rejects are committed now");
                return Ok(());
            }
            Outcome::Moved { why } => last = why,
        }
        if ours {
            quarantine.discard(counterpart.commit, &files).await;
        }
    }
    Err(Error::retry(format!("table {}: rejects are not there yet: {last}", quarantine.table().identifier())))
}

/// The rows of these files but for those that are `held`, in files of their own.
async fn without(table: &Table, files: &[DataFile], held: impl Fn(i32, i64) -> bool) -> Result<Vec<DataFile>> {
    let failed = |path: &str, error: &dyn std::fmt::Display| {
        Error::retry(format!("table {}: reading rejects from {path} failed", table.identifier()))
            .caused_by(anyhow::anyhow!("{error}"))
    };
    let mut writer = TableWriter::new(table, Limits::default())?;
    for file in files {
        let path = file.file_path();
        let input = table.file_io().new_input(path).map_err(|error| failed(path, &error))?;
        let bytes = input.read().await.map_err(|error| failed(path, &error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|reader| reader.build());
        for rows in reader.map_err(|error| failed(path, &error))? {
            let rows = rows.and_then(|rows| kept(&rows, &held)).and_then(|rows| in_types_of(table, &rows));
            writer.write(rows.map_err(|error| failed(path, &error))?).await?;
        }
    }
    Ok(writer.finish().await?.files)
}

fn kept(rows: &RecordBatch, held: impl Fn(i32, i64) -> bool) -> std::result::Result<RecordBatch, ArrowError> {
    let not_ours = || ArrowError::SchemaError(format!("{KAFKA} is not as calve makes it"));
    let kafka = rows.column_by_name(KAFKA).and_then(|column| column.as_struct_opt()).ok_or_else(not_ours)?;
    let partitions = kafka.column_by_name("partition").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let offsets = kafka.column_by_name("offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (partitions, offsets) = (partitions.ok_or_else(not_ours)?, offsets.ok_or_else(not_ours)?);
    let kept = partitions.values().iter().zip(offsets.values()).map(|(partition, offset)| !held(*partition, *offset));
    compute::filter_record_batch(rows, &BooleanArray::from_iter(kept.map(Some)))
}

/// The rows as the table has its columns now; Parquet tells fewer types apart than Arrow.
fn in_types_of(table: &Table, rows: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let schema = iceberg::arrow::schema_to_arrow_schema(table.metadata().current_schema())
        .map_err(|error| ArrowError::SchemaError(error.to_string()))?;
    let column = |field: &arrow::datatypes::FieldRef| match rows.column_by_name(field.name()) {
        Some(column) => compute::cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<std::result::Result<_, _>>()?;
    RecordBatch::try_new(schema.into(), columns)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use iceberg::TableIdent;
    use uuid::Uuid;

    use super::*;
    use crate::batch::{OffsetRange, Permit, RawBatch, RawRecord, Reject, RejectCode, Span, TimestampType};
    use crate::catalog::Catalog;
    use crate::commit::Append;
    use crate::commit::fake::{FakeCatalog, Fault, ident};
    use crate::commit::offsets::Held;
    use crate::quarantine::Quarantine;

    fn quarantine() -> TableIdent {
        TableIdent::from_strs(["bronze", "orders__quarantine"]).unwrap()
    }

    /// Rejects of these offsets by partition, in files of the table.
    async fn rejects(table: &Table, offsets: &[(i32, Vec<i64>)]) -> Vec<DataFile> {
        let shape = Quarantine::new("m").unwrap();
        let mut writer = TableWriter::new(table, Limits::default()).unwrap();
        for (partition, offsets) in offsets {
            let none = Span { start: 0, end: 0 };
            let record = |offset: &i64| RawRecord {
                offset: *offset,
                timestamp_ms: 0,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: Some(none),
                headers: none,
            };
            let raw = RawBatch {
                topic: "orders".into(),
                partition: *partition,
                range: OffsetRange { from: 0, to: 100 },
                records: offsets.iter().map(record).collect(),
                headers: Vec::new(),
                arena: Vec::new(),
                times: None,
                permit: Permit::default(),
            };
            let reject = |record| Reject { record, code: RejectCode::BadTag, detail: String::new(), schema_id: None };
            let rejects: Vec<Reject> = (0..offsets.len()).map(reject).collect();
            writer.write(shape.rows(&raw, &rejects, 0).unwrap()).await.unwrap();
        }
        writer.finish().await.unwrap().files
    }

    fn append(files: Vec<DataFile>, ranges: &[(i32, i64, i64)]) -> Append {
        Append {
            commit_id: Uuid::now_v7(),
            rows: files.iter().map(DataFile::record_count).sum(),
            files,
            spec_id: 0,
            topic: "orders".to_owned(),
            topic_id: None,
            cluster_id: None,
            ranges: ranges.iter().map(|(p, from, to)| (*p, OffsetRange { from: *from, to: *to })).collect(),
            rejects: 0,
            schema: None,
            written: None,
            late: false,
            summary: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn every_reject_comes_once_whoever_had_a_partition_in_between() {
        // How far somebody else has come with partition 0 before our rejects, of both partitions, were dropped.
        for theirs in [0, 4, 10, 12] {
            let fake = FakeCatalog::with_table(&[]).await;
            let creation = Quarantine::new("m").unwrap().creation(HashMap::new()).unwrap();
            let table = fake.create(&quarantine(), creation).await.unwrap();
            let catalog: Arc<dyn Catalog> = fake.clone();
            let (mut ours, mut rows) = (
                Committer::open(catalog.clone(), &quarantine()).await.unwrap(),
                Committer::open(catalog.clone(), &ident()).await.unwrap(),
            );
            let files = rejects(&table, &[(0, vec![1, 3, 7]), (1, vec![2, 9])]).await;
            let batch = append(files, &[(0, 0, 10), (1, 0, 10)]);
            let row = append(Vec::new(), &[(0, 0, 10), (1, 0, 10)]);
            if theirs > 0 {
                let mut other = Committer::open(catalog.clone(), &quarantine()).await.unwrap();
                let held = [1, 3, 7, 11].into_iter().filter(|offset| *offset < theirs).collect();
                let held = append(rejects(&table, &[(0, held)]).await, &[(0, 0, theirs)]);
                assert!(matches!(other.commit(&held).await.unwrap(), Outcome::Committed { .. }));
            }
            fake.fail_next([Fault::Dropped]);
            assert_eq!(ours.commit_with(&batch, &mut rows, &row).await.unwrap(), None);
            // The sender is gone. Twice: whoever comes later finds them.
            for _ in 0..2 {
                let ledger = Committer::open(catalog.clone(), &ident()).await.unwrap().ledger();
                let mut next = Committer::open(catalog.clone(), &quarantine()).await.unwrap();
                for counterpart in ledger.counterparts("orders", &[0, 1]) {
                    make_up(&mut next, "orders", &counterpart).await.unwrap();
                }
                let held = Held::read(next.table()).await.unwrap();
                let offsets = |partition| held.partition("orders", partition).unwrap().set().iter().collect::<Vec<_>>();
                let wanted: &[u64] = if theirs > 11 { &[1, 3, 7, 11] } else { &[1, 3, 7] };
                assert_eq!((&*offsets(0), &*offsets(1)), (wanted, &[2, 9][..]), "{theirs}");
                assert_eq!(held.rows("orders"), wanted.len() as u64 + 2, "{theirs}");
                let next = next.ledger();
                assert_eq!((next.next("orders", 0), next.next("orders", 1)), (Some(theirs.max(10)), Some(10)));
            }
        }
    }
}
