//! When models run: after a commit to what they read, in order, each at most once at a time.
//!
//! Triggers coalesce: however many commits arrive while a model runs or waits for its `min_interval`, one run takes all
//! their rows. A model that fails is tried again, ever more slowly; until it succeeds the models downstream of it are
//! held, and all others go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::graph::Graph;
use super::model::Model;
use super::run::{self, Outcome, Runner};
use super::schema;
use crate::config::{Fault, Faults, Project, TableName};
use crate::error::Error;
use crate::query::{Engine, arrow_schema};
use crate::telemetry::{Metrics, Progress};

/// Of `memory_limit`: what sorts and joins hold, all models together, and what a run buffers for its files. Most of the
/// limit is for what is read from Kafka.
const QUERY_PERCENT: u64 = 15;
const WRITE_PERCENT: u64 = 10;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The refinements of a project. Clones share their state.
#[derive(Clone)]
pub struct Refinements {
    shared: Arc<Shared>,
}

struct Shared {
    graph: Graph,
    runner: Runner,
    metrics: Option<Arc<Metrics>>,
    /// By target; every model of the graph has one.
    models: Mutex<BTreeMap<TableName, State>>,
    /// Held while a model runs, whoever asked for the run.
    running: BTreeMap<TableName, tokio::sync::Mutex<()>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// A source has been committed to since the last run began.
    dirty: bool,
    running: bool,
    /// Not before this.
    due: Option<Instant>,
    failures: u32,
    error: Option<String>,
    /// The model whose failure holds this one.
    held_by: Option<TableName>,
    last_run: Option<chrono::DateTime<chrono::Utc>>,
    rows_in: u64,
    rows_out: u64,
}

/// What came of a model when it was its turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub target: String,
    #[serde(flatten)]
    pub result: Ran,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Ran {
    UpToDate,
    /// Over all commits that it took.
    Committed {
        commits: u32,
        rows_in: u64,
        rows_out: u64,
    },
    Failed {
        error: String,
    },
    /// Not run, because a model upstream failed.
    Held {
        by: String,
    },
}

/// How a model stands, for people and monitors.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub target: String,
    pub file: String,
    pub mode: String,
    /// `idle`, `waiting`, `running`, `failed` or `held`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// Since the process began.
    pub rows_in: u64,
    pub rows_out: u64,
}

