//! DataFusion as calve sets it up: lazy catalogs, a memory limit with spilling to disk, statements that only read.

use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::catalog::Catalogs;
use crate::config::Project;

/// Where a table is looked for that a query names without its namespace: the default of `[defaults] namespace`.
const NAMESPACE_DEFAULT: &str = "bronze";

/// Runs SQL over a project's tables. Cheap to clone; all clones share one memory limit.
#[derive(Clone, Debug)]
pub struct Engine {
    catalogs: Catalogs,
    catalog_default: String,
    runtime: Arc<RuntimeEnv>,
}

impl Engine {
    /// Tables named without a catalog are those of `catalog_default`. Operators that hold rows (sorts, joins, groups)
    /// share `memory_limit_bytes` and go on in files of the system's temporary folder beyond it.
    ///
    /// # Errors
    /// The temporary folder cannot be used.
    pub fn new(catalogs: Catalogs, catalog_default: impl Into<String>, memory_limit_bytes: u64) -> Result<Self> {
        let limit = usize::try_from(memory_limit_bytes).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(limit))).build_arc()?;
        Ok(Engine { catalogs, catalog_default: catalog_default.into(), runtime })
    }

    /// The engine of a project, with this share of its memory limit.
    ///
    /// # Errors
    /// The temporary folder cannot be used.
    pub fn of_project(project: &Project, percent: u64) -> Result<Self> {
        let catalogs = Catalogs::of_project(project);
        Self::new(catalogs, catalog_default(project), project.daemon.memory_limit_bytes / 100 * percent)
    }

    pub fn catalogs(&self) -> &Catalogs {
        &self.catalogs
    }

    /// The catalog of tables that are named without one.
    pub fn catalog_default(&self) -> &str {
        &self.catalog_default
    }

    /// What operators hold of the memory limit now.
    pub fn memory_used_bytes(&self) -> u64 {
        self.runtime.memory_pool.reserved() as u64
    }

    /// A session over the project's tables.
    pub fn session(&self) -> SessionContext {
        self.session_over(Arc::new(self.catalogs.clone()))
    }

    /// A session over other tables, with this engine's settings and memory.
    pub fn session_over(&self, catalogs: Arc<dyn CatalogProviderList>) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(&self.catalog_default, NAMESPACE_DEFAULT)
            .with_information_schema(false);
        // Iceberg has one string type; views would only be turned back when a result is written.
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_catalog_list(catalogs)
            .with_default_features()
            .build();
        SessionContext::new_with_state(state)
    }

    /// Plans a query. Nothing of the tables' data is read before the frame is executed.
    ///
    /// # Errors
    /// The SQL is not valid, names what is not there, or would change something.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        plan(&self.session(), sql).await
    }
}

/// Plans one statement that only reads.
pub async fn plan(session: &SessionContext, sql: &str) -> Result<DataFrame> {
    let plan = session.state().create_logical_plan(sql).await?;
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reads.verify_plan(&plan).map_err(|error| {
        DataFusionError::Plan(format!("only queries are run here, nothing is changed: {}", one_line(&error)))
    })?;
    session.execute_logical_plan(plan).await
}

/// The catalog that unqualified names mean: the only one, else `local`, else that of the first topic.
fn catalog_default(project: &Project) -> String {
    let mut names = project.catalogs.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => only.clone(),
        (Some(_), Some(_)) if project.catalogs.contains_key("local") => "local".to_owned(),
        (Some(first), Some(_)) => {
            project.topics.values().next().map_or_else(|| first.clone(), |topic| topic.catalog.clone())
        }
        (None, _) => "local".to_owned(),
    }
}

/// What DataFusion has to say, in one line and without its own names for things.
pub fn one_line(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let mut text = text.trim();
    loop {
        let prefixes =
            ["Error during planning: ", "SQL error: ", "External error: ", "Execution error: ", "Schema error: "];
        match prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => text = rest,
            None => break,
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
