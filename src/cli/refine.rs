//! `calve refine`: run models now, say what a run would do, say how they stand.

use clap::Subcommand;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::output::Grid;
use super::{Exit, Global, Usage};
use crate::config::TableName;
use crate::refine::schedule::{Ran, Report};
use crate::refine::{Model, Refinements};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  calve refine plan                       what each model has to do, without reading data
  calve refine run silver.order_lines     one model, now
  calve refine run                        all models, in the order in which they read each other")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Refine what is new, once; models are named by their target tables, none means all
    Run {
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
    },
    /// What a run would do: columns, files, rows and bytes; no data is read. Exit 3 if a model cannot run
    Plan {
        #[arg(value_name = "MODEL")]
        models: Vec<String>,
    },
    /// The last run of each model, and how far its source is ahead of it
    Status,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let refinements = Refinements::load(&project)?.with_progress(global.progress.clone());
    match args.command {
        Command::Run { models } => {
            let models = chosen(&refinements, &models)?;
            run_models(&refinements, models, global).await
        }
        Command::Plan { models } => {
            let models = chosen(&refinements, &models)?;
            plan(&refinements, models, global).await
        }
        Command::Status => status(&refinements, global).await,
    }
}

/// The named models, or all, in the order in which to run them.
fn chosen<'r>(refinements: &'r Refinements, names: &[String]) -> Result<Vec<&'r Model>, Usage> {
    let models = refinements.graph().models();
    let known: Vec<String> = models.iter().map(|model| model.target.to_string()).collect();
    for name in names {
        if !known.contains(name) {
            let hint = crate::config::nearest::suggest(name, known.iter().map(String::as_str));
            return Err(Usage(format!("no refinement makes the table {name}; {hint}")));
        }
    }
    Ok(models.iter().filter(|model| names.is_empty() || names.contains(&model.target.to_string())).collect())
}

async fn run_models(refinements: &Refinements, models: Vec<&Model>, global: &Global) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let signal = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    let reports = refinements.run_in_order(models, &stop).await;
    signal.abort();
    global.output.print(&reports, || {
        let mut grid = Grid::new(&["model", "result", "commits", "rows in", "rows out"]);
        for report in &reports {
            let target = report.target.clone();
            grid.row(match &report.result {
                Ran::UpToDate => vec![target, "up to date".into(), String::new(), String::new(), String::new()],
                Ran::Committed { commits, rows_in, rows_out } => {
                    vec![target, "committed".into(), commits.to_string(), rows_in.to_string(), rows_out.to_string()]
                }
                Ran::Failed { .. } => vec![target, "failed".into(), String::new(), String::new(), String::new()],
                Ran::Held { by } => {
                    vec![target, format!("held: {by} failed"), String::new(), String::new(), String::new()]
                }
            });
        }
        grid.render()
    })?;
    let mut exit = Exit::Done;
    for Report { result, .. } in &reports {
        match result {
            Ran::Failed { error } => {
                eprintln!("error: {error}");
                exit = Exit::Failed;
            }
            Ran::Held { .. } => exit = Exit::Failed,
            Ran::UpToDate | Ran::Committed { .. } => {}
        }
    }
    Ok(exit)
}

