//! One open Parquet file: encodes rows into a row group in memory, streams finished row groups to the store.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use iceberg::io::{FileIO, FileWrite};
use iceberg::spec::{DataFile, Struct};
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::layout::{Layout, Leaf};
use super::metrics::{self, Place};
use super::nan::Counter;
use super::options::Options;
use crate::error::{Error, Result};

/// The store's stream, as Parquet wants it. Closing it is what makes the file durable.
struct Sink(Box<dyn FileWrite>);

impl AsyncFileWriter for Sink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.0.write(bytes).await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, parquet::errors::Result<()>> {
        async move { self.0.close().await.map_err(|error| ParquetError::External(Box::new(error))) }.boxed()
    }
}

pub struct OpenFile {
    path: String,
    partition: Struct,
    partition_spec_id: i32,
    layout: Arc<Layout>,
    writer: AsyncArrowWriter<Sink>,
    nans: Counter,
    /// When it was last written to, in the table writer's count of writes.
    pub used: u64,
    /// Bytes of memory that the open row group holds, about.
    pub buffered: usize,
    /// Bytes that a row holds beside its encoded form until its page is full: levels and dictionary indexes.
    row_overhead: usize,
    page_rows: usize,
}

impl OpenFile {
    pub async fn create(
        file_io: &FileIO,
        path: String,
        (partition, partition_spec_id): (Struct, i32),
        layout: Arc<Layout>,
        properties: WriterProperties,
    ) -> Result<OpenFile> {
        let sink = async { file_io.new_output(&path)?.writer().await };
        let sink = sink.await.map_err(|error| store_failure(&path, error))?;
        let row_overhead = layout.leaves.iter().map(|leaf| row_overhead(leaf, &properties)).sum();
        let page_rows = properties.data_page_row_count_limit();
        // The Arrow schema in the footer would only repeat, in another dialect, what the Parquet schema says.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = AsyncArrowWriter::try_new_with_options(Sink(sink), layout.arrow.clone(), options)
            .map_err(|error| failure(&path, error))?;
        let nans = Counter::new(&layout.arrow);
        Ok(OpenFile {
            path,
            partition,
            partition_spec_id,
            layout,
            writer,
            nans,
            used: 0,
            buffered: 0,
            row_overhead,
            page_rows,
        })
    }

    /// Encodes rows; puts the row group when it is full.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.nans.add(batch);
        self.writer.write(batch).await.map_err(|error| failure(&self.path, error))?;
        self.buffered = self.memory_bytes();
        Ok(())
    }

    /// Puts the open row group, which frees its memory.
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|error| failure(&self.path, error))?;
        self.buffered = self.memory_bytes();
        Ok(())
    }

    /// Parquet's own account of this counts the capacity of every encoder's scratch space, a mebibyte a column, most of
    /// which is never touched; so this is worked out from what the rows need.
    fn memory_bytes(&self) -> usize {
        let in_page = self.writer.in_progress_rows().min(self.page_rows);
        self.writer.in_progress_size() + in_page * self.row_overhead
    }

    /// Compressed bytes: those put, and an estimate of those in the open row group.
    pub fn size_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Ends the file; once this returns it is durable.
    pub async fn close(mut self, options: &Options) -> Result<DataFile> {
        fail::fail_point!("write::before_close", |_| Err(Error::retry("failpoint write::before_close")));
        let parquet = self.writer.finish().await.map_err(|error| failure(&self.path, error))?;
        fail::fail_point!("write::after_put", |_| Err(Error::retry("failpoint write::after_put")));
        let place = Place {
            path: self.path,
            size_bytes: self.writer.bytes_written() as u64,
            partition: self.partition,
            partition_spec_id: self.partition_spec_id,
        };
        metrics::data_file(&parquet, &self.layout, &self.nans.counts, options, place)
    }
}

fn row_overhead(leaf: &Leaf, properties: &WriterProperties) -> usize {
    let levels = size_of::<i16>() * if leaf.repeated { 2 } else { 1 };
    let column = ColumnPath::new(leaf.parquet_path.clone());
    levels + if properties.dictionary_enabled(&column) { size_of::<u64>() } else { 0 }
}

/// An encoder that refuses its input will refuse it again; a store may work again later.
fn failure(path: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<ParquetError>() {
            // The writer wraps what its sink already wrapped.
            Ok(inner) => failure(path, *inner),
            Err(cause) => match cause.downcast::<iceberg::Error>() {
                Ok(error) => store_failure(path, *error),
                Err(cause) => Error::retry(format!("cannot write data file {path}: {cause}")),
            },
        },
        error => Error::halt(format!("cannot encode data file {path}: {error}")),
    }
}

fn store_failure(path: &str, error: iceberg::Error) -> Error {
    let message = format!("cannot write data file {path}: {}", error.message());
    if error.retryable() { Error::retry(message) } else { Error::halt(message) }
}
