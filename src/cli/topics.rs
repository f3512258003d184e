//! `calve topics` and `calve status`: how far every topic is, daemon or not.

use serde::Serialize;

use super::output::{Grid, ago, thousands};
use super::probe::{self, Probe, State};
use super::{Exit, Global, tables};
use crate::telemetry::board::Status;

/// How far topics are
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  calve topics
  calve topics orders           with its partitions
  calve -o json topics

States: caught_up, behind, new (nothing committed yet), halted (a person must decide), retrying, unknown.")]
pub struct TopicsArgs {
    /// Only these topics, with their partitions
    topics: Vec<String>,
}

/// How the daemon and all topics are
#[derive(clap::Args, Debug)]
pub struct StatusArgs {}

#[derive(Serialize)]
struct Topics {
    topics: Vec<Probe>,
}

#[derive(Serialize)]
struct Whole {
    /// What the daemon says of itself; null when none answers.
    daemon: Option<Daemon>,
    topics: Vec<Probe>,
}

#[derive(Serialize)]
struct Daemon {
    http: String,
    version: String,
    started_ms: i64,
    ready: bool,
    stopping: bool,
}

pub async fn topics(args: TopicsArgs, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let wanted = tables::topics(&project, &args.topics)?;
    let daemon = probe::daemon(&project).await;
    let topics = Topics { topics: probe::probe_all(&project, &wanted, daemon.as_ref()).await? };
    let text = || {
        let mut text = grid(&topics.topics);
        for probe in topics.topics.iter().filter(|_| !args.topics.is_empty()) {
            text += &format!("\n{}\n{}", probe.topic, partitions(probe));
        }
        text
    };
    global.output.print(&topics, text)?;
    Ok(exit(&topics.topics))
}

pub async fn status(_args: StatusArgs, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let wanted = tables::topics(&project, &[])?;
    let told = probe::daemon(&project).await;
    let topics = probe::probe_all(&project, &wanted, told.as_ref()).await?;
    let daemon = told.map(|Status { version, started_ms, ready, stopping, .. }| Daemon {
        http: project.daemon.http.clone(),
        version,
        started_ms,
        ready,
        stopping,
    });
    let whole = Whole { daemon, topics };
    global.output.print(&whole, || {
        let head = match &whole.daemon {
            None => format!("daemon  none answers on {}\n", project.daemon.http),
            Some(daemon) => {
                let state = match (daemon.stopping, daemon.ready) {
                    (true, _) => "stopping",
                    (false, true) => "ready",
                    (false, false) => "starting",
                };
                let up = ago((probe::now_ms() - daemon.started_ms) as f64 / 1000.0);
                format!("daemon  {state} on {}, version {}, up {up}\n", daemon.http, daemon.version)
            }
        };
        format!("{head}\n{}", grid(&whole.topics))
    })?;
    Ok(exit(&whole.topics))
}

/// Not to know is a failure; a halted topic is an answer.
fn exit(probes: &[Probe]) -> Exit {
    match probes.iter().any(|probe| probe.state == State::Unknown) {
        true => Exit::Failed,
        false => Exit::Done,
    }
}

fn grid(probes: &[Probe]) -> String {
    if probes.is_empty() {
        return "no topic is registered in calve.toml\n".to_string();
    }
    let mut grid = Grid::new(&["TOPIC", "TABLE", "STATE", "LAG", "LAG TIME", "LAST COMMIT", "ROWS", "QUARANTINED"]);
    for probe in probes {
        grid.row(vec![
            probe.topic.clone(),
            format!("{}.{}", probe.catalog, probe.table),
            probe.state.as_str().to_string(),
            probe.lag_records.map(thousands).unwrap_or_default(),
            probe.lag_seconds.map(ago).unwrap_or_default(),
            probe.last_commit_ms.map(|ms| ago((probe::now_ms() - ms) as f64 / 1000.0) + " ago").unwrap_or_default(),
            thousands(i64::try_from(probe.rows).unwrap_or(i64::MAX)),
            thousands(i64::try_from(probe.quarantined).unwrap_or(i64::MAX)),
        ]);
    }
    let mut text = grid.render();
    for probe in probes {
        if let Some(reason) = &probe.reason {
            text += &format!("\n{}: {reason}\n", probe.topic);
        }
    }
    text
}

fn partitions(probe: &Probe) -> String {
    let mut grid = Grid::new(&["PARTITION", "LOG START", "NEXT", "END", "LAG"]);
    for partition in &probe.partitions {
        grid.row(vec![
            partition.partition.to_string(),
            partition.log_start.to_string(),
            partition.next.map(|next| next.to_string()).unwrap_or_default(),
            partition.end.to_string(),
            thousands(partition.lag),
        ]);
    }
    grid.render()
}
