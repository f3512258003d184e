//! One run of a model: new rows of its source in, files and watermark out in one fenced commit.
//!
//! | killed | target afterwards | the next run |
//! |---|---|---|
//! | while reading or writing | unchanged, perhaps orphan files | reads the same delta again |
//! | commit sent, answer lost | changed or not | finds its run id, or its watermark moved |
//! | after the commit | changed | starts behind it |

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use iceberg::spec::{Operation, Schema, SortOrder};
use iceberg::table::Table;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::delta::{self, Delta};
use super::maintain::row_wise;
use super::model::{Model, Read};
use super::schema;
use super::state::{self, Found, RefreshState, Run, SourceState};
use crate::catalog::{self, Catalog};
use crate::commit::{self, Change, Committer, Published, SchemaChange};
use crate::config::TableName;
use crate::error::{Error, Result};
use crate::query::{Engine, Files, IcebergTable, Scanned, arrow_schema, conform, one_line, plan};
use crate::telemetry::Metrics;
use crate::telemetry::progress::{Progress, Sample};
use crate::write::{Limits, TableWriter};

/// How often a run starts again because somebody else committed to its target meanwhile.
const CONFLICTS_MAX: usize = 10;

/// A watermark that lags this many snapshots behind is moved even without new rows, so that expiry of the source's
/// history does not overtake it.
const WATERMARK_SNAPSHOTS_MAX: usize = 16;

/// New rows of one commit: a longer delta is cut at the end of a source snapshot, and the next run goes on from there.
const DELTA_BYTES_MAX: u64 = 1 << 30;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing came since the last run.
    UpToDate,
    Committed {
        snapshot_id: i64,
        run_id: Uuid,
        rows_in: u64,
        rows_out: u64,
        /// The delta was cut; there is more to do.
        more: bool,
    },
}

/// What a run would do, told from metadata alone.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Files, rows and bytes that are new to the target.
    pub files: usize,
    pub rows: u64,
    pub bytes: u64,
    /// The target does not exist yet.
    pub creates: bool,
    /// Paths of columns that the target gets.
    pub added: Vec<String>,
    /// Columns that the query no longer gives.
    pub gone: Vec<String>,
    /// The definition is not the one that the target was last refined with.
    pub changed: bool,
    pub watermark: Option<i64>,
}

/// Runs models against the catalog of the engine's unqualified names.
#[derive(Clone, Debug)]
pub struct Runner {
    engine: Engine,
    limits: Limits,
    delta_bytes_max: u64,
    /// Where commits are counted, and runs shown.
    pub(super) metrics: Option<Arc<Metrics>>,
    pub(super) progress: Progress,
}

/// A source as the run pinned it.
struct Pinned {
    name: TableName,
    table: Table,
    read: Read,
}

/// Everything that a run reads, pinned; nothing after this looks at a head again, but for the fence.
struct Pins {
    catalog: Arc<dyn Catalog>,
    target: Option<Table>,
    found: Option<Found>,
    sources: Vec<Pinned>,
    delta: Delta,
}

impl Runner {
    pub fn new(engine: Engine) -> Self {
        Runner {
            engine,
            limits: Limits::default(),
            delta_bytes_max: DELTA_BYTES_MAX,
            metrics: None,
            progress: Progress::default(),
        }
    }

    /// Cuts deltas at about this many bytes of data files.
    #[must_use]
    pub fn with_delta_bytes_max(mut self, bytes: u64) -> Self {
        self.delta_bytes_max = bytes;
        self
    }

