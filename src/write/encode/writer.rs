//! A Parquet file as it is written: the open row group in memory, what is complete ready to be put.

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::codec::Codec;
use super::column::Column;
use super::levels;

pub struct Writer {
    schema: SchemaRef,
    file: SerializedFileWriter<Pieces>,
    /// Of the open row group, by leaf.
    columns: Vec<Column>,
    rows: usize,
    codec: Codec,
}

impl Writer {
    /// A file with the schema's columns. Chunks are compressed as the properties say for all columns.
    pub fn new(schema: SchemaRef, properties: WriterProperties) -> Result<Writer> {
        let parquet = ArrowSchemaConverter::new().with_coerce_types(properties.coerce_types()).convert(&schema)?;
        let codec = Codec::new(properties.compression(&ColumnPath::new(Vec::new())))?;
        let file = SerializedFileWriter::new(Pieces::default(), parquet.root_schema_ptr(), Arc::new(properties))?;
        let mut writer = Writer { schema, file, columns: Vec::new(), rows: 0, codec };
        writer.columns = writer.group()?;
        Ok(writer)
    }

    fn group(&self) -> Result<Vec<Column>> {
        let columns = self.file.schema_descr().columns().iter();
        columns.map(|column| Column::new(column.clone(), self.file.properties())).collect()
    }

    /// Encodes rows; ends the row group when it is full, and tells whether it did.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        let mut ended = false;
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let rows = rest.num_rows().min(self.room());
            self.append(&rest.slice(0, rows))?;
            rest = rest.slice(rows, rest.num_rows() - rows);
            if self.room() == 0 {
                self.end_group()?;
                ended = true;
            }
        }
        Ok(ended)
    }

    /// Rows that still fit into the row group, as far as those that it has can tell.
    fn room(&self) -> usize {
        let properties = self.file.properties();
        let rows = properties.max_row_group_row_count().unwrap_or(usize::MAX).saturating_sub(self.rows);
        match (properties.max_row_group_bytes(), self.encoded_bytes()) {
            (Some(limit), bytes) if self.rows > 0 && bytes > 0 => {
                rows.min(limit.saturating_sub(bytes).div_ceil(bytes.div_ceil(self.rows)))
            }
            _ => rows,
        }
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            levels::leaves(field, array, &mut |leaf| {
                let missing = || ParquetError::General("a batch has more columns than the file".into());
                columns.next().ok_or_else(missing)?.write(leaf, &mut self.codec)
            })?;
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Ends the open row group, if it has rows.
    pub fn end_group(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns = std::mem::take(&mut self.columns);
        let mut group = self.file.next_row_group()?;
        for column in columns {
            let (bytes, close) = column.close(&mut self.codec)?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        self.rows = 0;
        self.columns = self.group()?;
        Ok(())
    }

    /// Ends the file; what is left of it can be taken then.
    pub fn finish(&mut self) -> Result<ParquetMetaData> {
        self.end_group()?;
        self.file.finish()
    }

    /// Takes what is complete, in pieces.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut pieces = std::mem::take(self.file.inner_mut());
        pieces.end();
        pieces.full
    }

    /// Bytes of the file up to the open row group.
    pub fn bytes_written(&self) -> usize {
        self.file.bytes_written()
    }

    /// Bytes that the open row group would take, about.
    pub fn encoded_bytes(&self) -> usize {
        self.columns.iter().map(Column::encoded_bytes).sum()
    }

    /// Bytes of memory that the open row group holds.
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(Column::memory_bytes).sum()
    }
}

const PIECE_BYTES_MIN: usize = 64 << 10;
const PIECE_BYTES_MAX: usize = 1 << 20;

/// What is complete of a file. A row group comes into it column by column, each of which is let go then: so there must be
/// no buffer that takes room for all of it at once.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    fn end(&mut self) {
        if !self.last.is_empty() {
            self.full.push(std::mem::take(&mut self.last).into());
        }
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.last.len() + bytes.len() > self.last.capacity() {
            let room = (self.last.capacity() * 2).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX).max(bytes.len());
            self.end();
            self.last = Vec::with_capacity(room);
        }
        self.last.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
