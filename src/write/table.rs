//! Batches of a table in, data files out: partition fan-out, rolling, and the bounds on both.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use futures::future::join_all;
use iceberg::io::FileIO;
use iceberg::spec::{DataFile, PartitionSpecRef, SchemaRef, Struct};
use iceberg::table::Table;
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use super::encoding;
use super::file::OpenFile;
use super::layout::Layout;
use super::options::{Limits, Options};
use super::partition::{Group, Partitioner};
use super::path::Places;
use super::sample;
use super::sort::{Order, Runs};
use crate::batch::StagedFiles;
use crate::error::{Error, Result};

/// Arrow bytes encoded at a time: keeps files near their target when batches are large, and lets other tasks run.
const SLICE_BYTES: usize = 4 << 20;

/// Writes batches of one table into data files of its default partition spec.
///
/// After an error the writer is of no more use but for [`TableWriter::abort`].
pub struct TableWriter {
    /// For messages.
    table: String,
    file_io: FileIO,
    schema: SchemaRef,
    spec: PartitionSpecRef,
    places: Places,
    options: Options,
    limits: Limits,
    partitioner: Partitioner,
    order: Option<Arc<Order>>,
    shape: Option<Shape>,
    open: HashMap<Box<[u8]>, OpenFile>,
    /// Counts writes to files, for [`OpenFile::used`].
    clock: u64,
    closed: Vec<DataFile>,
    /// Every file that was ever created, for [`TableWriter::abort`].
    paths: Vec<String>,
}

/// What was worked out from the first batch's schema.
struct Shape {
    batch: ArrowSchemaRef,
    layout: Arc<Layout>,
    properties: WriterProperties,
}

impl TableWriter {
    /// A writer for the table's current schema.
    pub fn new(table: &Table, limits: Limits) -> Result<TableWriter> {
        Self::with_schema(table, table.metadata().current_schema().clone(), limits)
    }

    /// A writer for a schema that the table gets with the commit that these files are for.
    pub fn with_schema(table: &Table, schema: SchemaRef, limits: Limits) -> Result<TableWriter> {
        let metadata = table.metadata();
        let spec = metadata.default_partition_spec().clone();
        Ok(TableWriter {
            table: table.identifier().to_string(),
            file_io: table.file_io().clone(),
            places: Places::new(metadata.location(), metadata.properties()),
            options: Options::new(metadata.properties())?.sorted_by(metadata.default_sort_order()),
            partitioner: Partitioner::new(&spec, &schema)?,
            order: Order::new(metadata.default_sort_order(), &schema).map(Arc::new),
            schema,
            spec,
            limits,
            shape: None,
            open: HashMap::new(),
            clock: 0,
            closed: Vec::new(),
            paths: Vec::new(),
        })
    }