    /// Bounds what a run holds of its result before it is put.
    #[must_use]
    pub fn with_buffered_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.buffered_bytes_max = bytes;
        self.limits.row_group_bytes_max = self.limits.row_group_bytes_max.min(bytes);
        self
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Brings the target up to its source, by one commit at most.
    ///
    /// # Errors
    /// Passing ones leave the target as it was and may be tried again: a source that does not exist yet, a catalog that
    /// does not answer, `stop`. Others need a person; see [`delta::since`], [`state::read`] and [`schema::evolve`].
    pub async fn run(&self, model: &Model, stop: &CancellationToken) -> Result<Outcome> {
        let mut conflicts = 0;
        loop {
            match self.attempt(model, stop).await.map_err(|error| of(model, error))? {
                Some(outcome) => return Ok(outcome),
                None if conflicts < CONFLICTS_MAX => conflicts += 1,
                None => {
                    return Err(Error::retry(format!(
                        "refinement {}: others committed to the target during each of {CONFLICTS_MAX} runs",
                        model.target
                    )));
                }
            }
        }
    }

    /// What [`Runner::run`] would do. Reads manifests, no data.
    ///
    /// # Errors
    /// Those that the run would meet before it reads data.
    pub async fn preview(&self, model: &Model) -> Result<Preview> {
        let preview = async {
            let pins = self.pin(model).await?;
            let frame = self.frame(model, &pins).await?;
            let wanted = self.wanted(model, pins.target.as_ref(), &frame)?;
            let Pins { delta, found, .. } = &pins;
            Ok(Preview {
                files: delta.files.len(),
                rows: delta.rows,
                bytes: delta.bytes,
                creates: pins.target.is_none(),
                added: if pins.target.is_none() { vec![] } else { wanted.added },
                gone: wanted.gone,
                changed: found
                    .as_ref()
                    .is_some_and(|found| found.hash.as_ref().is_some_and(|hash| *hash != model.hash)),
                watermark: watermark(model, found.as_ref()),
            })
        };
        preview.await.map_err(|error| of(model, error))
    }

    /// The newest run that the target's history has; `None` for a target without one.
    ///
    /// # Errors
    /// As [`state::read`], and the catalog's.
    pub async fn last_run(&self, model: &Model) -> Result<Option<Found>> {
        let catalog = self.catalog().await?;
        match load(&catalog, &model.target).await? {
            Some(table) => state::read(&model.target.to_string(), table.metadata()),
            None => Ok(None),
        }
    }

    /// `None`: somebody else committed to the target; what was staged is deleted.
    async fn attempt(&self, model: &Model, stop: &CancellationToken) -> Result<Option<Outcome>> {
        let pins = self.pin(model).await?;
        let frame = self.frame(model, &pins).await?;
        let wanted = self.wanted(model, pins.target.as_ref(), &frame)?;
        let (target, schema, change) = match &pins.target {
            None => {
                let table = self.create(model, &pins.catalog, wanted.schema).await?;
                let schema = table.metadata().current_schema().clone();
                (table, schema, None)
            }
            Some(table) if wanted.added.is_empty() => (table.clone(), table.metadata().current_schema().clone(), None),
            Some(table) => {
                tracing::info!(target = %model.target, columns = wanted.added.join(", "), "the target gets new columns");
                let change = SchemaChange {
                    base_schema_id: table.metadata().current_schema_id(),
                    schema: wanted.schema.clone(),
                    properties: Default::default(),
                };
                (table.clone(), Arc::new(wanted.schema), Some(change))
            }
        };
        let Pins { delta, found, .. } = &pins;
        let due = !delta.files.is_empty() || delta.passed_over > 0 || delta.snapshots >= WATERMARK_SNAPSHOTS_MAX;
        if !due {
            return Ok(Some(Outcome::UpToDate));
        }
        if pins.target.is_none() && target.metadata().current_snapshot().is_some() {
            // Somebody made and filled it in the same moment.
            return Ok(None);
        }
        if let Some(before) = found.as_ref().and_then(|found| found.hash.as_ref())
            && *before != model.hash
        {
            tracing::info!(target = %model.target, "the definition changed; rows from now on follow the new one");
        }

        let head = target.metadata().current_snapshot_id();
        let staged = self.write(model, frame, &target, &schema, stop).await?;
        let run = Run {
            model: model.target.clone(),
            hash: model.hash.clone(),
            id: Uuid::now_v7(),
            mode: model.mode,
            rows_in: delta.rows,
            rows_out: staged.iter().map(|file| file.record_count()).sum(),
            state: RefreshState {
                source_states: pins.sources.iter().map(|source| source.state(delta)).collect(),
                refresh_start_timestamp_ms: chrono::Utc::now().timestamp_millis(),
            },
        };
        fail::fail_point!("refine::before_commit", |_| Err(Error::retry("failpoint refine::before_commit")));
        let ident = target.identifier().clone();
        let mut committer = Committer::open_target(pins.catalog.clone(), &ident).await?;
        if let Some(metrics) = &self.metrics {
            committer = committer.counted_in(metrics.table(&model.target.to_string()));
        }
        let change = Change {
            run_id: run.id,
            operation: Operation::Append,
            files: staged.clone(),
            spec_id: target.metadata().default_partition_spec_id(),
            schema: change,
            summary: run.summary().into_iter().collect(),
            properties: [run.mirror()].into(),
        };
        let published = committer.publish(head, &change).await;
        if let Ok(Published::Conflict { .. }) = published {
            committer.discard(run.id, &staged).await;
        }
        committer.close().await;
        fail::fail_point!("refine::after_commit", |_| Err(Error::retry("failpoint refine::after_commit")));
        match published {
            Ok(Published::Committed { snapshot_id }) => Ok(Some(Outcome::Committed {
                snapshot_id,
                run_id: run.id,
                rows_in: run.rows_in,
                rows_out: run.rows_out,
                more: delta.more,
            })),
            Ok(Published::Conflict { head }) => {
                tracing::info!(target = %model.target, ?head, "somebody else committed to the target, the run starts again");
                Ok(None)
            }
            // Whether the files are part of the table is not known, so they stay; the next run finds out.
            Err(error) => Err(error),
        }
    }

