//! What `sql/<namespace>/<table>.sql` says: one target table, the SELECT that makes it, and how it is kept up to date.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::config::{Fault, Faults, Project, TableName};

use super::parse;

/// A refinement as its file defines it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The table that it makes; the file's path unless `target` says otherwise.
    pub target: TableName,
    /// The file, relative to the project's folder.
    pub file: String,
    /// The SELECT, without its front matter.
    pub sql: String,
    /// The line of the file that the SELECT begins in.
    pub sql_line: usize,
    /// SHA-256 of the file's text, in hex: two snapshots with the same hash were made by the same definition.
    pub hash: String,
    pub description: Option<String>,
    pub mode: Mode,
    pub key: Vec<String>,
    pub order_by: Vec<String>,
    pub delete_when: Option<String>,
    /// Iceberg partition fields on the target's columns, as written: `day(event_time)`.
    pub partition_by: Vec<String>,
    pub incremental: Incremental,
    /// The tables that the SQL reads, in the order of their names.
    pub sources: BTreeMap<TableName, Source>,
    pub trigger: Trigger,
    pub on_schema_change: OnSchemaChange,
    pub expectations: Vec<Expectation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Append,
    ByPartition,
    Upsert,
    Full,
    Scd2,
    View,
}

/// What to do with a model that cannot be maintained from the new rows alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incremental {
    Auto,
    Strict,
    Never,
}

/// How one source is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub read: Read,
    /// Whether a commit to this source starts a run.
    pub triggers: bool,
    pub on_overwrite: OnOverwrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Only what came since the last run.
    Delta,
    /// The whole table, as of the start of the run.
    Snapshot,
}

/// What to do when rows of a source that is read as a delta were overwritten or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverwrite {
    /// Stop and say so.
    Fail,
    /// Leave the target as it is; only appended rows are refined.
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Run when a source gets a commit.
    pub on_commit: bool,
    /// At least this long from one run's start to the next.
    pub min_interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSchemaChange {
    Additive,
    Evolve,
    Fail,
}

/// A condition on the rows of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    pub name: String,
    pub check: Check,
    pub on_fail: OnFail,
    pub max_fraction: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Holds for each row.
    Where(String),
    /// One boolean over the staged result, which is called `this`.
    Sql(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFail {
    Warn,
    Drop,
    Quarantine,
    Fail,
}

impl Model {
    /// Parses one file's text. `file` is its path relative to the project, `sql/silver/orders.sql`.
    ///
    /// # Errors
    /// Every fault of the file, with its line.
    pub fn parse(file: &str, text: &str) -> Result<Model, Faults> {
        parse::model(file, text)
    }

    /// All models of a project, by file name; none when it has no folder `sql`.
    ///
    /// # Errors
    /// Every fault of every file: of its front matter, its SQL, and of files that claim one target.
    pub fn load_all(project: &Project) -> Result<Vec<Model>, Faults> {
        let mut faults = Faults::default();
        let mut models: Vec<Model> = Vec::new();
        let files = match files(&project.root.join("sql")) {
            Ok(files) => files,
            Err((path, error)) => {
                faults.push(Fault::new(relative(&project.root, &path), None, format!("cannot be read: {error}")));
                vec![]
            }
        };
        for path in files {
            let file = relative(&project.root, &path);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    faults.push(Fault::new(&file, None, format!("cannot be read: {error}")));
                    continue;
                }
            };
            match Model::parse(&file, &text) {
                Ok(model) => models.push(model),
                Err(of_file) => faults.extend(of_file),
            }
        }
        for (index, model) in models.iter().enumerate() {
            if let Some(other) = models[..index].iter().find(|other| other.target == model.target) {
                let message = format!("makes the table {}, which {} makes too", model.target, other.file);
                faults.push(Fault::new(&model.file, None, message));
            }
            let made_by =
                |topic: &&crate::config::Topic| topic.table == model.target || topic.quarantine == model.target;
            if let Some(topic) = project.topics.values().find(made_by) {
                let message = format!("makes the table {}, which the topic {} fills", model.target, topic.name);
                faults.push(Fault::new(&model.file, None, message));
            }
        }
        faults.into_result(models)
    }

    /// The source that is read as a delta. Mode append has exactly one: parsing saw to it.
    pub fn delta_source(&self) -> Option<(&TableName, &Source)> {
        self.sources.iter().find(|(_, source)| source.read == Read::Delta)
    }
}

/// `.sql` files two levels deep or more, sorted.
fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>, (std::path::PathBuf, std::io::Error)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err((folder, error)),
        };
        for entry in entries {
            let path = entry.map_err(|error| (folder.clone(), error))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sql") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Append => "append",
            Mode::ByPartition => "by_partition",
            Mode::Upsert => "upsert",
            Mode::Full => "full",
            Mode::Scd2 => "scd2",
            Mode::View => "view",
        })
    }
}
