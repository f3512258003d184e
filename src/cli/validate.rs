//! `calve validate`: the whole project, every fault at once, without network.

use serde::Serialize;

use super::{Exit, Global, Output};
use crate::config;

/// Check the whole project
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  calve validate
  calve -c shop validate")]
pub struct Args {}

/// What was found good.
#[derive(Serialize)]
struct Report {
    ok: bool,
    topics: Vec<TopicReport>,
    catalogs: Vec<String>,
}

#[derive(Serialize)]
struct TopicReport {
    topic: String,
    message: Option<String>,
    catalog: String,
    table: String,
    quarantine: String,
}

/// What was found wrong.
#[derive(Serialize)]
struct Refusal<'a> {
    ok: bool,
    faults: Vec<Place<'a>>,
}

#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    line: Option<usize>,
    message: &'a str,
}

pub async fn run(_args: Args, global: &Global) -> anyhow::Result<Exit> {
    let (project, faults) = config::read(&global.config, &|name| std::env::var(name).ok());
    let project = match (project, faults) {
        (Some(project), faults) if faults.is_empty() => project,
        (_, faults) => {
            if global.output == Output::Json {
                let faults = faults.0.iter();
                let faults = faults.map(|fault| Place { file: &fault.file, line: fault.line, message: &fault.message });
                global.output.print(&Refusal { ok: false, faults: faults.collect() }, String::new)?;
            }
            return Err(faults.into());
        }
    };
    let topics = project.topics.values().map(|topic| TopicReport {
        topic: topic.name.clone(),
        message: topic.message.clone(),
        catalog: topic.catalog.clone(),
        table: topic.table.to_string(),
        quarantine: topic.quarantine.to_string(),
    });
    let report = Report { ok: true, topics: topics.collect(), catalogs: project.catalogs.keys().cloned().collect() };
    global.output.print(&report, || "ok\n".to_string())?;
    Ok(Exit::Done)
}
