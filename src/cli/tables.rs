//! Finding the table that a command is about.

use anyhow::Context as _;

use super::Usage;
use crate::catalog::{self, Catalog};
use crate::config::{self, Project, TableName, Topic, nearest};

/// A table of the project.
#[derive(Debug)]
pub struct Found<'a> {
    pub catalog: &'a config::Catalog,
    pub name: TableName,
    /// The topic that fills it, or whose quarantine it is.
    pub topic: Option<&'a Topic>,
}

/// The table that `text` names: a topic's table or quarantine (`bronze.orders`), any table of a catalog
/// (`local.silver.order_lines`), or one of the project's only catalog.
pub fn find<'a>(project: &'a Project, text: &str) -> Result<Found<'a>, Usage> {
    let name: TableName = text.parse().map_err(|reason| Usage(format!("table {text}: {reason}")))?;
    let of_topic = |topic: &&Topic| topic.table == name || topic.quarantine == name;
    let mut topics = project.topics.values().filter(of_topic);
    if let Some(topic) = topics.next() {
        if let Some(other) = topics.next() {
            return Err(Usage(format!(
                "table {text} is in the catalogs {} and {}; write `{}.{text}`",
                topic.catalog, other.catalog, topic.catalog
            )));
        }
        let catalog = catalog_of(project, &topic.catalog)?;
        return Ok(Found { catalog, name, topic: Some(topic) });
    }
    if let Some((first, rest)) = text.split_once('.')
        && let Some(catalog) = project.catalogs.get(first)
        && let Ok(name) = rest.parse::<TableName>()
    {
        let fills = |topic: &&Topic| topic.catalog == first && (topic.table == name || topic.quarantine == name);
        let topic = project.topics.values().find(fills);
        return Ok(Found { catalog, name, topic });
    }
    let mut catalogs = project.catalogs.values();
    match (catalogs.next(), catalogs.next()) {
        (Some(catalog), None) => Ok(Found { catalog, name, topic: None }),
        (None, _) => Err(Usage(format!("table {text}: the project has no catalog; make catalogs/local.toml"))),
        _ => {
            let names: Vec<&str> = project.catalogs.keys().map(String::as_str).collect();
            Err(Usage(format!(
                "table {text}: no topic fills it; put its catalog in front, one of {}",
                names.join(", ")
            )))
        }
    }
}

/// The topic of this name.
pub fn topic<'a>(project: &'a Project, name: &str) -> Result<&'a Topic, Usage> {
    project.topics.get(name).ok_or_else(|| {
        let hint = nearest::suggest(name, project.topics.keys().map(String::as_str));
        Usage(format!("topic {name} is not registered in calve.toml; {hint}"))
    })
}

/// The topics that a command was asked for, or all.
pub fn topics<'a>(project: &'a Project, names: &[String]) -> Result<Vec<&'a Topic>, Usage> {
    match names {
        [] => Ok(project.topics.values().collect()),
        names => names.iter().map(|name| topic(project, name)).collect(),
    }
}

pub fn catalog_of<'a>(project: &'a Project, name: &str) -> Result<&'a config::Catalog, Usage> {
    project.catalogs.get(name).ok_or_else(|| Usage(format!("catalog {name} is not there; make catalogs/{name}.toml")))
}

/// Connects to a catalog.
pub async fn open(catalog: &config::Catalog) -> anyhow::Result<std::sync::Arc<dyn Catalog>> {
    catalog::open(catalog).await.with_context(|| format!("catalog {} cannot be opened", catalog.name))
}

/// Loads a table; `None` where there is none yet.
pub async fn load(catalog: &dyn Catalog, name: &TableName) -> anyhow::Result<Option<iceberg::table::Table>> {
    match catalog.load(&catalog::ident(name)?).await {
        Ok(table) => Ok(Some(table)),
        Err(catalog::Error::NotFound(_)) => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("table {name} cannot be loaded from catalog {}", catalog.name()))
        }
    }
}
