//! Which columns each data file lacks: those that came to the table after the file was written.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::{DataType, Fields, SchemaRef};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use iceberg::arrow::ArrowFileReader;
use iceberg::io::FileMetadata;
use iceberg::scan::FileScanTask;
use iceberg::table::Table;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use crate::query::field_id;

/// The different sets of lacking columns that were met, and which of them is each file's.
#[derive(Debug)]
pub struct Layouts {
    wanted: HashSet<i32>,
    /// Whether the table's columns ever changed: else no file lacks any, and none is asked.
    changed: bool,
    /// The columns that the table's first schema did not have.
    later: HashSet<i32>,
    known: Vec<HashSet<i32>>,
    files: HashMap<String, usize>,
}

impl Layouts {
    pub fn new(table: &Table, schema: &SchemaRef) -> Self {
        let wanted = ids(schema.fields());
        let first = table.metadata().schemas_iter().min_by_key(|schema| schema.schema_id());
        let is_later = |id: &i32| first.is_some_and(|first| first.field_by_id(*id).is_none());
        Layouts {
            later: wanted.iter().copied().filter(is_later).collect(),
            wanted,
            changed: table.metadata().schemas_iter().len() > 1,
            known: vec![HashSet::new()],
            files: HashMap::new(),
        }
    }

    /// The columns that came later and of which `filled` knows no value yet: rows of a file that was rewritten since
    /// have them as nulls.
    pub fn unfilled(&self, filled: &HashSet<i32>) -> HashSet<i32> {
        self.later.difference(filled).copied().collect()
    }

    /// The field ids that the files of this layout lack.
    pub fn lacking(&self, layout: usize) -> &HashSet<i32> {
        // The first layout lacks nothing.
        self.known.get(layout).unwrap_or(&self.known[0])
    }

    /// The layout of a file; reads its footer when it is met for the first time.
    pub async fn of(&mut self, table: &Table, task: &FileScanTask) -> Result<usize> {
        if !self.changed {
            return Ok(0);
        }
        if let Some(layout) = self.files.get(&task.data_file_path) {
            return Ok(*layout);
        }
        let lacking = self.read(table, task).await.map_err(|error| {
            DataFusionError::External(error).context(format!("reading the footer of {}", task.data_file_path))
        })?;
        let layout = match self.known.iter().position(|known| *known == lacking) {
            Some(layout) => layout,
            None => {
                self.known.push(lacking);
                self.known.len() - 1
            }
        };
        self.files.insert(task.data_file_path.clone(), layout);
        Ok(layout)
    }

    async fn read(
        &self,
        table: &Table,
        task: &FileScanTask,
    ) -> Result<HashSet<i32>, Box<dyn std::error::Error + Send + Sync>> {
        let input = table.file_io().new_input(&task.data_file_path)?;
        let mut file = ArrowFileReader::new(FileMetadata { size: task.file_size_in_bytes }, input.reader().await?);
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load_async(&mut file, options).await?;
        let has = ids(metadata.schema().fields());
        // A file without ids is one of another writer's, read by names; it is held to have what it should.
        Ok(if has.is_empty() { HashSet::new() } else { self.wanted.difference(&has).copied().collect() })
    }
}

/// The field ids at every depth.
fn ids(fields: &Fields) -> HashSet<i32> {
    let mut found = HashSet::new();
    let mut open: Vec<_> = fields.iter().collect();
    while let Some(field) = open.pop() {
        found.extend(field_id(field));
        match field.data_type() {
            DataType::Struct(fields) => open.extend(fields.iter()),
            DataType::List(element) | DataType::LargeList(element) | DataType::Map(element, _) => open.push(element),
            _ => {}
        }
    }
    found
}