    async fn catalog(&self) -> Result<Arc<dyn Catalog>> {
        let name = self.engine.catalog_default();
        self.engine.catalogs().get(name).await.map_err(|error| catalog_error(&format!("catalog {name}"), error))
    }

    /// Target first, then sources: what is committed to a source after this is left to the next run.
    async fn pin(&self, model: &Model) -> Result<Pins> {
        let catalog = self.catalog().await?;
        let target = load(&catalog, &model.target).await?;
        let found = match &target {
            Some(table) => state::read(&model.target.to_string(), table.metadata())?,
            None => None,
        };
        let mut sources = Vec::new();
        let mut delta = Delta::default();
        for (name, source) in &model.sources {
            let Some(table) = load(&catalog, name).await? else {
                return Err(Error::retry(format!("the source table {name} does not exist yet")));
            };
            let before = found.as_ref().and_then(|found| found.state.source(name));
            if let Some(before) = before
                && before.uuid != table.metadata().uuid()
            {
                return Err(Error::halt(format!(
                    "the source table {name} was dropped and created again (uuid {} before, {} now): its rows may be the \
                     same or not; drop the target to refine everything anew",
                    before.uuid,
                    table.metadata().uuid()
                )));
            }
            if source.read == Read::Delta {
                let from = before.and_then(|before| before.snapshot_id);
                if found.is_some() && before.is_none() {
                    return Err(Error::halt(format!(
                        "the target was refined from other tables so far, not from {name}; drop it to refine everything \
                         anew, or write the new refinement to another table"
                    )));
                }
                delta = delta::since(&table, from, self.delta_bytes_max, source.on_overwrite).await?;
            }
            sources.push(Pinned { name: name.clone(), table, read: source.read });
        }
        Ok(Pins { catalog, target, found, sources, delta })
    }

    /// The model's query over the delta and the pinned snapshots.
    async fn frame(&self, model: &Model, pins: &Pins) -> Result<DataFrame> {
        let sources = pins.sources.iter().map(|source| {
            let files = match source.read {
                Read::Delta => Files::Given(pins.delta.files.clone()),
                Read::Snapshot => Files::Current,
            };
            let provider =
                IcebergTable::new(source.table.clone(), files).map_err(|error| query_error(model, &error))?;
            Ok((source.name.clone(), Arc::new(provider) as Arc<dyn TableProvider>))
        });
        query(&self.engine, model, sources.collect::<Result<_>>()?).await
    }

