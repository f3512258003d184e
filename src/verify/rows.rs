//! One partition's rows of a table, in the order of their offsets, as of one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use futures::TryStreamExt;
use iceberg::expr::Reference;
use iceberg::scan::FileScanTask;
use iceberg::spec::Datum;
use iceberg::table::Table;

use super::layouts::Layouts;
use crate::error::{Error, Result};
use crate::query::{Catalogs, Engine, Files, IcebergTable, one_line};
use crate::schema::metadata::KAFKA;

/// So many offsets are sorted at a time: what bounds the space that sorting takes on disk.
const WINDOW_OFFSETS: i64 = 500_000;

/// Behind the table's columns: the number of the file's layout.
const LAYOUT: &str = "__layout";

/// Reads a table's head, as it was loaded.
pub struct Reader {
    table: Table,
    session: SessionContext,
    /// The table's columns, with their field ids.
    pub schema: SchemaRef,
    pub layouts: Layouts,
}

/// The rows of one partition between two offsets, not yet read.
pub struct Rows {
    topic: String,
    partition: i32,
    /// Where the next window begins, and the last one ends.
    window: i64,
    end: i64,
    stream: Option<SendableRecordBatchStream>,
    /// Rows beyond what was asked for so far.
    ahead: Option<RecordBatch>,
}

/// Some rows, sorted by offset, with each row's offset and layout.
pub struct Chunk {
    /// The table's columns, and one more.
    pub batch: RecordBatch,
    pub offsets: Vec<i64>,
    pub layouts: Vec<usize>,
}

impl Reader {
    pub fn new(table: &Table, memory_bytes: u64) -> Result<Reader> {
        let failed = |error: DataFusionError| unreadable(table, &error);
        let engine = Engine::new(Catalogs::default(), "local", memory_bytes).map_err(failed)?;
        let schema = IcebergTable::new(table.clone(), Files::Given(Vec::new())).map_err(failed)?.schema();
        let layouts = Layouts::new(table, &schema);
        Ok(Reader { table: table.clone(), session: engine.session(), schema, layouts })
    }

    pub fn name(&self) -> String {
        self.table.identifier().to_string()
    }

    /// All rows of these offsets up to `to` that were not given yet.
    pub async fn until(&mut self, rows: &mut Rows, to: i64) -> Result<Chunk> {
        let batches = self.collect(rows, to.min(rows.end)).await.map_err(|error| unreadable(&self.table, &error))?;
        let batch = match batches.as_slice() {
            [] => RecordBatch::new_empty(self.schema.clone()),
            [one] => one.clone(),
            [first, ..] => concat_batches(&first.schema(), &batches)
                .map_err(|error| unreadable(&self.table, &DataFusionError::from(error)))?,
        };
        if batch.num_rows() == 0 {
            return Ok(Chunk { batch, offsets: Vec::new(), layouts: Vec::new() });
        }
        let layouts = batch.column(batch.num_columns() - 1).as_primitive::<Int32Type>();
        let layouts = layouts.values().iter().map(|layout| usize::try_from(*layout).unwrap_or(0)).collect();
        Ok(Chunk { offsets: offsets(&batch), layouts, batch })
    }

    async fn collect(&mut self, rows: &mut Rows, to: i64) -> Result<Vec<RecordBatch>, DataFusionError> {
        let mut found = Vec::new();
        loop {
            if let Some(batch) = rows.ahead.take() {
                let below = offsets(&batch).partition_point(|offset| *offset < to);
                if below > 0 {
                    found.push(batch.slice(0, below));
                }
                if below < batch.num_rows() {
                    rows.ahead = Some(batch.slice(below, batch.num_rows() - below));
                    return Ok(found);
                }
            }
            match &mut rows.stream {
                Some(stream) => match stream.try_next().await? {
                    Some(batch) => rows.ahead = Some(batch).filter(|batch| batch.num_rows() > 0),
                    None => rows.stream = None,
                },
                None if rows.window < to => {
                    let window_end = rows.window.saturating_add(WINDOW_OFFSETS).min(rows.end);
                    rows.stream = self.open(rows, rows.window, window_end).await?;
                    rows.window = window_end;
                }
                None => return Ok(found),
            }
        }
    }

    /// The rows with offsets in `[from, to)`, sorted; none if no file may hold any.
    async fn open(
        &mut self,
        rows: &Rows,
        from: i64,
        to: i64,
    ) -> Result<Option<SendableRecordBatchStream>, DataFusionError> {
        let offset = || Reference::new(format!("{KAFKA}.offset"));
        let predicate = Reference::new(format!("{KAFKA}.partition"))
            .equal_to(Datum::int(rows.partition))
            .and(offset().greater_than_or_equal_to(Datum::long(from)))
            .and(offset().less_than(Datum::long(to)));
        let external = |error: iceberg::Error| DataFusionError::External(error.into());
        if self.table.metadata().current_snapshot_id().is_none() {
            return Ok(None);
        }
        let scan = self.table.scan().select_empty().with_filter(predicate).build().map_err(external)?;
        let tasks: Vec<FileScanTask> =
            scan.plan_files().await.map_err(external)?.try_collect().await.map_err(external)?;
        let mut by_layout: BTreeMap<usize, Vec<FileScanTask>> = BTreeMap::new();
        for task in tasks {
            let layout = self.layouts.of(&self.table, &task).await?;
            by_layout.entry(layout).or_default().push(task);
        }

        let kafka = |name: &str| col(KAFKA).field(name);
        let filter: Expr = kafka("partition")
            .eq(lit(rows.partition))
            .and(kafka("offset").gt_eq(lit(from)))
            .and(kafka("offset").lt(lit(to)))
            .and(kafka("topic").eq(lit(rows.topic.as_str())));
        let mut all: Option<DataFrame> = None;
        for (layout, tasks) in by_layout {
            let files = Arc::new(IcebergTable::new(self.table.clone(), Files::Given(tasks))?);
            let layout = i32::try_from(layout).unwrap_or(0);
            let frame = self.session.read_table(files)?.filter(filter.clone())?.with_column(LAYOUT, lit(layout))?;
            all = Some(match all {
                Some(all) => all.union(frame)?,
                None => frame,
            });
        }
        match all {
            Some(all) => Ok(Some(all.sort(vec![kafka("offset").sort(true, false)])?.execute_stream().await?)),
            None => Ok(None),
        }
    }
}

impl Rows {
    pub fn new(topic: &str, partition: i32, from: i64, end: i64) -> Rows {
        Rows { topic: topic.to_owned(), partition, window: from, end, stream: None, ahead: None }
    }
}

/// `_kafka.offset` of each row; the batch is calve's own or came through a filter on it.
pub fn offsets(batch: &RecordBatch) -> Vec<i64> {
    let offsets = batch.column_by_name(KAFKA).and_then(|kafka| kafka.as_struct_opt()?.column_by_name("offset"));
    let offsets = offsets.and_then(|offsets| offsets.as_primitive_opt::<Int64Type>());
    offsets.map(|offsets| offsets.values().to_vec()).unwrap_or_default()
}

fn unreadable(table: &Table, error: &DataFusionError) -> Error {
    Error::halt(format!("table {}: its rows cannot be read: {}", table.identifier(), one_line(error)))
}
