//! One data file's rows, as the table's columns.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::{ArrowFileReader, arrow_schema_to_schema};
use iceberg::expr::Predicate;
use iceberg::io::FileMetadata;
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataFileFormat, SchemaRef as IcebergSchemaRef};
use iceberg::table::Table;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};

use super::project::{self, field_id};
use super::prune::Pruner;
use crate::catalog::vectors::Vectors;

/// How to read the files of one table for one scan.
#[derive(Clone, Debug)]
pub struct FileReader {
    pub table: Table,
    /// The columns to give, with their field ids.
    pub schema: SchemaRef,
    /// What rows must satisfy to be wanted, in the names of `predicate_schema`; a hint for skipping row groups.
    pub predicate: Option<Predicate>,
    pub predicate_schema: IcebergSchemaRef,
}

impl FileReader {
    /// The rows of a task in the file's order, less those that its delete files name.
    ///
    /// # Errors
    /// The file cannot be read, is not Parquet, or holds a type that the table's cannot have grown from; the message
    /// names the file.
    pub async fn read(self, task: FileScanTask, batch_rows: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let path = task.data_file_path.clone();
        let context = move |error: DataFusionError| error.context(format!("reading {path}"));
        if task.data_file_format != DataFileFormat::Parquet {
            let format = task.data_file_format;
            return Err(context(DataFusionError::NotImplemented(format!("data files of format {format}"))));
        }
        let stream = self.open(task, batch_rows).await.map_err(&context)?;
        Ok(stream.map_err(context).boxed())
    }

    async fn open(self, task: FileScanTask, batch_rows: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let input = self.table.file_io().new_input(&task.data_file_path).map_err(external)?;
        let size = FileMetadata { size: task.file_size_in_bytes };
        let mut file = ArrowFileReader::new(size, input.reader().await.map_err(external)?);
        // The Arrow schema that some writers embed may say dictionaries and views; Parquet's own types do not.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load_async(&mut file, options).await.map_err(external)?;
        if !task.deletes.is_empty() {
            return self.with_deletes(task, metadata.schema(), batch_rows);
        }

        let columns = metadata.schema().fields().clone();
        let leaves = project::leaves(&columns, self.schema.fields());
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves);
        let pruner = Pruner { schema: &self.predicate_schema, file: &columns };
        let groups = (0..metadata.metadata().num_row_groups())
            .filter(|index| {
                let group = metadata.metadata().row_group(*index);
                let first_byte = group.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0);
                let ours = task.start <= first_byte && first_byte < task.start + task.length;
                ours && self.predicate.as_ref().is_none_or(|predicate| pruner.may_match(predicate, group))
            })
            .collect();
        let schema = self.schema;
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_batch_size(batch_rows)
            .build()
            .map_err(external)?;
        Ok(batches.map_err(external).map(move |batch| Ok(project::project(&batch?, &schema)?)).boxed())
    }

    /// Foreign writers' delete files are applied by Iceberg's reader. It is asked for the columns as the *file* has
    /// them, because it follows neither renames nor additions below the top level; that is done here as for any file.
    fn with_deletes(
        self,
        mut task: FileScanTask,
        file: &SchemaRef,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let wanted: Vec<i32> = self.schema.fields().iter().filter_map(|field| field_id(field)).collect();
        if file.fields().iter().all(|field| field_id(field).is_some()) {
            let mut ids: Vec<i32> =
                file.fields().iter().filter_map(|field| field_id(field)).filter(|id| wanted.contains(id)).collect();
            if ids.is_empty() {
                ids.extend(file.fields().first().and_then(|field| field_id(field)));
            }
            task.schema = Arc::new(arrow_schema_to_schema(file).map_err(external)?);
            task.project_field_ids = ids;
        } else {
            task.schema = self.predicate_schema.clone();
            task.project_field_ids = wanted;
        }
        task.predicate = None;
        let vectors = Vectors::of(&self.table).map_err(external)?;
        let reader = vectors.reader_builder().with_data_file_concurrency_limit(1).with_batch_size(batch_rows).build();
        let tasks = futures::stream::once(async move { vectors.prepare(task).await }).boxed();
        let schema = self.schema;
        let batches = reader.read(tasks).map_err(external)?.stream();
        Ok(batches.map_err(external).map(move |batch| Ok(project::project(&batch?, &schema)?)).boxed())
    }
}

pub fn external(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DataFusionError {
    DataFusionError::External(error.into())
}

/// The Arrow schema that SQL sees of an Iceberg schema: Iceberg's own mapping, each field with its id.
pub fn arrow_schema(schema: &iceberg::spec::Schema) -> Result<SchemaRef> {
    let arrow = iceberg::arrow::schema_to_arrow_schema(schema).map_err(external)?;
    Ok(Arc::new(ArrowSchema::new(arrow.fields().iter().map(|field| plain(field)).collect::<Vec<_>>())))
}

/// Large offsets are Iceberg-rust's choice for `binary`; SQL's functions and writers all speak the plain type.
fn plain(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::LargeBinary => DataType::Binary,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain(field)).collect()),
        DataType::List(element) => DataType::List(Arc::new(plain(element))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(plain(entries)), *sorted),
        other => other.clone(),
    };
    let id = field.metadata().iter().filter(|(key, _)| *key == parquet::arrow::PARQUET_FIELD_ID_META_KEY);
    Field::new(field.name(), data_type, field.is_nullable())
        .with_metadata(id.map(|(key, value)| (key.clone(), value.clone())).collect())
}
