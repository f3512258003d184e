//! `calve schema show`: the table that a topic's messages become.

use anyhow::anyhow;
use clap::{Subcommand, ValueEnum};
use iceberg::spec::{NestedFieldRef, Schema, Type};
use serde::Serialize;

use super::output::Grid;
use super::plan::Planner;
use super::{Exit, Global, output, tables};
use crate::config::Faults;
use crate::schema::column_map::ColumnMap;
use crate::schema::ddl::{self, Dialect};
use crate::schema::evolve::{self, Existing};
use crate::schema::mapping::Options;

/// What becomes of a message
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a topic's Iceberg schema with field numbers and column ids
    #[command(after_help = "Examples:
  calve schema show orders
  calve schema show orders --ddl trino")]
    Show {
        /// The topic, as registered in calve.toml
        topic: String,
        /// Print CREATE TABLE for an engine instead
        #[arg(long, value_enum, value_name = "ENGINE")]
        ddl: Option<Ddl>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ddl {
    Trino,
    Snowflake,
    Spark,
}

#[derive(Serialize)]
struct Shown {
    topic: String,
    message: String,
    catalog: String,
    table: String,
    /// Whether the ids are those of a table that is there.
    table_exists: bool,
    partition_by: Vec<String>,
    columns: Vec<Column>,
    /// What the next commit changes in a table that is there.
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Column {
    /// The path in the table; `element`, `key` and `value` as Iceberg names them.
    column: String,
    /// The path of field numbers in the message; null for calve's own columns.
    field: Option<String>,
    id: i32,
    r#type: String,
    doc: Option<String>,
}

#[derive(Serialize)]
struct Change {
    field: String,
    verdict: &'static str,
    message: String,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let Command::Show { topic, ddl } = args.command;
    let project = global.project()?;
    let topic = tables::topic(&project, &topic)?;
    let planned = Planner::default().plan(&global.config, topic).map_err(Faults)?;
    let existing = existing(&project, topic).await?;
    let (mapping, changes, table_exists) = match existing {
        None => (planned.mapping.clone(), Vec::new(), false),
        Some(existing) => {
            let (pool, message) = (planned.mapping.pool.clone(), planned.mapping.message);
            let comparison = evolve::compare(pool, message, &Options::from(topic), &existing);
            let changes = comparison.changes.iter().map(|change| Change {
                field: change.path.clone(),
                verdict: change.verdict.as_str(),
                message: change.what.clone(),
            });
            let changes: Vec<Change> = changes.collect();
            match comparison.evolution {
                Some(evolution) => (evolution.mapping, changes, true),
                None => {
                    let refused = changes.iter().filter(|change| change.verdict == "refused");
                    let refused: Vec<String> =
                        refused.map(|change| format!("{}: {}", change.field, change.message)).collect();
                    return Err(anyhow!(
                        "topic {}: its table cannot take the message: {}",
                        topic.name,
                        refused.join("; ")
                    ));
                }
            }
        }
    };
    if let Some(engine) = ddl {
        let dialect = match engine {
            Ddl::Trino => Dialect::Trino,
            Ddl::Snowflake => Dialect::Snowflake,
            Ddl::Spark => Dialect::Spark,
        };
        let text = ddl::create_table(dialect, &topic.table.to_string(), &mapping.iceberg, &planned.partition_spec);
        output::print(&text)?;
        return Ok(Exit::Done);
    }
    let shown = Shown {
        topic: topic.name.clone(),
        message: mapping.pool.message(mapping.message).full_name.clone(),
        catalog: topic.catalog.clone(),
        table: topic.table.to_string(),
        table_exists,
        partition_by: topic.partition_by.clone(),
        columns: columns(&mapping.iceberg, &mapping.column_map),
        changes,
    };
    global.output.print(&shown, || text(&shown))?;
    Ok(Exit::Done)
}

/// The topic's table, if it is there. A catalog that cannot be asked is no reason to show nothing.
async fn existing(project: &crate::config::Project, topic: &crate::config::Topic) -> anyhow::Result<Option<Existing>> {
    let asked = async {
        let catalog = tables::open(tables::catalog_of(project, &topic.catalog)?).await?;
        tables::load(&*catalog, &topic.table).await
    };
    match asked.await {
        Ok(None) => Ok(None),
        Ok(Some(table)) => Ok(Some(Existing::of(table.metadata())?)),
        Err(error) => {
            tracing::warn!("the ids are those of a new table, because the table cannot be looked at: {error:#}");
            Ok(None)
        }
    }
}

fn text(shown: &Shown) -> String {
    let state = if shown.table_exists { "" } else { " (not made yet)" };
    let partitions = if shown.partition_by.is_empty() { "none".to_string() } else { shown.partition_by.join(", ") };
    let mut text = format!(
        "topic      {}\nmessage    {}\ntable      {} in catalog {}{state}\npartitions {partitions}\n\n",
        shown.topic, shown.message, shown.table, shown.catalog
    );
    let mut grid = Grid::new(&["FIELD", "ID", "COLUMN", "TYPE", "DOC"]);
    for column in &shown.columns {
        let doc: String =
            column.doc.as_deref().unwrap_or_default().lines().next().unwrap_or_default().chars().take(60).collect();
        grid.row(vec![
            column.field.clone().unwrap_or_default(),
            column.id.to_string(),
            column.column.clone(),
            column.r#type.clone(),
            doc,
        ]);
    }
    text += &grid.render();
    for change in &shown.changes {
        text += &format!("\n{}: {}: {}", change.verdict, change.field, change.message);
    }
    if !shown.changes.is_empty() {
        text.push('\n');
    }
    text
}

/// Every column with its id, from the top down, and the field that fills it.
fn columns(schema: &Schema, map: &ColumnMap) -> Vec<Column> {
    let mut found = Vec::new();
    for field in schema.as_struct().fields() {
        walk("", field, map, &mut found);
    }
    found
}

fn walk(prefix: &str, field: &NestedFieldRef, map: &ColumnMap, found: &mut Vec<Column>) {
    let column = format!("{prefix}{}", field.name);
    let path =
        map.iter().find(|(path, entry)| entry.id == field.id && !path.is_case()).map(|(path, _)| path.to_string());
    let (name, children): (String, Vec<&NestedFieldRef>) = match field.field_type.as_ref() {
        Type::Primitive(primitive) => (primitive.to_string(), Vec::new()),
        Type::Struct(fields) => ("struct".to_string(), fields.fields().iter().collect()),
        Type::List(list) => ("list".to_string(), vec![&list.element_field]),
        Type::Map(map) => ("map".to_string(), vec![&map.key_field, &map.value_field]),
    };
    found.push(Column { column: column.clone(), field: path, id: field.id, r#type: name, doc: field.doc.clone() });
    for child in children {
        walk(&format!("{column}."), child, map, found);
    }
}
