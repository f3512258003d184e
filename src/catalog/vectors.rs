//! Deletion vectors of tables of format version 3, for a reader that knows position deletes only.
//!
//! A Puffin file with vectors is shown to the reader as the Parquet file of position deletes that says the same. A
//! vector only grows and goes for its one data file, so a file's superseded vectors, which other data files may still
//! name the file for, delete nothing that the newer ones do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use iceberg::arrow::ArrowReaderBuilder;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use iceberg::puffin::{DELETION_VECTOR_V1, PuffinReader};
use iceberg::scan::FileScanTask;
use iceberg::table::Table;
use iceberg::{Error, ErrorKind, Result, Runtime};
use parquet::arrow::ArrowWriter;
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

/// In front of a vector: the length of what follows but for its checksum, big endian, and this.
const MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];
const CHECKSUM_BYTES: usize = 4;

const ROWS_AT_A_TIME: usize = 8192;

/// Reads a table's files, deletion vectors applied.
#[derive(Clone)]
pub struct Vectors {
    overlay: Overlay,
    runtime: Runtime,
}

impl Vectors {
    pub fn of(table: &Table) -> Result<Vectors> {
        let overlay = Overlay { below: Some(table.file_io().clone()), shown: Arc::default() };
        Ok(Vectors { overlay, runtime: Runtime::try_current()? })
    }

    /// A reader of tasks that [`Vectors::prepare`] has seen.
    pub fn reader_builder(&self) -> ArrowReaderBuilder {
        ArrowReaderBuilder::new(FileIOBuilder::new(Arc::new(self.overlay.clone())).build(), self.runtime.clone())
    }

    /// Loads the vectors that a task names.
    pub async fn prepare(&self, mut task: FileScanTask) -> Result<FileScanTask> {
        for delete in task.deletes.iter_mut().filter(|delete| delete.file_path.ends_with(".puffin")) {
            let known = self.overlay.shown(&delete.file_path);
            let shown = match known {
                Some(shown) => shown,
                None => {
                    let shown = as_position_deletes(self.overlay.below()?.new_input(&delete.file_path)?).await?;
                    self.overlay.show(&delete.file_path, shown.clone());
                    shown
                }
            };
            delete.file_size_in_bytes = shown.len() as u64;
        }
        Ok(task)
    }
}

async fn as_position_deletes(puffin: InputFile) -> Result<Bytes> {
    let path = puffin.location().to_owned();
    let bad = |what: String| Error::new(ErrorKind::DataInvalid, format!("deletion vectors in {path}: {what}"));
    let schema = Arc::new(Schema::new(vec![
        Field::new("file_path", DataType::Utf8, false),
        Field::new("pos", DataType::Int64, false),
    ]));
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).map_err(|error| bad(error.to_string()))?;
    let reader = PuffinReader::new(puffin);
    for metadata in reader.file_metadata().await?.blobs() {
        if metadata.blob_type() != DELETION_VECTOR_V1 {
            continue;
        }
        let blob = reader.blob(metadata).await?;
        let data_file =
            blob.properties().get("referenced-data-file").ok_or_else(|| bad("no data file is named".into()))?;
        let positions = vector(blob.data()).map_err(&bad)?;
        let mut positions = positions.iter().map(|position| position as i64).peekable();
        while positions.peek().is_some() {
            let rows: Int64Array = positions.by_ref().take(ROWS_AT_A_TIME).collect();
            let paths = StringArray::from_iter_values(std::iter::repeat_n(data_file, rows.values().len()));
            let columns: Vec<ArrayRef> = vec![Arc::new(paths), Arc::new(rows)];
            let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|error| bad(error.to_string()))?;
            writer.write(&batch).map_err(|error| bad(error.to_string()))?;
        }
    }
    writer.into_inner().map(Bytes::from).map_err(|error| bad(error.to_string()))
}