    fn wanted(&self, model: &Model, target: Option<&Table>, frame: &DataFrame) -> Result<schema::Wanted> {
        let metadata = target.map(Table::metadata);
        schema::evolve(
            metadata.map(|metadata| metadata.current_schema().as_ref()),
            metadata.map_or(0, |metadata| metadata.last_column_id()),
            frame.schema().fields(),
            model.on_schema_change,
        )
        .map_err(|why| Error::halt(format!("{}:{}: {why}", model.file, model.sql_line)))
    }

    async fn create(&self, model: &Model, catalog: &Arc<dyn Catalog>, schema: Schema) -> Result<Table> {
        let partition_spec =
            partition_spec(model, &schema).map_err(|why| Error::halt(format!("{}: {why}", model.file)))?;
        let mut properties = std::collections::HashMap::from([(state::MODEL.to_owned(), model.file.clone())]);
        if let Some(description) = &model.description {
            properties.insert("comment".to_owned(), description.clone());
        }
        let wanted = commit::create::Wanted {
            schema,
            partition_spec,
            partitions_may_go: false,
            sort_order: SortOrder::unsorted_order(),
            properties,
            mapping: None,
            first_snapshot: false,
        };
        commit::create::ensure_table(catalog, &catalog::ident(&model.target)?, wanted).await
    }

    /// Executes the query into data files; on any failure those that were put are deleted.
    async fn write(
        &self,
        model: &Model,
        frame: DataFrame,
        target: &Table,
        schema: &iceberg::spec::SchemaRef,
        stop: &CancellationToken,
    ) -> Result<Vec<iceberg::spec::DataFile>> {
        let columns: SchemaRef = arrow_schema(schema).map_err(|error| query_error(model, &error))?;
        let mut writer = TableWriter::with_schema(target, schema.clone(), self.limits)?;
        let written = async {
            let (context, failed) = (Arc::new(frame.task_ctx()), |error| query_error(model, &error));
            let plan = frame.create_physical_plan().await.map_err(failed)?;
            let mut batches = execute_stream(plan.clone(), context).map_err(failed)?;
            let _shown = self.progress.watch(format!("refining {}", model.target), move || read_so_far(&*plan));
            loop {
                let batch = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(Error::retry("stopped before it was done")),
                    batch = batches.next() => batch,
                };
                let Some(batch) = batch else { return Ok(()) };
                let batch = batch.map_err(|error| query_error(model, &error))?;
                let batch = conform(&batch, &columns)
                    .map_err(|error| Error::halt(format!("a row of the result does not fit the table: {error}")))?;
                writer.write(batch).await?;
                fail::fail_point!("refine::writing", |_| Err(Error::retry("failpoint refine::writing")));
            }
        };
        if let Err(error) = written.await {
            writer.abort().await;
            return Err(error);
        }
        let staged = writer.finish().await?;
        fail::fail_point!("refine::written", |_| Err(Error::retry("failpoint refine::written")));
        Ok(staged.files)
    }
}

impl Pinned {
    fn state(&self, delta: &Delta) -> SourceState {
        let head = self.table.metadata().current_snapshot_id();
        SourceState {
            kind: "table".to_owned(),
            namespace: self.name.namespace.clone(),
            name: self.name.name.clone(),
            uuid: self.table.metadata().uuid(),
            snapshot_id: match self.read {
                Read::Delta => delta.to,
                Read::Snapshot => head,
            },
        }
    }
}

fn read_so_far(plan: &dyn ExecutionPlan) -> Sample {
    let Scanned { rows, bytes, rows_total } = Scanned::of(plan);
    Sample { records: rows, bytes, lag: Some(rows_total.saturating_sub(rows)) }
}