#[derive(Debug, Serialize)]
struct Planned {
    model: String,
    file: String,
    mode: String,
    /// `create`, `append`, `up_to_date`, `waiting` (a source is missing or does not answer) or `refused`.
    action: &'static str,
    files: usize,
    rows: u64,
    bytes: u64,
    columns_added: Vec<String>,
    columns_gone: Vec<String>,
    definition_changed: bool,
    downstream: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn plan(refinements: &Refinements, models: Vec<&Model>, global: &Global) -> anyhow::Result<Exit> {
    let mut plans = Vec::with_capacity(models.len());
    for model in models {
        let below = refinements.graph().descendants(&model.target);
        let mut planned = Planned {
            model: model.target.to_string(),
            file: model.file.clone(),
            mode: model.mode.to_string(),
            action: "up_to_date",
            files: 0,
            rows: 0,
            bytes: 0,
            columns_added: vec![],
            columns_gone: vec![],
            definition_changed: false,
            downstream: below.iter().map(|model| model.target.to_string()).collect(),
            reason: None,
        };
        match refinements.runner().preview(model).await {
            Ok(preview) => {
                planned.action = match (preview.creates, preview.files) {
                    (true, _) => "create",
                    (false, 0) => "up_to_date",
                    (false, _) => "append",
                };
                (planned.files, planned.rows, planned.bytes) = (preview.files, preview.rows, preview.bytes);
                (planned.columns_added, planned.columns_gone) = (preview.added, preview.gone);
                planned.definition_changed = preview.changed;
            }
            Err(error) => {
                planned.action = if error.is_retry() { "waiting" } else { "refused" };
                planned.reason = Some(error.to_string());
            }
        }
        plans.push(planned);
    }
    global.output.print(&plans, || {
        let mut grid = Grid::new(&["model", "mode", "action", "files", "rows", "bytes", "downstream"]);
        for plan in &plans {
            grid.row(vec![
                plan.model.clone(),
                plan.mode.clone(),
                plan.action.replace('_', " "),
                plan.files.to_string(),
                plan.rows.to_string(),
                plan.bytes.to_string(),
                plan.downstream.join(", "),
            ]);
        }
        let mut text = grid.render();
        for plan in &plans {
            for (what, columns) in [("adds", &plan.columns_added), ("no longer gives", &plan.columns_gone)] {
                if !columns.is_empty() {
                    text += &format!("{}: {what} {}\n", plan.model, columns.join(", "));
                }
            }
            if plan.definition_changed {
                text += &format!("{}: its file changed since the last run\n", plan.model);
            }
            if let Some(reason) = &plan.reason {
                text += &format!("{reason}\n");
            }
        }
        text
    })?;
    Ok(if plans.iter().any(|plan| plan.action == "refused") { Exit::No } else { Exit::Done })
}

#[derive(Debug, Serialize)]
struct Stands {
    model: String,
    file: String,
    mode: String,
    /// `never_run`, `up_to_date`, `behind` or `failing`.
    state: &'static str,
    last_run: Option<String>,
    last_run_id: Option<String>,
    last_rows_out: Option<u64>,
    snapshot_id: Option<i64>,
    /// The source's snapshot up to which the target goes.
    watermark: Option<i64>,
    rows_behind: Option<u64>,
    bytes_behind: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn status(refinements: &Refinements, global: &Global) -> anyhow::Result<Exit> {
    let mut all = Vec::new();
    for model in refinements.graph().models() {
        all.push(stands(refinements, model).await);
    }
    global.output.print(&all, || {
        let mut grid = Grid::new(&["model", "state", "last run", "rows behind", "bytes behind", "watermark"]);
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        for model in &all {
            grid.row(vec![
                model.model.clone(),
                model.state.replace('_', " "),
                model.last_run.clone().unwrap_or_default(),
                number(model.rows_behind),
                number(model.bytes_behind),
                model.watermark.map_or_else(String::new, |id| id.to_string()),
            ]);
        }
        let errors = all.iter().filter_map(|model| model.error.as_ref());
        errors.fold(grid.render(), |text, error| text + error + "\n")
    })?;
    Ok(Exit::Done)
}

async fn stands(refinements: &Refinements, model: &Model) -> Stands {
    let mut stands = Stands {
        model: model.target.to_string(),
        file: model.file.clone(),
        mode: model.mode.to_string(),
        state: "never_run",
        last_run: None,
        last_run_id: None,
        last_rows_out: None,
        snapshot_id: None,
        watermark: None,
        rows_behind: None,
        bytes_behind: None,
        error: None,
    };
    let runner = refinements.runner();
    match runner.last_run(model).await {
        Ok(Some(last)) => {
            let time = last.timestamp_ms.and_then(chrono::DateTime::from_timestamp_millis);
            stands.last_run = time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
            (stands.last_run_id, stands.last_rows_out) = (last.run_id, last.rows_out);
            stands.snapshot_id = Some(last.snapshot_id);
            let source: Option<&TableName> = model.delta_source().map(|(name, _)| name);
            stands.watermark = source.and_then(|name| last.state.source(name)?.snapshot_id);
            stands.state = "up_to_date";
        }
        Ok(None) => {}
        Err(error) => {
            stands.state = "failing";
            stands.error = Some(error.to_string());
            return stands;
        }
    }
    match runner.preview(model).await {
        Ok(preview) => {
            (stands.rows_behind, stands.bytes_behind) = (Some(preview.rows), Some(preview.bytes));
            if stands.snapshot_id.is_some() && preview.files > 0 {
                stands.state = "behind";
            }
        }
        Err(error) => {
            if !error.is_retry() {
                stands.state = "failing";
            }
            stands.error = Some(error.to_string());
        }
    }
    stands
}
