//! The physical scan of a table: planned files dealt to partitions that are read in parallel.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use iceberg::scan::FileScanTask;

use super::read::FileReader;
use super::split::split;

/// How many files of a partition are opened ahead of the one that is being read.
const OPEN_AHEAD: usize = 2;

/// A scan of planned files; each partition reads its own, one after another.
#[derive(Debug)]
pub struct TableScan {
    reader: FileReader,
    partitions: Vec<Vec<FileScanTask>>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    files: usize,
}

impl TableScan {
    const NAME: &str = "TableScan";

    /// Shares out `tasks` among about `partitions` streams.
    pub fn new(reader: FileReader, tasks: Vec<FileScanTask>, partitions: usize) -> Self {
        let statistics = Arc::new(statistics(&reader, &tasks));
        let files = tasks.len();
        let partitions = split(tasks, partitions);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(reader.schema.clone()),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        TableScan { reader, partitions, statistics, properties, metrics: ExecutionPlanMetricsSet::new(), files }
    }

    /// How many data files are read, after pruning.
    pub fn files(&self) -> usize {
        self.files
    }
}

/// The row count is exact when no filter and no delete file stands between the manifests and the answer.
fn statistics(reader: &FileReader, tasks: &[FileScanTask]) -> Statistics {
    let rows = tasks.iter().map(|task| task.record_count.and_then(|rows| usize::try_from(rows).ok())).sum();
    let exact = reader.predicate.is_none() && tasks.iter().all(|task| task.deletes.is_empty());
    let bytes = tasks.iter().map(|task| task.length).sum::<u64>();
    let mut statistics = Statistics::new_unknown(&reader.schema);
    statistics.num_rows = match rows {
        Some(rows) if exact => Precision::Exact(rows),
        Some(rows) => Precision::Inexact(rows),
        None => Precision::Absent,
    };
    statistics.total_byte_size = usize::try_from(bytes).map_or(Precision::Absent, Precision::Inexact);
    statistics
}

impl DisplayAs for TableScan {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::TreeRender => writeln!(f, "table={}", self.reader.table.identifier()),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "TableScan: table={}, files={}", self.reader.table.identifier(), self.files)?;
                let columns: Vec<&str> =
                    self.reader.schema.fields().iter().map(|field| field.name().as_str()).collect();
                write!(f, ", columns=[{}]", columns.join(", "))?;
                if let Some(predicate) = &self.reader.predicate {
                    write!(f, ", pruned by {predicate}")?;
                }
                Ok(())
            }
        }
    }
}

impl ExecutionPlan for TableScan {
    fn name(&self) -> &str {
        TableScan::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("a table scan has no children");
        }
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(tasks) = self.partitions.get(partition) else {
            return internal_err!("partition {partition} of {}", self.partitions.len());
        };
        let reader = self.reader.clone();
        let batch_rows = context.session_config().batch_size();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = futures::stream::iter(tasks.clone())
            .map(move |task| reader.clone().read(task, batch_rows))
            .buffered(OPEN_AHEAD)
            .try_flatten()
            .inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema_ref(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        match partition {
            None => Ok(self.statistics.clone()),
            Some(index) => {
                let tasks = self.partitions.get(index).map(Vec::as_slice).unwrap_or_default();
                Ok(Arc::new(statistics(&self.reader, tasks)))
            }
        }
    }
}

impl TableScan {
    fn schema_ref(&self) -> SchemaRef {
        self.reader.schema.clone()
    }
}

/// How far the scans of a plan under way are, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    pub rows: u64,
    /// Of files, estimated by the rows.
    pub bytes: u64,
    /// What the files hold; filters may leave out some of it.
    pub rows_total: u64,
}

impl Scanned {
    pub fn of(plan: &dyn ExecutionPlan) -> Scanned {
        let mut sum = Scanned::default();
        if plan.name() == TableScan::NAME {
            let rows = plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0) as u64;
            let (mut rows_total, mut bytes_total) = (0, 0);
            if let Ok(statistics) = plan.partition_statistics(None) {
                rows_total = statistics.num_rows.get_value().copied().unwrap_or(0) as u64;
                bytes_total = statistics.total_byte_size.get_value().copied().unwrap_or(0) as u64;
            }
            let bytes = u128::from(bytes_total) * u128::from(rows) / u128::from(rows_total.max(1));
            sum = Scanned { rows, bytes: bytes as u64, rows_total };
        }
        plan.children().iter().map(|child| Scanned::of(child.as_ref())).fold(sum, |sum, below| Scanned {
            rows: sum.rows + below.rows,
            bytes: sum.bytes + below.bytes,
            rows_total: sum.rows_total + below.rows_total,
        })
    }
}
