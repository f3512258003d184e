//! `calve validate`: the whole project, every fault at once, without network unless asked.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::spec::Type;
use serde::Serialize;

use super::output::Grid;
use super::plan::{Planned, Planner, one_line};
use super::{Exit, Global, Output, tables};
use crate::config::{self, Fault, Project, Topic};
use crate::query::arrow_schema;
use crate::refine::Refinements;
use crate::source::Admin;

/// Check the whole project
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  calve validate
  calve -c shop validate
  calve validate --connect      whether brokers, topics and catalogs answer as well")]
pub struct Args {
    /// Also ask the brokers for every topic, and connect to every catalog that a topic uses
    #[arg(long)]
    connect: bool,
}

/// What was found good.
#[derive(Serialize)]
struct Report {
    ok: bool,
    topics: Vec<TopicReport>,
    catalogs: Vec<String>,
    refinements: Vec<String>,
}

#[derive(Serialize)]
struct TopicReport {
    topic: String,
    message: String,
    catalog: String,
    table: String,
    quarantine: String,
    /// Leaves, calve's own included.
    columns: usize,
    partition_by: Vec<String>,
}

impl TopicReport {
    fn new(topic: &Topic, planned: &Planned) -> Self {
        let schema = &planned.mapping.iceberg;
        TopicReport {
            topic: topic.name.clone(),
            message: planned.mapping.pool.message(planned.mapping.message).full_name.clone(),
            catalog: topic.catalog.clone(),
            table: topic.table.to_string(),
            quarantine: topic.quarantine.to_string(),
            columns: schema.as_struct().fields().iter().map(|field| leaves(&field.field_type)).sum(),
            partition_by: topic.partition_by.clone(),
        }
    }
}

/// Columns that hold values, however deep.
fn leaves(of: &Type) -> usize {
    match of {
        Type::Primitive(_) => 1,
        Type::Struct(fields) => fields.fields().iter().map(|field| leaves(&field.field_type)).sum(),
        Type::List(list) => leaves(&list.element_field.field_type),
        Type::Map(map) => leaves(&map.key_field.field_type) + leaves(&map.value_field.field_type),
    }
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

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let (mut project, mut faults) = config::read(&global.config, &|name| std::env::var(name).ok());
    if let Some(project) = &mut project {
        faults.extend(crate::schema::settle(project));
    }
    let mut report = Report { ok: true, topics: Vec::new(), catalogs: Vec::new(), refinements: Vec::new() };
    if let Some(project) = &project {
        faults.extend(kafka_faults(project, global));
        let mut planner = Planner::default();
        let mut known = BTreeMap::new();
        for topic in project.topics.values() {
            match planner.plan(&global.config, topic) {
                Ok(planned) => {
                    // A type that no query can read is a fault of the models that read it, and told there.
                    if let Ok(columns) = arrow_schema(&planned.mapping.iceberg) {
                        known.insert(topic.table.clone(), columns);
                    }
                    report.topics.push(TopicReport::new(topic, &planned));
                }
                Err(of_topic) => faults.extend(of_topic),
            }
        }
        match Refinements::load(project) {
            Ok(refinements) => {
                if let Err(of_models) = refinements.check(&known).await {
                    faults.extend(of_models);
                }
                let targets = refinements.graph().models().iter().map(|model| model.target.to_string());
                report.refinements = targets.collect();
            }
            Err(of_models) => faults.extend(of_models),
        }
        report.catalogs = project.catalogs.keys().cloned().collect();
    }
    // What cannot be read is not asked after either.
    if let (Some(project), true) = (&project, args.connect && faults.is_empty()) {
        faults.extend(unreachable(project, global).await);
    }
    if let Err(faults) = faults.into_result(()) {
        if global.output == Output::Json {
            let faults = faults.0.iter();
            let faults = faults.map(|fault| Place { file: &fault.file, line: fault.line, message: &fault.message });
            global.output.print(&Refusal { ok: false, faults: faults.collect() }, String::new)?;
        }
        return Err(faults.into());
    }
    global.output.print(&report, || text(&report))?;
    Ok(Exit::Done)
}

/// Properties that librdkafka does not know or refuses.
fn kafka_faults(project: &Project, global: &Global) -> Vec<Fault> {
    let config = global.config_file();
    let faults = crate::source::check_properties(&project.kafka.properties);
    let fault = |(key, reason): (String, String)| {
        let line = config::locate(&config, &["kafka", "properties", &key]);
        Fault::new(config.to_string_lossy(), line, format!("kafka.properties: {reason}"))
    };
    faults.into_iter().map(fault).collect()
}

/// What does not answer, or does not know what the project says of it.
async fn unreachable(project: &Project, global: &Global) -> Vec<Fault> {
    let config = global.config_file();
    let shown = config.to_string_lossy().into_owned();
    let line = |path: &[&str]| config::locate(&config, path);
    let mut faults = Vec::new();
    if !project.topics.is_empty() {
        let servers = || line(&["kafka", "bootstrap_servers"]);
        let broker = async {
            let admin = Admin::new(&project.kafka)?;
            admin.check().await?;
            Ok::<_, crate::error::Error>(admin)
        };
        match broker.await {
            Err(error) => faults.push(Fault::new(&shown, servers(), error.to_string())),
            Ok(admin) => {
                for topic in project.topics.keys() {
                    if let Err(error) = admin.partitions(topic).await {
                        faults.push(Fault::new(&shown, line(&["topics", topic]), error.to_string()));
                    }
                }
            }
        }
    }
    let used: BTreeSet<&str> = project.topics.values().map(|topic| topic.catalog.as_str()).collect();
    for name in used {
        let Some(catalog) = project.catalogs.get(name) else { continue };
        let asked = async {
            let opened = tables::open(catalog).await?;
            opened.namespaces().await?;
            anyhow::Ok(())
        };
        if let Err(error) = asked.await {
            let file = config.with_file_name("catalogs").join(format!("{name}.toml"));
            let shown = file.to_string_lossy().into_owned();
            faults.push(Fault::new(shown, config::locate(&file, &["uri"]), one_line(&format!("{error:#}"))));
        }
    }
    faults
}

fn text(report: &Report) -> String {
    let mut grid = Grid::new(&["TOPIC", "MESSAGE", "CATALOG", "TABLE", "COLUMNS", "PARTITIONS"]);
    for topic in &report.topics {
        let cells = [&topic.topic, &topic.message, &topic.catalog, &topic.table];
        let mut cells: Vec<String> = cells.into_iter().cloned().collect();
        cells.push(topic.columns.to_string());
        cells.push(topic.partition_by.join(", "));
        grid.row(cells);
    }
    let topics = if report.topics.is_empty() { "no topic is registered\n".to_string() } else { grid.render() };
    let refinements = match report.refinements.is_empty() {
        true => String::new(),
        false => format!("refined into {}\n", report.refinements.join(", ")),
    };
    format!("{topics}{refinements}\nall good\n")
}