/// Plans a model's query over the given tables and checks that mode append can maintain it.
pub async fn query(
    engine: &Engine,
    model: &Model,
    tables: BTreeMap<TableName, Arc<dyn TableProvider>>,
) -> Result<DataFrame> {
    let halt = |error: DataFusionError| query_error(model, &error);
    let catalog = MemoryCatalogProvider::new();
    for (name, table) in tables {
        let namespace = name.namespace.join(".");
        let schema = match catalog.schema(&namespace) {
            Some(schema) => schema,
            None => {
                let schema: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                catalog.register_schema(&namespace, schema.clone()).map_err(halt)?;
                schema
            }
        };
        schema.register_table(name.name, table).map_err(halt)?;
    }
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(engine.catalog_default().to_owned(), Arc::new(catalog));
    let session = engine.session_over(Arc::new(catalogs));
    let frame = named(plan(&session, &model.sql).await.map_err(halt)?).map_err(halt)?;
    if let Some((delta, _)) = model.delta_source() {
        let delta = TableReference::partial(delta.namespace.join("."), delta.name.clone());
        row_wise(frame.logical_plan(), &delta).map_err(|why| {
            Error::halt(format!(
                "{}:{}: the SQL {why}; mode append takes each new row by itself",
                model.file, model.sql_line
            ))
        })?;
    }
    Ok(frame)
}

/// A field of a struct that is selected without AS takes the field's name, `sku` for `line.sku`, as in other engines.
fn named(frame: DataFrame) -> datafusion::common::Result<DataFrame> {
    let last = |name: &str| Some(name.strip_suffix(']')?.rsplit_once('[')?.1.to_owned());
    if frame.schema().fields().iter().all(|field| last(field.name()).is_none()) {
        return Ok(frame);
    }
    let columns: Vec<Expr> = frame
        .schema()
        .columns()
        .into_iter()
        .map(|column| match last(&column.name) {
            Some(name) => Expr::Column(column).alias(name),
            None => Expr::Column(column),
        })
        .collect();
    frame.select(columns)
}

/// The model's partition fields on the target's columns.
///
/// # Errors
/// Fields that do not parse or name no column, in one line.
pub fn partition_spec(
    model: &Model,
    schema: &Schema,
) -> std::result::Result<iceberg::spec::UnboundPartitionSpec, String> {
    crate::schema::partition::parse(&model.partition_by, schema).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
        faults.join("; ")
    })
}

fn watermark(model: &Model, found: Option<&Found>) -> Option<i64> {
    let (delta, _) = model.delta_source()?;
    found?.state.source(delta)?.snapshot_id
}

async fn load(catalog: &Arc<dyn Catalog>, table: &TableName) -> Result<Option<Table>> {
    match catalog.load(&catalog::ident(table)?).await {
        Ok(table) => Ok(Some(table)),
        Err(catalog::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(catalog_error(&format!("table {table}"), error)),
    }
}

fn catalog_error(what: &str, error: catalog::Error) -> Error {
    let message = format!("{what}: {error}");
    match error {
        catalog::Error::Unavailable(_) | catalog::Error::Unknown(_) | catalog::Error::Conflict(_) => {
            Error::retry(message)
        }
        _ => Error::halt(message),
    }
}

fn of(model: &Model, error: Error) -> Error {
    Error { message: format!("refinement {}: {}", model.target, error.message), ..error }
}

/// Storage that does not answer passes; SQL that fails on its data fails again.
fn query_error(model: &Model, error: &DataFusionError) -> Error {
    let message = format!("{}:{}: {}", model.file, model.sql_line, one_line(error));
    match error.find_root() {
        DataFusionError::IoError(_) => Error::retry(message),
        DataFusionError::External(cause) => match cause.downcast_ref::<iceberg::Error>() {
            Some(cause) if cause.kind() == iceberg::ErrorKind::Unexpected => Error::retry(message),
            _ => Error::halt(message),
        },
        DataFusionError::ResourcesExhausted(_) => {
            Error::halt(format!("{message}; give the daemon more memory (memory_limit)"))
        }
        _ => Error::halt(message),
    }
}
