//! What a schema says of the tables that its messages are written to, where calve.toml says nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{Pool, TableOptions};
use super::{protos, source};
use crate::config::{Fault, Faults, Project, SchemaSource, TableName, Topic, check_tables};

/// The table property that engines show as a table's comment.
const COMMENT: &str = "comment";

/// Applies the option `(calve.v1.table)` of each topic's message: its name, partitioning and description.
///
/// A schema that cannot be read says nothing here; whoever goes on to use the topic fails with the reason. One that does
/// not import the options is not even compiled.
pub fn settle(project: &mut Project) -> Faults {
    let mut faults = Faults::default();
    let mut pools: HashMap<SchemaSource, Option<Arc<Pool>>> = HashMap::new();
    for topic in project.topics.values_mut() {
        let pool = pools.entry(topic.schema.clone()).or_insert_with(|| {
            if !source::imports(&topic.schema, protos::OPTIONS_PATH) {
                return None;
            }
            let loaded = super::load(&topic.schema);
            loaded.inspect_err(|error| tracing::debug!("no options are read from a schema: {error:#}")).ok()
        });
        let message = topic.message.as_deref().and_then(|name| pool.as_ref()?.find(name));
        let (Some(pool), Some(message)) = (pool, message) else { continue };
        let message = pool.message(message);
        let Some(options) = &message.table else { continue };
        if let Err(reason) = apply(topic, options) {
            let message =
                format!("topic {}: the option (calve.v1.table) of {} {reason}", topic.name, message.full_name);
            faults.push(at(topic, message));
        }
    }
    check_tables(project.topics.values(), |topic, message| faults.push(at(topic, message)));
    faults
}

fn apply(topic: &mut Topic, options: &TableOptions) -> Result<(), String> {
    if let Some(name) = options.name.as_ref().filter(|_| !topic.given.table) {
        topic.table = TableName::parse(name, &topic.namespace).map_err(|reason| format!("= \"{name}\" {reason}"))?;
        if !topic.given.quarantine {
            topic.quarantine = topic.table.quarantine();
        }
    }
    if !options.partition_by.is_empty() && !topic.given.partition_by {
        topic.partition_by = options.partition_by.clone();
    }
    if !options.sort_by.is_empty() && !topic.given.sort_by {
        topic.sort_by = options.sort_by.clone();
    }
    if let Some(description) = &options.description {
        topic.properties.entry(COMMENT.to_string()).or_insert_with(|| description.clone());
    }
    Ok(())
}

fn at(topic: &Topic, message: String) -> Fault {
    match topic.place.rsplit_once(':').map(|(file, line)| (file, line.parse::<usize>())) {
        Some((file, Ok(line))) => Fault::new(file, line, message),
        _ => Fault::new(&topic.place, None, message),
    }
}