impl Refinements {
    /// Parses all models of a project. No network is touched.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(project: &Project) -> Result<Refinements, Faults> {
        let engine = Engine::of_project(project, QUERY_PERCENT)
            .map_err(|error| Fault::new("calve.toml", None, format!("queries cannot run: {error}")))?;
        Self::load_with(project, engine)
    }

    /// As [`Refinements::load`], on an engine that may have catalogs open already.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load_with(project: &Project, engine: Engine) -> Result<Refinements, Faults> {
        let graph = Graph::new(Model::load_all(project)?)?;
        let buffers = project.daemon.memory_limit_bytes / 100 * WRITE_PERCENT;
        Ok(Self::new(graph, Runner::new(engine).with_buffered_bytes_max(buffers)))
    }

    pub fn new(graph: Graph, runner: Runner) -> Refinements {
        let names = || graph.models().iter().map(|model| model.target.clone());
        let models = Mutex::new(names().map(|name| (name, State::default())).collect());
        let running = names().map(|name| (name, tokio::sync::Mutex::new(()))).collect();
        Refinements {
            shared: Arc::new(Shared { graph, runner, metrics: None, models, running, changed: Notify::new() }),
        }
    }

    /// Counts runs in `metrics`. For a value that has not been cloned yet.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.runner.metrics = Some(metrics.clone());
            shared.metrics = Some(metrics);
        }
        self
    }

    /// Shows there how far runs are. For a value that has not been cloned yet.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.runner.progress = progress;
        }
        self
    }

    pub fn graph(&self) -> &Graph {
        &self.shared.graph
    }

    pub fn runner(&self) -> &Runner {
        &self.shared.runner
    }

    pub fn is_empty(&self) -> bool {
        self.shared.graph.models().is_empty()
    }

    /// Plans every model against the tables that are known without network: those of the topics, given here with their
    /// columns, and those of models whose sources are known. Models that read other tables are left out.
    ///
    /// # Errors
    /// Every fault: columns that are not there, SQL that mode append cannot maintain, results that Iceberg cannot store,
    /// partition fields that do not fit.
    pub async fn check(&self, known: &BTreeMap<TableName, SchemaRef>) -> Result<(), Faults> {
        let mut known = known.clone();
        let mut faults = Faults::default();
        for model in self.shared.graph.models() {
            let tables: Option<BTreeMap<TableName, Arc<dyn TableProvider>>> = model
                .sources
                .keys()
                .map(|name| {
                    let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(known.get(name)?.clone()));
                    Some((name.clone(), table))
                })
                .collect();
            let Some(tables) = tables else { continue };
            match check(self.shared.runner.engine(), model, tables).await {
                Ok(columns) => drop(known.insert(model.target.clone(), columns)),
                Err(message) => {
                    let place = format!("{}:{}: ", model.file, model.sql_line);
                    let message = message.strip_prefix(&place).unwrap_or(&message).to_owned();
                    faults.push(Fault::new(&model.file, model.sql_line, message));
                }
            }
        }
        faults.into_result(())
    }

    /// The snapshots of `table` up to which refinements have read it: expiry keeps them and what came after, so that
    /// the next runs find their deltas. A target that cannot be read just now has no say.
    pub async fn watermarks(&self, table: &TableName) -> std::collections::BTreeSet<i64> {
        let mut found = std::collections::BTreeSet::new();
        let readers = self.shared.graph.models().iter().filter(|model| model.sources.contains_key(table));
        for model in readers {
            match self.shared.runner.last_run(model).await {
                Ok(Some(last)) => found.extend(last.state.source(table).and_then(|source| source.snapshot_id)),
                Ok(None) => {}
                Err(error) => tracing::debug!(target = %model.target, %error, "its watermark is not known"),
            }
        }
        found
    }

    /// Tells the scheduler that `table` got a commit. Returns at once; [`Refinements::serve`] does the work.
    pub fn on_commit(&self, table: &TableName) {
        let mut models = self.models();
        for model in self.shared.graph.models() {
            let triggered = model.sources.get(table).is_some_and(|source| source.triggers);
            if model.trigger.on_commit && triggered {
                models.entry(model.target.clone()).or_default().dirty = true;
            }
        }
        drop(models);
        self.shared.changed.notify_one();
    }

    /// Runs models as they are triggered, until `stop`; then waits for the runs at hand, which stop too.
    ///
    /// All on-commit models are taken as triggered at the start, since commits may have come while nothing ran.
    pub async fn serve(&self, stop: CancellationToken) {
        for model in self.shared.graph.models().iter().filter(|model| model.trigger.on_commit) {
            self.models().entry(model.target.clone()).or_default().dirty = true;
        }
        let mut runs = JoinSet::new();
        while !stop.is_cancelled() {
            let next = self.start_due(&mut runs, &stop);
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.shared.changed.notified() => {}
                Some(_) = runs.join_next() => {}
                () = timer => {}
            }
        }
        while runs.join_next().await.is_some() {}
    }

    /// Starts every model that is triggered, due and not held or waiting for one upstream; says when the next is due.
    fn start_due(&self, runs: &mut JoinSet<()>, stop: &CancellationToken) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        let mut start = Vec::new();
        {
            let mut models = self.models();
            for model in self.shared.graph.models() {
                let state = &models[&model.target];
                if !state.dirty || state.running {
                    continue;
                }
                if let Some(due) = state.due.filter(|due| *due > now) {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                let ancestors = self.ancestors(model);
                if let Some(failed) = ancestors.iter().find(|name| models[*name].error.is_some()) {
                    let failed = (*failed).clone();
                    let state = models.entry(model.target.clone()).or_default();
                    if state.held_by.as_ref() != Some(&failed) {
                        tracing::warn!(target = %model.target, by = %failed, "held: a refinement upstream of it failed");
                        state.held_by = Some(failed);
                    }
                    continue;
                }
                let busy = |name: &&TableName| {
                    let above = &models[*name];
                    above.running || (above.dirty && above.due.is_none_or(|due| due <= now))
                };
                if ancestors.iter().any(busy) {
                    continue;
                }
                let state = models.entry(model.target.clone()).or_default();
                (state.dirty, state.running, state.held_by) = (false, true, None);
                state.due = model.trigger.min_interval.map(|interval| now + interval);
                start.push(model.target.clone());
            }
        }
        for target in start {
            let (this, stop) = (self.clone(), stop.clone());
            runs.spawn(async move {
                let Some(model) = this.shared.graph.model(&target) else { return };
                let ran = this.run_model(model, &stop).await;
                let mut models = this.models();
                let state = models.entry(target.clone()).or_default();
                state.running = false;
                if matches!(ran, Ran::Failed { .. }) && !stop.is_cancelled() {
                    state.dirty = true;
                    state.due = Some(Instant::now() + backoff(state.failures));
                }
                drop(models);
                if matches!(ran, Ran::Committed { .. }) {
                    this.on_commit(&target);
                }
            });
        }
        next
    }

    /// Runs what a commit to `table` triggers, in order and now, `min_interval` or not.
    pub async fn run_downstream(&self, table: &TableName, stop: &CancellationToken) -> Vec<Report> {
        self.run_in_order(self.shared.graph.downstream(table), stop).await
    }

    /// Runs every on-commit model that has something to do, in order and now: what [`Refinements::serve`] would come to
    /// if no more commits arrived.
    pub async fn run_all_pending(&self, stop: &CancellationToken) -> Vec<Report> {
        let models = self.shared.graph.models().iter().filter(|model| model.trigger.on_commit).collect();
        self.run_in_order(models, stop).await
    }

    /// Runs the given models (in the graph's order), holding those downstream of one that fails.
    pub async fn run_in_order(&self, models: Vec<&Model>, stop: &CancellationToken) -> Vec<Report> {
        let mut reports: Vec<Report> = Vec::new();
        let mut failed: Vec<TableName> = Vec::new();
        for model in models {
            let ancestors = self.ancestors(model);
            let result = match failed.iter().find(|name| ancestors.contains(name)) {
                Some(by) => {
                    tracing::warn!(target = %model.target, %by, "held: a refinement upstream of it failed");
                    Ran::Held { by: by.to_string() }
                }
                None => self.run_model(model, stop).await,
            };
            if matches!(result, Ran::Failed { .. }) {
                failed.push(model.target.clone());
            }
            reports.push(Report { target: model.target.to_string(), result });
        }
        reports
    }

    /// Runs one model until its source has nothing more, and keeps count.
    async fn run_model(&self, model: &Model, stop: &CancellationToken) -> Ran {
        let lock = self.shared.running.get(&model.target);
        let _one_at_a_time = match lock {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        let started = Instant::now();
        let (mut commits, mut rows_in, mut rows_out) = (0, 0, 0);
        let ended = loop {
            match self.shared.runner.run(model, stop).await {
                Ok(Outcome::Committed { snapshot_id, run_id, rows_in: read, rows_out: written, more }) => {
                    commits += 1;
                    rows_in += read;
                    rows_out += written;
                    tracing::info!(
                        target = %model.target, snapshot_id, %run_id, rows_in = read, rows_out = written, more, "refined"
                    );
                    if !more {
                        break Ok(());
                    }
                }
                Ok(Outcome::UpToDate) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Some(metrics) = &self.shared.metrics {
            let result = match (&ended, commits) {
                (Err(_), _) => "failed",
                (Ok(()), 0) => "nothing",
                (Ok(()), _) => "done",
            };
            metrics.refined(&model.target.to_string(), result, rows_out, started.elapsed().as_secs_f64());
        }
        let mut models = self.models();
        let state = models.entry(model.target.clone()).or_default();
        state.rows_in += rows_in;
        state.rows_out += rows_out;
        state.last_run = Some(chrono::Utc::now());
        match ended {
            Ok(()) => {
                if state.error.take().is_some() {
                    tracing::info!(target = %model.target, "the refinement works again");
                }
                state.failures = 0;
                if commits == 0 { Ran::UpToDate } else { Ran::Committed { commits, rows_in, rows_out } }
            }
            Err(error) => {
                let message = told(&error);
                if !stop.is_cancelled() {
                    if error.is_retry() {
                        tracing::warn!(target = %model.target, error = message, "the refinement failed; it may be tried again");
                    } else if state.error.as_deref() != Some(&message) {
                        tracing::error!(target = %model.target, error = message, "the refinement failed");
                    }
                    state.failures += 1;
                    state.error = Some(message.clone());
                }
                Ran::Failed { error: message }
            }
        }
    }

    /// How each model stands in this process.
    pub fn status(&self) -> Vec<Status> {
        let models = self.models();
        self.shared
            .graph
            .models()
            .iter()
            .map(|model| {
                let state = &models[&model.target];
                Status {
                    target: model.target.to_string(),
                    file: model.file.clone(),
                    mode: model.mode.to_string(),
                    state: match state {
                        State { running: true, .. } => "running",
                        State { error: Some(_), .. } => "failed",
                        State { held_by: Some(_), .. } => "held",
                        State { dirty: true, .. } => "waiting",
                        _ => "idle",
                    },
                    error: match (&state.error, &state.held_by) {
                        (None, Some(by)) => Some(format!("held: {by} failed")),
                        (error, _) => error.clone(),
                    },
                    last_run: state.last_run.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
                    rows_in: state.rows_in,
                    rows_out: state.rows_out,
                }
            })
            .collect()
    }

    /// The models whose results, at any distance, this one reads.
    fn ancestors<'g>(&'g self, model: &'g Model) -> Vec<&'g TableName> {
        let mut found: Vec<&TableName> = Vec::new();
        let mut open: Vec<&TableName> = model.sources.keys().collect();
        while let Some(name) = open.pop() {
            if let Some(above) = self.shared.graph.model(name)
                && !found.contains(&&above.target)
            {
                found.push(&above.target);
                open.extend(above.sources.keys());
            }
        }
        found
    }

    /// No code panics while it holds this; if it did, the state would still be whole.
    fn models(&self) -> MutexGuard<'_, BTreeMap<TableName, State>> {
        self.shared.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX)
}

/// An error and its causes in one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The columns that a model's target would have if it were made now.
async fn check(
    engine: &Engine,
    model: &Model,
    tables: BTreeMap<TableName, Arc<dyn TableProvider>>,
) -> Result<SchemaRef, String> {
    let frame = run::query(engine, model, tables).await.map_err(|error| error.to_string())?;
    let schema = schema::create(frame.schema().fields())?;
    run::partition_spec(model, &schema)?;
    arrow_schema(&schema).map_err(|error| error.to_string())
}