    /// Adds rows. The batch's columns are the schema's, by position; strings and binaries may have any Arrow layout.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.shape(&batch)?;
        for Group { key, value, rows } in self.partitioner.split(&batch)? {
            let rows = match &rows {
                None => batch.clone(),
                Some(rows) => take_record_batch(&batch, rows).map_err(|error| {
                    Error::halt(format!("cannot split a batch of {} by partition", self.table)).caused_by(error)
                })?,
            };
            let slice = slice_rows(&rows);
            for start in (0..rows.num_rows()).step_by(slice) {
                let part = rows.slice(start, slice.min(rows.num_rows() - start));
                self.write_to(&key, &value, &part).await?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn write_to(&mut self, key: &[u8], partition: &Struct, rows: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(key) {
            while self.open.len() >= self.limits.open_files_max.max(1) {
                self.close_least_recently_used().await?;
            }
            let file = self.create(partition).await?;
            self.open.insert(key.into(), file);
        }
        self.clock += 1;
        let file = self.open.get_mut(key).expect("the file was opened above");
        file.used = self.clock;
        file.write(rows).await?;
        if file.size_bytes() >= self.limits.file_size_bytes_target.unwrap_or(self.options.file_bytes_target) {
            self.close(key).await?;
        }
        while self.buffered_bytes() > self.limits.buffered_bytes_max {
            let Some(largest) = self.open.values_mut().max_by_key(|file| file.buffered) else { break };
            let before = largest.buffered;
            largest.flush().await?;
            if largest.buffered >= before {
                break;
            }
        }
        Ok(())
    }

    async fn create(&mut self, partition: &Struct) -> Result<OpenFile> {
        let shape = self.shape.as_ref().expect("the shape is known before rows are written");
        let name = format!("{}.parquet", Uuid::now_v7());
        let path = self.places.file(&self.partitioner.folders(partition), &name);
        self.paths.push(path.clone());
        let place = (partition.clone(), self.spec.spec_id());
        let row_group_bytes = self.options.row_group_bytes.min(self.limits.row_group_bytes_max);
        let runs = self.order.clone().map(|order| Runs::new(order, row_group_bytes));
        OpenFile::create(&self.file_io, path, place, shape.layout.clone(), shape.properties.clone(), runs).await
    }

    async fn close_least_recently_used(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(key, _)| key.clone());
        match oldest {
            Some(key) => self.close(&key).await,
            None => Ok(()),
        }
    }

    async fn close(&mut self, key: &[u8]) -> Result<()> {
        if let Some(file) = self.open.remove(key) {
            self.closed.push(file.close(&self.options).await?);
        }
        Ok(())
    }

    /// Works out the files' schema and encodings from the first batch; later ones must have the same schema.
    fn shape(&mut self, rows: &RecordBatch) -> Result<()> {
        let batch = rows.schema_ref();
        if self.shape.as_ref().is_some_and(|shape| Arc::ptr_eq(&shape.batch, batch)) {
            return Ok(());
        }
        let layout = Layout::new(&self.schema, batch)?;
        match &mut self.shape {
            Some(shape) if *shape.layout == layout => shape.batch = batch.clone(),
            Some(_) => {
                return Err(Error::halt(format!(
                    "cannot write to {}: two batches of one file differ in schema",
                    self.table
                )));
            }
            None => {
                let properties = encoding::properties(&layout, &self.options, &self.limits, &sample::samples(rows));
                self.shape = Some(Shape { batch: batch.clone(), layout: Arc::new(layout), properties });
            }
        }
        Ok(())
    }

    /// Bytes of memory held by rows that are encoded but not yet put.
    pub fn buffered_bytes(&self) -> u64 {
        self.open.values().map(|file| file.buffered as u64).sum()
    }

    /// Files that reached their size, or made room for others, and wait for [`TableWriter::finish`].
    pub fn closed_files(&self) -> usize {
        self.closed.len()
    }

    pub fn open_files(&self) -> usize {
        self.open.len()
    }

    /// Closes all files and returns them, durable. On failure everything that was put is deleted.
    pub async fn finish(mut self) -> Result<StagedFiles> {
        fail::fail_point!("write::before_put");
        let options = &self.options;
        let closing = self.open.drain().map(|(_, file)| file.close(options));
        let mut failure = None;
        for result in join_all(closing).await {
            match result {
                Ok(file) => self.closed.push(file),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            self.abort().await;
            return Err(error);
        }
        Ok(StagedFiles { files: self.closed })
    }

    /// Drops what is open and deletes what was put; what cannot be deleted stays behind as an orphan.
    pub async fn abort(mut self) {
        self.open.clear();
        delete(&self.file_io, &self.table, self.paths.iter().map(String::as_str)).await;
    }
}

/// Deletes files that were staged but that no commit was ever asked to take. After an attempt to commit them ask the
/// committer instead: if an answer was lost, the table may have them.
pub async fn discard(table: &Table, staged: StagedFiles) {
    let paths = staged.files.iter().map(|file| file.file_path());
    delete(table.file_io(), &table.identifier().to_string(), paths).await;
}

async fn delete(file_io: &FileIO, table: &str, paths: impl Iterator<Item = &str>) {
    for path in paths {
        if let Err(error) = file_io.delete(path).await {
            tracing::debug!(table, path, %error, "a staged file is left to the orphan sweep");
        }
    }
}

/// How many rows of a batch make up about [`SLICE_BYTES`].
fn slice_rows(batch: &RecordBatch) -> usize {
    let slices = batch.get_array_memory_size().div_ceil(SLICE_BYTES).max(1);
    batch.num_rows().div_ceil(slices).max(1)
}
