//! One open Parquet file: encodes rows into a row group in memory, streams finished row groups to the store.

use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::io::{FileIO, FileWrite};
use iceberg::spec::{DataFile, Struct};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::encode::Writer;
use super::layout::Layout;
use super::metrics::{self, Place};
use super::nan::Counter;
use super::options::Options;
use super::sort::Runs;
use crate::error::{Error, Result};

pub struct OpenFile {
    path: String,
    partition: Struct,
    partition_spec_id: i32,
    layout: Arc<Layout>,
    writer: Writer,
    /// The store's stream. Closing it is what makes the file durable.
    sink: Box<dyn FileWrite>,
    nans: Counter,
    /// Where the table has a sort order.
    runs: Option<Runs>,
    /// When it was last written to, in the table writer's count of writes.
    pub used: u64,
    /// Bytes of memory that the open row group holds, about.
    pub buffered: usize,
}

impl OpenFile {
    pub async fn create(
        file_io: &FileIO,
        path: String,
        (partition, partition_spec_id): (Struct, i32),
        layout: Arc<Layout>,
        properties: WriterProperties,
        runs: Option<Runs>,
    ) -> Result<OpenFile> {
        let sink = async { file_io.new_output(&path)?.writer().await };
        let sink = sink.await.map_err(|error| store_failure(&path, error))?;
        // The footer has no Arrow schema: it would only repeat, in another dialect, what the Parquet schema says.
        let writer = Writer::new(layout.arrow.clone(), properties).map_err(|error| failure(&path, error))?;
        let nans = Counter::new(&layout.arrow);
        Ok(OpenFile { path, partition, partition_spec_id, layout, writer, sink, nans, runs, used: 0, buffered: 0 })
    }

    /// Encodes rows; puts the row group when it is full.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.nans.add(batch);
        match &mut self.runs {
            None => {
                if self.writer.write(batch).map_err(|error| failure(&self.path, error))? {
                    self.put().await?;
                }
            }
            Some(runs) => {
                if runs.hold(batch.clone()) {
                    self.end_run().await?;
                }
            }
        }
        self.buffered = self.writer.memory_bytes() + self.held_bytes();
        Ok(())
    }

    /// Sorts the rows that are held back and puts them in row groups of their own.
    async fn end_run(&mut self) -> Result<()> {
        let Some(runs) = &mut self.runs else { return Ok(()) };
        let sorted = runs.take().map_err(|error| failure(&self.path, ParquetError::from(error)))?;
        if let Some(rows) = sorted {
            self.writer.write(&rows).map_err(|error| failure(&self.path, error))?;
            self.writer.end_group().map_err(|error| failure(&self.path, error))?;
            self.put().await?;
        }
        Ok(())
    }

    /// Puts the open row group, which frees its memory.
    pub async fn flush(&mut self) -> Result<()> {
        self.end_run().await?;
        self.writer.end_group().map_err(|error| failure(&self.path, error))?;
        self.put().await?;
        self.buffered = self.writer.memory_bytes();
        Ok(())
    }

    async fn put(&mut self) -> Result<()> {
        for piece in self.writer.take() {
            self.sink.write(piece).await.map_err(|error| store_failure(&self.path, error))?;
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.runs.as_ref().map_or(0, Runs::held_bytes)
    }

    /// Compressed bytes: those put, and an estimate of those in the open row group. Rows that are held back count as if
    /// they shrank to a quarter.
    pub fn size_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.encoded_bytes() + self.held_bytes() / 4) as u64
    }

    /// Ends the file; once this returns it is durable.
    pub async fn close(mut self, options: &Options) -> Result<DataFile> {
        fail::fail_point!("write::before_close", |_| Err(Error::retry("failpoint write::before_close")));
        self.end_run().await?;
        let parquet = self.writer.finish().map_err(|error| failure(&self.path, error))?;
        self.put().await?;
        self.sink.close().await.map_err(|error| store_failure(&self.path, error))?;
        fail::fail_point!("write::after_put", |_| Err(Error::retry("failpoint write::after_put")));
        let place = Place {
            path: self.path,
            size_bytes: self.writer.bytes_written() as u64,
            partition: self.partition,
            partition_spec_id: self.partition_spec_id,
            sort_order_id: self.runs.as_ref().map_or(0, Runs::sort_order_id),
        };
        metrics::data_file(&parquet, &self.layout, &self.nans.counts, options, place)
    }
}

/// An encoder that refuses its input will refuse it again.
fn failure(path: &str, error: ParquetError) -> Error {
    Error::halt(format!("cannot encode data file {path}: {error}"))
}

fn store_failure(path: &str, error: iceberg::Error) -> Error {
    let message = format!("cannot write data file {path}: {}", error.message());
    if error.retryable() { Error::retry(message) } else { Error::halt(message) }
}