/// The positions of a vector's blob (spec, "Deletion vector v1").
fn vector(blob: &[u8]) -> std::result::Result<RoaringTreemap, String> {
    let (length, rest) = blob.split_first_chunk::<4>().ok_or("it is cut off")?;
    let length = u32::from_be_bytes(*length) as usize;
    if rest.len() != length + CHECKSUM_BYTES {
        return Err(format!("it says {length} bytes and has {}", rest.len()));
    }
    let bitmap = rest[..length].strip_prefix(&MAGIC[..]).ok_or("it does not begin as one")?;
    RoaringTreemap::deserialize_from(bitmap).map_err(|error| error.to_string())
}

/// A table's files, some of them shown with other contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Overlay {
    #[serde(skip)]
    below: Option<FileIO>,
    #[serde(skip)]
    shown: Arc<Mutex<HashMap<String, Bytes>>>,
}

impl Overlay {
    fn below(&self) -> Result<&FileIO> {
        self.below.as_ref().ok_or_else(|| Error::new(ErrorKind::Unexpected, "the overlay has lost its files"))
    }

    fn shown(&self, location: &str) -> Option<Bytes> {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get(location).cloned()
    }

    fn show(&self, location: &str, bytes: Bytes) {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(location.to_owned(), bytes);
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::FeatureUnsupported, "a reader writes no files")
}

struct Shown(Bytes);

#[async_trait]
impl FileRead for Shown {
    async fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

#[async_trait]
#[typetag::serde(name = "calve_overlay")]
impl Storage for Overlay {
    async fn exists(&self, location: &str) -> Result<bool> {
        match self.shown(location) {
            Some(_) => Ok(true),
            None => self.below()?.exists(location).await,
        }
    }

    async fn metadata(&self, location: &str) -> Result<FileMetadata> {
        match self.shown(location) {
            Some(bytes) => Ok(FileMetadata { size: bytes.len() as u64 }),
            None => self.below()?.new_input(location)?.metadata().await,
        }
    }

    async fn read(&self, location: &str) -> Result<Bytes> {
        match self.shown(location) {
            Some(bytes) => Ok(bytes),
            None => self.below()?.new_input(location)?.read().await,
        }
    }

    async fn reader(&self, location: &str) -> Result<Box<dyn FileRead>> {
        match self.shown(location) {
            Some(bytes) => Ok(Box::new(Shown(bytes))),
            None => self.below()?.new_input(location)?.reader().await,
        }
    }

    async fn write(&self, _: &str, _: Bytes) -> Result<()> {
        Err(read_only())
    }

    async fn writer(&self, _: &str) -> Result<Box<dyn FileWrite>> {
        Err(read_only())
    }

    async fn delete(&self, _: &str) -> Result<()> {
        Err(read_only())
    }

    async fn delete_prefix(&self, _: &str) -> Result<()> {
        Err(read_only())
    }

    async fn delete_stream(&self, _: BoxStream<'static, String>) -> Result<()> {
        Err(read_only())
    }

    fn new_input(&self, location: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), location.to_owned()))
    }

    fn new_output(&self, _: &str) -> Result<OutputFile> {
        Err(read_only())
    }
}

#[typetag::serde(name = "calve_overlay_factory")]
impl StorageFactory for Overlay {
    fn build(&self, _: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_what_it_says_or_refused() {
        let positions: RoaringTreemap = [0, 7, 1 << 33].into_iter().collect();
        let mut bitmap = MAGIC.to_vec();
        positions.serialize_into(&mut bitmap).unwrap();
        let blob = [&(bitmap.len() as u32).to_be_bytes()[..], &bitmap, &[0; CHECKSUM_BYTES]].concat();
        assert_eq!(vector(&blob).unwrap(), positions);
        for damaged in [&blob[..3], &blob[..blob.len() - 1], &[blob.as_slice(), &[0]].concat()] {
            vector(damaged).unwrap_err();
        }
        let mut other = blob.clone();
        other[4] = 0;
        assert_eq!(vector(&other).unwrap_err(), "it does not begin as one");
    }
}
