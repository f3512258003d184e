//! An Iceberg table, as of one snapshot, as a table of DataFusion.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use iceberg::scan::FileScanTask;
use iceberg::spec::{NestedFieldRef, SchemaRef as IcebergSchemaRef, Type};
use iceberg::table::Table;

use super::filter::Columns;
use super::read::{FileReader, arrow_schema, external};
use super::scan::TableScan;

/// Which of a table's files are read.
#[derive(Clone, Debug)]
pub enum Files {
    /// All that are live in main's head, as the table was loaded.
    Current,
    /// All that were live in this snapshot, with the columns that the table had then.
    Snapshot(i64),
    /// These and no others, with the table's current columns.
    Given(Vec<FileScanTask>),
}

/// A table provider over some of a table's files.
#[derive(Debug)]
pub struct IcebergTable {
    table: Table,
    files: Files,
    schema: IcebergSchemaRef,
    arrow: SchemaRef,
}

impl IcebergTable {
    /// # Errors
    /// The snapshot is not in the table's metadata, or a column has a type or a default value that cannot be read.
    pub fn new(table: Table, files: Files) -> Result<Self> {
        let metadata = table.metadata();
        let schema = match files {
            Files::Snapshot(id) if Some(id) != metadata.current_snapshot_id() => {
                let snapshot = metadata.snapshot_by_id(id).ok_or_else(|| {
                    DataFusionError::Plan(format!(
                        "table {} has no snapshot {id}: it may have expired",
                        table.identifier()
                    ))
                })?;
                snapshot.schema(metadata).map_err(external)?
            }
            _ => metadata.current_schema().clone(),
        };
        if let Some(path) = with_default(schema.as_struct().fields()) {
            let table = table.identifier();
            return Err(DataFusionError::NotImplemented(format!(
                "column {path} of {table} has a default value for old rows, which calve does not read"
            )));
        }
        let arrow = arrow_schema(&schema)?;
        Ok(IcebergTable { table, files, schema, arrow })
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The snapshot's schema and files, planned under a predicate in that schema's names.
    async fn plan(&self, filters: &[Expr]) -> Result<(FileReader, Vec<FileScanTask>)> {
        let metadata = self.table.metadata();
        let snapshot = match self.files {
            Files::Current => metadata.current_snapshot(),
            Files::Snapshot(id) => metadata.snapshot_by_id(id),
            Files::Given(_) => None,
        };
        let scan_schema = match snapshot {
            Some(snapshot) => snapshot.schema(metadata).map_err(external)?,
            None => self.schema.clone(),
        };
        let predicate = Columns { query: &self.schema, scan: &scan_schema }.predicate(filters);
        let tasks = match (&self.files, snapshot) {
            (Files::Given(tasks), _) => tasks.clone(),
            (_, None) => vec![],
            (_, Some(snapshot)) => {
                let mut scan = self.table.scan().snapshot_id(snapshot.snapshot_id()).select_empty();
                if let Some(predicate) = &predicate {
                    scan = scan.with_filter(predicate.clone());
                }
                let tasks = scan.build().map_err(external)?.plan_files().await.map_err(external)?;
                tasks.try_collect().await.map_err(external)?
            }
        };
        let reader = FileReader {
            table: self.table.clone(),
            schema: self.arrow.clone(),
            predicate,
            predicate_schema: scan_schema,
        };
        Ok((reader, tasks))
    }
}

/// The path of the first column, at any depth, that reads as something else than null where a file lacks it.
fn with_default(fields: &[NestedFieldRef]) -> Option<String> {
    fields.iter().find_map(|field| {
        if field.initial_default.is_some() {
            return Some(field.name.clone());
        }
        let inner = match field.field_type.as_ref() {
            Type::Primitive(_) => None,
            Type::Struct(inner) => with_default(inner.fields()),
            Type::List(list) => with_default(std::slice::from_ref(&list.element_field)),
            Type::Map(map) => with_default(std::slice::from_ref(&map.value_field)),
        };
        inner.map(|path| format!("{}.{path}", field.name))
    })
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> SchemaRef {
        self.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let columns = Columns { query: &self.schema, scan: &self.schema };
        Ok(filters
            .iter()
            .map(|filter| match columns.predicate([*filter]) {
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (mut reader, mut tasks) = self.plan(filters).await?;
        if let Some(projection) = projection {
            reader.schema = Arc::new(self.arrow.project(projection)?);
        }
        if let Some(limit) = limit.filter(|_| tasks.iter().all(|task| task.deletes.is_empty())) {
            tasks = enough(tasks, limit);
        }
        Ok(Arc::new(TableScan::new(reader, tasks, state.config().target_partitions())))
    }
}

/// As many of the files as hold `rows` rows; a limit reaches a scan only when nothing above it drops rows.
fn enough(tasks: Vec<FileScanTask>, rows: usize) -> Vec<FileScanTask> {
    let mut missing = rows as u64;
    tasks
        .into_iter()
        .take_while(|task| {
            let wanted = missing > 0;
            missing = missing.saturating_sub(task.record_count.unwrap_or(0));
            wanted
        })
        .collect()
}
